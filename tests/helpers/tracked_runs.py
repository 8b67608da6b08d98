"""Tracked runs in a real store without running a program: record and patch of a repository as it is now."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from researchlab.tracking._tags import start_tags
from researchlab.tracking.record import (
    PATCH_FILE,
    RECORD_FILE,
    RECORD_FOLDER,
    CommandRecord,
    EnvironmentRecord,
    Record,
    SnapshotRecord,
)
from researchlab.tracking.snapshot import capture
from researchlab.tracking.store import Store, default_files, quiet_mlflow, scratch_store


@dataclass(frozen=True)
class RunStore:
    """A store for the runs of tests."""

    store: Store

    @property
    def uri(self) -> str:
        """Where it is."""
        return self.store.tracking_uri

    def track(
        self,
        run_id: str,
        repo: Path | None,
        *,
        patch: bytes | None = None,
        kind: str = "script",
        facts: dict[str, Any] | None = None,
        **snapshot: Any,
    ) -> Record:
        """Store a run of a repository as it is now (of none: a run that recorded no code) and return its record.

        Args:
            run_id: The run's id.
            repo: A folder in the work tree.
            patch: Another patch than the right one.
            kind: How the run was started.
            facts: Other fields of the record than the usual ones.
            snapshot: Fields of the snapshot that are others than the right ones.
        """
        code, bytes_of_patch = (None, b"") if repo is None else _snapshot(repo, snapshot)
        record = Record(
            run_id=run_id,
            experiment="tests",
            researchlab="0",
            started_at=0.0,
            host=socket.gethostname(),
            pid=os.getpid(),
            snapshot=code,
            command=CommandRecord.model_validate({"kind": kind, "target": "train.py", "folder": "/", "cwd": "."}),
            environment=EnvironmentRecord(),
            not_recorded=() if code is not None else ("There was no repository.",),
        )
        record = record.model_copy(update=facts or {})
        tags = start_tags(run_id, record.command, code)
        with quiet_mlflow():
            client = self.store.open()
            experiment = self.store.experiment_id(client, "tests")
            run = client.create_run(experiment, tags=tags, run_name=run_id)
            client.log_text(run.info.run_id, record.to_json(), f"{RECORD_FOLDER}/{RECORD_FILE}")
            if code is not None:
                place = Path(run.info.artifact_uri.removeprefix("file://")) / PATCH_FILE
                place.write_bytes(bytes_of_patch if patch is None else patch)
            client.set_terminated(run.info.run_id)
        return record


def make_run_store(folder: Path) -> RunStore:
    """Make a store in an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return RunStore(scratch_store(folder))


def _snapshot(repo: Path, changes: dict[str, Any]) -> tuple[SnapshotRecord, bytes]:
    taken = capture(repo, exclude=default_files(repo))
    record = SnapshotRecord(
        base_commit=taken.base_commit,
        tree=taken.tree,
        object_format=taken.repository.object_format,
        branch=taken.repository.branch,
        remotes=dict(taken.repository.remotes),
        repository=str(taken.repository.top),
        changed=tuple(change.path for change in taken.changed),
        left_out={item.path: item.reason for item in taken.left_out},
    )
    return record.model_copy(update=changes), taken.patch
