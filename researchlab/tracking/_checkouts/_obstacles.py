"""What stands in the way of a restoration before it starts, and what can be done about it?"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from researchlab.errors import RestoreError
from researchlab.tracking import _git
from researchlab.tracking._checkouts._uncommitted import stash_command, uncommitted
from researchlab.tracking._checkouts._way_back import has_branch, own_commits
from researchlab.tracking._restoring._parts import printable
from researchlab.tracking.record import PATCH_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from researchlab.tracking._git import Repository
    from researchlab.tracking._restoring._recorded_code import RecordedCode

_NAMED = 5

# What git leaves in its folder while something goes on, and the commands that finish and abort it. A rebase picks
# commits: it is asked for first.
_OPERATIONS = (
    ("rebase-merge", "rebase", "git rebase --continue", "git rebase --abort"),
    ("rebase-apply/applying", "`git am`", "git am --continue", "git am --abort"),
    ("rebase-apply", "rebase", "git rebase --continue", "git rebase --abort"),
    ("MERGE_HEAD", "merge", "git merge --continue", "git merge --abort"),
    ("CHERRY_PICK_HEAD", "cherry-pick", "git cherry-pick --continue", "git cherry-pick --abort"),
    ("REVERT_HEAD", "revert", "git revert --continue", "git revert --abort"),
    ("BISECT_LOG", "bisection", "git bisect reset", None),
)


def base_commit_of(code: RecordedCode, repository: Repository, *, in_place: bool) -> str:
    """Return the commit that the branch starts at.

    Raises:
        RestoreError: The run has none, or there is none to come back to.
    """
    base = code.snapshot.base_commit
    if base is None:
        message = (
            f"The run '{code.run_id}' was tracked before its repository had a commit: there is none that a branch or a "
            "work tree could start from. Its code is the patch alone; in an empty folder:\n"
            f"  MLFLOW_TRACKING_URI={shlex.quote(code.store)} mlflow artifacts download --run-id {code.mlflow_run_id} "
            f"--artifact-path {PATCH_FILE} --dst-path . && git init && git apply {PATCH_FILE}"
        )
        raise RestoreError(message)
    if repository.head is None and in_place:
        message = (
            f"{repository.top} has no commit yet, so that there would be no way back. Commit first, or name another "
            "folder for the code with --worktree."
        )
        raise RestoreError(message)
    return base


def refuse_existing(branch: str, code: RecordedCode, repository: Repository, *, worktree: Path | None) -> None:
    """Refuse to restore a run whose branch is there.

    Raises:
        RestoreError: It is; how one goes on there, and how one starts afresh.
    """
    if not has_branch(repository, branch):
        return
    question = ("for-each-ref", "--format=%(worktreepath)", f"refs/heads/{branch}")
    place = os.fsdecode(_git.run_git(question, cwd=repository.top).rstrip(b"\n"))
    here = shlex.join(["git", "-C", str(repository.top)])
    if place:
        advice = f"It is checked out in {place}: go on there."
    else:
        go = f"git switch {branch}"
        if worktree is not None:
            go = f"{here} worktree add {shlex.quote(str(worktree.resolve()))} {branch}"
        advice = (
            f"To go on there: {go}\nThe edits of the run are where you left them: `git stash list` has those that the "
            "printed way back put aside."
        )
    number = own_commits(branch, repository)
    again = f"rlab delete {code.run_id}"
    if number and repository_commit(branch, repository) == code.snapshot.base_commit and code.snapshot.bundle:
        again += " --force (its commits are on no other branch, and stored with the run)"
    elif number:
        count = "1 commit" if number == 1 else f"{number} commits"
        again += f" --force (it has {count} on no other branch, which are lost then)"
    message = (
        f"The branch {branch} exists already: the run was restored before. {advice}\n"
        f"To restore it afresh, leave that branch, delete it, and try again: {again}"
    )
    raise RestoreError(message)


def repository_commit(branch: str, repository: Repository) -> str:
    """Return the commit that a branch stands on."""
    return _git.run_git(("rev-parse", "--verify", f"refs/heads/{branch}"), cwd=repository.top).decode().strip()


def refuse_operation(repository: Repository, run_id: str) -> None:
    """Refuse to switch away from a merge, a rebase or the like, which git would refuse as well.

    Raises:
        RestoreError: One is in progress.
    """
    advice = operation_in(repository)
    if advice is not None:
        message = f"{advice}\n{_elsewhere(run_id)}"
        raise RestoreError(message)


def operation_in(repository: Repository) -> str | None:
    """Return what git is in the middle of in a work tree and how it is ended, or None."""
    for mark, name, finish, abort in _OPERATIONS:
        if os.path.lexists(repository.git_dir / mark):
            ways = f"End it ({finish})" if abort is None else f"Finish it ({finish}) or give it up ({abort})"
            return f"{repository.top} is in the middle of a {name}. {ways}, and try again."
    return None


def refuse_uncommitted(repository: Repository, run_id: str, own: Sequence[Path]) -> None:
    """Refuse to mix the code of a run with what is in no commit.

    Raises:
        RestoreError: There is such work.
    """
    paths = uncommitted(repository, own)
    if not paths:
        return
    shown = "".join(f"\n  {printable(path)}" for path in paths[:_NAMED])
    more = f"\n  and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    aside = f"Commit it, or put it aside and try again: {stash_command(repository, own)}"
    if _git.run_git(("ls-files", "--unmerged", "-z"), cwd=repository.top):
        aside = "There are conflicts in it, which git does not stash: resolve them, `git add` the files, and commit."
    message = (
        f"{repository.top} has uncommitted work, which must not be mixed with the code of '{run_id}':{shown}{more}\n"
        f"{aside}\n{_elsewhere(run_id)}"
    )
    raise RestoreError(message)


def free_folder(worktree: Path, repository: Repository) -> Path:
    """Return the root of the work tree that is to be made.

    Raises:
        RestoreError: Something is there already, or it is no place for one.
    """
    top = worktree.resolve()
    if top.is_relative_to(repository.common_dir.resolve()):
        message = f"{top} is in the git folder of {repository.top}, which is no place for a work tree. Name another."
        raise RestoreError(message)
    if os.path.lexists(worktree) and (not top.is_dir() or any(top.iterdir())):
        message = f"A work tree is made in an empty folder, and {top} is not one. Name another folder."
        raise RestoreError(message)
    return top


def _elsewhere(run_id: str) -> str:
    return f"Or leave it as it is, and have the code in a folder of its own: rlab restore {run_id} --worktree <folder>"
