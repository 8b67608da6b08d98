"""How does the user's own checkout become the code of a run, or stay exactly as it was?

The one place that changes a work tree of the user. It refuses to start where work would be mixed or lost, and takes
everything back when something fails on the way.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git, restore
from researchlab.tracking._capture._worktree import GITLINK
from researchlab.tracking._checkouts._inner_checkout import InnerCheckout, bring, clear_folder, fetched, place_of
from researchlab.tracking._checkouts._interrupts import held_signals
from researchlab.tracking._checkouts._journal import Journal, refuse_unfinished, take_over
from researchlab.tracking._checkouts._obstacles import (
    base_commit_of,
    free_folder,
    refuse_existing,
    refuse_operation,
    refuse_uncommitted,
)
from researchlab.tracking._checkouts._uncommitted import stash_command, switch_back_command, uncommitted
from researchlab.tracking._checkouts._way_back import WayBack, dated_now, has_branch, own_commits, switch
from researchlab.tracking._restoring._parts import enclosing
from researchlab.tracking._restoring._raw_files import DRAFT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from researchlab.tracking._checkouts._interrupts import HeldSignals
    from researchlab.tracking._checkouts._journal import Former
    from researchlab.tracking._git import Repository
    from researchlab.tracking._restoring._recorded_code import RecordedCode

BRANCH_FOLDER = "experiment/"


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """What a checkout has become.

    Attributes:
        branch: The new branch, which is checked out.
        base_commit: Id of the commit that it stands on.
        changed: Number of paths that differ from the base commit, uncommitted as they were in the run.
        submodules: Submodules that are not at the commit that the run had; they were not touched.
        way_back: The command that leaves the branch again and keeps everything; of a work tree of its own, the command
            that removes it again, with all that was changed there.
        worktree: Root of the new linked work tree, or None where the present one was switched.
        nested: Repositories inside that are now as in the run.
        created: Those of them that were not checked out before.
        fetched: Where base commits were brought from that the repository did not have, or None.
        removal: The command that removes ``created`` with all that is in them, which the way back leaves there, or
            None. A work tree of its own goes as a whole.
    """

    branch: str
    base_commit: str
    changed: int
    submodules: tuple[str, ...]
    way_back: str
    worktree: Path | None = None
    nested: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    fetched: str | None = None
    removal: str | None = None


def check_out(code: RecordedCode, *, repo: Path, own: Sequence[Path] = (), worktree: Path | None = None) -> CheckedOut:
    """Put the checkout on a new branch ``experiment/RUN``, with the run's changes in the work tree.

    HEAD and index stand at the base commit: what was modified or untracked in the run is so again. Ignored files stay.
    Repositories inside stand at their own commits, detached, with their own changes. A base commit that only the run's
    bundle or a remote has is brought into the repository.
    On a failure, Ctrl-C and SIGTERM included, the checkout goes back to where it was, and the branch is deleted.

    Args:
        code: The code of the run.
        repo: A folder in the work tree.
        own: Files and folders of the MLflow store in use, which are not work of the user. The default store is known.
        worktree: Leave the present checkout alone, and make a linked work tree here: a folder that is empty or does
            not exist yet.

    Returns:
        What was done.

    Raises:
        RestoreError: There is uncommitted work, the branch exists, the code cannot be brought back here, or something
            is in the way. The checkout is as it was.
        NotARepositoryError: ``repo`` is in no work tree.
        GitError: git failed.
    """
    repository = _git.find_repository(repo)
    refuse_unfinished(code.run_id, repository)
    branch = BRANCH_FOLDER + code.run_id
    base = base_commit_of(code, repository, in_place=worktree is None)
    refuse_existing(branch, code, repository, worktree=worktree)
    if worktree is None:
        refuse_operation(repository, code.run_id)
        refuse_uncommitted(repository, code.run_id, own)
        top = repository.top
    else:
        top = free_folder(worktree, repository)
    brought: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="rlab-restore-") as scratch:
        stores = code.build_all(repository.top, Path(scratch), brought=brought, history=True)
        task = _Task(code, repository, branch, base, top, stores, own)
        if worktree is None:
            task.run_in_place()
        else:
            task.run_in_worktree()
    nested = tuple(part.path for part in code.parts[1:])
    created = tuple(inner.part.path for inner in task.inner if inner.before is None)
    return CheckedOut(
        branch=branch,
        base_commit=base,
        changed=sum(len(record.changed) for record in (code.snapshot, *code.snapshot.nested)),
        submodules=task.other_submodules(),
        way_back=task.leave_command() if worktree is None else _remove_command(repository, top, code.run_id),
        worktree=None if worktree is None else top,
        nested=nested,
        created=created,
        fetched=fetched(brought),
        removal=task.removal_command() if worktree is None else None,
    )


class _Task:
    """One restoration, from the proof of its trees to its end, or back."""

    def __init__(
        self,
        code: RecordedCode,
        repository: Repository,
        branch: str,
        base: str,
        top: Path,
        stores: Mapping[str, Path],
        own: Sequence[Path],
    ) -> None:
        self._code = code
        self._repository = repository
        self._branch = branch
        self._base = base
        self._top = top
        self._store = stores[""]
        self._own = own
        self._base_files = _git.list_tree(base, git_dir=self._store)
        self.inner = [InnerCheckout(part, top, stores[part.path]) for part in code.parts[1:]]

    def run_in_place(self) -> None:
        repository, base = self._repository, self._base
        for inner in self.inner:
            inner.check()
        files = self._base_files.keys() | _git.list_tree(self._code.snapshot.tree, git_dir=self._store).keys()
        way_back = WayBack.planned(repository, self._branch, files, own=self._own)
        with held_signals() as held:
            note = self._journal(way_back.former).begin(repository)
            try:
                bring(base, repository, store=self._store)
                switch(repository, base, "--no-overwrite-ignore", "--no-track", "-c", self._branch, base)
                held.obey()
                self._write(held)
            except BaseException as error:
                try:
                    self._go_back(error)
                finally:
                    way_back.go(because=error)
                note.end()
                raise
            note.end()

    def run_in_worktree(self) -> None:
        repository, top = self._repository, self._top
        missing = [path for path in (top, *top.parents) if not path.exists()]
        with held_signals() as held:
            note = self._journal(missing=missing).begin(repository)
            try:
                bring(self._base, repository, store=self._store)
                args = ("worktree", "add", "--quiet", "--no-track", "-b", self._branch, str(top), self._base)
                _git.run_git(args, cwd=repository.top, env=dated_now())
                held.obey()
                self._write(held)
            except BaseException:
                for inner in reversed(self.inner):
                    inner.go_back(because=RestoreError())
                _remove_worktree(repository, self._branch, top, missing)
                note.end()
                raise
            note.end()

    def other_submodules(self) -> tuple[str, ...]:
        """Return the submodules that are not at the commit that the run had."""
        known = {os.fsencode(place_of(part)) for part in self._code.parts[1:]}
        linked = {path: oid for path, (mode, oid) in self._base_files.items() if mode == GITLINK and path not in known}
        return tuple(sorted(os.fsdecode(path) for path, oid in linked.items() if not _is_at(self._top, path, oid)))

    def leave_command(self) -> str:
        """Return the command that leaves this branch for the former place and keeps uncommitted work in a stash."""
        repository = _git.find_repository(self._repository.top)
        spare = [inner.part.path for inner in self.inner if not inner.part.is_submodule]
        go = switch_back_command(repository)
        if uncommitted(repository, self._own):
            go = f"{stash_command(repository, self._own, spare=spare)} && {go}"
        inside = [command for inner in reversed(self.inner) if (command := inner.leave_command()) is not None]
        return " && ".join([*inside, go])

    def removal_command(self) -> str | None:
        """Return the command that removes the repositories that were not checked out before, or None."""
        created = [inner for inner in self.inner if inner.before is None]
        outermost = [inner for inner in created if not any(other.place in inner.place.parents for other in created)]
        return " && ".join(inner.removal_command() for inner in outermost) or None

    def _write(self, held: HeldSignals) -> None:
        snapshot = self._code.snapshot
        restore.write_into_worktree(
            self._top, base_commit=self._base, tree=snapshot.tree, patch=self._code.patch, store=self._store
        )
        held.obey()
        parts = self._code.parts
        for number, inner in enumerate(self.inner, start=1):
            around = enclosing(inner.part, parts[:number])
            inner.go(around=_git.find_repository(self._top / place_of(around) if around.path else self._top))
            held.obey()

    def _go_back(self, error: BaseException) -> None:
        for inner in reversed(self.inner):
            inner.go_back(because=error)

    def _journal(self, outer: Former | None = None, *, missing: Sequence[Path] | None = None) -> Journal:
        former = (outer, *(inner.former for inner in self.inner))
        return Journal(
            run_id=self._code.run_id,
            branch=self._branch,
            top=str(self._top),
            missing=None if missing is None else tuple(map(str, missing)),
            former=tuple(it for it in former if it is not None),
            created=tuple(str(inner.place) for inner in self.inner if inner.before is None and inner.is_free),
        )


def take_back(run_id: str, *, repo: Path, own: Sequence[Path] = ()) -> Journal:
    """Go back to where everything was before a restoration that was cut off; what was changed since then is lost.

    Args:
        run_id: The run that was being restored.
        repo: A folder in the work tree.
        own: Files and folders of the MLflow store in use, which stay as they are.

    Returns:
        What the restoration was about to do.

    Raises:
        RestoreError: No restoration of this run was cut off, it goes on, or the way back is barred.
        NotARepositoryError: ``repo`` is in no work tree.
        GitError: git failed.
    """
    repository = _git.find_repository(repo)
    journal, note = take_over(run_id, repository)
    cause = RestoreError(f"The restoration of '{run_id}' was cut off.")
    with held_signals():
        if journal.missing is not None:
            _remove_worktree(repository, journal.branch, Path(journal.top), [Path(path) for path in journal.missing])
        for place in reversed(journal.created):
            clear_folder(Path(place))
        for former in reversed(journal.former):
            branch = journal.branch if former.top == journal.top else None
            there = _git.find_repository(former.top)
            _remove_drafts(there)
            WayBack(there, former, branch, own=own).go(because=cause)
        note.end()
    return journal


def _remove_drafts(repository: Repository) -> None:
    """Remove what is left of a file that was being written."""
    drafts = _git.run_git(("ls-files", "-z", "-o", "--", f":(glob)**/{DRAFT}*"), cwd=repository.top)
    for path in drafts.split(b"\0")[:-1]:
        (repository.top / os.fsdecode(path)).unlink()


def _remove_worktree(repository: Repository, branch: str, top: Path, missing: Sequence[Path]) -> None:
    """Take a linked work tree and its branch back, as far as they came to be.

    Args:
        repository: The repository.
        branch: The branch that was made for it.
        top: Its root.
        missing: The folders that were not there before, the deepest first.
    """
    _git.call_git(("worktree", "remove", "--force", "--force", str(top)), cwd=repository.top)
    if top.exists():
        clear_folder(top)
        _git.call_git(("worktree", "prune"), cwd=repository.top)
    if has_branch(repository, branch):
        _git.run_git(("branch", "--quiet", "-D", branch), cwd=repository.top)
    if not missing:
        top.mkdir(exist_ok=True)  # git removed the empty folder that was there
    for path in missing:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _remove_command(repository: Repository, top: Path, run_id: str) -> str:
    remove = shlex.join(["git", "-C", str(repository.top), "worktree", "remove", "--force", str(top)])
    # The base commit may be in no branch; with the run it is.
    force = ["--force"] if own_commits(BRANCH_FOLDER + run_id, repository) else []
    return f"{remove} && {shlex.join(['rlab', 'delete', run_id, '--repo', str(repository.top), *force])}"


def _is_at(top: Path, path: bytes, commit: str) -> bool:
    place = top / os.fsdecode(path)
    if not (place / ".git").exists():
        return False
    try:
        return _git.find_repository(place).head == commit
    except GitError:
        return False
