"""What exactly is the working tree of this repository, as base commit and patch?

A snapshot is the id of the tree that git would store if every file went in as its raw bytes, together with the patch
that turns the base commit's tree into it. The user's repository is only read: the snapshot's objects are made in a
scratch store that borrows the repository's.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from researchlab.errors import GitError, SnapshotError
from researchlab.tracking import _git
from researchlab.tracking._secrets import looks_like_secret
from researchlab.tracking._worktree import (
    GITLINK,
    REGULAR,
    SYMLINK,
    Absent,
    Changing,
    Content,
    Unreadable,
    WorkTree,
    too_large,
)
from researchlab.tracking.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from researchlab.tracking._git import Entry, Listing, Repository
    from researchlab.tracking.settings import Settings

LARGEST_FILE = 100 << 20
"""Bytes of the largest changed file that a snapshot takes in."""
LARGEST_SNAPSHOT = 256 << 20
"""Bytes of all changed files together; beyond, the largest are left out."""

_KEPT_IN_MEMORY = 64 << 20
_DIFF = (
    "diff-tree",
    "-r",
    "-p",
    "--binary",
    "--full-index",
    "--no-renames",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "-U3",
    "--inter-hunk-context=0",
    "--diff-algorithm=myers",
    "--submodule=short",
    "--ignore-submodules=none",
    "--no-relative",
    f"-O{os.devnull}",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs between base commit and snapshot.

    Attributes:
        path: Relative to the work tree's root; bytes that are not UTF-8 are kept as surrogate escapes.
        status: Added, Modified (bytes or executable bit), Deleted, or another Type (file, symlink, submodule).
    """

    path: str
    status: Literal["A", "M", "D", "T"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One path that is not in the snapshot as it is on disk, and why.

    Attributes:
        path: Relative to the work tree's root, as in ``Change``.
        reason: A half sentence for the reader, such as ``is a FIFO``.
        sha256: Hex digest of the file's bytes where it was over a budget, so that the same file may be put back.
        size: Number of its bytes, there.
    """

    path: str
    reason: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class NestedSnapshot:
    """The state of a repository inside the work tree.

    Attributes:
        path: Its root, relative to the root of the outermost work tree.
        is_submodule: Whether the repository around it knows it as a submodule.
        snapshot: Its state; ``snapshot.nested`` is empty, because the outermost snapshot lists them all.
    """

    path: str
    is_submodule: bool
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The working tree of a repository at one moment.

    Attributes:
        repository: Where it was taken.
        base_commit: Id of the commit that HEAD pointed to, or None before the first commit.
        tree: Id of the tree that holds every file as its raw bytes.
        patch: What ``git apply`` needs to make ``tree`` of the base commit's tree (of the empty tree, where there is no
            base commit). Empty when nothing differs.
        changed: The paths that differ, sorted by their bytes.
        left_out: What may differ and is not in the snapshot; it has those paths as the base commit has them, if at all.
        is_dirty: Whether anything differs from the base commit, untracked and left out files included, ignored files
            and excluded paths not.
        nested: The repositories inside the work tree, each after the one around it.
        pointers: Git LFS files that are captured as their pointers.
        entries: What the snapshot's tree holds: path -> (mode, id), submodules included.
    """

    repository: Repository
    base_commit: str | None
    tree: str
    patch: bytes
    changed: tuple[Change, ...]
    left_out: tuple[LeftOut, ...]
    is_dirty: bool
    nested: tuple[NestedSnapshot, ...] = ()
    pointers: tuple[str, ...] = ()
    entries: Mapping[bytes, Entry] = field(default_factory=dict[bytes, "Entry"], repr=False, compare=False)


def capture(
    repo_path: str | os.PathLike[str] = ".",
    *,
    exclude: Iterable[str | os.PathLike[str]] = (),
    settings: Settings | None = None,
) -> Snapshot:
    """Capture the working tree of the repository that holds ``repo_path``, without writing a byte into it.

    Staged, unstaged and untracked changes alike: what counts is what lies on disk. Ignored files are left out, unless
    they are in the base commit; so are files that look like secrets, that are too large, or that git cannot hold.

    Args:
        repo_path: A folder anywhere in the work tree.
        exclude: Files and folders (with all below) to leave as they are in the base commit: outputs such as the local
            store. Relative paths are relative to the current folder.
        settings: Budgets and exceptions; by default those of the repository's ``pyproject.toml``.

    Returns:
        The snapshot. Whatever could not be captured is named in ``left_out``.

    Raises:
        NotARepositoryError: ``repo_path`` is in no work tree.
        SnapshotError: git could not read the repository, or could not build the snapshot.
        GitError: git is missing, or refuses the repository.
    """
    repository = _git.find_repository(repo_path)
    settings = settings or read_settings(repository.top)
    survey = _Survey(repository, [os.fspath(path) for path in exclude])
    survey.leave_out_largest(settings.largest_snapshot)
    while survey.changes:
        with tempfile.TemporaryDirectory(prefix="rlab-snapshot-") as scratch:
            try:
                tree, patch = _build(survey, Path(scratch) / "git")
            except _Unsettled as finding:
                survey.leave_out(finding.path, "was written while it was read")
                continue
        break
    else:
        tree, patch = survey.base_tree, b""
    changed = tuple(Change(_text(path), survey.status_of(path)) for path in sorted(survey.changes))
    left_out = (*survey.left_out.items(), *((path, "excluded by the caller") for path in survey.excluded))
    return Snapshot(
        repository=repository,
        base_commit=repository.head,
        tree=tree,
        patch=patch,
        changed=changed,
        left_out=tuple(LeftOut(_text(path), reason) for path, reason in sorted(left_out)),
        is_dirty=survey.is_dirty,
    )


class _Unsettled(Exception):  # noqa: N818 - a finding that is handled
    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


class _Survey:
    """What differs between the base commit and the disk, found by reading every file once.

    Attributes:
        changes: Path -> what is there now, None for what is gone.
        left_out: Path -> why the snapshot does not hold what is on disk.
        excluded: Excluded paths at which or below which something was skipped.
    """

    def __init__(self, repository: Repository, exclude: Iterable[str] = ()) -> None:
        self.repository = repository
        self.base_tree = repository.head_tree or _git.empty_tree(repository.object_format)
        self.changes: dict[bytes, Content | None] = {}
        self.left_out: dict[bytes, str] = {}
        self.excluded: set[bytes] = set()
        self.disk = WorkTree(repository.top, repository.object_format)
        self._exclude = _relative(repository.top, exclude)
        self._kept = 0
        self._base: Mapping[bytes, Entry] = {}
        try:
            with (
                _git.start_git((*_git.LIST_TREE, self.base_tree), cwd=repository.top) as in_base,
                _git.start_git(_git.LIST_FILES, cwd=repository.top) as on_disk,
            ):
                self._base = _git.parse_tree(in_base.result().stdout)
                listing = _git.parse_files(on_disk.result())
        except GitError as error:
            message = f"The state of {repository.top} could not be captured. {error}"
            raise SnapshotError(message) from error
        for path in self._base.keys() | listing.files:
            self._look(path, listing)
        for path in listing.nested - self._base.keys():
            if not self._is_excluded(path):
                self.left_out[path] = "is a git repository of its own: its content is not captured"
        for path in listing.unreadable:
            if not self._is_excluded(path):
                self.left_out[path] = "is a folder that cannot be listed"

    @property
    def is_dirty(self) -> bool:
        """Whether a researcher would call this work tree modified."""
        return bool(self.changes or self.left_out)

    def status_of(self, path: bytes) -> Literal["A", "M", "D", "T"]:
        """Return the letter for one of ``changes``."""
        now, then = self.changes[path], self._base.get(path)
        if now is None:
            return "D"
        if then is None:
            return "A"
        return "M" if _type(now.mode) == _type(then[0]) else "T"

    def leave_out(self, path: bytes, reason: str) -> None:
        """Keep a path as it is in the base commit."""
        self.changes.pop(path, None)
        self.left_out[path] = reason

    def leave_out_largest(self, budget: int) -> None:
        """Leave out the largest files until the rest fits."""
        sizes = {path: content.size for path, content in self.changes.items() if content is not None}
        total = sum(sizes.values())
        for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
            if total <= budget:
                break
            total -= sizes[path]
            self.leave_out(path, f"{too_large(sizes[path], budget)} in all changes together")

    def _look(self, path: bytes, listing: Listing) -> None:
        if self._is_excluded(path):
            return
        then = self._base.get(path)
        # Of a tracked file it is worth knowing whether it changed, however large it is.
        limit = LARGEST_FILE if then is None else None
        try:
            if then is not None and then[0] == GITLINK and self._look_at_submodule(path, then[1], listing):
                return
            now = self.disk.read(path, limit=limit)
        except Absent:
            self._note_absence(path, listing)
            return
        except Unreadable as finding:
            self.leave_out(path, str(finding))
            return
        if not self.repository.file_mode and now.mode != SYMLINK:
            # The executable bit on disk means nothing here.
            now = now._replace(mode=then[0] if then is not None and _type(then[0]) == _type(REGULAR) else REGULAR)
        if then is None or (now.mode, now.oid) != then:
            self._note_change(path, now)

    def _note_change(self, path: bytes, now: Content) -> None:
        if now.size > LARGEST_FILE:
            self.leave_out(path, too_large(now.size, LARGEST_FILE))
        elif now.mode != SYMLINK and looks_like_secret(path, now.data):
            self.leave_out(path, "looks like a secret")
        else:
            self._kept += now.size
            forget = now.mode != SYMLINK and self._kept > _KEPT_IN_MEMORY
            self.changes[path] = now._replace(data=None) if forget else now

    def _note_absence(self, path: bytes, listing: Listing) -> None:
        if path in self._base:
            if path not in listing.skipped:
                self.changes[path] = None
        elif os.path.lexists(self.disk.place(path) + b"/.git"):
            # A submodule that was added and not yet committed.
            self.left_out[path] = "is a git repository of its own: its content is not captured"

    def _look_at_submodule(self, path: bytes, commit: str, listing: Listing) -> bool:
        """Keep the base commit's submodule where one is on disk, and name it where it differs; False where none is."""
        status = self.disk.status(path)
        if status is None:
            return path in listing.skipped
        place = self.disk.place(path)
        if not os.path.isdir(place) or os.path.islink(place):  # noqa: PTH112, PTH114 - a path of bytes
            return False
        if not os.path.lexists(place + b"/.git"):
            if any(name.startswith(path + b"/") for name in listing.files):
                return False
            if os.listdir(place):  # noqa: PTH208
                self.left_out[path] = "is a submodule that is not checked out, with files in it: they are not captured"
            return True
        try:
            inner = _git.find_repository(os.fsdecode(place))
            same = inner.head == commit and not _Survey(inner).is_dirty
        except GitError as error:
            self.left_out[path] = f"is a submodule that cannot be read: {error}"
            return True
        if not same:
            self.left_out[path] = "is a submodule that differs from the base commit: its content is not captured"
        return True

    def _is_excluded(self, path: bytes) -> bool:
        for excluded in self._exclude:
            if path == excluded or path.startswith(excluded + b"/"):
                self.excluded.add(excluded)
                return True
        return False


def _build(survey: _Survey, git_dir: Path) -> tuple[str, bytes]:
    """Make the snapshot's tree in a scratch store and return its id and the patch that leads to it."""
    repository = survey.repository
    _git.make_git_dir(git_dir, object_format=repository.object_format, borrow=repository.objects)
    try:
        with _git.stream_git(("fast-import", "--quiet", "--done", "--date-format=raw"), git_dir=git_dir) as pipes:
            _write_commit(pipes.stdin, survey, _write_large_files(pipes.stdin, survey))
            pipes.stdin.close()
            answer = pipes.stdout.read()
        tree = answer.split()[2].decode()
        patch = _git.run_git((*_DIFF, survey.base_tree, tree), git_dir=git_dir, isolated=True)
    except GitError as error:
        message = f"The snapshot of {repository.top} could not be built. {error}"
        raise SnapshotError(message) from error
    if not patch:
        message = f"git found no difference in {repository.top} where {len(survey.changes)} files differ."
        raise SnapshotError(message)
    return tree, _appliable(patch, survey.changes)


def _appliable(patch: bytes, paths: Iterable[bytes]) -> bytes:
    """Quote what git prints and cannot read: without quotes, a space at the end of a folder's name ends the path."""
    if not any(b" /" in path for path in paths):
        return patch

    def quoted(header: re.Match[bytes]) -> bytes:
        return b"diff --git %s %s" % (_git.quote_path(b"a/" + header[1]), _git.quote_path(b"b/" + header[1]))

    return re.sub(rb"^diff --git a/([^\n]* /[^\n]*) b/\1$", quoted, patch, flags=re.MULTILINE)


def _write_large_files(stream: IO[bytes], survey: _Survey) -> dict[bytes, bytes]:
    """Write the files that are not in memory for fast-import, and return the mark of each."""
    marks: dict[bytes, bytes] = {}
    for path, content in survey.changes.items():
        if content is None or content.data is not None:
            continue
        marks[path] = b":%d" % (len(marks) + 2)
        stream.write(b"blob\nmark %s\ndata %d\n" % (marks[path], content.size))
        try:
            for chunk in survey.disk.chunks(path, content):
                stream.write(chunk)
        except Changing as finding:
            raise _Unsettled(path) from finding
        stream.write(b"\n")
    return marks


def _write_commit(stream: IO[bytes], survey: _Survey, marks: Mapping[bytes, bytes]) -> None:
    """Write one commit with every change for fast-import, and the question for its tree."""
    stream.write(
        b"commit refs/heads/snapshot\nmark :1\ncommitter researchlab <researchlab@localhost> 0 +0000\ndata 0\n"
    )
    if survey.repository.head is not None:
        stream.write(b"from %s\n" % survey.repository.head.encode())
    # What is gone goes first: its place may be taken by a folder, or by a file where the folder was.
    for path, content in survey.changes.items():
        if content is None:
            stream.write(b"D %s\n" % _git.quote_path(path))
    for path, content in survey.changes.items():
        if content is None:
            continue
        stream.write(b"M %s %s %s\n" % (content.mode, marks.get(path, b"inline"), _git.quote_path(path)))
        if content.data is not None:
            stream.write(b"data %d\n" % content.size)
            stream.write(content.data)
            stream.write(b"\n")
    stream.write(b'\nls :1 ""\ndone\n')


def _relative(top: Path, paths: Iterable[str]) -> tuple[bytes, ...]:
    """Return the paths relative to ``top`` as bytes, without those that lie outside."""
    root = os.fsencode(os.path.realpath(top)) + b"/"
    found: list[bytes] = []
    for path in paths:
        # The last part may be a symlink, which is excluded and not what it points to.
        folder, name = os.path.split(Path(path).absolute())
        place = os.fsencode(Path(os.path.realpath(folder), name))
        if place.startswith(root):
            found.append(place[len(root) :])
    return tuple(found)


def _type(mode: bytes) -> bytes:
    return mode[:3]


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


__all__ = ["Change", "LeftOut", "Snapshot", "capture"]
