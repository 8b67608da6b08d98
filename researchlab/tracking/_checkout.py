"""How does the user's own checkout become the code of a run, or stay exactly as it was?

The one place that changes a work tree of the user. It refuses to start where work would be mixed or lost, and takes
everything back when something fails on the way.
"""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git, restore
from researchlab.tracking._interrupts import held_signals
from researchlab.tracking._worktree import GITLINK, WorkTree
from researchlab.tracking.record import PATCH_FILE
from researchlab.tracking.store import default_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from researchlab.tracking._git import Repository
    from researchlab.tracking._recorded_code import RecordedCode

BRANCH_FOLDER = "experiment/"
_NAMED = 5


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """What a checkout has become.

    Attributes:
        branch: The new branch, which is checked out.
        base_commit: Id of the commit that it stands on.
        changed: Number of paths that differ from the base commit, uncommitted as they were in the run.
        submodules: Submodules that are not at the commit that the run had; they were not touched.
        way_back: The command that leaves the branch again and keeps everything.
    """

    branch: str
    base_commit: str
    changed: int
    submodules: tuple[str, ...]
    way_back: str


def check_out(code: RecordedCode, *, repo: Path, own: Sequence[Path] = ()) -> CheckedOut:
    """Put the checkout on a new branch ``experiment/RUN``, with the run's changes in the work tree.

    HEAD and index stand at the base commit: what was modified or untracked in the run is so again. Ignored files stay.
    On a failure, Ctrl-C and SIGTERM included, the checkout goes back to where it was, and the branch is deleted.

    Args:
        code: The code of the run.
        repo: A folder in the work tree.
        own: Files and folders of the MLflow store in use, which are not work of the user. The default store is known.

    Returns:
        What was done.

    Raises:
        RestoreError: There is uncommitted work, the branch exists, the code cannot be brought back here, or something
            is in the way. The checkout is as it was.
        NotARepositoryError: ``repo`` is in no work tree.
        GitError: git failed.
    """
    repository = _git.find_repository(repo)
    base = _base_commit(code, repository)
    branch = BRANCH_FOLDER + code.run_id
    if _has_branch(repository, branch):
        message = (
            f"The branch {branch} exists already. Continue there with `git switch {branch}`, "
            f"or delete it and restore again: rlab delete {code.run_id}"
        )
        raise RestoreError(message)
    _refuse_uncommitted(repository, code.run_id, own)
    with tempfile.TemporaryDirectory(prefix="rlab-restore-") as scratch:
        git_dir = code.build(repository, Path(scratch))
        base_files = _git.list_tree(base, git_dir=git_dir)
        files = base_files.keys() | _git.list_tree(code.snapshot.tree, git_dir=git_dir).keys()
        way_back = _WayBack(repository, branch, files, own=own)
    with held_signals() as held:
        try:
            _switch(repository, base, "--no-overwrite-ignore", "--no-track", "-c", branch, base)
            held.obey()
            restore.write_into_worktree(repository.top, base_commit=base, tree=code.snapshot.tree, patch=code.patch)
            held.obey()
        except BaseException as error:
            way_back.go(because=error)
            raise
    linked = {path: oid for path, (mode, oid) in base_files.items() if mode == GITLINK}
    return CheckedOut(
        branch=branch,
        base_commit=base,
        changed=len(code.snapshot.changed),
        submodules=tuple(sorted(_text(path) for path, oid in linked.items() if not _is_at(repository, path, oid))),
        way_back=_leave_command(_git.find_repository(repository.top), own),
    )


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


def _leave_command(repository: Repository, own: Sequence[Path] = ()) -> str:
    """Return the command that leaves this branch for the former place and keeps uncommitted work in a stash."""
    go = switch_back_command(repository)
    return f"{stash_command(repository, own)} && {go}" if uncommitted(repository, own) else go


def switch_back_command(repository: Repository) -> str:
    """Return the command that leaves this branch for the former place."""
    question = ("rev-parse", "--verify", "--quiet")
    branch = _git.call_git((*question, "--symbolic-full-name", "@{-1}"), cwd=repository.top).stdout
    if branch.startswith(b"refs/heads/"):
        return "git switch -"
    commit = _git.call_git((*question, "@{-1}"), cwd=repository.top).stdout.decode().strip()
    return f"git switch --detach {commit}" if commit else "git switch <another branch>"


def stash_command(repository: Repository, own: Sequence[Path] = ()) -> str:
    """Return the command that stashes all uncommitted work, untracked files too, but never the MLflow store."""
    files = _git.list_files(repository.top).files
    words = ["git", "stash", "push", "--include-untracked"]
    spared = [ours for ours in _store_paths(repository, own) if any(_is_at_or_below(path, ours) for path in files)]
    if spared:
        words += ["--", ":/", *(f":(top,exclude,literal){_text(ours)}" for ours in spared)]
    return shlex.join(words)


class _WayBack:
    """Where the checkout was, and what has to be removed to be there again.

    Made before anything changes: a path of the run's code that is not of the present commit and not on disk is one that
    only the restoration can bring.
    """

    def __init__(self, repository: Repository, branch: str, paths: Iterable[bytes], *, own: Sequence[Path]) -> None:
        assert repository.head is not None
        self._repository = repository
        self._branch = branch
        self._own = own
        self._former = ("--no-guess", repository.branch) if repository.branch else ("--detach", repository.head)
        disk = WorkTree(repository.top, repository.object_format)
        tracked = _git.list_tree(repository.head, git_dir=repository.git_dir).keys()
        self._files = sorted(path for path in set(paths) - tracked if disk.status(path) is None)
        parents = {parent for path in self._files for parent in _parents(path)}
        self._folders = sorted((path for path in parents if disk.status(path) is None), reverse=True)

    def go(self, *, because: BaseException) -> None:
        """Put everything back.

        Raises:
            RestoreError: That failed, too; it says what to type.
        """
        if self._is_there():
            return
        repository = self._repository
        trouble: object = "the work tree is not what it was."
        try:
            self._remove_files()
            _switch(repository, repository.head or "", "--discard-changes", *self._former)
            if _has_branch(repository, self._branch):
                _git.run_git(("branch", "--quiet", "-D", self._branch), cwd=repository.top)
            for folder in self._folders:
                _remove_empty_folder(repository.top / os.fsdecode(folder))
            if self._is_there():
                return
        except (GitError, OSError) as error:
            trouble = error
        back = shlex.join(["git", "switch", "--discard-changes", *self._former])
        message = (
            f"{because or type(because).__name__}\nGoing back to where {repository.top} was failed as well: {trouble}\n"
            "Nothing of yours is lost: it was all committed. "
            f"Look at `git status`, then: {back} && git branch -D {self._branch}"
        )
        raise RestoreError(message) from because

    def _is_there(self) -> bool:
        now = _git.find_repository(self._repository.top)
        return (
            (now.head, now.branch) == (self._repository.head, self._repository.branch)
            and not _has_branch(now, self._branch)
            and not self._present()
            and not uncommitted(now, self._own)
        )

    def _present(self) -> list[Path]:
        """Return the files that the restoration brought and that are still there."""
        disk = WorkTree(self._repository.top, self._repository.object_format)
        status = {path: disk.status(path) for path in self._files}
        return [
            Path(os.fsdecode(disk.place(path)))
            for path, found in status.items()
            if found is not None and not stat.S_ISDIR(found.st_mode)
        ]

    def _remove_files(self) -> None:
        for place in self._present():
            place.unlink()


def _base_commit(code: RecordedCode, repository: Repository) -> str:
    base = code.snapshot.base_commit
    if base is None:
        message = (
            f"The run '{code.run_id}' was tracked before its repository had a commit: there is none that a branch "
            "could start from. Its code is the patch alone; in an empty folder:\n"
            f"  mlflow artifacts download --run-id {code.mlflow_run_id} --artifact-path {PATCH_FILE} --dst-path . "
            f"&& git init && git apply {PATCH_FILE}"
        )
        raise RestoreError(message)
    if repository.head is None:
        message = f"{repository.top} has no commit yet, so that there would be no way back. Commit first."
        raise RestoreError(message)
    return base


def _refuse_uncommitted(repository: Repository, run_id: str, own: Sequence[Path]) -> None:
    paths = uncommitted(repository, own)
    if not paths:
        return
    shown = "".join(f"\n  {_printable(path)}" for path in paths[:_NAMED])
    more = f"\n  and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    message = (
        f"{repository.top} has uncommitted work, which must not be mixed with the code of '{run_id}':{shown}{more}\n"
        f"Commit it, or put it aside and try again: {stash_command(repository, own)}"
    )
    raise RestoreError(message)


def _modified(repository: Repository) -> frozenset[bytes]:
    """Return the tracked files that differ from HEAD as git sees it, read anew into an index of our own."""
    with tempfile.TemporaryDirectory(prefix="rlab-index-") as scratch:
        env = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        _git.run_git(("read-tree", repository.head or "--empty"), cwd=repository.top, env=env)
        _git.call_git(("update-index", "-q", "--refresh"), cwd=repository.top, env=env)
        names = _git.run_git(("diff-files", "--name-only", "-z"), cwd=repository.top, env=env)
    return frozenset(names.split(b"\0")[:-1])


def _switch(repository: Repository, commit: str, *args: str) -> None:
    # The fixed date of our git calls would let `git gc` prune the reflog entries that `git switch -` needs.
    env = {"GIT_COMMITTER_DATE": f"@{int(time.time())} {time.strftime('%z')}"}
    result = _git.call_git(("switch", "--quiet", *args), cwd=repository.top, env=env)
    if result.returncode != 0:
        said = result.stderr.decode(errors="backslashreplace").strip()
        message = f"The commit {commit[:12]} cannot be checked out in {repository.top}. git says:\n{said}"
        raise RestoreError(message)


def _has_branch(repository: Repository, branch: str) -> bool:
    args = ("show-ref", "--verify", "--quiet", f"refs/heads/{branch}")
    return _git.call_git(args, cwd=repository.top).returncode == 0


def _is_at(repository: Repository, path: bytes, commit: str) -> bool:
    place = repository.top / os.fsdecode(path)
    if not (place / ".git").exists():
        return False
    try:
        return _git.find_repository(place).head == commit
    except GitError:
        return False


def _remove_empty_folder(place: Path) -> None:
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


def _store_paths(repository: Repository, own: Sequence[Path]) -> list[bytes]:
    """Return where in the work tree an MLflow store is or may be."""
    root = repository.top.resolve()
    places = sorted({path.parent.resolve() / path.name for path in (*default_files(repository.top), *own)})
    return [os.fsencode(place.relative_to(root)) for place in places if place.is_relative_to(root)]


def _is_at_or_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder + b"/")


def _printable(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
