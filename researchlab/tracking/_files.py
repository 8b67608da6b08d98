"""Where do a run's own documents (patch, record, trace) go while it lives, and how do they become artifacts?

In a local store they are written straight to the run's artifact folder, so that a run which is killed outright keeps
them. For a server they are kept in the user's cache and sent; what cannot be sent stays there, and is named.
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
        root: The folder that becomes the root of the artifacts; what cannot be sent stays there.
        is_remote: Whether the documents have to be sent.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client = client
        self._run_id = str(run.info.run_id)
        self._unsent: list[Path] = []
        local = local_path(str(run.info.artifact_uri))
        self.is_remote = local is None
        self.root = cache_folder() / "unsent" / self._run_id if local is None else local
        self.folder: Path = self.root / RECORD_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)

    def keep_patch(self, patch: bytes) -> None:
        """Write the patch, to be sent later."""
        self.keep(PATCH_FILE, patch)

    def keep(self, name: str, data: bytes | Path) -> None:
        """Write an artifact, to be sent later.

        Args:
            name: Its name among the artifacts, with ``/`` between folders.
            data: Its bytes, or a file that has them and is copied.
        """
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            shutil.copyfile(data, path)
        self._unsent.append(path)

    def keep_record(self, text: str) -> None:
        """Write the record, whole or not at all, to be sent later."""
        path = self.folder / RECORD_FILE
        fresh = path.with_suffix(".tmp")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
        self._unsent.append(path)

    def keep_trace(self) -> None:
        """Have the trace files, which are complete now, sent later."""
        self._unsent += sorted(self.folder.glob("*.arrow"))

    def keep_config(self, name: str, data: bytes) -> None:
        """Write a configuration under its name, with a number where another one has it, to be sent later."""
        # MLflow cannot give an artifact back whose name holds `#`, `?` or a line feed.
        wanted = Path(re.sub(r"[^\w. -]", "_", name))
        numbered = (wanted.with_stem(f"{wanted.stem}-{number}") for number in itertools.count(2))
        names = itertools.chain([wanted], numbered)
        path = next(self.root / name for name in names if not (self.root / name).exists())
        path.write_bytes(data)
        self._unsent.append(path)

    def send(self) -> None:
        """Send what has not been sent.

        Raises:
            MlflowException: The server refused, or did not answer; what is left may be sent later.
        """
        while self._unsent:
            if self.is_remote:
                path = self._unsent[0]
                folder = path.parent.relative_to(self.root).as_posix()
                place = None if folder == "." else folder
                with quiet_mlflow():
                    self._client.log_artifact(self._run_id, str(path), place)
            del self._unsent[0]

    def discard(self) -> None:
        """Remove the copies of what has been sent."""
        if self.is_remote:
            shutil.rmtree(self.root, ignore_errors=True)
