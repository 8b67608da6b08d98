"""Are the inputs of a run still what it read, and how do they come into the restored tree?

Each input is looked for and checked by its hash before anything is executed: a changed one is reported as that, and
never as a divergence. Those from outside of the repository are used where they are, and linked at their places beside
the restored tree, where they may also come from the run's artifacts. Those from inside are put into the
restored tree at their place: as a copy that shares its blocks with the original where the file system can do that, as a
plain copy up to `COPIED_AT_MOST` in all, and beyond as a symlink to the original, which the re-execution is kept from
opening for writing. Code is always copied, so that no module is found in the original checkout. Folders that the run
wrote into, and that git does not keep, are made, empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError
from researchlab.reproduce._findings import ChangedInputsError, changed, how_to_put, lost_program, unknown_secret
from researchlab.reproduce._surroundings import free_place, is_database
from researchlab.tracking import _git
from researchlab.tracking._reading._digests import Digest, digest_all, digest_of
from researchlab.tracking._reading._sealed import is_sealed
from researchlab.tracking._wording import counted, printable, some
from researchlab.tracking.record import CHANGED, RECORD_FOLDER, STALE, InputRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from researchlab.tracking.record import Record
    from researchlab.tracking.runs import TrackedRun

COPIED_AT_MOST = 256 << 20
"""Bytes of inputs that are copied in all, the smallest files first, where blocks cannot be shared."""

#: How the reason begins why nothing more is known of such a file; older records went on in other words.
_UNSEALED = "looks like a secret"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FICLONE = 0x40049409


@dataclasses.dataclass(frozen=True)
class FoundInput:
    """An input that was found.

    Attributes:
        record: What the record says of it.
        place: The file that has its bytes.
        is_inside: Whether it belongs into the restored tree.
        digest: Digest of that file, or None where it cannot be checked.
    """

    record: InputRecord
    place: Path
    is_inside: bool
    digest: Digest | None


@dataclasses.dataclass(frozen=True)
class PutInputs:
    """What was put into the restored tree.

    Attributes:
        replaced: Files of the snapshot that gave way to the bytes that ran.
        linked: The originals that symlinks lead to.
    """

    replaced: tuple[str, ...] = ()
    linked: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class FoundInputs:
    """The inputs of a run, all checked.

    Attributes:
        inputs: Those that were found.
        unchecked: What cannot be checked, and why, a line each.
        doubtful: What is not as it was, and may have to be made by the run itself, a line each: it matters only where
            other bits come back.
        folders: Folders that the run found, relative to the root of the tree.
    """

    inputs: tuple[FoundInput, ...]
    unchecked: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def checked(self) -> tuple[Path, ...]:
        """Files from inside of the repository that have the bytes that the run read."""
        return tuple(item.place for item in self.inputs if item.is_inside and item.digest is not None)

    @property
    def absent(self) -> tuple[Path, ...]:
        """Files outside of the repository that are not there as the run read them: the run's artifacts have them."""
        outside = (item for item in self.inputs if not item.is_inside)
        return tuple(Path(item.record.path) for item in outside if str(item.place) != item.record.path)

    def describe(self, put: PutInputs) -> str:
        """Return what the re-execution is given, in a line; nothing where there are no inputs."""
        if not self.inputs:
            return ""
        text = counted(len(self.inputs), "input")
        if put.replaced:
            text += f", {some(put.replaced)} in place of the snapshot's, since the run read other bytes than it holds"
        return text


def find_inputs(tracked: TrackedRun, record: Record, *, repo: Path, scratch: Path) -> FoundInputs:
    """Find the inputs of a run and check their hashes.

    Args:
        tracked: The run.
        record: Its record.
        repo: A repository that may hold inputs at their places, besides the one that the run was made in.
        scratch: A folder for inputs that come from the store, made when needed.

    Returns:
        The inputs.

    Raises:
        ChangedInputsError: One is not to be had as the run read it, or the record names a place that is none.
        RecordError: The store does not give an artifact.
    """
    wanted = list(_wanted(record))
    lost = lost_program(record, {item.path for item in wanted})
    wrong = [folder for folder in record.folders if folder.startswith("/") or _is_wrong_path(folder)]
    wrong += [item.path for item in wanted if _is_wrong(item)]
    if wrong or lost:
        altered = dict.fromkeys(wrong, "is none that a run can have: the record was altered")
        raise ChangedInputsError(altered | lost)
    search = _Search(tracked, _roots(record, repo), scratch)
    searched: list[InputRecord] = []
    for item in wanted:
        if item.sha256 is None and item.sealed is None:
            search.unknown(item)
        elif item.stored is None or not search.in_store(item):
            searched.append(item)
    search.on_disk(searched)
    if search.findings:
        raise ChangedInputsError(search.findings)
    return FoundInputs(tuple(search.found), tuple(search.unchecked), tuple(search.doubtful), record.folders)


@dataclasses.dataclass(frozen=True)
class _Search:
    """A search for inputs, and what it has found so far."""

    tracked: TrackedRun
    roots: Sequence[Path]
    scratch: Path
    found: list[FoundInput] = dataclasses.field(default_factory=list)
    findings: dict[str, str] = dataclasses.field(default_factory=dict)
    unchecked: list[str] = dataclasses.field(default_factory=list)
    doubtful: list[str] = dataclasses.field(default_factory=list)

    def unknown(self, item: InputRecord) -> None:
        """Say what it means that the bytes of an input are not known."""
        line = f"input '{printable(item.path)}': {printable(item.why)}"
        if not item.required:
            self.doubtful.append(line)
        elif item.why.startswith(_UNSEALED):
            self.findings[item.path] = unknown_secret()
        elif CHANGED in item.why or item.why == STALE:
            why = printable(item.why)
            self.findings[item.path] = f"cannot be had as the run read it: its bytes are not known, since it {why}"
        else:
            self.unchecked.append(line)

    def in_store(self, item: InputRecord) -> bool:
        """Take the bytes of an input from the store; False where it does not have them."""
        kept = _fetch(self.tracked, item, self.scratch)
        if kept is not None:
            self.found.append(FoundInput(item, *kept))
        return kept is not None

    def on_disk(self, items: Sequence[InputRecord]) -> None:
        """Look for inputs at their places, and then in the store, where an import may have put them."""
        # All at once, so that many are hashed at a time.
        digests = digest_all({str(place): None for item in items for place in _places(item, self.roots)})
        for item in items:
            places = _places(item, self.roots)
            there = [(place, digests[str(place)]) for place in places if str(place) in digests]
            right = next(((place, digest) for place, digest in there if _is_of(item, digest)), None)
            if right is not None:
                self.found.append(FoundInput(item, right[0], not item.path.startswith("/"), right[1]))
                continue
            kept = _fetch(self.tracked, item, self.scratch) if item.stored is None else None
            if kept is not None and (item.relative or not item.path.startswith("/")):
                self.found.append(FoundInput(item, *kept))
                continue
            finding = changed(item, there, places)
            if kept is not None:
                finding += f"; {how_to_put(self.tracked, item)}"
            if item.required:
                self.findings[item.path] = finding
            else:
                self.doubtful.append(f"input '{printable(item.path)}': it {printable(item.why)}, and {finding}")


def put_inputs(found: FoundInputs, restored: Path) -> PutInputs:
    """Put the inputs that belong into the restored tree at their places, and make the folders that the run found.

    Args:
        found: The inputs.
        restored: Root of the restored tree.

    Returns:
        What was replaced and linked.

    Raises:
        ChangedInputsError: A place is taken or lies behind a symlink, an input changed meanwhile, or the disk is full.
    """
    replaced: list[str] = []
    linked: list[Path] = []
    budget = COPIED_AT_MOST
    inside = [item for item in found.inputs if item.is_inside]
    for item in sorted(inside, key=lambda item: (item.record.role != "code", item.record.size)):
        try:
            target = free_place(restored, item.record.path)
            if os.path.lexists(target):
                target.unlink()
                replaced.append(item.record.path)
            may_copy = item.record.role == "code" or item.digest is None or item.record.size <= budget
            may_copy = may_copy or is_database(item.place)
            if not _clone(item.place, target):
                if may_copy:
                    budget -= item.record.size if item.record.role != "code" else 0
                    shutil.copyfile(item.place, target)
                else:
                    target.symlink_to(os.path.realpath(item.place))
                    linked.append(item.place)
            if not target.is_symlink():
                shutil.copymode(item.place, target)
        except OSError as error:
            problem = f"cannot be put into the restored tree: {error.strerror}"
            raise ChangedInputsError({item.record.path: problem}) from error
    for folder in found.folders:
        with contextlib.suppress(OSError):  # a file is in the way, which the run itself took away
            free_place(restored, f"{folder}/file")
    others = [item for item in inside if item.digest is not None and digest_of(str(item.place)) != item.digest]
    if others:
        raise ChangedInputsError({item.record.path: "changed while it was copied" for item in others})
    return PutInputs(tuple(sorted(replaced)), tuple(linked))


def other_checkout(record: Record, repo: Path) -> Path | None:
    """Return the root of ``repo`` where it is another checkout of the run's project: no module may come from it."""
    snapshot = record.snapshot
    if snapshot is None or snapshot.base_commit is None or not re.fullmatch(r"[0-9a-f]{40,64}", snapshot.base_commit):
        return None
    try:
        repository = _git.find_repository(repo)
        question = ("cat-file", "-e", f"{snapshot.base_commit}^{{commit}}")
        is_of_project = _git.call_git(question, git_dir=repository.git_dir).returncode == 0
    except (GitError, OSError):
        return None
    return repository.top if is_of_project and str(repository.top) != snapshot.repository else None


def _wanted(record: Record) -> Iterator[InputRecord]:
    """Yield the inputs, and the files that were over a budget: they are part of the code that cannot be left out."""
    yield from record.inputs
    snapshot = record.snapshot
    if snapshot is None:
        return
    known = {item.path for item in record.inputs}
    for prefix, part in (("", snapshot), *((f"{inner.path}/", inner) for inner in snapshot.nested)):
        for path, file in part.large.items():
            if prefix + path not in known:
                why = part.left_out.get(path, "was over a budget")
                yield InputRecord(path=prefix + path, role="data", why=why, sha256=file.sha256, size=file.size)


def _is_wrong(item: InputRecord) -> bool:
    """Return whether the record names a place that no run has, and that must not be touched."""
    return _is_wrong_path(item.path) or not (item.sha256 is None or _SHA256.fullmatch(item.sha256))


def _is_wrong_path(path: str) -> bool:
    if "\0" in path:
        return True
    if path.startswith("/"):
        return os.path.normpath(path) != path or path.startswith("//")
    return any(part in {"", ".", ".."} or part.lower() == ".git" for part in path.split("/"))


def _roots(record: Record, repo: Path) -> list[Path]:
    roots = [] if record.snapshot is None else [Path(record.snapshot.repository)]
    try:
        roots.append(_git.find_repository(repo).top)
    except (GitError, OSError):
        roots.append(repo)
    return list(dict.fromkeys(roots))


def _places(item: InputRecord, roots: Iterable[Path]) -> list[Path]:
    name = os.fsdecode(item.path.encode("utf-8", "surrogateescape"))
    if name.startswith("/"):
        return [Path(name)]
    places = [root / name for root in roots]
    if item.sha256 is not None:  # Git LFS names its objects by their sha256
        first, second = item.sha256[:2], item.sha256[2:4]
        objects = (root / ".git" / "lfs" / "objects" / first / second / item.sha256 for root in roots)
        places += [place for place in objects if place.is_file()]
    return places


def _fetch(tracked: TrackedRun, item: InputRecord, scratch: Path) -> tuple[Path, bool, Digest] | None:
    """Copy an input from the store and check it; None where the store does not have it, or has other bytes."""
    if item.sha256 is None:
        return None
    with tracked.artifact(f"{RECORD_FOLDER}/inputs/{item.sha256}") as artifact:
        if artifact is None:
            return None
        scratch.mkdir(parents=True, exist_ok=True)
        place = scratch / str(item.sha256)
        shutil.copyfile(artifact, place)
    digest = digest_of(str(place))
    if digest is None or digest.sha256 != item.sha256:
        return None
    return place, not item.path.startswith("/"), digest


def _is_of(item: InputRecord, digest: Digest) -> bool:
    """Return whether a file is the one that the run read."""
    if item.sealed is not None:
        return digest.size == item.size and is_sealed(item.sealed, digest.sha256)
    return digest.sha256 == item.sha256


def _clone(source: Path, target: Path) -> bool:
    """Make a copy that shares its blocks with the original, where the file system can (btrfs, XFS, ...)."""
    try:
        import fcntl

        with source.open("rb") as original, target.open("xb") as copy:
            fcntl.ioctl(copy, _FICLONE, original.fileno())
    except (ImportError, OSError):
        target.unlink(missing_ok=True)
        return False
    return True
