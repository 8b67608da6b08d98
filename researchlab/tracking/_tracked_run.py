"""What did a tracked run store, and how is it fetched?"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import MissingPatchError, RecordError, StoreError
from researchlab.tracking._tags import VERDICT_TAG, VERIFIED_AT_TAG
from researchlab.tracking.record import PATCH_FILE, RECORD_FILE, RECORD_FOLDER, Record, read_record
from researchlab.tracking.store import Store, first_line, impatient, local_path, quiet_mlflow

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime

    from mlflow import MlflowClient
    from mlflow.entities import Run


_DOCUMENTS = (".json", ".arrow")


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """A run that is in the store.

    Attributes:
        run_id: Its readable id.
        run: MLflow's run.
        store: The store it is in.
        client: A client of that store.
    """

    run_id: str
    run: Run
    store: Store
    client: MlflowClient

    def record(self) -> Record:
        """Fetch the record.

        Raises:
            RecordError: There is none, or it cannot be read.
        """
        with self.artifact(f"{RECORD_FOLDER}/{RECORD_FILE}") as path:
            if path is None:
                message = (
                    f"The run '{self.run_id}' has no record ({RECORD_FOLDER}/{RECORD_FILE} among its artifacts), so "
                    "that it was not tracked by researchlab or its artifacts were deleted. It cannot be executed again."
                )
                raise RecordError(message)
            return read_record(path.read_bytes(), where=f"run '{self.run_id}'")

    def patch(self) -> bytes:
        """Fetch the patch.

        Raises:
            MissingPatchError: There is none.
        """
        with self.artifact(PATCH_FILE) as path:
            if path is None:
                message = (
                    f"The patch of run '{self.run_id}' is missing ({PATCH_FILE} among its artifacts), so that the code "
                    f"which ran cannot be brought back. Look in {self.run.info.artifact_uri}, or restore the artifacts "
                    "from a backup."
                )
                raise MissingPatchError(message)
            return path.read_bytes()

    def note_verdict(self, verdict: str, *, at: datetime) -> None:
        """Write what a re-execution found onto the run, as two tags; an older verdict is replaced.

        Args:
            verdict: The verdict.
            at: When it was found, with its time zone.

        Raises:
            StoreError: The store did not take them.
        """
        tags = {VERDICT_TAG: verdict, VERIFIED_AT_TAG: at.astimezone(UTC).isoformat(timespec="seconds")}
        try:
            with quiet_mlflow(), impatient():
                for name, value in tags.items():
                    self.client.set_tag(str(self.run.info.run_id), name, value)
        except Exception as error:
            message = f"The verdict was not written to {self.store.name}: {first_line(error)}."
            raise StoreError(message) from error

    @contextlib.contextmanager
    def documents(self) -> Generator[Path]:
        """Give the folder of the run's own documents: in place for a local store, else a copy for the block.

        A copy holds the record and the trace. ``artifact`` gives the other files one by one: bundles, which may be
        large, and those of nested repositories and inputs.

        Raises:
            RecordError: The artifacts cannot be fetched.
        """
        local = local_path(str(self.run.info.artifact_uri))
        if local is not None:
            yield local / RECORD_FOLDER
            return
        with tempfile.TemporaryDirectory(prefix="rlab-documents-") as folder:
            target = Path(folder) / RECORD_FOLDER
            target.mkdir()
            for name in self._names(RECORD_FOLDER):
                if not name.endswith(_DOCUMENTS):
                    continue
                with self.artifact(name) as path:
                    if path is not None:
                        path.replace(target / Path(name).name)
            yield target

    def _names(self, folder: str) -> list[str]:
        """Return the names of the files, and not of the folders, in a folder of the artifacts."""
        with quiet_mlflow():
            items = self.client.list_artifacts(str(self.run.info.run_id), folder)
        return [item.path for item in items if not item.is_dir]

    @contextlib.contextmanager
    def artifact(self, name: str) -> Generator[Path | None]:
        """Give a local file with the artifact's bytes for the block, or None when the run has no such artifact.

        Args:
            name: Its name among the artifacts, with ``/`` between folders.

        Raises:
            RecordError: It cannot be fetched.
        """
        local = local_path(str(self.run.info.artifact_uri))
        if local is not None:
            path = local / name
            yield path if path.is_file() else None
            return
        folder = name.rpartition("/")[0]
        if name not in self._names(folder):
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="rlab-document-") as scratch:
            try:
                with quiet_mlflow():
                    path = self.client.download_artifacts(str(self.run.info.run_id), name, scratch)
            except Exception as error:
                message = f"The artifact {name} of run '{self.run_id}' cannot be fetched: {first_line(error)}."
                raise RecordError(message) from error
            yield Path(path)
