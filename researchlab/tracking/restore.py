"""How does a snapshot come back, to the byte?

Base commit and patch become a tree in a store that borrows the objects of a source repository; the tree's id must be
the recorded one before a single file is written, and every file is read back and hashed after.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git
from researchlab.tracking._capture._worktree import WorkTree, files_below
from researchlab.tracking._restoring._lenders import look_around
from researchlab.tracking._restoring._parts import (
    KeptFile,
    RepositoryCode,
    check_parts,
    check_place,
    enclosing,
    printable,
)
from researchlab.tracking._restoring._raw_files import check_free, is_file, remove_file, some, write_files
from researchlab.tracking._restoring._supply import supply

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from researchlab.tracking._git import ObjectFormat
    from researchlab.tracking._restoring._lenders import Surroundings

# What git says of the machine, and not of the patch.
_NO_ROOM = re.compile(
    r"No space left|quota exceeded|[Uu]nable to (write|create)|Permission denied|Read-only file system"
)


def restore(  # noqa: PLR0913 (what a snapshot is)
    into: Path,
    *,
    base_commit: str | None,
    tree: str,
    patch: bytes,
    source: Path | None,
    object_format: ObjectFormat = "sha1",
    branch: str | None = None,
    remotes: Mapping[str, str] | None = None,
    bundle: Path | None = None,
    nested: Sequence[RepositoryCode] = (),
) -> Path:
    """Make ``into`` a git repository whose work tree is the snapshot, exactly, and prove it.

    HEAD and index stand at the base commit, so that ``git status`` shows the changes that the patch brought; the same
    holds for each repository inside. Objects are borrowed from ``source`` where it has them: keep it while the restored
    repository is in use. No reference, work tree entry, index or file of ``source`` changes; git may renew the time
    stamp of object files that the snapshot uses.

    Args:
        into: An empty folder, or one that does not exist yet.
        base_commit: Id of the snapshot's base commit; None where there was none.
        tree: Id of the snapshot's tree.
        patch: The snapshot's patch.
        source: A folder in the work tree of a repository that may have the base commit; None where there is none.
        object_format: How the snapshot's repository names objects.
        branch: Branch to stand on; None for a detached HEAD.
        remotes: Remotes that the snapshot recorded. They become the remotes of the restored repository, and the base
            commit is fetched from them where it is neither in ``source`` nor in ``bundle``.
        bundle: The bundle or pack that was kept with the run.
        nested: The repositories inside the work tree, each after the one around it.

    Returns:
        ``into``, resolved.

    Raises:
        RestoreError: A base commit is nowhere to be had, a patch does not apply, a tree is another one than recorded,
            or what was written does not read back. ``into`` is left as it was.
    """
    outermost = RepositoryCode(
        base_commit=base_commit,
        tree=tree,
        patch=patch,
        object_format=object_format,
        branch=branch,
        remotes=remotes or {},
        kept=() if bundle is None else (KeptFile.of(bundle),),
    )
    return restore_parts(into, (outermost, *nested), sources=() if source is None else (source,))


def restore_parts(into: Path, parts: Sequence[RepositoryCode], *, sources: Iterable[Path]) -> Path:
    """Do what ``restore`` does with the repositories of a run, the outermost first.

    Args:
        into: An empty folder, or one that does not exist yet.
        parts: The repositories, each after the one around it.
        sources: Folders in work trees that may have the base commits, the likeliest first.

    Returns:
        ``into``, resolved.

    Raises:
        RestoreError: As ``restore``.
    """
    check_parts(parts)
    with _empty_folder(into) as top:
        around = look_around(parts, sources)
        staging = top / ".git" / "rlab-nested"
        git_dirs = [top / ".git", *(staging / str(number) for number in range(1, len(parts)))]
        for part, git_dir in zip(parts, git_dirs, strict=True):
            _git.make_git_dir(git_dir, object_format=part.object_format, borrow=None, bare=False)
            _write_config(git_dir / "config", part.remotes)
            _build(part, around, git_dir)
        _check_places(parts, git_dirs)
        with _as_restore_error(f"The snapshot could not be written to {top}."):
            for part, git_dir in zip(parts, git_dirs, strict=True):
                place = top / os.fsdecode(part.path.encode("utf-8", "surrogateescape")) if part.path else top
                if place != top:
                    place.mkdir(parents=True, exist_ok=True)
                    git_dir.rename(place / ".git")
                _write_repository(place, part)
            if staging.exists():
                staging.rmdir()
    return top


def build(
    parts: Sequence[RepositoryCode],
    *,
    sources: Iterable[Path],
    scratch: Path,
    brought: dict[str, str] | None = None,
    history: bool = False,
) -> dict[str, Path]:
    """Build the trees of the repositories of a run in scratch stores, which proves that they can be brought back.

    Args:
        parts: The repositories, the outermost first, each after the one around it.
        sources: Folders in work trees that may have the base commits, the likeliest first.
        scratch: Folder of the stores; further calls with the same folder add to them.
        brought: Gets the path of each repository whose base commit was not in ``sources`` -> where it came from.
        history: Whether the commits before the base commits are wanted so much that a remote is asked before a pack
            without them.

    Returns:
        Path of each repository -> the git folder that has its base commit and its tree. Repositories that name objects
        the same way share one.

    Raises:
        RestoreError: As ``restore``.
    """
    check_parts(parts)
    around = look_around(parts, sources)
    stores: dict[str, Path] = {}
    for part in parts:
        git_dir = scratch / ("git" if part.object_format == parts[0].object_format else f"git-{part.object_format}")
        if not git_dir.exists():
            _git.make_git_dir(git_dir, object_format=part.object_format, borrow=None)
        came_from = _build(part, around, git_dir, history=history)
        if came_from is not None and brought is not None:
            brought[part.path] = came_from
        stores[part.path] = git_dir
    _check_places(parts, [stores[part.path] for part in parts])
    return stores


def tree_of(
    base_commit: str | None,
    patch: bytes,
    *,
    source: Path | None,
    scratch: Path,
    object_format: ObjectFormat | None = None,
    remotes: Mapping[str, str] | None = None,
    bundle: Path | None = None,
) -> tuple[Path, str]:
    """Build the tree of base commit and patch in an object store without work tree.

    Args:
        base_commit: Id of the base commit; None for the empty tree.
        patch: The patch on top.
        source: A folder in the work tree of a repository that may have the base commit. Its objects are borrowed.
        scratch: A folder for the store; a second call with the same folder and source adds to the same store.
        object_format: How objects are named; by default as ``source`` does.
        remotes: Remotes that may have the base commit.
        bundle: The bundle or pack that was kept with the run.

    Returns:
        The git folder to pass to git, and the id of the tree.

    Raises:
        RestoreError: The base commit is nowhere to be had, or the patch does not apply.
    """
    if object_format is None:
        object_format = "sha1" if source is None else _git.find_repository(source).object_format
    part = RepositoryCode(
        base_commit=base_commit,
        tree=_git.empty_tree(object_format),
        patch=patch,
        object_format=object_format,
        remotes=remotes or {},
        kept=() if bundle is None else (KeptFile.of(bundle),),
    )
    check_parts((part,))
    git_dir = scratch / "git"
    if not git_dir.exists():
        _git.make_git_dir(git_dir, object_format=object_format, borrow=None)
    supply(part, look_around((part,), () if source is None else (source,)), git_dir=git_dir)
    return git_dir, _apply(part, git_dir=git_dir)


def write_into_worktree(
    worktree: Path, *, base_commit: str | None, tree: str, patch: bytes, store: Path | None = None
) -> tuple[str, ...]:
    """Write a snapshot over a clean checkout of its base commit, in the user's own repository; the index stays.

    Every file whose bytes or mode on disk are not the snapshot's is written raw, so that the result is exact whatever
    line ending conversion or filter the repository sets up.

    Args:
        worktree: Root of the work tree. HEAD stands at the base commit and no tracked file is modified.
        base_commit: Id of the snapshot's base commit.
        tree: Id of the snapshot's tree.
        patch: The snapshot's patch.
        store: A git folder in which the tree is built already, as ``build`` returns it.

    Returns:
        The paths that were written or deleted, sorted by their bytes (surrogate escapes where they are not UTF-8).

    Raises:
        RestoreError: the tree is another one than recorded, something that is not of the base commit is in the way
            (nothing was written in these two cases), or what was written does not read back.
    """
    repository = _git.find_repository(worktree)
    with tempfile.TemporaryDirectory(prefix="rlab-restore-") as scratch:
        git_dir = store
        if git_dir is None:
            git_dir, found = tree_of(base_commit, patch, source=worktree, scratch=Path(scratch))
            _check_tree(found, RepositoryCode(base_commit, tree))
        base = {} if base_commit is None else _git.list_tree(base_commit, git_dir=git_dir)
        target = _git.list_tree(tree, git_dir=git_dir)
        skipped = _git.list_files(repository.top).skipped
        # What a sparse checkout leaves out and the patch does not touch stays out.
        target = {path: entry for path, entry in target.items() if path not in skipped or base.get(path) != entry}
        disk = WorkTree(repository.top, repository.object_format)
        wrong = set(disk.differences(target))
        gone = base.keys() - target.keys() - skipped
        check_free(disk, repository.top, wrong, base.keys(), gone)
        with _as_restore_error(f"The snapshot could not be written to {repository.top}; it may be there in part."):
            for path in sorted(gone, reverse=True):
                remove_file(disk, repository.top, path)
            write_files(repository.top, {path: target[path] for path in sorted(wrong)}, git_dir)
        disk = WorkTree(repository.top, repository.object_format)
        still_there = [path for path in gone if is_file(disk.status(path))]
        _check_written([*disk.differences(target), *still_there], repository.top)
    return tuple(_text(path) for path in sorted(wrong | gone))


@contextlib.contextmanager
def _empty_folder(into: Path) -> Generator[Path]:
    """Give the resolved folder, and leave it as empty as it was where the block fails."""
    top = into.resolve()
    existed = top.exists()
    if existed and (not top.is_dir() or any(top.iterdir())):
        message = f"A snapshot is restored into an empty folder, and {top} is not one. Name another folder."
        raise RestoreError(message)
    top.mkdir(parents=True, exist_ok=True)
    try:
        yield top
    except BaseException:
        for entry in top.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        if not existed:
            top.rmdir()
        raise


@contextlib.contextmanager
def _as_restore_error(what: str) -> Generator[None]:
    try:
        yield
    except RestoreError:
        raise
    except (GitError, OSError) as error:
        message = f"{what} {error}"
        raise RestoreError(message) from error


def _build(part: RepositoryCode, around: Surroundings, git_dir: Path, *, history: bool = False) -> str | None:
    """Make the tree of a repository in its store and prove it; return where the base commit was brought from."""
    came_from = supply(part, around, git_dir=git_dir, history=history)
    _check_tree(_apply(part, git_dir=git_dir), part)
    return came_from


def _apply(part: RepositoryCode, *, git_dir: Path) -> str:
    """Fill the index with base commit and patch and return the id of its tree. No file of a work tree is touched."""
    with _as_restore_error(f"{part.base[0].upper()}{part.base[1:]} cannot be read whole."):
        _git.run_git(("read-tree", part.base_commit or "--empty"), git_dir=git_dir, isolated=True)
    if part.patch:
        args = ("apply", "--cached", "--binary", "--whitespace=nowarn", "-p1", "-")
        result = _git.call_git(args, git_dir=git_dir, stdin=part.patch, isolated=True)
        if result.returncode != 0:
            said = result.stderr.decode(errors="backslashreplace").strip()
            size = len(part.patch)
            why = "does not apply to {}: damaged, or another run's"
            if _NO_ROOM.search(said):
                why = "was not applied to {}"
            message = f"The patch ({size} bytes) {why.format(part.base)}.\n{said}"
            raise RestoreError(message)
    with _as_restore_error(f"The tree of {part.base} and its patch cannot be built."):
        return _git.run_git(("write-tree",), git_dir=git_dir, isolated=True).decode().strip()


def _check_tree(found: str, part: RepositoryCode) -> None:
    if found != part.tree:
        field = "snapshot.tree" if not part.path else f"tree of {printable(part.path)} in snapshot.nested"
        message = (
            f"{part.base[0].upper()}{part.base[1:]} and its patch give the tree {found}, and the tree {part.tree} was "
            "recorded. The patch or the record was altered: nothing was written. Restore the run's artifacts from a "
            f"backup. If the patch was changed on purpose, write {found} as {field} into rlab/record.json."
        )
        raise RestoreError(message)


def _check_places(parts: Sequence[RepositoryCode], git_dirs: Sequence[Path]) -> None:
    """Refuse a repository inside where the tree of the one around it has something else."""
    if len(parts) == 1:
        return
    trees = {
        part.path: _git.list_tree(part.tree, git_dir=git_dir) for part, git_dir in zip(parts, git_dirs, strict=True)
    }
    for number, part in enumerate(parts[1:], start=1):
        outer = enclosing(part, parts[:number])
        check_place(part, outer, trees[outer.path])


def _write_repository(place: Path, part: RepositoryCode) -> None:
    """Write the files of a repository whose index holds its tree, read them back, and go to the base."""
    _checkout(place)
    target = _git.list_tree(part.tree, git_dir=place / ".git")
    added = set(files_below(place, skip=(b".git",))) - target.keys()
    _check_written([*WorkTree(place, part.object_format).differences(target), *added], place)
    _point_head(place, part.base_commit, part.branch)


def _check_written(wrong: Iterable[bytes], top: Path) -> None:
    names = sorted({_text(path) for path in wrong})
    if names:
        message = f"{len(names)} files in {top} are not what the snapshot holds after they were written: {some(names)}"
        raise RestoreError(message)


def _checkout(top: Path) -> None:
    """Write every file of the index to the empty work tree at ``top``."""
    _git.run_git(("checkout-index", "--all", "--force", "--quiet"), cwd=top, isolated=True)


def _point_head(top: Path, base_commit: str | None, branch: str | None) -> None:
    """Put HEAD and index at the base commit."""
    if branch is not None:
        _git.run_git(("check-ref-format", f"refs/heads/{branch}"), cwd=top, isolated=True)
        _git.run_git(("symbolic-ref", "HEAD", f"refs/heads/{branch}"), cwd=top, isolated=True)
    if base_commit is None:
        _git.run_git(("read-tree", "--empty"), cwd=top, isolated=True)
        return
    how = ("--no-deref",) if branch is None else ()
    _git.run_git(("update-ref", *how, "HEAD", base_commit), cwd=top, isolated=True)
    _git.run_git(("reset", "--quiet", "--mixed"), cwd=top, isolated=True)


def _write_config(config: Path, remotes: Mapping[str, str]) -> None:
    with config.open("a", encoding="utf-8", errors="surrogateescape") as file:
        # Every submodule that is there counts as set up.
        file.write("[submodule]\n\tactive = .\n")
        for name, url in remotes.items():
            file.write(f"[remote {_git.quote_config(name)}]\n\turl = {_git.quote_config(url)}\n")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


__all__ = ["build", "restore", "restore_parts", "tree_of", "write_into_worktree"]
