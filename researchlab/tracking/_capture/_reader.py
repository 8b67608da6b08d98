"""How is a repository read without anything in it being written, not even a time stamp?

Left to itself, git fetches into a partial clone what that lacks, renews the time stamp of a shared index that it reads,
and those of objects that it makes again when it unfolds a sparse index.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, SnapshotError
from researchlab.tracking import _git

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.tracking._capture._scratch import Scratch
    from researchlab.tracking._git import Entry, GitProcess, Listing, Repository
    from researchlab.tracking._git._calls import Argument


_PATIENCE = 20.0
"""Seconds after which it is asked why a listing takes so long."""


class Reader:
    """Lists one repository when it is made, and runs git in it.

    Attributes:
        repository: The repository.
        base_tree: Id of the base commit's tree; of the empty tree where there is no commit.
        base: What that tree holds.
        listing: What git knows on disk.
        ignored: What it ignores there, as ``parse_ignored`` has it.
        source: Where to read objects.
    """

    def __init__(self, repository: Repository, *, scratch: Scratch) -> None:
        """List a repository; what that takes of our own is in ``scratch``."""
        self.repository = repository
        self.base_tree = repository.head_tree or _git.empty_tree(repository.object_format)
        self._scratch = scratch
        self._store: Path | None = None
        self.source = _git.source_of(repository, self.make_store)
        self._git_dir = self._without_shared_index()
        # Told to ignore case where the disk does not, git would pass over files beside others of the same letters.
        self._case = () if _folds_case(repository.git_dir) else ("-c", "core.ignoreCase=false")
        self._env = {} if repository.promisor is None else _git.fetching_into(repository, self.make_store())
        try:
            self.base, self.listing, self.ignored = self._list()
        except GitError as error:
            message = f"The state of {repository.top} could not be captured. {error}"
            raise SnapshotError(message) from error

    def make_store(self) -> Path:
        """Return a git folder of our own, with no way to the repository's objects; it is made when first needed."""
        if self._store is None:
            self._store = self._scratch.new_place()
            _git.make_git_dir(self._store, object_format=self.repository.object_format, borrow=None)
        return self._store

    def start(self, args: Sequence[Argument], *, stdin: bytes | None = None) -> GitProcess:
        """Start git in the repository, to be used in a ``with`` block."""
        top = self.repository.top
        words = (*self._case, b"--work-tree=" + os.fsencode(top), *args)
        return _git.start_git(words, cwd=top, git_dir=self._git_dir, stdin=stdin, env=self._env)

    def _list(self) -> tuple[dict[bytes, Entry], Listing, frozenset[bytes]]:
        for rules in (self.repository.top / ".gitignore", self.repository.common_dir / "info" / "exclude"):
            if _is_fifo(rules):
                raise _waiting(rules)
        if self.repository.sparse_index:
            base = self._list_base()
            listing = self._list_sparse(base)
            with self.start(_git.LIST_IGNORED) as ignored:
                return base, listing, _git.parse_ignored(self._listed(ignored))
        with self.start(_git.LIST_FILES) as on_disk, self.start(_git.LIST_IGNORED) as ignored:
            base = self._list_base()
            return base, _git.parse_files(self._listed(on_disk)), _git.parse_ignored(self._listed(ignored))

    def _list_base(self) -> dict[bytes, Entry]:
        args = (*_git.LIST_TREE, self.base_tree)
        git_dir, env = self.source
        found = _git.call_git(args, git_dir=git_dir, env=env, isolated=True)
        if found.returncode == 0:
            return _git.parse_tree(found.stdout)
        if self.repository.promisor is None:
            raise _git.git_error(found, args, self.repository.top)
        with self.start(args) as fetching:  # folders are missing, too
            return _git.parse_tree(fetching.result().stdout)

    def _list_sparse(self, base: dict[bytes, Entry]) -> Listing:
        """List with the base commit's folders in our own store only, as far as the index needs no others."""
        known = self._env
        with _git.PackWriter(self.make_store(), self.repository.object_format) as pack:
            for oid, data in _git.make_trees(base, self.repository.object_format).objects.items():
                pack.add(oid, _git.TREE, data)
        self._env = {"GIT_OBJECT_DIRECTORY": os.fspath(self.make_store() / "objects")}
        try:
            return self._list_files()
        except GitError:
            self._env = known
            return self._list_files()

    def _list_files(self) -> Listing:
        with self.start(_git.LIST_FILES) as on_disk:
            return _git.parse_files(self._listed(on_disk))

    def _listed(self, process: GitProcess) -> bytes:
        """Return what a listing says; one that waits for a FIFO never ends."""
        try:
            return process.result(_PATIENCE).stdout
        except _git.SlowGitError:
            for folder, _, names in os.walk(self.repository.top):
                rules = Path(folder, ".gitignore")
                if rules.name in names and _is_fifo(rules):
                    raise _waiting(rules) from None
            return process.result().stdout

    def _without_shared_index(self) -> Path:
        """Return a git folder with the index of the repository, a copy where the index is split."""
        git_dir = self.repository.git_dir
        shared = list(git_dir.glob("sharedindex.*"))
        if not shared:
            return git_dir
        # As a linked work tree has one: the configuration and the objects are those of the repository.
        mirror = self._scratch.new_place()
        (mirror / "info").mkdir(parents=True)
        (mirror / "commondir").write_bytes(os.fsencode(self.repository.common_dir) + b"\n")
        for name in ("HEAD", "index", "config.worktree", "info/sparse-checkout", *(path.name for path in shared)):
            if (git_dir / name).exists():
                shutil.copy2(git_dir / name, mirror / name)
        return mirror


def _is_fifo(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:  # it is not there, or may not be looked at
        return False


def _waiting(rules: Path) -> GitError:
    return GitError(
        f"{rules} is a FIFO, and git reads from it what is ignored: it would wait for ever. "
        f"Remove it, or put a file in its place: rm {shlex.quote(os.fspath(rules))}"
    )


def _folds_case(git_dir: Path) -> bool:
    """Whether the disk takes names for the same that differ in the case of their letters only."""
    return (git_dir / "head").exists() and (git_dir / "head").samefile(git_dir / "HEAD")


__all__ = ["Reader"]
