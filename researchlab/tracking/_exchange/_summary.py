"""What would run if somebody executed this run here? In words, for a reader who did not write it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from researchlab.tracking._exchange._format import INPUT_FOLDER
from researchlab.tracking._wording import counted, printable, some, typed_command
from researchlab.tracking._wording import size as shown_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from researchlab.tracking._exchange._format import Manifest
    from researchlab.tracking.record import Record, RepositoryRecord

_SHORT = 12
_WIDTH = 13
_NAMED = 20


def summary(manifest: Manifest, record: Record) -> str:
    """Describe a run before anything of it is executed.

    Args:
        manifest: The manifest of its file.
        record: Its record.

    Returns:
        Lines of text, whose control characters are escaped: the file's author chose the words in it.
    """
    return "\n".join(f"{name:<{_WIDTH}}{printable(text)}".rstrip() for name, text in _lines(manifest, record))


def _lines(manifest: Manifest, record: Record) -> Iterator[tuple[str, str]]:
    started = datetime.fromtimestamp(manifest.started / 1000, tz=UTC).isoformat(sep=" ", timespec="minutes")
    yield "run", f"{record.run_id} of experiment {manifest.experiment}, {manifest.status}, {started}, on {record.host}"
    yield "command", typed_command(record.command)
    yield from _code(record)
    environment = record.environment
    python = environment.python.get("version", "?")
    yield (
        "environment",
        f"Python {python}, {counted(len(environment.packages), 'package')}"
        + "".join(
            f", {name} {environment.packages[name]}" for name in ("jax", "numpy") if name in environment.packages
        ),
    )
    if environment.variables:
        yield "", "variables " + " ".join(f"{name}={value}" for name, value in sorted(environment.variables.items()))
    yield from _inputs(manifest, record)
    if record.result is not None:
        result = record.result
        points, states = counted(result.points, "value"), counted(result.states, "State")
        yield "to compare", f"{counted(result.metrics, 'metric')} with {points}, {states}"
    yield "", f"`rlab reproduce {record.run_id}` executes this code on this machine, with your rights."


def _code(record: Record) -> Iterator[tuple[str, str]]:
    snapshot = record.snapshot
    if snapshot is None:
        yield "code", f"none was recorded. {' '.join(record.not_recorded)}"
        return
    yield "code", _repository(snapshot)
    for nested in snapshot.nested:
        yield "", f"{nested.path}: {_repository(nested)}"
    if snapshot.missing_everywhere:
        yield "", f"the run had more, which was not captured: {some(snapshot.missing_everywhere)}"


def _repository(repository: RepositoryRecord) -> str:
    base = f"commit {repository.base_commit[:_SHORT]}" if repository.base_commit else "no commit"
    changed = f" + {counted(len(repository.changed), 'changed file')}: {some(repository.changed)}"
    origin = f" (of {some(list(repository.remotes.values()))})" if repository.remotes else ""
    return f"{base}{origin}{changed if repository.changed else ''}"


def _inputs(manifest: Manifest, record: Record) -> Iterator[tuple[str, str]]:
    inside = {member.name for member in manifest.members}
    stored = [item for item in record.inputs if f"{INPUT_FOLDER}/{item.sha256}" in inside]
    texts = [f"{item.path} ({item.role}, {shown_size(item.size)}, {_place(item.path)})" for item in stored]
    yield from _listed("inputs", texts)
    sizes = ["" if item.size is None else f" ({shown_size(item.size)})" for item in manifest.left_out]
    texts = [f"{item.path}{size}: {item.why}" for item, size in zip(manifest.left_out, sizes, strict=True)]
    yield from _listed("not inside", texts)


def _place(path: str) -> str:
    return "in the file, but looked for at this place of the machine" if path.startswith("/") else "in the file"


def _listed(label: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, text in enumerate(texts[:_NAMED]):
        yield ("" if number else label), text
    if len(texts) > _NAMED:
        yield "", f"and {len(texts) - _NAMED} more"
