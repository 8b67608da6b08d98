"""Is the record of an exported run one that may be believed: nothing in it leads out of the places it speaks of?

A record that a stranger wrote decides where files are put when its run is re-executed. Which text, numbers and times
may stand in any record, its model says. The paths of the files that git tracks are git's to prove; all others are
checked here, as text. So are the words that end on git's command line, and the variables that are set.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from researchlab.errors import RecordError, ResearchlabError
from researchlab.tracking._exchange._format import INPUT_FOLDER, RECORD
from researchlab.tracking.environment import is_recorded_variable
from researchlab.tracking.record import BUNDLE_FILE, PATCH_FILE, RECORD_FOLDER, read_record
from researchlab.tracking.utils import check_run_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from researchlab.tracking._exchange._archive import Refuse
    from researchlab.tracking._exchange._format import Manifest
    from researchlab.tracking.record import (
        CommandRecord,
        FileRecord,
        InputRecord,
        NestedRecord,
        Record,
        RepositoryRecord,
    )

_SHA256 = re.compile(r"[0-9a-f]{64}")
_OBJECT = {"sha1": re.compile(r"[0-9a-f]{40}"), "sha256": _SHA256}
# What git takes for a repository's own folder, on file systems that fold case or shorten names too.
_GIT_FOLDER = re.compile(r"(\.git|git~\d+)[ .]*(:.*)?", re.IGNORECASE | re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_record(data: bytes, manifest: Manifest, refuse: Refuse) -> Record:
    """Read the record of an exported run, and check that it is the manifest's and harmless.

    Args:
        data: The record.
        manifest: The manifest of the file.
        refuse: Raises the error that says what is wrong.

    Returns:
        The record.

    Raises:
        ExchangeError: It is damaged, newer, another run's, names an artifact that the file does not hold, or a path
            that leads out of its place.
    """
    try:
        record = read_record(data, where=f"the exported run '{manifest.run_id}'")
        check_run_id(record.run_id)
    except RecordError as error:
        refuse(f"its record cannot be used. {error}")
    except ResearchlabError as error:
        refuse(str(error))
    if record.run_id != manifest.run_id:
        refuse(f"its manifest names the run '{manifest.run_id}', and its record the run '{record.run_id}'")
    members = {member.name for member in manifest.members}
    for problem in _problems(record, members):
        refuse(f"its {RECORD} {problem}")
    return record


def _problems(record: Record, members: AbstractSet[str]) -> Iterator[str]:
    """Yield what is wrong, in half sentences whose subject is the record."""
    yield from _command_problems(record.command)
    yield from _variable_problems(record.environment.variables)
    for folder in record.folders:
        yield from _path_problems("folders", folder)
    for number, item in enumerate(record.inputs):
        yield from _input_problems(f"inputs.{number}", item, members)
    snapshot = record.snapshot
    if snapshot is None:
        if PATCH_FILE in members:
            yield f"holds no code, and the file holds a {PATCH_FILE}"
        return
    if PATCH_FILE not in members:
        yield f"needs {PATCH_FILE}, which the file does not hold"
    yield from _repository_problems("snapshot", snapshot, RECORD_FOLDER, members)
    for number, nested in enumerate(snapshot.nested, start=1):
        where = f"snapshot.nested.{number - 1}"
        yield from _nested_problems(where, nested, f"{RECORD_FOLDER}/nested/{number}", members)
    paths = [nested.path for nested in snapshot.nested]
    if len(set(paths)) != len(paths):
        yield "names a nested repository twice"
    last = len(paths)
    for name in members:
        if name.startswith(f"{RECORD_FOLDER}/nested/") and int(name.split("/")[2]) > last:
            yield f"knows no nested repository that {name} could belong to"


def _command_problems(command: CommandRecord) -> Iterator[str]:
    for name, folder in (("cwd", command.cwd), *(("source_roots", root) for root in command.source_roots)):
        if folder not in {None, "."}:
            yield from _path_problems(f"command.{name}", folder or "")
    if command.kind == "script" and command.target is not None:
        yield from _path_problems("command.target", command.target, absolute_too=True)


def _variable_problems(names: Iterable[str]) -> Iterator[str]:
    # A re-execution sets them: none may decide which program or library is loaded.
    yield from (
        f"holds a variable at environment.variables that no run records: {name!r}"
        for name in names
        if not is_recorded_variable(name)
    )


def _repository_problems(
    where: str, repository: RepositoryRecord, folder: str, members: AbstractSet[str]
) -> Iterator[str]:
    pattern = _OBJECT[repository.object_format]
    for name, oid in (("base_commit", repository.base_commit), ("tree", repository.tree)):
        if oid is not None and pattern.fullmatch(oid) is None:
            yield f"holds no object id at {where}.{name}: {oid!r}"
    yield from _artifact_problems(f"{where}.bundle", repository.bundle, f"{folder}/{BUNDLE_FILE}", members)
    branch = repository.branch
    if branch is not None and (branch.startswith("-") or _CONTROL.search(branch)):
        yield f"holds no branch at {where}.branch: {branch!r}"
    for name, url in repository.remotes.items():
        for text in (name, url):
            # What git would take for an option, and the transport that is a shell command.
            if not text or text.startswith("-") or _CONTROL.search(text) or text.lower().startswith("ext::"):
                yield f"holds a remote at {where}.remotes that is none: {text!r}"
    for path, file in repository.large.items():
        yield from _path_problems(f"{where}.large", path)
        yield from _file_problems(f"{where}.large", file)


def _nested_problems(where: str, nested: NestedRecord, folder: str, members: AbstractSet[str]) -> Iterator[str]:
    yield from _path_problems(f"{where}.path", nested.path)
    yield from _artifact_problems(f"{where}.patch", nested.patch, f"{folder}/{PATCH_FILE}", members)
    yield from _repository_problems(where, nested, folder, members)


def _input_problems(where: str, item: InputRecord, members: AbstractSet[str]) -> Iterator[str]:
    yield from _path_problems(f"{where}.path", item.path, absolute_too=True)
    if item.sha256 is not None and _SHA256.fullmatch(item.sha256) is None:
        yield f"holds no sha256 at {where}: {item.sha256!r}"
    yield from _artifact_problems(f"{where}.stored", item.stored, f"{INPUT_FOLDER}/{item.sha256}", members)


def _file_problems(where: str, file: FileRecord) -> Iterator[str]:
    if _SHA256.fullmatch(file.sha256) is None:
        yield f"holds no sha256 at {where}: {file.sha256!r}"


def _artifact_problems(where: str, name: str | None, only: str, members: AbstractSet[str]) -> Iterator[str]:
    if name is None:
        return
    if name != only:
        yield f"names the artifact {name!r} at {where}, where only {only!r} can stand"
    elif name not in members:
        yield f"needs {name}, which the file does not hold"


def _path_problems(where: str, path: str, *, absolute_too: bool = False) -> Iterator[str]:
    """Yield what is wrong with a path that has to stay where it is looked for: in the work tree."""
    if absolute_too and path.startswith("/") and posixpath.normpath(path) == path:
        return
    # A backslash is a letter here, and parts folders elsewhere.
    harmful = any(part == ".." or _GIT_FOLDER.fullmatch(part) for part in re.split(r"[/\\]", path))
    if harmful or any(part in {"", "."} for part in path.split("/")):
        yield f"holds a path at {where} that leads out of the work tree: {path!r}"
