"""What belongs into the file of an exported run, so that nothing else is needed to execute it again?

Three things: the documents of the run as they are stored; the base commit of each of its repositories, whole and
without history; and the files that the run read, as far as a budget goes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import ExchangeError, GitError, MissingPatchError, SettingsError
from researchlab.tracking import _git
from researchlab.tracking._capture._secrets import secret_reason
from researchlab.tracking._exchange._archive import Part
from researchlab.tracking._exchange._format import INPUT_FOLDER, NotExported, is_config, is_exportable
from researchlab.tracking._restoring._bundle import PACK_FILE, write_pack
from researchlab.tracking._restoring._recorded_code import RecordedCode
from researchlab.tracking._wording import size as shown_size
from researchlab.tracking.record import RECORD_FOLDER
from researchlab.tracking.restore import build
from researchlab.tracking.settings import Settings, read_settings
from researchlab.tracking.store import first_line, local_path, quiet_mlflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from researchlab.tracking.record import Record, SnapshotRecord
    from researchlab.tracking.runs import TrackedRun

#: Bytes that the files which the run read may take together, where the caller says nothing.
INPUTS_LIMIT = 256 << 20

_LARGEST_CONFIG = 1 << 20
_SECRET_HEAD = 1 << 20


@dataclass(slots=True)
class Contents:
    """What goes into the file.

    Attributes:
        files: The artifacts by name, each with the file that has its bytes.
        left_out: What belongs to the run and does not go in.
    """

    files: dict[str, tuple[Part, Path]] = field(default_factory=dict[str, tuple[Part, Path]])
    left_out: list[NotExported] = field(default_factory=list[NotExported])

    def add(self, name: str, path: Path) -> None:
        """Take a file in."""
        self.files[name] = (Part.of(name, path), path)

    def parts(self) -> list[tuple[Part, Path]]:
        """Return the artifacts, sorted by name."""
        return [self.files[name] for name in sorted(self.files)]


def collect(run: TrackedRun, record: Record, *, repo: Path, scratch: Path, inputs_limit: int | None) -> Contents:
    """Find everything that goes into the file.

    Args:
        run: The run.
        record: Its record.
        repo: A folder in a repository that has the code.
        scratch: An empty folder, for what has to be fetched or made; keep it while the contents are in use.
        inputs_limit: Bytes that the files which the run read may take together; None for what the settings say.

    Returns:
        The contents.

    Raises:
        ExchangeError: The code cannot be brought back here, or an artifact cannot be fetched.
    """
    contents = Contents()
    _add_artifacts(contents, run, scratch / "artifacts")
    if record.snapshot is not None:
        tops = _tops(repo, record.snapshot)
        _add_packs(contents, run, (repo, Path(record.snapshot.repository)), scratch / "code")
        _add_inputs(contents, record, record.snapshot, tops, inputs_limit)
    contents.left_out.sort(key=lambda item: item.path)
    return contents


def _add_artifacts(contents: Contents, run: TrackedRun, scratch: Path) -> None:
    local = local_path(str(run.run.info.artifact_uri))
    for name, size in _artifacts(run):
        if not is_exportable(name) or (is_config(name) and size > _LARGEST_CONFIG):
            why = "an artifact that a re-execution does not need"
            contents.left_out.append(NotExported(path=name, why=why, size=size))
            continue
        contents.add(name, _fetched(run, name, scratch) if local is None else local / name)


def _artifacts(run: TrackedRun) -> Iterator[tuple[str, int]]:
    """Yield name and size of each artifact of a run."""
    folders: list[str | None] = [None]
    while folders:
        try:
            with quiet_mlflow():
                items = run.client.list_artifacts(str(run.run.info.run_id), folders.pop())
        except Exception as error:
            message = f"The artifacts of run '{run.run_id}' cannot be listed: {first_line(error)}."
            raise ExchangeError(message) from error
        for item in items:
            if item.is_dir:
                folders.append(str(item.path))
            else:
                yield str(item.path), int(item.file_size or 0)


def _fetched(run: TrackedRun, name: str, scratch: Path) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with quiet_mlflow():
            return Path(run.client.download_artifacts(str(run.run.info.run_id), name, str(scratch)))
    except Exception as error:
        message = f"The artifact {name} of run '{run.run_id}' cannot be fetched: {first_line(error)}."
        raise ExchangeError(message) from error


def _tops(repo: Path, snapshot: SnapshotRecord) -> list[Path]:
    """Return the work trees that may have the code and the inputs: the one named, and the one that the run was in."""
    tops: list[Path] = []
    for place in (repo, Path(snapshot.repository)):
        try:
            tops.append(_git.find_repository(place).top)
        except (GitError, OSError):
            continue
    return list(dict.fromkeys(tops))


def _add_packs(contents: Contents, run: TrackedRun, sources: Sequence[Path], scratch: Path) -> None:
    """Add the base commit of each repository, wherever it is to be had, after proof that it gives the recorded tree."""
    try:
        code = RecordedCode.of(run)
        scratch.mkdir()
        stores = build(code.parts, sources=sources, scratch=scratch)
        for number, part in enumerate(code.parts):
            folder = f"{RECORD_FOLDER}/nested/{number}" if number else RECORD_FOLDER
            name = f"{folder}/{PACK_FILE}"
            if part.base_commit is None or name in contents.files:  # an imported run brought its pack with it
                continue
            pack = scratch / f"{number}.pack"
            write_pack(stores[part.path], part.base_commit, pack)
            contents.add(name, pack)
    except (GitError, MissingPatchError) as error:
        message = f"Run '{run.run_id}' cannot be exported, as its code cannot be brought back. {error}"
        raise ExchangeError(message) from error


@dataclass(frozen=True, slots=True)
class _Input:
    """A file that the run had beside its code: its path (relative to the work tree, or absolute) and its bytes."""

    path: str
    sha256: str
    size: int


def _add_inputs(
    contents: Contents, record: Record, snapshot: SnapshotRecord, tops: Sequence[Path], limit: int | None
) -> None:
    settings = _settings(tops)
    largest = settings.largest_input if limit is None else limit
    budget = left = INPUTS_LIMIT if limit is None else limit
    for item in sorted(_inputs(record, snapshot), key=lambda item: (item.size, item.path)):
        name = f"{INPUT_FOLDER}/{item.sha256}"
        if name in contents.files:
            continue
        found: tuple[Part, Path] | None = None
        why: str | None
        if item.size > min(largest, left):
            why = f"beyond the budget of {shown_size(largest if item.size > largest else budget)}"
        else:
            places = [top / os.fsdecode(item.path.encode("utf-8", "surrogateescape")) for top in tops]
            found = next((part for place in places if (part := _found(place, name, item)) is not None), None)
            why = "no longer there as the run had it" if found is None else _secret(found[1], item.path, settings)
        if found is None or why is not None:
            contents.left_out.append(NotExported(path=item.path, why=why or "", sha256=item.sha256, size=item.size))
            continue
        contents.files[name] = found
        left -= item.size
    for item in record.inputs:
        if item.sha256 is None:
            contents.left_out.append(NotExported(path=item.path, why=item.why, size=item.size))


def _inputs(record: Record, snapshot: SnapshotRecord) -> Iterator[_Input]:
    """Yield the files that the run read or that were too large for its snapshot, those whose bytes are known."""
    for item in record.inputs:
        if item.sha256 is not None:
            yield _Input(item.path, item.sha256, item.size)
    for prefix, repository in (("", snapshot), *((f"{nested.path}/", nested) for nested in snapshot.nested)):
        for path, file in repository.large.items():
            yield _Input(prefix + path, file.sha256, file.size)


def _found(place: Path, name: str, item: _Input) -> tuple[Part, Path] | None:
    """Return the file at a place if its bytes are the ones that the run had."""
    try:
        if not place.is_file() or place.stat().st_size != item.size:
            return None
        part = Part.of(name, place)
    except OSError:
        return None
    return (part, place) if part.sha256 == item.sha256 else None


def _secret(place: Path, path: str, settings: Settings) -> str | None:
    with place.open("rb") as stream:
        head = stream.read(_SECRET_HEAD)
    why = secret_reason(path.encode("utf-8", "surrogateescape"), head, allow=settings.allow_secrets)
    return None if why is None else f"it looks like a secret: {why}"


def _settings(tops: Sequence[Path]) -> Settings:
    try:
        return read_settings(tops[0]) if tops else Settings()
    except SettingsError as error:
        raise ExchangeError(str(error)) from error
