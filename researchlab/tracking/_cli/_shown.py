"""What does `rlab show` say of a run, and in which order?"""

from __future__ import annotations

import dataclasses
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from researchlab.errors import RecordError
from researchlab.tracking._cli._listing import process_state
from researchlab.tracking._tags import TREE_TAG, VERDICT_TAG, VERIFIED_AT_TAG
from researchlab.tracking._wording import age, changed_files, counted, duration, size, typed_command
from researchlab.tracking.record import UNRECORDED_STDIN, SnapshotRecord
from researchlab.tracking.store import local_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from researchlab.tracking.record import ExecutionRecord, InputRecord, Record, RepositoryRecord
    from researchlab.tracking.runs import TrackedRun

GOOD, BAD, OPEN = "green", "red", "yellow"

_MOST = 20  # lines of one fact, unless all are asked for
_SHORT = 12  # digits of an id
_CHEAP = 64 << 20  # bytes of a trace that is read only to show last values

_STYLES = {"FINISHED": GOOD, "REPRODUCED": GOOD, "RUNNING": OPEN, "SCHEDULED": OPEN}


@dataclasses.dataclass(frozen=True)
class Fact:
    """One fact of a run.

    Attributes:
        label: Its name.
        lines: What there is to say.
        style: The colour that it has on a terminal, or nothing.
    """

    label: str
    lines: tuple[str, ...]
    style: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """The facts that answer one question.

    Attributes:
        title: Its heading.
        facts: The facts, in order.
    """

    title: str
    facts: tuple[Fact, ...]


def sections_of(run: TrackedRun, record: Record, *, everything: bool = False) -> list[Section]:
    """Return all that is to be shown of a run; sections without a fact are left out.

    Args:
        run: The run.
        record: Its record.
        everything: Show every line of long lists, and the packages.

    Returns:
        The sections. Their text is as it was recorded: escape it before it gets to a terminal.
    """
    most = None if everything else _MOST
    sections = [_run(run, record), _command(record, most)]
    if record.snapshot is not None:
        sections.append(_code(run, record.snapshot, most))
        sections += [
            Section(
                f"{'submodule' if nested.is_submodule else 'repository'} {nested.path}",
                (*_repository(nested, most), _fact("patch", nested.patch)),
            )
            for nested in record.snapshot.nested
        ]
    sections += [
        Section(
            "inputs",
            (
                *map(_input, record.inputs[:most]),
                _fact("", *_more(record.inputs, most)),
                _fact("folders", *_shortened([f"{folder}/" for folder in record.folders], most)),
            ),
        ),
        _environment(record, everything=everything),
        _computed(run, record, most),
        Section("not recorded", tuple(Fact("", (text,), BAD) for text in record.not_recorded)),
    ]
    filled = (Section(it.title, tuple(fact for fact in it.facts if fact.lines)) for it in sections)
    return [section for section in filled if section.facts]


def _run(run: TrackedRun, record: Record) -> Section:
    info, tags = run.run.info, run.run.data.tags
    started = datetime.fromtimestamp(record.started_at, tz=UTC).astimezone()
    ended = record.ended_at
    status, style = _status(run, record)
    verdict = tags.get(VERDICT_TAG)
    return Section(
        "run",
        (
            _fact("id", record.run_id),
            _fact("experiment", record.experiment),
            Fact("status", (status,), style),
            _fact("error", *_lines_of(record.result.error if record.result is not None else None), style=BAD),
            _fact("verdict", verdict, style="" if verdict is None else _STYLES.get(verdict, BAD)),
            _fact("verified at", tags.get(VERIFIED_AT_TAG)),
            _fact("started", f"{started:%Y-%m-%d %H:%M:%S %z} ({age(time.time() - record.started_at)} ago)"),
            _fact("took", None if ended is None else duration(ended - record.started_at)),
            _fact("host", f"{record.host}, process {record.pid}"),
            _fact("MLflow id", str(info.run_id)),
            _fact("store", run.store.name),
            _fact("researchlab", record.researchlab),
        ),
    )


def _status(run: TrackedRun, record: Record) -> tuple[str, str]:
    stored = str(run.run.info.status)
    state = process_state(run, record)
    if state == "gone":
        return f"{stored} in the store, but its process is gone: it was killed outright", BAD
    if state == "unknown":
        return f"{stored}, as far as can be seen from this machine", OPEN
    result = record.result
    if result is not None and result.status != stored:
        return f"{stored} in the store, {result.status} in the record", BAD
    return stored, _STYLES.get(stored, BAD)


def _command(record: Record, most: int | None) -> Section:
    command = record.command
    return Section(
        "command",
        (
            _fact("typed", typed_command(command)),
            _fact("started in", command.folder),
            _fact("imports from", ", ".join(command.source_roots)),
            _fact("stdin", f"{command.stdin}, not recorded" if command.stdin in UNRECORDED_STDIN else None),
            _fact("execution", *_shortened([_execution(item) for item in record.executions], most)),
        ),
    )


def _execution(item: ExecutionRecord) -> str:
    return f"{item.source}: " + ", ".join(f"{name} {value}" for name, value in item.facts.items())


def _code(run: TrackedRun, snapshot: SnapshotRecord, most: int | None) -> Section:
    tag = run.run.data.tags.get(TREE_TAG)
    altered = f"the tag {TREE_TAG} says {tag}: record or tag was altered" if tag not in {None, snapshot.tree} else None
    return Section(
        "code",
        (_fact("checkout", snapshot.repository), *_repository(snapshot, most), _fact("altered", altered, style=BAD)),
    )


def _changed(state: RepositoryRecord, most: int | None) -> tuple[str, ...]:
    """Return the changed files; the outermost repository tells of those in the others, which list them."""
    inside = isinstance(state, SnapshotRecord) and any(nested.changed for nested in state.nested)
    if isinstance(state, SnapshotRecord) and inside:
        return (changed_files(state), *(f"  {line}" for line in _shortened(state.changed, most)))
    return _counted_list(state.changed, "file", most)


def _repository(state: RepositoryRecord, most: int | None) -> tuple[Fact, ...]:
    branch = f"on {state.branch}" if state.branch else "HEAD was detached"
    large = state.large
    left_out = [
        f"{path}: {why}"
        + (f" ({size(large[path].size)}, sha256 {large[path].sha256[:_SHORT]})" if path in large else "")
        for path, why in state.left_out.items()
    ]
    return (
        _fact("base commit", f"{state.base_commit or 'none yet'} ({branch})"),
        _fact("tree", state.tree + ("" if state.object_format == "sha1" else f" ({state.object_format})")),
        _fact("changed", *_changed(state, most)),
        Fact("left out", _counted_list(left_out, "path", most), OPEN) if left_out else _fact("left out", "nothing"),
        _fact("ignored", *_counted_list(state.ignored, "path", most)),
        _fact("LFS pointers", *_counted_list(state.pointers, "file", most)),
        _fact("remotes", *(f"{name}: {url}" for name, url in state.remotes.items())),
        _fact("bundle", f"{state.bundle} (commits that no remote had)" if state.bundle else "none"),
    )


def _input(item: InputRecord) -> Fact:
    unknown = "bytes not known" if item.sealed is None else "sealed digest"
    digest = f"sha256 {item.sha256[:_SHORT]}" if item.sha256 is not None else unknown
    stored = f"stored as {item.stored}" if item.stored is not None else "not stored"
    return Fact(item.role, (item.path, f"  {item.why}; {size(item.size)}, {digest}, {stored}"))


def _environment(record: Record, *, everything: bool) -> Section:
    here = record.environment
    python, machine = here.python, here.platform
    libc = machine.get("libc", "")
    packages = [f"{name} {version}" for name, version in here.packages.items()]
    return Section(
        "environment",
        (
            _fact("python", " ".join(_values(python, "implementation", "version")), python.get("executable")),
            _fact("system", " ".join(_values(machine, "system", "release", "machine")) + (f", {libc}" if libc else "")),
            _fact("processor", ", ".join(_values(machine, "processor", "isa"))),
            _fact("usable cores", machine.get("cores")),
            _fact("jax", *(f"{name}: {value}" for name, value in here.jax.items())),
            _fact("variables", *(f"{name}={value}" for name, value in here.variables.items())),
            _fact("packages", *(packages if everything or not packages else [f"{len(packages)} (--all lists them)"])),
        ),
    )


def _values(facts: Mapping[str, str], *names: str) -> list[str]:
    return [facts[name] for name in names if facts.get(name)]


def _computed(run: TrackedRun, record: Record, most: int | None) -> Section:
    result = record.result
    return Section(
        "results",
        (
            _fact(
                "metrics",
                None if result is None else f"{counted(result.metrics, 'metric')}, {counted(result.points, 'value')}",
            ),
            _fact("States", None if result is None else str(result.states)),
            _fact("last values", *_shortened(_last_values(run), most)),
            _fact("volatile", ", ".join(record.volatile)),
        ),
    )


def _last_values(run: TrackedRun) -> list[str]:
    """Return the last value of each metric with its step: from the trace where it is near and small, else MLflow's."""
    folder = local_path(str(run.run.info.artifact_uri))
    if folder is not None:
        from researchlab.tracking.trace import read_trace

        try:
            with run.documents() as documents:
                if sum(entry.stat().st_size for entry in os.scandir(documents) if entry.is_file()) <= _CHEAP:
                    metrics = read_trace(documents).metrics.metrics
                    return [
                        f"{name} = {it.value(len(it) - 1)} at step {int(it.steps[-1])}" for name, it in metrics.items()
                    ]
        except (RecordError, OSError) as error:
            return [f"the trace cannot be read: {error}"]
    values: Mapping[str, float] = run.run.data.metrics
    return [f"{name} = {value} (as MLflow has it)" for name, value in sorted(values.items())]


def _fact(label: str, *lines: str | None, style: str = "") -> Fact:
    return Fact(label, tuple(line for line in lines if line), style)


def _lines_of(text: str | None) -> list[str]:
    return text.split("\n") if text else []


def _counted_list(names: Sequence[str], noun: str, most: int | None) -> tuple[str, ...]:
    """Return how many names there are, and the first of them indented below."""
    return (counted(len(names), noun), *(f"  {line}" for line in _shortened(names, most))) if names else ()


def _shortened(lines: Sequence[str], most: int | None) -> tuple[str, ...]:
    return (*lines[:most], *_more(lines, most))


def _more(items: Sequence[object], most: int | None) -> tuple[str, ...]:
    return (f"and {len(items) - most} more (--all)",) if most is not None and len(items) > most else ()
