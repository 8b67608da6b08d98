"""Which code and command does this process run, as far as that can be recorded?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, NotARepositoryError
from researchlab.tracking import command
from researchlab.tracking._git import find_repository
from researchlab.tracking._warning import warn
from researchlab.tracking.record import SnapshotRecord
from researchlab.tracking.runs import default_root
from researchlab.tracking.store import default_files

if TYPE_CHECKING:
    from researchlab.tracking._git import Repository
    from researchlab.tracking.record import CommandRecord
    from researchlab.tracking.snapshot import Snapshot
    from researchlab.tracking.store import Store

_NAMED = 5


@dataclasses.dataclass(frozen=True)
class CodeState:
    """The code and the command of this process.

    Attributes:
        root: Folder that the default store belongs to.
        repository: The repository, or None where there is none.
        command: How the process was started.
        snapshot: The working tree for the record, None until it is captured or when it cannot be.
        patch: The patch of the snapshot.
        problems: What could not be recorded, in words.
    """

    root: Path
    repository: Repository | None
    command: CommandRecord
    snapshot: SnapshotRecord | None = None
    patch: bytes = b""
    problems: tuple[str, ...] = ()

    def with_snapshot(self, store: Store) -> CodeState:
        """Return this state with the working tree captured, the store's own files apart; warn about what is missing."""
        from researchlab.tracking.snapshot import capture

        problems = list(self.problems)
        missing: list[str] = []
        snapshot: Snapshot | None = None
        if self.repository is not None:
            top = self.repository.top
            own = (*default_files(top), *store.files())
            try:
                snapshot = capture(top, exclude=own)
            except (GitError, OSError) as error:
                problems.append(f"The code was not recorded: {error}")
            else:
                missing = [item.path for item in snapshot.left_out if top / item.path not in own]
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            shown = ", ".join(missing[:_NAMED]) + more
            warn(f"Not part of the recorded code: {shown}. The record of the run says why.")
        for problem in problems:
            warn(problem)
        return dataclasses.replace(
            self,
            snapshot=_to_record(snapshot) if snapshot is not None else None,
            patch=snapshot.patch if snapshot is not None else b"",
            problems=tuple(problems),
        )


def read_code_state(*, ordinal: int) -> CodeState:
    """Find the repository of the running program and describe its command.

    A script is asked where it lies, because it may be started from anywhere. Without a script of the user's own
    (pytest, a notebook, ``-c``) the present working directory is asked, as git would. The folder that the process
    started in comes last.

    Args:
        ordinal: Which tracker of the process this is.

    Returns:
        The state, without the working tree.
    """
    script = command.main_script()
    start = command.start_folder()
    repository: Repository | None = None
    problem: str | None = None
    here = script.parent if script is not None else Path.cwd()
    for folder in dict.fromkeys((here, start)):
        try:
            repository = find_repository(folder)
            break
        except NotARepositoryError:
            problem = (
                f"{folder} is not in a git repository, so that the code was not recorded and the run cannot be "
                "executed again. To change that: git init && git add -A && git commit -m start"
            )
        except (GitError, OSError) as error:
            problem = f"The code was not recorded: {error}"
            break
    top = repository.top if repository is not None else None
    return CodeState(
        root=repository.main_worktree
        if repository is not None
        else default_root(start if script is not None else here),
        repository=repository,
        command=command.describe_command(top, ordinal=ordinal),
        problems=(problem,) if repository is None and problem else (),
    )


def _to_record(snapshot: Snapshot) -> SnapshotRecord:
    repository = snapshot.repository
    return SnapshotRecord(
        base_commit=snapshot.base_commit,
        tree=snapshot.tree,
        object_format=repository.object_format,
        branch=repository.branch,
        remotes=dict(repository.remotes),
        repository=str(repository.top),
        changed=tuple(change.path for change in snapshot.changed),
        left_out={item.path: item.reason for item in snapshot.left_out},
    )
