"""How does a checkout go to another commit, and back to exactly where it was?"""

from __future__ import annotations

import os
import shlex
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git
from researchlab.tracking._capture._worktree import WorkTree
from researchlab.tracking._checkouts._journal import Former
from researchlab.tracking._checkouts._uncommitted import uncommitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from researchlab.tracking._git import Repository


class WayBack:
    """Where the checkout of one repository was, and what has to be removed to be there again.

    Attributes:
        former: The same in words that can be written down.
    """

    def __init__(self, repository: Repository, former: Former, branch: str | None, *, own: Sequence[Path]) -> None:
        """Take the way back to where a repository was.

        Args:
            repository: The repository, as it was or as it is.
            former: Where it was.
            branch: The branch that the restoration makes, if it makes one.
            own: Files and folders of the MLflow store in use.
        """
        self.former = former
        self._repository = repository
        self._branch = branch
        self._own = own
        self._former = ("--no-guess", former.branch) if former.branch else ("--detach", former.head)
        self._files = [os.fsencode(path) for path in former.files]

    @classmethod
    def planned(
        cls, repository: Repository, branch: str | None, paths: Iterable[bytes], *, own: Sequence[Path]
    ) -> WayBack:
        """Find the way back before anything changes.

        A path of the run's code that is not of the present commit and not on disk is one that only the restoration can
        bring.
        """
        assert repository.head is not None
        disk = WorkTree(repository.top, repository.object_format)
        tracked = _git.list_tree(repository.head, git_dir=repository.git_dir).keys()
        files = sorted(path for path in set(paths) - tracked if disk.status(path) is None)
        parents = {parent for path in files for parent in _parents(path)}
        folders = sorted((path for path in parents if disk.status(path) is None), reverse=True)
        former = Former(
            top=str(repository.top),
            head=repository.head,
            branch=repository.branch,
            files=tuple(map(os.fsdecode, files)),
            folders=tuple(map(os.fsdecode, folders)),
        )
        return cls(repository, former, branch, own=own)

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
            switch(repository, self.former.head, "--discard-changes", *self._former)
            if self._branch is not None and has_branch(repository, self._branch):
                _git.run_git(("branch", "--quiet", "-D", self._branch), cwd=repository.top)
            for folder in self.former.folders:
                _remove_empty_folder(repository.top / folder)
            if self._is_there():
                return
        except (GitError, OSError) as error:
            trouble = error
        back = shlex.join(["git", "switch", "--discard-changes", *self._former])
        message = (
            f"{because or type(because).__name__}\nGoing back to where {repository.top} was failed as well: {trouble}\n"
            "Nothing of yours is lost: it was all committed. "
            f"Look at `git status`, then: {back}" + (f" && git branch -D {self._branch}" if self._branch else "")
        )
        raise RestoreError(message) from because

    def _is_there(self) -> bool:
        now = _git.find_repository(self._repository.top)
        return (
            (now.head, now.branch) == (self.former.head, self.former.branch)
            and not (self._branch is not None and has_branch(now, self._branch))
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


def switch(repository: Repository, commit: str, *args: str) -> None:
    """Go to another commit without running a hook."""
    # The fixed date of our git calls would let `git gc` prune the reflog entries that `git switch -` needs.
    result = _git.call_git(("switch", "--quiet", *args), cwd=repository.top, env=dated_now())
    if result.returncode != 0:
        said = result.stderr.decode(errors="backslashreplace").strip()
        message = f"The commit {commit[:12]} cannot be checked out in {repository.top}. git says:\n{said}"
        raise RestoreError(message)


def has_branch(repository: Repository, branch: str) -> bool:
    """Return whether there is a branch of this name."""
    args = ("show-ref", "--verify", "--quiet", f"refs/heads/{branch}")
    return _git.call_git(args, cwd=repository.top).returncode == 0


def own_commits(branch: str, repository: Repository) -> int:
    """Return how many commits of a branch are on no other branch, remote or tag."""
    others = (f"--exclude={branch}", "--branches", "--remotes", "--tags")
    count = _git.run_git(("rev-list", "--count", f"refs/heads/{branch}", "--not", *others), cwd=repository.top)
    return int(count)


def dated_now() -> dict[str, str]:
    """Return the environment that dates what git writes, instead of the fixed date of our git calls."""
    return {"GIT_COMMITTER_DATE": f"@{int(time.time())} {time.strftime('%z')}"}


def _remove_empty_folder(place: Path) -> None:
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]
