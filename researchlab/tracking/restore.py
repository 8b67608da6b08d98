"""How does a snapshot come back, to the byte?

Base commit and patch become a tree in a store that borrows the objects of a source repository; the tree's id must be the
recorded one before a single file is written, and every file is read back and hashed after.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git
from researchlab.tracking._worktree import EXECUTABLE, GITLINK, SYMLINK, WorkTree, files_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from researchlab.tracking._git import ObjectFormat

_NAMED = 5


def restore(
    into: Path,
    *,
    base_commit: str | None,
    tree: str,
    patch: bytes,
    source: Path,
    object_format: ObjectFormat = "sha1",
    branch: str | None = None,
    remotes: Mapping[str, str] | None = None,
) -> Path:
    """Make ``into`` a git repository whose work tree is the snapshot, exactly, and prove it.

    HEAD and index stand at the base commit, so that ``git status`` shows the changes that the patch brought. Objects are
    borrowed from ``source``: keep it while the restored repository is in use. No reference, work tree entry, index or file
    of ``source`` changes; git may renew the time stamp of object files that the snapshot uses.

    Args:
        into: An empty folder, or one that does not exist yet.
        base_commit: Id of the snapshot's base commit; None where there was none.
        tree: Id of the snapshot's tree.
        patch: The snapshot's patch.
        source: A folder in the work tree of a repository that has the base commit.
        object_format: How the snapshot's repository names objects.
        branch: Branch to stand on; None for a detached HEAD.
        remotes: Remotes that the snapshot recorded. They become the remotes of the restored repository, and the message names
            them where the base commit is missing.

    Returns:
        ``into``, resolved.

    Raises:
        RestoreError: the base commit is not in ``source``, the patch does not apply, the tree is another one than recorded, or
            what was written does not read back. Nothing should be run from ``into`` then.
        NotARepositoryError: ``source`` is in no work tree.
    """
    top = _empty_folder(into)
    git_dir = top / ".git"
    borrowed = _git.find_repository(source)
    _check_base(base_commit, tree, borrowed, object_format, remotes or {})
    _git.make_git_dir(git_dir, object_format=object_format, borrow=borrowed.objects, bare=False)
    with (git_dir / "config").open("a", encoding="utf-8", errors="surrogateescape") as config:
        for name, url in (remotes or {}).items():
            config.write(f"[remote {_git.quote_config(name)}]\n\turl = {_git.quote_config(url)}\n")
    try:
        found = _apply(base_commit, patch, git_dir=git_dir, index=git_dir / "index")
        _check_tree(found, tree, base_commit)
        _git.run_git(("checkout-index", "--all", "--force", "--quiet"), cwd=top, isolated=True)
        _verify(top, _git.list_tree(tree, git_dir=git_dir), object_format)
        _point_head(top, base_commit, branch)
    except RestoreError:
        raise
    except GitError as error:
        message = f"The snapshot could not be restored into {top}. {error}"
        raise RestoreError(message) from error
    return top


def tree_of(base_commit: str | None, patch: bytes, *, source: Path, scratch: Path) -> tuple[Path, str]:
    """Build the tree of base commit and patch in an object store without work tree.

    Args:
        base_commit: Id of the base commit; None for the empty tree.
        patch: The patch on top.
        source: A folder in the work tree of a repository that has the base commit. Its objects are borrowed.
        scratch: A folder for the store; a second call with the same folder and source adds to the same store.

    Returns:
        The git folder to pass to git, and the id of the tree.

    Raises:
        RestoreError: the base commit is missing, or the patch does not apply.
    """
    repository = _git.find_repository(source)
    _check_base(base_commit, None, repository, repository.object_format, repository.remotes)
    git_dir = scratch / "git"
    if not git_dir.exists():
        _git.make_git_dir(git_dir, object_format=repository.object_format, borrow=repository.objects)
    return git_dir, _apply(base_commit, patch, git_dir=git_dir, index=git_dir / "index")


def write_into_worktree(worktree: Path, *, base_commit: str | None, tree: str, patch: bytes) -> tuple[str, ...]:
    """Write a snapshot over a clean checkout of its base commit, in the user's own repository, without touching the index.

    Every file whose bytes or mode on disk are not the snapshot's is written raw, so that the result is exact whatever line
    ending conversion or filter the repository sets up.

    Args:
        worktree: Root of the work tree. HEAD stands at the base commit and no tracked file is modified.
        base_commit: Id of the snapshot's base commit.
        tree: Id of the snapshot's tree.
        patch: The snapshot's patch.

    Returns:
        The paths that were written or deleted, sorted by their bytes (surrogate escapes where they are not UTF-8).

    Raises:
        RestoreError: the tree is another one than recorded, something that is not of the base commit is in the way (nothing was
            written in these two cases), or what was written does not read back.
    """
    repository = _git.find_repository(worktree)
    with tempfile.TemporaryDirectory(prefix="rlab-restore-") as scratch:
        git_dir, found = tree_of(base_commit, patch, source=worktree, scratch=Path(scratch))
        _check_tree(found, tree, base_commit)
        base = {} if base_commit is None else _git.list_tree(base_commit, git_dir=git_dir)
        target = _git.list_tree(tree, git_dir=git_dir)
        disk = WorkTree(repository.top, repository.object_format)
        wrong = set(disk.differences(target))
        gone = base.keys() - target.keys()
        _check_free(disk, repository.top, wrong - base.keys(), gone)
        for path in sorted(gone, reverse=True):
            _remove(repository.top, path, disk)
        _write(repository.top, {path: target[path] for path in sorted(wrong)}, git_dir)
        left = [path for path in gone if path not in _folders_of(target) and WorkTree(repository.top, repository.object_format).status(path)]
        _report([*WorkTree(repository.top, repository.object_format).differences(target), *left], repository.top)
    return tuple(_text(path) for path in sorted(wrong | gone))
