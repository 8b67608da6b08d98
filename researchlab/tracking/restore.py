"""How does a snapshot come back, to the byte?

Base commit and patch become a tree in a store that borrows the objects of a source repository; the tree's id must be
the recorded one before a single file is written, and every file is read back and hashed after.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git
from researchlab.tracking._worktree import EXECUTABLE, SYMLINK, WorkTree, files_below

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from researchlab.tracking._git import Entry, ObjectFormat, Repository

_NAMED = 5
_CHUNK = 1 << 20


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

    HEAD and index stand at the base commit, so that ``git status`` shows the changes that the patch brought. Objects
    are borrowed from ``source``: keep it while the restored repository is in use. No reference, work tree entry, index
    or file of ``source`` changes; git may renew the time stamp of object files that the snapshot uses.

    Args:
        into: An empty folder, or one that does not exist yet.
        base_commit: Id of the snapshot's base commit; None where there was none.
        tree: Id of the snapshot's tree.
        patch: The snapshot's patch.
        source: A folder in the work tree of a repository that has the base commit.
        object_format: How the snapshot's repository names objects.
        branch: Branch to stand on; None for a detached HEAD.
        remotes: Remotes that the snapshot recorded. They become the remotes of the restored repository, and the message
            names them where the base commit is missing.

    Returns:
        ``into``, resolved.

    Raises:
        RestoreError: the base commit is not in ``source``, the patch does not apply, the tree is another one than
            recorded, or what was written does not read back. ``into`` is left as it was.
        NotARepositoryError: ``source`` is in no work tree.
    """
    borrowed = _git.find_repository(source)
    _check_base(base_commit, borrowed, object_format, remotes or {})
    with _empty_folder(into) as top:
        git_dir = top / ".git"
        _git.make_git_dir(git_dir, object_format=object_format, borrow=borrowed.objects, bare=False)
        _write_remotes(git_dir / "config", remotes or {})
        found = _apply(base_commit, patch, git_dir=git_dir)
        _check_tree(found, tree, base_commit)
        with _as_restore_error(f"The snapshot could not be written to {top}."):
            _checkout(top)
            target = _git.list_tree(tree, git_dir=git_dir)
            added = set(files_below(top, skip=(b".git",))) - target.keys()
            _check_written([*WorkTree(top, object_format).differences(target), *added], top)
            _point_head(top, base_commit, branch)
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
    _check_base(base_commit, repository, repository.object_format, repository.remotes)
    git_dir = scratch / "git"
    if not git_dir.exists():
        _git.make_git_dir(git_dir, object_format=repository.object_format, borrow=repository.objects)
    return git_dir, _apply(base_commit, patch, git_dir=git_dir)


def write_into_worktree(worktree: Path, *, base_commit: str | None, tree: str, patch: bytes) -> tuple[str, ...]:
    """Write a snapshot over a clean checkout of its base commit, in the user's own repository; the index stays.

    Every file whose bytes or mode on disk are not the snapshot's is written raw, so that the result is exact whatever
    line ending conversion or filter the repository sets up.

    Args:
        worktree: Root of the work tree. HEAD stands at the base commit and no tracked file is modified.
        base_commit: Id of the snapshot's base commit.
        tree: Id of the snapshot's tree.
        patch: The snapshot's patch.

    Returns:
        The paths that were written or deleted, sorted by their bytes (surrogate escapes where they are not UTF-8).

    Raises:
        RestoreError: the tree is another one than recorded, something that is not of the base commit is in the way
            (nothing was written in these two cases), or what was written does not read back.
    """
    repository = _git.find_repository(worktree)
    with tempfile.TemporaryDirectory(prefix="rlab-restore-") as scratch:
        git_dir, found = tree_of(base_commit, patch, source=worktree, scratch=Path(scratch))
        _check_tree(found, tree, base_commit)
        base = {} if base_commit is None else _git.list_tree(base_commit, git_dir=git_dir)
        target = _git.list_tree(tree, git_dir=git_dir)
        skipped = _git.list_files(repository.top).skipped
        # What a sparse checkout leaves out and the patch does not touch stays out.
        target = {path: entry for path, entry in target.items() if path not in skipped or base.get(path) != entry}
        disk = WorkTree(repository.top, repository.object_format)
        wrong = set(disk.differences(target))
        gone = base.keys() - target.keys() - skipped
        _check_free(disk, repository.top, wrong, base.keys(), gone)
        with _as_restore_error(f"The snapshot could not be written to {repository.top}; it may be there in part."):
            for path in sorted(gone, reverse=True):
                _remove(disk, repository.top, path)
            _write(repository.top, {path: target[path] for path in sorted(wrong)}, git_dir)
        disk = WorkTree(repository.top, repository.object_format)
        still_there = [path for path in gone if _is_file(disk.status(path))]
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


def _check_base(
    base_commit: str | None,
    repository: Repository,
    object_format: ObjectFormat,
    remotes: Mapping[str, str],
) -> None:
    """Make sure that the base commit can be read from ``repository``."""
    if repository.object_format != object_format:
        message = (
            f"The snapshot was taken in a repository that names objects by {object_format}; "
            f"{repository.top} uses {repository.object_format}, so that it cannot hold the base commit."
        )
        raise RestoreError(message)
    if base_commit is None:
        return
    if re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", base_commit) is None:
        message = f"The recorded base commit is not the id of a commit: {base_commit!r}. The record is damaged."
        raise RestoreError(message)
    kind = _git.call_git(("cat-file", "-t", base_commit), git_dir=repository.git_dir, isolated=True)
    if kind.stdout == b"commit\n":
        return
    here = f"git -C {shlex.quote(str(repository.top))} fetch"
    commands = [
        f"  {here} {shlex.quote(name if repository.remotes.get(name) == url else url)} {base_commit}"
        for name, url in remotes.items()
    ]
    advice = (
        "Fetch it from a remote that was recorded, and try again:"
        if commands
        else f"No remote was recorded. Fetch it from a clone that has it:\n  {here} <clone> {base_commit}"
    )
    raise RestoreError("\n".join([f"The base commit {base_commit} is not in {repository.top}. {advice}", *commands]))


def _apply(base_commit: str | None, patch: bytes, *, git_dir: Path) -> str:
    """Fill the index with base commit and patch and return the id of its tree. No file of a work tree is touched."""
    base = base_commit or "the empty tree"
    with _as_restore_error(f"Base commit {base} cannot be read whole."):
        _git.run_git(("read-tree", base_commit or "--empty"), git_dir=git_dir, isolated=True)
    if patch:
        args = ("apply", "--cached", "--binary", "--whitespace=nowarn", "-p1", "-")
        result = _git.call_git(args, git_dir=git_dir, stdin=patch, isolated=True)
        if result.returncode != 0:
            said = result.stderr.decode(errors="backslashreplace").strip()
            message = f"The patch ({len(patch)} bytes) does not apply to {base}: damaged, or another run's.\n{said}"
            raise RestoreError(message)
    with _as_restore_error(f"The tree of {base} and its patch cannot be built."):
        return _git.run_git(("write-tree",), git_dir=git_dir, isolated=True).decode().strip()


def _check_tree(found: str, tree: str, base_commit: str | None) -> None:
    if found != tree:
        message = (
            f"Base commit {base_commit or '(none)'} and patch give the tree {found}, and the tree {tree} was recorded. "
            "The patch or the record was altered: nothing was written. Restore the run's artifacts from a backup. "
            f"If the patch was changed on purpose, write {found} as snapshot.tree into rlab/record.json."
        )
        raise RestoreError(message)


def _check_written(wrong: Iterable[bytes], top: Path) -> None:
    names = sorted({_text(path) for path in wrong})
    if names:
        message = f"{len(names)} files in {top} are not what the snapshot holds after they were written: {_some(names)}"
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


def _write_remotes(config: Path, remotes: Mapping[str, str]) -> None:
    with config.open("a", encoding="utf-8", errors="surrogateescape") as file:
        for name, url in remotes.items():
            file.write(f"[remote {_git.quote_config(name)}]\n\turl = {_git.quote_config(url)}\n")


def _check_free(
    disk: WorkTree, top: Path, wrong: AbstractSet[bytes], known: AbstractSet[bytes], gone: AbstractSet[bytes]
) -> None:
    """Refuse to write over anything that the base commit does not hold."""
    obstacles: set[bytes] = set()
    for path in wrong:
        parent = path.rpartition(b"/")[0]
        while parent:
            if _is_file(disk.status(parent)) and parent not in gone:
                obstacles.add(parent)
            parent = parent.rpartition(b"/")[0]
        status = disk.status(path)
        if _is_file(status):
            if path not in known:
                obstacles.add(path)
        elif status is not None:
            below = (path + b"/" + name for name in files_below(os.fsdecode(disk.place(path))))
            obstacles.update(name for name in below if name not in gone)
    if obstacles:
        names = sorted(_text(path) for path in obstacles)
        message = (
            f"{len(names)} files in {top} are in the way of the snapshot and not of its base commit: {_some(names)}. "
            "Nothing was written. Move them away and try again."
        )
        raise RestoreError(message)


def _remove(disk: WorkTree, top: Path, path: bytes) -> None:
    """Delete a file, and the folders that it leaves empty."""
    status = disk.status(path)
    if status is None:
        return
    place = Path(os.fsdecode(disk.place(path)))
    if _is_file(status):
        place.unlink()
        place = place.parent
    with contextlib.suppress(OSError):
        while place != top:
            place.rmdir()
            place = place.parent


def _write(top: Path, entries: Mapping[bytes, Entry], git_dir: Path) -> None:
    """Write blobs raw, each whole or not at all."""
    with _git.stream_git(("cat-file", "--batch"), git_dir=git_dir) as pipes:
        for path, (mode, oid) in entries.items():
            pipes.stdin.write(oid.encode() + b"\n")
            pipes.stdin.flush()
            header = pipes.stdout.readline().split()
            if len(header) != 3:  # noqa: PLR2004 - id, type and size, or that it is missing
                message = f"The content {oid} of {_some([_text(path)])} is missing."
                raise RestoreError(message)
            place = top / os.fsdecode(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            draft = place.with_name(f".rlab-{oid}")
            try:
                _write_draft(draft, mode, pipes.stdout, int(header[2]))
                pipes.stdout.read(1)
                _remove_empty_folders(place)
                draft.replace(place)
            finally:
                draft.unlink(missing_ok=True)


def _write_draft(draft: Path, mode: bytes, content: IO[bytes], size: int) -> None:
    if mode == SYMLINK:
        draft.symlink_to(os.fsdecode(content.read(size)))
        return
    permissions = 0o777 if mode == EXECUTABLE else 0o666
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, permissions), "wb") as file:
        while size:
            chunk = content.read(min(size, _CHUNK))
            if not chunk:
                message = "git ended in the middle of a file."
                raise RestoreError(message)
            size -= file.write(chunk)


def _remove_empty_folders(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        for folder, _, _ in os.walk(place, topdown=False):
            Path(folder).rmdir()


def _is_file(status: os.stat_result | None) -> bool:
    return status is not None and not stat.S_ISDIR(status.st_mode)


def _some(names: list[str]) -> str:
    shown = ", ".join(name.encode(errors="backslashreplace").decode() for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


__all__ = ["restore", "tree_of", "write_into_worktree"]
