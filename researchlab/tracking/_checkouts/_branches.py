"""Which branches of this repository hold restored runs, and may one be deleted?"""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError
from researchlab.tracking import _git
from researchlab.tracking._checkouts._checkout import BRANCH_FOLDER
from researchlab.tracking._checkouts._journal import is_unfinished, refuse_unfinished
from researchlab.tracking._checkouts._obstacles import operation_in
from researchlab.tracking._checkouts._uncommitted import switch_back_command, uncommitted
from researchlab.tracking._checkouts._way_back import own_commits

if TYPE_CHECKING:
    from researchlab.tracking._git import Repository

_REF_FOLDER = "refs/heads/" + BRANCH_FOLDER
_FIELDS = ("refname", "objectname", "committerdate:iso-strict", "contents:subject", "worktreepath")


@dataclass(frozen=True, slots=True)
class ExperimentBranch:
    """A branch ``experiment/RUN``.

    Attributes:
        run_id: The run that it was made for.
        branch: Its name.
        base_commit: Id of the commit that it was made at, or None when git does not remember (its reflog has expired).
        commit: Id of the commit that it stands on now.
        date: When that commit was made, in ISO 8601.
        subject: First line of that commit's message.
        checked_out_at: The work tree that it is checked out in, or None.
        is_unfinished: Whether its restoration was cut off, or goes on.
    """

    run_id: str
    branch: str
    base_commit: str | None
    commit: str
    date: str
    subject: str
    checked_out_at: str | None
    is_unfinished: bool


def list_branches(repo: Path) -> list[ExperimentBranch]:
    """Return the branches ``experiment/*`` of the repository that holds ``repo``, by name.

    Raises:
        NotARepositoryError: ``repo`` is in no work tree.
        GitError: git failed.
    """
    repository = _git.find_repository(repo)
    top = repository.top
    # %00 cannot be in any of the fields, and no field begins with a NUL: \0\n ends an entry.
    layout = "%00".join(f"%({field})" for field in _FIELDS) + "%00"
    output = _git.run_git(("for-each-ref", f"--format={layout}", _REF_FOLDER), cwd=top).decode(errors="surrogateescape")
    branches: list[ExperimentBranch] = []
    for entry in output.split("\0\n")[:-1]:
        reference, commit, date, subject, place = entry.split("\0")
        reflog = _git.call_git(("rev-list", "--walk-reflogs", reference, "--"), cwd=top).stdout.decode().split()
        branches.append(
            ExperimentBranch(
                run_id=reference.removeprefix(_REF_FOLDER),
                branch=reference.removeprefix("refs/heads/"),
                base_commit=reflog[-1] if reflog else None,
                commit=commit,
                date=date,
                subject=subject,
                checked_out_at=place or None,
                is_unfinished=is_unfinished(reference.removeprefix(_REF_FOLDER), repository),
            )
        )
    return branches


def delete_branch(run_id: str, *, repo: Path, force: bool = False) -> ExperimentBranch:
    """Delete the branch of a restored run. The tracked run stays as it is.

    Args:
        run_id: The run.
        repo: A folder in the work tree.
        force: Delete it also when it holds the last copy of a commit.

    Returns:
        The branch that was.

    Raises:
        RestoreError: Its restoration was cut off.
        GitError: There is no such branch, it is checked out, or it has commits that no other branch, remote or tag has.
        NotARepositoryError: ``repo`` is in no work tree.
    """
    repository = _git.find_repository(repo)
    known = {branch.run_id: branch for branch in list_branches(repo)}
    branch = known.get(run_id)
    if branch is None:
        close = difflib.get_close_matches(run_id, known, n=3, cutoff=0.5)
        advice = f"Closest: {', '.join(close)}." if close else "`rlab list` shows the branches that there are."
        message = f"There is no branch {BRANCH_FOLDER}{run_id} in {repository.top}. {advice}"
        raise GitError(message)
    refuse_unfinished(run_id, repository)
    if branch.checked_out_at is not None:
        message = f"The branch {branch.branch} is checked out in {branch.checked_out_at}. {_leave(branch, repository)}"
        raise GitError(message)
    if not force:
        count = own_commits(branch.branch, repository)
        if count:
            what = "1 commit that is" if count == 1 else f"{count} commits that are"
            kept = "Merge it, or delete"
            if branch.commit == branch.base_commit:
                kept = (
                    "It stands where `rlab restore` made it, and they are stored with the run as well when "
                    f"`rlab show {run_id}` names a bundle. Merge it, or delete"
                )
            message = (
                f"The branch {branch.branch} has {what} on no other branch, remote or tag (newest: {branch.commit[:7]} "
                f"{branch.subject}). {kept} it with all that: rlab delete {run_id} --force"
            )
            raise GitError(message)
    _git.run_git(("branch", "--quiet", "-D", branch.branch), cwd=repository.top)
    return branch


def _leave(branch: ExperimentBranch, repository: Repository) -> str:
    """Say how a branch that is checked out is left, so that it can be deleted."""
    place = Path(branch.checked_out_at or "")
    here = f"git -C {shlex.quote(str(repository.top))}"
    try:
        there = _git.find_repository(place)
    except GitError:
        return f"That work tree cannot be read. If it is gone: {here} worktree prune"
    in_the_middle = operation_in(there)
    if in_the_middle is not None:
        return in_the_middle
    dirty = bool(uncommitted(there))
    go = switch_back_command(there)
    if there.git_dir != there.common_dir and go.endswith(">"):
        force, keep = "", "Commit or stash what is uncommitted there, then remove" if dirty else "Remove"
        if _has_repositories(there):  # git refuses to remove what is in them, changed or not
            force, keep = "--force ", "Save what is only there, also in the repositories inside it, then remove"
        return f"{keep} that work tree: {here} worktree remove {force}{shlex.quote(str(place))}"
    if place.resolve() != repository.top.resolve():
        go = f"git -C {shlex.quote(str(place))}{go.removeprefix('git')}"
    keep = "commit or stash what is uncommitted there, then " if dirty else ""
    return f"Leave it first: {keep}{go}"


def _has_repositories(repository: Repository) -> bool:
    listing = _git.list_files(repository.top)
    return bool(listing.nested or listing.submodules)
