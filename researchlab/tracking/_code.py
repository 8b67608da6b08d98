"""Which code and command does this process run, as far as that can be recorded?"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from researchlab.errors import GitError, NotARepositoryError
from researchlab.tracking import command
from researchlab.tracking._git import find_repository
from researchlab.tracking._reading._inputs import Inputs
from researchlab.tracking._restoring._bundle import write_bundle
from researchlab.tracking._warning import warn
from researchlab.tracking.record import (
    BUNDLE_FILE,
    PATCH_FILE,
    RECORD_FOLDER,
    STORE_FILE,
    FileRecord,
    NestedRecord,
    SnapshotRecord,
)
from researchlab.tracking.runs import default_root
from researchlab.tracking.settings import Settings, read_settings
from researchlab.tracking.store import default_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.tracking._files import RunFiles
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
        captured: The working tree, None until it is captured or when it cannot be.
        snapshot: What the record says of it.
        settings: What the repository says may be captured.
        inputs: What the program imported and read beside the snapshot, None in a re-execution.
        problems: What could not be recorded, in words.
    """

    root: Path
    repository: Repository | None
    command: CommandRecord
    captured: Snapshot | None = None
    snapshot: SnapshotRecord | None = None
    settings: Settings = Settings()  # noqa: RUF009 (frozen)
    inputs: Inputs | None = None
    problems: tuple[str, ...] = ()

    def with_snapshot(self, store: Store, *, audited: bool = True) -> CodeState:
        """Return this state with the working tree captured, the store's own files apart; warn about what is missing.

        Args:
            store: The store that the run goes to.
            audited: Whether what the program imports and reads is compared with the snapshot.
        """
        from researchlab.tracking.snapshot import capture_repository

        if self.repository is None:
            for problem in self.problems:
                warn(problem)
            return _with_inputs(self, None, store.files()) if audited else self
        top = self.repository.top
        own = (*default_files(top), *store.files())
        settings = read_settings(top)
        began = time.time_ns()
        try:
            captured = capture_repository(self.repository, exclude=own, settings=settings)
        except (GitError, OSError) as error:
            problem = f"The code was not recorded: {error}"
            warn(problem)
            state = dataclasses.replace(self, problems=(*self.problems, problem))
            return _with_inputs(state, None, own) if audited else state
        record = to_record(captured)
        state = dataclasses.replace(self, captured=captured, snapshot=record, settings=settings)
        if audited:
            state = _with_inputs(state, captured, own, began=began)
        missing = record.missing_everywhere
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            shown = ", ".join(missing[:_NAMED]) + more
            warn(f"Not part of the recorded code: {shown}. The record of the run says why.")
        return state

    def keep(self, files: RunFiles) -> CodeState:
        """Write what brings the code back among the documents of a run: patches, and commits that no remote has.

        Args:
            files: The documents of the run.

        Returns:
            This state, whose record names what was written; a commit that cannot be kept is a problem of it.
        """
        captured, snapshot = self.captured, self.snapshot
        if captured is None or snapshot is None:
            return self
        problems = list(self.problems)
        files.keep_patch(captured.patch)
        bundle = self._keep_bundle(captured, f"{RECORD_FOLDER}/{BUNDLE_FILE}", files, problems)
        nested: list[NestedRecord] = []
        for number, (inner, record) in enumerate(zip(captured.nested, snapshot.nested, strict=True), start=1):
            folder = f"{RECORD_FOLDER}/nested/{number}"
            patch = f"{folder}/{PATCH_FILE}" if inner.snapshot.patch else None
            if patch is not None:
                files.keep(patch, inner.snapshot.patch)
            name = self._keep_bundle(inner.snapshot, f"{folder}/{BUNDLE_FILE}", files, problems)
            nested.append(record.model_copy(update={"patch": patch, "bundle": name}))
        for problem in problems[len(self.problems) :]:
            warn(problem)
        kept = snapshot.model_copy(update={"bundle": bundle, "nested": tuple(nested)})
        return dataclasses.replace(self, snapshot=kept, problems=tuple(problems))

    def _keep_bundle(self, captured: Snapshot, name: str, files: RunFiles, problems: list[str]) -> str | None:
        with tempfile.TemporaryDirectory(prefix="rlab-bundle-") as scratch:
            place = Path(scratch) / BUNDLE_FILE
            try:
                if not write_bundle(captured.repository, place, limit=self.settings.largest_bundle):
                    return None
            except GitError as error:
                problems.append(str(error))
                return None
            files.keep(name, place)
        return name


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


def _with_inputs(state: CodeState, captured: Snapshot | None, own: Sequence[Path], *, began: int = 0) -> CodeState:
    inputs = Inputs(
        captured,
        settings=state.settings,
        own=own,
        began=began,
        is_program_outside=captured is not None and command.is_test_outside(captured.repository.top, state.command),
    )
    return dataclasses.replace(state, inputs=inputs)


def to_record(snapshot: Snapshot) -> SnapshotRecord:
    """Return what the record says of a snapshot; its artifacts are named when they are written."""
    nested = tuple(
        NestedRecord(path=inner.path, is_submodule=inner.is_submodule, **_facts(inner.snapshot))
        for inner in snapshot.nested
    )
    return SnapshotRecord(repository=str(snapshot.repository.top), nested=nested, **_facts(snapshot))


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    from researchlab.tracking.snapshot import EXCLUDED

    repository = snapshot.repository
    return {
        "base_commit": snapshot.base_commit,
        "tree": snapshot.tree,
        "object_format": repository.object_format,
        "branch": repository.branch,
        "remotes": dict(repository.remotes),
        "changed": tuple(change.path for change in snapshot.changed),
        # The tracker excludes nothing but the store.
        "left_out": {item.path: STORE_FILE if item.reason == EXCLUDED else item.reason for item in snapshot.left_out},
        "large": {
            item.path: FileRecord(sha256=item.sha256, size=item.size)
            for item in snapshot.left_out
            if item.sha256 is not None and item.size is not None
        },
        "pointers": snapshot.pointers,
        "ignored": snapshot.ignored,
    }
