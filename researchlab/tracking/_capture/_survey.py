"""What differs between the base commit of one repository and what lies on disk?"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal, NamedTuple

from researchlab.errors import GitError
from researchlab.tracking import _git
from researchlab.tracking._capture._reader import Reader
from researchlab.tracking._capture._secrets import secret_reason, secret_reasons
from researchlab.tracking._capture._special import SpecialFiles
from researchlab.tracking._capture._worktree import (
    GITLINK,
    REGULAR,
    SYMLINK,
    Absent,
    Content,
    TooLarge,
    Unreadable,
    WorkTree,
    cannot_hold,
    too_large,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from researchlab.tracking._capture._scratch import Scratch
    from researchlab.tracking._git import Entry, Repository
    from researchlab.tracking.settings import Settings

KEPT_IN_MEMORY = 64 << 20
"""Bytes of small files that are kept after hashing, in all repositories together; the rest is read a second time."""

_CHECKED_AT_ONCE = 1 << 20
UNREADABLE = "is a git repository that cannot be read"


class Omission(NamedTuple):
    """Why a path is not in the snapshot, and which file it was where that was found out."""

    reason: str
    sha256: str | None = None
    size: int | None = None


class Inner(NamedTuple):
    """A repository inside the work tree, and whether the one around it knows it as a submodule."""

    repository: Repository
    is_submodule: bool


class Memory:
    """How many bytes of files may still be kept."""

    def __init__(self, size: int) -> None:
        self._left = size

    def takes(self, size: int) -> bool:
        """Return whether so many bytes still fit, and count them."""
        self._left -= size
        return self._left >= 0


class Survey:
    """What differs between the base commit and the disk: listed when it is made, found by ``read``.

    ``prefix`` is where it lies in the outermost work tree, with a slash at the end.

    Attributes:
        repository: The repository.
        reader: Runs git in it.
        base: What the base commit holds.
        disk: Reads its files.
        untracked: Files that are neither in the index nor in the base commit, ignored and excluded ones apart.
        inner: Path -> repository inside the work tree.
        changes: Path -> what is there now, None for what is gone. A submodule has its commit as id.
        left_out: Path -> why the snapshot does not hold what is on disk.
        excluded: Excluded paths at which or below which something was skipped.
        pointers: Files that stay the Git LFS pointers that the base commit has.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        exclude: Iterable[str],
        settings: Settings,
        memory: Memory,
        scratch: Scratch,
        prefix: bytes = b"",
    ) -> None:
        self.repository = repository
        self.reader = Reader(repository, scratch=scratch)
        self.base = self.reader.base
        self.changes: dict[bytes, Content | None] = {}
        self.left_out: dict[bytes, Omission] = {}
        self.excluded: set[bytes] = set()
        self.inner: dict[bytes, Inner] = {}
        self.pointers: set[bytes] = set()
        self.disk = WorkTree(repository.top, repository.object_format)
        self._prefix = prefix
        self._settings = settings
        self._memory = memory
        self._exclude = _relative(repository.top, exclude)
        self._exclude_below = tuple(excluded + b"/" for excluded in self._exclude)
        self._settled: set[bytes] = set()
        self._unchecked: list[tuple[bytes, bytes | None]] = []
        self._unchecked_size = 0
        self._listing = self.reader.listing
        for path in sorted(self._known_submodules().keys() | self._listing.nested):
            if not self._is_excluded(path):
                self._look_at_repository(path)
        self.untracked = frozenset(
            path
            for path in self._listing.untracked
            if path not in self.base and not self._is_excluded(path) and not self._is_inside(path)
        )

    @property
    def files(self) -> frozenset[bytes]:
        """The files that git knows on disk."""
        return self._listing.files

    @property
    def ignored(self) -> frozenset[bytes]:
        """What git ignores on disk and the base commit does not hold; a folder with a slash at its end."""
        return frozenset(path for path in self.reader.ignored if path not in self.base)

    @property
    def is_dirty(self) -> bool:
        """Whether a researcher would call this work tree modified, the repositories inside it apart."""
        unknown = any(not inner.is_submodule for inner in self.inner.values())
        return bool(self.changes or self.left_out or unknown)

    @property
    def entries(self) -> dict[bytes, Entry]:
        """What the snapshot's tree holds."""
        found = dict(self.base)
        for path, content in self.changes.items():
            if content is None:
                del found[path]
        for path, content in self.changes.items():
            if content is not None:
                found[path] = (content.mode, content.oid)
        return found

    def status_of(self, path: bytes) -> Literal["A", "M", "D", "T"]:
        """Return the letter for one of ``changes``."""
        now, then = self.changes[path], self.base.get(path)
        if now is None:
            return "D"
        if then is None:
            return "A"
        return "M" if _type(now.mode) == _type(then[0]) else "T"

    def leave_out(self, path: bytes, omission: Omission) -> None:
        """Keep a path as it is in the base commit."""
        self.changes.pop(path, None)
        self.left_out[path] = omission

    def leave_out_large(self, path: bytes, limit: int, *, where: str = "") -> None:
        """Keep a path as it is in the base commit because it has too many bytes, and say which file it was."""
        self.changes.pop(path, None)
        try:
            sha256, size = self.disk.sha256(path)
        except Absent:
            self._note_absence(path)
        except Unreadable as finding:
            self.leave_out(path, Omission(str(finding)))
        else:
            self.leave_out(path, Omission(too_large(size, limit) + where, sha256, size))

    def disown(self, path: bytes, reason: str) -> None:
        """Leave out a repository inside the work tree."""
        del self.inner[path]
        self.leave_out(path, Omission(reason))

    def forget(self) -> None:
        """Let go of the bytes of files, once they are somewhere else."""
        for path, content in self.changes.items():
            if content is not None and content.data is not None:
                self.changes[path] = content._replace(data=None)

    def read(self, *, without: Iterable[bytes] = ()) -> None:
        """Read every file once, and note what differs.

        Args:
            without: Untracked files that are not to be read.
        """
        paths = (self.base.keys() | self._listing.files).difference(self._settled, without)
        with self._special_files() as special:
            for path in sorted(paths):  # a disk likes an order
                if not self._is_excluded(path):
                    self._look(path)
            self._leave_out_secrets()
        for path, kind in special.found.items():
            self.leave_out(path, Omission(f"is a {kind}"))
        for path in special.unreadable:
            if not self._is_excluded(path):
                self.left_out[path] = Omission("is a folder that cannot be listed")

    def _look(self, path: bytes) -> None:
        then = self.base.get(path)
        # Of a tracked file it is worth knowing whether it changed, however large it is.
        limit = self._settings.largest_file if path in self.untracked else None
        try:
            if self.inner and self._is_inside(path):
                raise Absent  # noqa: TRY301 - it belongs to that repository
            now = self.disk.read(path, limit=limit)
        except Absent:
            self._note_absence(path)
            return
        except TooLarge:
            name = self._prefix + path
            reason = secret_reason(name, self.disk.head(path), allow=self._settings.allow_secrets)
            if reason is None:
                self.leave_out_large(path, self._settings.largest_file)
            else:
                self.leave_out(path, Omission(reason))
            return
        except Unreadable as finding:
            self.leave_out(path, Omission(str(finding)))
            return
        if not self.repository.file_mode and now.mode != SYMLINK:
            # The executable bit on disk means nothing here.
            now = now._replace(mode=then[0] if then is not None and _type(then[0]) == _type(REGULAR) else REGULAR)
        if then is None or (now.mode, now.oid) != then:
            self._note_change(path, now)

    def _note_change(self, path: bytes, now: Content) -> None:
        if cannot_hold(path, now.mode):
            self.leave_out(path, Omission("has a name that git cannot hold"))
            return
        if now.mode != SYMLINK:
            data = now.data if now.data is not None else self.disk.head(path)
            self._unchecked.append((self._prefix + path, data))
            self._unchecked_size += len(data or b"")
            if now.data is not None and not self._memory.takes(now.size):
                now = now._replace(data=None)
        self.changes[path] = now
        if self._unchecked_size > _CHECKED_AT_ONCE:
            self._leave_out_secrets()

    def _leave_out_secrets(self) -> None:
        found = secret_reasons(self._unchecked, allow=self._settings.allow_secrets)
        for path, reason in found.items():
            self.leave_out(path.removeprefix(self._prefix), Omission(reason))
        self._unchecked, self._unchecked_size = [], 0

    def _special_files(self) -> SpecialFiles:
        files = self._listing.files
        folders = folders_of(files) | {b""}

        def skip(path: bytes) -> bool:
            return (
                path in files
                or path in self._settled
                or path in self._listing.nested
                or self._excluding(path) is not None
            )

        return SpecialFiles(self.reader, self.disk, folders, skip=skip)

    def _note_absence(self, path: bytes) -> None:
        if path in self.base and not self._is_skipped(path):
            self.changes[path] = None

    def _is_skipped(self, path: bytes) -> bool:
        """Whether a sparse checkout leaves a path out, and nothing else has taken its place."""
        # The index may say so of any path, even where there is no sparse checkout.
        return (
            self.repository.is_sparse
            and path in self._listing.skipped
            and self.disk.status(path) is None
            and self._listing.untracked.isdisjoint(parents(path))
        )

    def _known_submodules(self) -> dict[bytes, str]:
        """Return path -> commit of the submodules of the base commit and of the index."""
        in_base = {path: oid for path, (mode, oid) in self.base.items() if mode == GITLINK}
        return in_base | dict(self._listing.submodules)

    def _look_at_repository(self, path: bytes) -> None:
        """Look at what may be a repository; what is none in the end is for ``read``."""
        known = self._known_submodules().get(path)
        try:
            status = self.disk.status(path)
        except Unreadable as finding:
            self._settled.add(path)
            self.left_out[path] = Omission(str(finding))
            return
        if status is None or not stat.S_ISDIR(status.st_mode):
            return
        place = self.disk.place(path)
        if known is not None and not os.path.lexists(place + b"/.git"):
            if any(name.startswith(path + b"/") for name in self._listing.files):
                return  # a folder took its place
            self._settled.add(path)
            self._note_submodule(path, known)
            if os.listdir(place):  # noqa: PTH208 - bytes
                self.left_out[path] = Omission(
                    "is a submodule that is not checked out, with files in it: they are not captured"
                )
            return
        self._settled.add(path)
        try:
            found = _git.find_repository(os.fsdecode(place))
        except (GitError, OSError) as error:
            self.left_out[path] = Omission(f"{UNREADABLE}: {error}")
            return
        if os.path.realpath(found.top) != os.path.realpath(os.fsdecode(place)):
            self.left_out[path] = Omission(f"is a git repository whose work tree is {found.top}: it is not captured")
        elif known is not None and (found.head is None or found.object_format != self.repository.object_format):
            lack = "without a commit" if found.head is None else f"that names objects by {found.object_format}"
            self.left_out[path] = Omission(f"is a submodule {lack}: it is not captured")
        else:
            self.inner[path] = Inner(found, known is not None)
            if known is not None and found.head is not None:
                self._note_submodule(path, found.head)

    def _note_submodule(self, path: bytes, commit: str) -> None:
        if self.base.get(path) != (GITLINK, commit):
            self.changes[path] = Content(GITLINK, commit, 0, None)

    def _is_inside(self, path: bytes) -> bool:
        """Whether a path lies in a repository inside the work tree."""
        return bool(self.inner) and any(folder in self.inner for folder in parents(path))

    def _is_excluded(self, path: bytes) -> bool:
        """Whether a path is to be skipped; it is noted that something was."""
        found = self._excluding(path)
        if found is not None:
            self.excluded.add(found)
        return found is not None

    def _excluding(self, path: bytes) -> bytes | None:
        if path not in self._exclude and not path.startswith(self._exclude_below):
            return None
        return next(excluded for excluded in self._exclude if path == excluded or path.startswith(excluded + b"/"))


def parents(path: bytes) -> Iterator[bytes]:
    """Yield the folders around a path, the nearest first, without the root."""
    folder = path.rpartition(b"/")[0]
    while folder:
        yield folder
        folder = folder.rpartition(b"/")[0]


def folders_of(paths: Iterable[bytes]) -> set[bytes]:
    """Return the folders around any of these paths, without the root."""
    near = {path.rpartition(b"/")[0] for path in paths}
    return near.union(*map(parents, near)) - {b""}


def _relative(top: os.PathLike[str], paths: Iterable[str]) -> tuple[bytes, ...]:
    """Return the paths relative to ``top`` as bytes, without those that lie outside."""
    root = os.fsencode(os.path.realpath(top)) + b"/"
    found: list[bytes] = []
    for path in paths:
        # The last part may be a symlink, which is excluded and not what it points to.
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - '..' is cut out
        place = os.fsencode(os.path.join(os.path.realpath(folder), name))  # noqa: PTH118 - as above
        if place.startswith(root):
            found.append(place[len(root) :])
    return tuple(found)


def _type(mode: bytes) -> bytes:
    return mode[:3]


__all__ = ["Inner", "Memory", "Omission", "Survey"]
