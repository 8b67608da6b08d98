"""Where do a run's own documents (patch, record, trace) go while it lives, and how do they become artifacts?

In a local store they are written straight to the run's artifact folder, so that a run which is killed outright keeps them.
For a server they are kept in the user's cache and sent; what cannot be sent stays there, and is named.
"""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.tracking.record import PATCH_FILE, RECORD_FILE, RECORD_FOLDER
from researchlab.tracking.store import cache_folder, local_path, quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class RunFiles:
    """The documents of one run.

    Attributes:
        folder: The folder that becomes the artifact folder ``rlab``.
        is_remote: Whether the documents have to be sent.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client = client
        self._run_id = str(run.info.run_id)
        local = local_path(str(run.info.artifact_uri))
        self.is_remote = local is None
        self._root = cache_folder() / "unsent" / self._run_id if local is None else local
        self.folder: Path = self._root / RECORD_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)

    def write_patch(self, patch: bytes) -> None:
        """Store the patch."""
        path = self._root / PATCH_FILE
        path.write_bytes(patch)
        self._send(path, None)

    def write_record(self, text: str) -> None:
        """Store the record."""
        self._send(self.keep_record(text), RECORD_FOLDER)

    def keep_record(self, text: str) -> Path:
        """Write the record, whole or not at all, to be sent later."""
        path = self.folder / RECORD_FILE
        fresh = path.with_suffix(".tmp")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
        return path

    def write_config(self, name: str, data: bytes) -> None:
        """Store a configuration under its name, with a number where another one has it."""
        # MLflow cannot give an artifact back whose name holds `#`, `?` or a line feed.
        wanted = Path(re.sub(r"[^\w. -]", "_", name))
        numbered = (wanted.with_stem(f"{wanted.stem}-{number}") for number in itertools.count(2))
        names = itertools.chain([wanted], numbered)
        path = next(self._root / name for name in names if not (self._root / name).exists())
        path.write_bytes(data)
        self._send(path, None)

    def send(self) -> None:
        """Send record and trace, which are complete now."""
        for path in (self.folder / RECORD_FILE, *sorted(self.folder.glob("*.arrow"))):
            self._send(path, RECORD_FOLDER)

    def discard(self) -> None:
        """Remove the copies of what has been sent."""
        if self.is_remote:
            shutil.rmtree(self._root, ignore_errors=True)

    @property
    def unsent(self) -> Path:
        """The folder that holds everything, for the message when sending failed."""
        return self._root

    def _send(self, path: Path, artifact_folder: str | None) -> None:
        if self.is_remote:
            with quiet_mlflow():
                self._client.log_artifact(self._run_id, str(path), artifact_folder)
