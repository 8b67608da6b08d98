"""What code did a run record, and can this repository bring it back?"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from researchlab.errors import RestoreError
from researchlab.tracking import _git
from researchlab.tracking.restore import tree_of

if TYPE_CHECKING:
    from pathlib import Path

    from researchlab.tracking._git import Repository
    from researchlab.tracking.record import SnapshotRecord
    from researchlab.tracking.runs import TrackedRun


@dataclass(frozen=True, slots=True)
class RecordedCode:
    """The code that a run recorded.

    Attributes:
        run_id: The readable id of the run.
        mlflow_run_id: MLflow's id of the run.
        snapshot: What the record says about the working tree.
        patch: What turns the base commit's tree into the snapshot's.
    """

    run_id: str
    mlflow_run_id: str
    snapshot: SnapshotRecord
    patch: bytes

    @classmethod
    def of(cls, run: TrackedRun) -> RecordedCode:
        """Fetch the code of a run.

        Raises:
            RecordError: The record or the patch is missing or broken.
            RestoreError: The run recorded no code.
        """
        record = run.record()
        if record.snapshot is None:
            why = " ".join(record.not_recorded)
            message = f"The run '{run.run_id}' recorded no code, so that there is nothing to bring back. {why}".rstrip()
            raise RestoreError(message)
        return cls(run.run_id, str(run.run.info.run_id), record.snapshot, run.patch())

    def build(self, repository: Repository, scratch: Path) -> Path:
        """Build the tree of this code in a scratch object store, which proves that it can be brought back.

        Args:
            repository: Where the base commit is taken from; nothing is written there.
            scratch: Folder of the store; several codes of one repository may share it.

        Returns:
            The git folder that has ``snapshot.tree``.

        Raises:
            RestoreError: The base commit is not here, or base commit and patch do not give the recorded tree.
        """
        self._require_base(repository)
        git_dir, tree = tree_of(self.snapshot.base_commit, self.patch, source=repository.top, scratch=scratch)
        if tree != self.snapshot.tree:
            message = (
                f"Base commit and patch of run '{self.run_id}' give the tree {tree}, and {self.snapshot.tree} was "
                "recorded: the stored patch or the record was altered. Restore the run's artifacts from a backup."
            )
            raise RestoreError(message)
        return git_dir

    def _require_base(self, repository: Repository) -> None:
        snapshot = self.snapshot
        if snapshot.object_format != repository.object_format:
            message = (
                f"The run '{self.run_id}' was tracked in a repository that names objects by {snapshot.object_format}, "
                f"and {repository.top} names them by {repository.object_format}. Name another repository with --repo."
            )
            raise RestoreError(message)
        base = snapshot.base_commit
        if base is None:
            return
        if _git.call_git(("cat-file", "-e", f"{base}^{{commit}}"), git_dir=repository.git_dir).returncode == 0:
            return
        fetch = f"git -C {shlex.quote(str(repository.top))} fetch"
        # The local name of a remote may carry the credentials that the record does not hold.
        sources = [name if repository.remotes.get(name) == url else url for name, url in snapshot.remotes.items()]
        sources = [shlex.quote(source) for source in sources or repository.remotes] or ["<a clone that has it>"]
        commands = "\n".join(f"  {fetch} {source} {base}" for source in sources)
        message = (
            f"The base commit {base} of run '{self.run_id}' is not in {repository.top}. "
            f"If this is the right repository, fetch it and try again:\n{commands}"
        )
        raise RestoreError(message)
