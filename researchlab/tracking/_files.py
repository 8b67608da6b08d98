"""Where do a run's own documents (patch, record, trace) go while it lives, and how do they become artifacts?

In a local store they are written straight to the run's artifact folder, so that a run which is killed outright keeps them.
For a server they are kept in the user's cache and sent; what cannot be sent stays there, and is named.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from researchlab.tracking.record import PATCH_FILE, RECORD_FILE, RECORD_FOLDER
from researchlab.tracking.store import cache_folder, local_path, quiet_mlflow

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Run


class RunFiles:
    """The documents of one run.

    Attributes:
        folder: The folder that becomes the artifact folder ``rlab``.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client = client
        self._run_id = str(run.info.run_id)
        local = local_path(str(run.info.artifact_uri))
        self._remote = local is None
        self._root = cache_folder() / "unsent" / self._run_id if local is None else local
        self.folder: Path = self._root / RECORD_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)

    def write_patch(self, patch: bytes) -> None:
        """Store the patch."""
        path = self._root / PATCH_FILE
        path.write_bytes(patch)
        self._send(path, None)

    def write_record(self, text: str) -> None:
        """Store the record, whole or not at all."""
        path = self.folder / RECORD_FILE
        fresh = path.with_suffix(".tmp")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
        self._send(path, RECORD_FOLDER)

    def send_trace(self) -> None:
        """Send the trace files, which are complete now."""
        if not self._remote:
            return
        for path in sorted(self.folder.glob("*.arrow")):
            self._send(path, RECORD_FOLDER)

    def discard(self) -> None:
        """Remove the copies of what has been sent."""
        if self._remote:
            shutil.rmtree(self._root, ignore_errors=True)

    @property
    def unsent(self) -> Path:
        """The folder that holds everything, for the message when sending failed."""
        return self._root

    def _send(self, path: Path, artifact_folder: str | None) -> None:
        if self._remote:
            with quiet_mlflow():
                self._client.log_artifact(self._run_id, str(path), artifact_folder)
