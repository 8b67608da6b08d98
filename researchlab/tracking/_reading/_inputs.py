"""What did a run import and read that its snapshot does not hold as it was?

A file that was read and then changed is told from one that was changed and then read by what the file system said of
it when it was first opened: the snapshot is compared with what the program saw, not with what lies there in the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from researchlab.errors import InputError
from researchlab.tracking._capture._secrets import secret_reason
from researchlab.tracking._reading import _opened, _origins
from researchlab.tracking._reading._bytecode import stale_modules
from researchlab.tracking._reading._declared import declared_files
from researchlab.tracking._reading._digests import digest_all
from researchlab.tracking._reading._places import Place, SnapshotTree
from researchlab.tracking._reading._sealed import seal
from researchlab.tracking._reading._told import warnings_of
from researchlab.tracking.record import CHANGED, RECORD_FOLDER, SECRET, STALE, InputRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from researchlab.tracking._reading._digests import Digest
    from researchlab.tracking._reading._opened import Signature
    from researchlab.tracking.record import SealedRecord
    from researchlab.tracking.settings import Settings
    from researchlab.tracking.snapshot import Snapshot

    Role = Literal["code", "data", "declared"]

HASHED_AT_MOST = 16 << 30
"""Bytes that were read and are hashed when a run ends, the smallest files first; declared inputs do not count."""
HASHED_WHEN_KILLED = 256 << 20
"""The same for a run that was told to stop: whoever sent SIGTERM may not wait for long."""
RECORDED_AT_MOST = 10_000
"""Inputs, and as many folders, that are named in a record."""
SEALED_AT_MOST = 100
"""Files that look like secrets whose digest is sealed; each takes about 50 ms."""

_SHA256 = 64
# File systems stamp with the time of the last timer tick.
_TICK_NS = 20 * 10**6
_SUFFIXES = tuple(importlib.machinery.all_suffixes())

#: Files of the stores that runs of this process went to: what MLflow keeps in its database is no input of the next run.
_stores: set[str] = set()


class _Candidate(NamedTuple):
    place: Place
    role: Role
    seen: Signature | None
    was_opened_before: bool | None  # None: after the capture; else whether it was still the same when captured
    is_relative: bool = False  # whether the program named it from another place
    is_late: bool = False  # written while the process ran, and not seen to be written by it


@dataclass(frozen=True)
class Collected:
    """The inputs of a run.

    Attributes:
        records: What the record says of them, sorted by path.
        folders: Folders that the run used and the snapshot does not hold, relative to the root.
        warnings: What the user should know, a line for each kind.
        problems: What could not be recorded.
    """

    records: tuple[InputRecord, ...]
    folders: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Inputs:
    """The inputs of one run, from the capture of its code to its end."""

    def __init__(
        self,
        captured: Snapshot | None,
        *,
        settings: Settings,
        own: Sequence[Path],
        began: int,
        is_program_outside: bool = False,
    ) -> None:
        """Note the state of what was read before the capture.

        Args:
            captured: The snapshot, just taken; None where there is none, and only declared inputs are known then.
            settings: What may be stored.
            own: Files and folders of the MLflow store.
            began: When the capture began, in nanoseconds since the epoch.
            is_program_outside: Whether the program itself lies outside of the repository (a test that works in a
                temporary one), so that it is no news that it imports and reads outside of it.
        """
        self._tree = SnapshotTree(captured) if captured is not None else None
        self._settings = settings
        _stores.update(os.path.realpath(path) for path in own)
        self._began = began
        self._is_program_outside = is_program_outside
        self._declared: dict[str, InputRecord] = {}
        self._early: dict[str, InputRecord] = {}
        self._kept: set[str] = set()
        self._sealed: dict[str, SealedRecord] = {}
        _opened.note_modules()
        self._unchanged = (
            {path: _opened.signature(path) == seen for path, seen in _opened.reads().items()} if self._tree else {}
        )

    def declare(self, path: str | os.PathLike[str]) -> None:
        """Take a file, or all files of a folder, in as inputs, with the bytes that they have now.

        Args:
            path: The file or folder.

        Raises:
            InputError: It is not there, or cannot be read.
        """
        name = _opened.absolute(os.fspath(path))
        if ".git" in name.lower().split("/"):
            message = f"The input '{name}' is git's own, which no record holds. Declare files of the work tree."
            raise InputError(message)
        files = declared_files(name)
        is_relative = _opened.has_way_up(os.fspath(path))
        candidates = [
            _Candidate(self._place(file), "declared", _opened.signature(file), None, is_relative) for file in files
        ]
        digests = _digests(candidates)
        for candidate in candidates:
            place = candidate.place
            if self._is_own(place.path):
                continue
            digest = digests.get(place.path)
            if digest is None:
                message = f"The input '{place.path}' cannot be read, or changes while it is read."
                raise InputError(message)
            record = self._record(candidate, digest, "was declared by the program")
            if record is not None:
                self._declared[record.path] = record

    def collect(self, keep: Callable[[str, bytes], None], *, limit: int = HASHED_AT_MOST) -> Collected:
        """Compare what was imported and read with the snapshot.

        Args:
            keep: Stores an artifact.
            limit: Bytes of data to hash at most.

        Returns:
            What the record has to hold beside the snapshot.
        """
        _opened.note_modules()
        found = [] if self._tree is None else self._candidates()
        records, problems = self._judge(found, keep, limit=limit)
        for path, early in self._early.items():
            if path in records and records[path].sha256 is None and records[path].sealed is None:
                records[path] = early
        for path, record in self._declared.items():
            known = records.get(path)
            records[path] = record if known is None or known.stored is None else known
        records.update(self._stale())
        if _opened.unnoted():
            problems.append(
                f"More than {_opened.MOST_PATHS} files were opened; those that came after are not among the inputs."
            )
        chosen = sorted(records.values(), key=lambda record: (record.role == "data", record.path))
        if len(chosen) > RECORDED_AT_MOST:
            problems.append(f"{len(chosen) - RECORDED_AT_MOST} further files that were read are not named as inputs.")
            chosen = chosen[:RECORDED_AT_MOST]
        chosen.sort(key=lambda record: record.path)
        told = [record for record in chosen if not (self._is_program_outside and record.path.startswith("/"))]
        return Collected(tuple(chosen), self._folders(problems), tuple(warnings_of(told)), tuple(problems))

    def collect_ignored_code(self, keep: Callable[[str, bytes], None]) -> tuple[InputRecord, ...]:
        """Return the modules imported so far that the snapshot does not hold: a run may be killed at any time.

        Args:
            keep: Stores an artifact.
        """
        if self._tree is None:
            return ()
        with contextlib.suppress(Exception):  # what fails will be said when the run ends: it goes first
            code = [item for item in self._candidates(data=False) if item.place.inside]
            found = [item for item in code if item.place.entry is None or item.place.left_out is not None]
            self._early = self._judge(found, keep, limit=0)[0]
        return tuple(self._early.values())

    def _stale(self) -> dict[str, InputRecord]:
        """Return the modules of the work tree that ran from compiled code which their source does not give."""
        tree = self._tree
        if tree is None:
            return {}
        places = [tree.place(path) for path in stale_modules(lambda path: tree.place(path).inside is not None)]
        names = [_text(place.inside) for place in places if place.inside is not None and not self._is_none_of_it(place)]
        return {name: InputRecord(path=name, role="code", why=STALE, sha256=None, size=0) for name in names}

    def _folders(self, problems: list[str]) -> tuple[str, ...]:
        tree = self._tree
        if tree is None:
            return ()
        found = [
            _text(folder)
            for folder in tree.without_files(_opened.folders())
            if not self._is_none_of_it(tree.place(f"{tree.top}/{folder}/file"))
        ]
        if len(found) > RECORDED_AT_MOST:
            problems.append(f"{len(found) - RECORDED_AT_MOST} further folders that the run used are not named.")
        return tuple(found[:RECORDED_AT_MOST])

    def _candidates(self, *, data: bool = True) -> list[_Candidate]:
        reads, outputs = _opened.reads(), _opened.outputs()
        roles: dict[str, Role] = {}
        for file in _opened.module_files():
            path = _opened.absolute(file)
            if path in reads or _opened.signature(path) is not None:  # and not a name without a file
                roles[path] = "code"
        if data:
            for path in reads:
                roles.setdefault(path, "code" if path.endswith(_SUFFIXES) else "data")
        found: dict[str, _Candidate] = {}
        for path, role in roles.items():
            if path in outputs:
                continue
            place = self._place(path)
            if place.path in outputs or self._is_none_of_it(place):
                continue
            seen = reads.get(path)
            is_late = self._is_late(place, role, seen)
            if is_late and _opened.signature(place.path) is None:
                continue  # came and went: a temporary file of another process
            is_relative = _opened.is_relative(path)
            candidate = _Candidate(place, role, seen, self._unchanged.get(path), is_relative, is_late)
            if place.path not in found or role == "code":
                found[place.path] = candidate
        return list(found.values())

    def _is_late(self, place: Place, role: Role, seen: Signature | None) -> bool:
        """Return whether a file was written while this process ran, which was not seen writing it.

        A process that it started may have made it, or a C library, and then it is a product of the run; or somebody
        else. Not since the process started: the system gives a shell's start to the program that it becomes with
        `exec`, as it does with the last command of a line, and what the earlier commands made is an input. Of code in
        the work tree nothing is taken for granted.
        """
        if place.entry is not None or seen is None or (role == "code" and place.inside is not None):
            return False
        return seen.ctime_ns >= _opened.since()

    def _is_none_of_it(self, place: Place) -> bool:
        assert self._tree is not None
        if self._is_own(place.path):
            return True
        if place.inside is not None:
            return place.entry is None and _origins.is_of_tools(f"{self._tree.top}/{place.inside}", self._tree.top)
        return _origins.is_foreign(place.path)

    def _is_own(self, path: str) -> bool:
        return any(path == own or path.startswith(own + "/") for own in _stores)

    def _judge(
        self, candidates: Iterable[_Candidate], keep: Callable[[str, bytes], None], *, limit: int
    ) -> tuple[dict[str, InputRecord], list[str]]:
        found: list[InputRecord | None] = []
        problems: list[str] = []
        hashed: list[_Candidate] = []
        for candidate in candidates:
            now = _opened.signature(candidate.place.path)
            if now is not None and (candidate.seen is None or candidate.seen == now):
                hashed.append(candidate._replace(seen=now))
            elif not self._is_snapshot_anyway(candidate):
                found.append(self._record(candidate, None, self._why_unknown(candidate)))
        affordable, rest = _within(hashed, limit)
        left = "was not hashed: more was read than is hashed when a run ends"
        found += [self._record(item, None, left) for item in rest if not self._is_snapshot_anyway(item)]
        digests = _digests(affordable)
        for candidate in affordable:
            digest = digests.get(candidate.place.path)
            if digest is None:
                found.append(self._record(candidate, None, "could not be read when the run ended"))
                continue
            record = self._record(candidate, digest, None)
            if record is not None and self._is_to_be_stored(candidate, digest):
                try:
                    record = self._stored(candidate, record, keep)
                except OSError as error:
                    problems.append(f"The bytes of {record.path} could not be kept: {error}.")
            found.append(record)
        return {record.path: record for record in found if record is not None}, problems

    def _is_snapshot_anyway(self, candidate: _Candidate) -> bool:
        """Return whether a file that changed after it was read was as the snapshot has it when it was read."""
        if candidate.place.entry is None or candidate.place.left_out is not None or candidate.seen is None:
            return False
        if candidate.was_opened_before is not None:
            return candidate.was_opened_before
        return candidate.seen.ctime_ns < self._began - _TICK_NS

    def _why_unknown(self, candidate: _Candidate) -> str:
        if candidate.place.entry is None:
            return f"{self._why(candidate)}, and {CHANGED}" if self._is_doubtful(candidate) else CHANGED
        when = "before" if candidate.was_opened_before is not None else "after"
        return f"was edited {when} the code was captured, and {CHANGED}"

    def _is_doubtful(self, candidate: _Candidate) -> bool:
        """Return whether a file, or what changed it, may be the run's own doing, so that it needs no such file."""
        return candidate.is_late or candidate.place.path in _opened.reads_and_writes()

    def _record(self, candidate: _Candidate, digest: Digest | None, why: str | None) -> InputRecord | None:
        """Return what is to be said of a file, or None where the snapshot holds it as it was."""
        place = candidate.place
        size = digest.size if digest is not None else (candidate.seen.size if candidate.seen is not None else 0)
        if digest is not None and place.entry is not None and place.entry[1] == digest.oid:
            return None
        name = _text(place.inside) if place.inside is not None else place.path
        sha256, sealed = digest.sha256 if digest is not None else None, None
        is_left_out_secret = place.left_out is not None and place.left_out.startswith("looks like a secret")
        if is_left_out_secret or secret_reason(os.fsencode(name), None, allow=self._settings.allow_secrets):
            sealed = self._seal(sha256)
            sha256, why = None, why if sha256 is None else SECRET
        return InputRecord(
            path=name,
            role=candidate.role,
            why=why or self._why(candidate),
            sha256=sha256,
            size=size,
            sealed=sealed,
            relative=place.inside is None and candidate.is_relative,
            # Opened to be read and written, and not changed: nothing but read.
            required=not (candidate.is_late or (digest is None and self._is_doubtful(candidate))),
        )

    def _seal(self, sha256: str | None) -> SealedRecord | None:
        if sha256 is None or (sha256 not in self._sealed and len(self._sealed) >= SEALED_AT_MOST):
            return None
        if sha256 not in self._sealed:
            self._sealed[sha256] = seal(sha256)
        return self._sealed[sha256]

    def _why(self, candidate: _Candidate) -> str:
        place = candidate.place
        if candidate.is_late:
            return "was written while the process ran, by another one or behind Python's back"
        if place.inside is None:
            return "lies outside of the repository"
        if place.left_out is not None:
            return f"is not in the snapshot: it {place.left_out}"
        if place.entry is not None:
            return "was edited after the code was captured"
        if candidate.seen is not None and candidate.seen.ctime_ns >= self._began:
            return "was made after the code was captured"
        return "is ignored by git"

    def _is_to_be_stored(self, candidate: _Candidate, digest: Digest) -> bool:
        place = candidate.place
        is_edited = place.entry is not None and place.left_out is None
        return (
            place.inside is not None
            and (candidate.role == "code" or is_edited)
            and candidate.role != "declared"
            and digest.size <= self._settings.largest_input
        )

    def _stored(self, candidate: _Candidate, record: InputRecord, keep: Callable[[str, bytes], None]) -> InputRecord:
        """Store the bytes of a file, unless they look like a secret."""
        if record.sha256 is None:
            return record
        with open(candidate.place.path, "rb") as file:  # noqa: PTH123
            data = file.read(record.size + 1)
        if hashlib.sha256(data).hexdigest() != record.sha256:
            return record.model_copy(update={"sha256": None, "why": f"{record.why}, and {CHANGED}"})
        if secret_reason(os.fsencode(record.path), data, allow=self._settings.allow_secrets) is not None:
            return record.model_copy(update={"sha256": None, "why": SECRET, "sealed": self._seal(record.sha256)})
        name = f"{RECORD_FOLDER}/inputs/{record.sha256}"
        if name not in self._kept:
            keep(name, data)
            self._kept.add(name)
        return record.model_copy(update={"stored": name})

    def _place(self, path: str) -> Place:
        return self._tree.place(path) if self._tree is not None else Place(path, None)


def _within(candidates: Iterable[_Candidate], limit: int) -> tuple[list[_Candidate], list[_Candidate]]:
    """Divide by what may be hashed: all code, and data up to ``limit`` bytes, the smallest files first."""
    chosen: list[_Candidate] = []
    rest: list[_Candidate] = []
    for item in sorted(candidates, key=lambda item: (item.role != "code", _size(item))):
        if item.role != "code":
            limit -= _size(item)
        (chosen if item.role == "code" or limit >= 0 else rest).append(item)
    return chosen, rest


def _digests(candidates: Sequence[_Candidate]) -> dict[str, Digest]:
    files = {item.place.path: item.seen for item in candidates}
    entries = {item.place.path: item.place.entry for item in candidates}
    return digest_all(files, sha256_ids={path for path, entry in entries.items() if entry and len(entry[1]) == _SHA256})


def _size(candidate: _Candidate) -> int:
    return candidate.seen.size if candidate.seen is not None else 0


def _text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "surrogateescape")
