"""What in a checkout is in no commit, and which command puts it aside?"""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.tracking import _git
from researchlab.tracking._capture._worktree import WorkTree
from researchlab.tracking.store import default_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.tracking._git import Repository


def uncommitted(repository: Repository, own: Sequence[Path] = ()) -> tuple[str, ...]:
    """Return the paths whose content, staged or on disk, is in no commit that HEAD knows, untracked files included.

    Neither the stat cache nor assume-unchanged, skip-worktree or an fsmonitor is trusted; the user's line ending
    conversion and filters are, since what they make of a committed file can be made again.

    Args:
        repository: The repository.
        own: Files and folders that do not count, besides the default store.

    Returns:
        Paths relative to the root of the work tree, sorted.
    """
    top = repository.top
    tracked = _git.list_tree(repository.head, git_dir=repository.git_dir) if repository.head is not None else {}
    listing = _git.list_files(top)
    disk = WorkTree(top, repository.object_format)
    head = repository.head or _git.empty_tree(repository.object_format)
    staged = _git.run_git(("diff-index", "--cached", "--name-only", "-z", "--no-renames", head), cwd=top)
    absent = {path for path in listing.skipped if disk.status(path) is None}
    found = {path for path in listing.files - tracked.keys() if disk.status(path) is not None}
    found.update(staged.split(b"\0")[:-1])
    changed = set(disk.differences(tracked)) - absent
    if changed:
        found |= changed & _modified(repository)
    store = _store_paths(repository, own)
    return tuple(sorted(_text(path) for path in found if not any(_is_at_or_below(path, ours) for ours in store)))


def switch_back_command(repository: Repository) -> str:
    """Return the command that leaves this branch for the former place."""
    question = ("rev-parse", "--verify", "--quiet")
    branch = _git.call_git((*question, "--symbolic-full-name", "@{-1}"), cwd=repository.top).stdout
    if branch.startswith(b"refs/heads/"):
        return "git switch -"
    commit = _git.call_git((*question, "@{-1}"), cwd=repository.top).stdout.decode().strip()
    return f"git switch --detach {commit}" if commit else "git switch <another branch>"


def stash_command(repository: Repository, own: Sequence[Path] = (), *, spare: Sequence[str] = ()) -> str:
    """Return the command that stashes all uncommitted work, untracked files too, but never the MLflow store.

    Args:
        repository: The repository.
        own: Files and folders of the store, besides the default one.
        spare: Repositories inside that are not submodules: git would stash them as links without their files.
    """
    listing = _git.list_files(repository.top)
    files = listing.files | listing.nested
    words = ["git", "stash", "push", "--include-untracked"]
    spared = [ours for ours in _store_paths(repository, own) if any(_is_at_or_below(path, ours) for path in files)]
    spared += [path for path in map(os.fsencode, spare) if path in listing.nested and path not in spared]
    if spared:
        words += ["--", ":/", *(f":(top,exclude,literal){_text(ours)}" for ours in spared)]
    return shlex.join(words)


def _modified(repository: Repository) -> frozenset[bytes]:
    """Return the tracked files that differ from HEAD as git sees it, read anew into an index of our own."""
    with tempfile.TemporaryDirectory(prefix="rlab-index-") as scratch:
        env = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        _git.run_git(("read-tree", repository.head or "--empty"), cwd=repository.top, env=env)
        _git.call_git(("update-index", "-q", "--refresh"), cwd=repository.top, env=env)
        names = _git.run_git(("diff-files", "--name-only", "-z"), cwd=repository.top, env=env)
    return frozenset(names.split(b"\0")[:-1])


def _store_paths(repository: Repository, own: Sequence[Path]) -> list[bytes]:
    """Return where in the work tree an MLflow store is or may be."""
    root = repository.top.resolve()
    places = sorted({path.parent.resolve() / path.name for path in (*default_files(repository.top), *own)})
    return [os.fsencode(place.relative_to(root)) for place in places if place.is_relative_to(root)]


def _is_at_or_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder + b"/")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
