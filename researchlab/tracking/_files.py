"""Where do a run's own documents (patch, record, trace) go while it lives, and how do they become artifacts?

In a local store they are written straight to the run's artifact folder, so that a run which is killed outright keeps
them. For a server they are kept in the user's cache and sent; what cannot be sent stays there, and is named.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path, PurePosixPath
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
        self._unsent_artifacts: list[Path] = []
        self._artifacts: dict[Path, Path] = {}
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

    def keep_artifact(self, source: Path, *, folder: str) -> None:
        """Copy a file of the user's, to be sent at the end; a second time it takes the place of the first copy.

        Args:
            source: The file.
            folder: The folder among the artifacts, or "".

        Raises:
            OSError: It cannot be read, or not be copied.
            ValueError: The folder is no plain relative one.
        """
        parts = PurePosixPath(folder).parts
        if ".." in parts or "/" in parts:
            message = f"the artifact folder {folder!r} is no relative one"
            raise ValueError(message)
        place = self.root.joinpath(*map(_storable, parts))
        known = self._artifacts.get(key := Path(os.path.realpath(source)) / folder)
        path = known or _unused(place / _storable(source.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".tmp")
        try:
            shutil.copyfile(source, fresh)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        self._artifacts[key] = path
        if path not in self._unsent_artifacts:
            self._unsent_artifacts.append(path)

    def keep_config(self, name: str, data: bytes) -> None:
        """Write a configuration under its name, with a number where another one has it, to be sent later."""
        path = _unused(self.root / _storable(name))
        path.write_bytes(data)
        self._unsent.append(path)

    def send(self) -> None:
        """Send what has not been sent.

        Raises:
            MlflowException: The server refused, or did not answer; what is left may be sent later.
        """
        self._send(self._unsent)

    def send_artifacts(self) -> None:
        """Send the user's files, apart from our own: one that a server refuses must not cost the record.

        Raises:
            MlflowException: The server refused, or did not answer; what is left may be sent later.
        """
        self._send(self._unsent_artifacts)

    def _send(self, unsent: list[Path]) -> None:
        while unsent:
            if self.is_remote:
                path = unsent[0]
                folder = path.parent.relative_to(self.root).as_posix()
                place = None if folder == "." else folder
                with quiet_mlflow():
                    self._client.log_artifact(self._run_id, str(path), place)
            del unsent[0]

    def discard(self) -> None:
        """Remove the copies of what has been sent."""
        if self.is_remote:
            shutil.rmtree(self.root, ignore_errors=True)


def _storable(name: str) -> str:
    # MLflow cannot give an artifact back whose name holds `#`, `?` or a line feed.
    return re.sub(r"[^\w. -]", "_", name)


def _unused(wanted: Path) -> Path:
    numbered = (wanted.with_stem(f"{wanted.stem}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([wanted], numbered) if not path.exists())
