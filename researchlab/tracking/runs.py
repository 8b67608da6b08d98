"""Where is a tracked run, and what did it store?"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import (
    AmbiguousRunError,
    GitError,
    MissingPatchError,
    NotARepositoryError,
    RecordError,
    RunNotFoundError,
    StoreError,
)
from researchlab.tracking.record import PATCH_FILE, RECORD_FILE, RECORD_FOLDER, RUN_ID_TAG, Record, read_record
from researchlab.tracking.store import Store, first_line, impatient, local_path, quiet_mlflow, resolve_store
from researchlab.tracking.utils import check_run_id

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterator, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import Run

_MLFLOW_ID = re.compile(r"[0-9a-f]{32}")
_PAGE = 1000


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
        with self._document(f"{RECORD_FOLDER}/{RECORD_FILE}") as path:
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
        with self._document(PATCH_FILE) as path:
            if path is None:
                message = (
                    f"The patch of run '{self.run_id}' is missing ({PATCH_FILE} among its artifacts), so that the code "
                    f"which ran cannot be brought back. Look in {self.run.info.artifact_uri}, or restore the artifacts "
                    "from a backup."
                )
                raise MissingPatchError(message)
            return path.read_bytes()

    @contextlib.contextmanager
    def documents(self) -> Generator[Path]:
        """Give the folder of the run's own documents: in place for a local store, else a copy for the block.

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
                with self._document(name) as path:
                    if path is not None:
                        path.replace(target / Path(name).name)
            yield target

    def _names(self, folder: str) -> list[str]:
        with quiet_mlflow():
            return [item.path for item in self.client.list_artifacts(str(self.run.info.run_id), folder)]

    @contextlib.contextmanager
    def _document(self, name: str) -> Generator[Path | None]:
        """Give a local file with the artifact's bytes, or None when the run has no such artifact."""
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


def open_store(
    tracking_uri: str | os.PathLike[str] | None = None, *, repo: str | os.PathLike[str] = "."
) -> tuple[Store, MlflowClient]:
    """Open the store that runs of this place go to, without making one by looking.

    Args:
        tracking_uri: The store, or None for the one in use here.
        repo: The repository whose own store is the default.

    Returns:
        The store and a client of it.

    Raises:
        StoreError: There is none, or it does not answer.
    """
    store = resolve_store(tracking_uri, default_root(repo))
    if store.database is not None and not store.database.exists():
        message = (
            f"There is no store {store.database}. Name the store with --rlab-tracking-uri, tracking_uri=, or "
            "MLFLOW_TRACKING_URI."
        )
        raise StoreError(message)
    return store, store.open()


def default_root(repo: str | os.PathLike[str]) -> Path:
    """Return the folder of the default store: the root of the main work tree, or the folder outside of a repository.

    Where git cannot be asked (it is missing, or refuses a repository of another user), the folder that holds ``.git``
    counts.
    """
    from researchlab.tracking._git import find_repository

    try:
        return find_repository(Path(repo)).main_worktree
    except NotARepositoryError:
        return Path(repo).absolute()
    except GitError:
        folder = Path(repo).absolute()
        return next((root for root in (folder, *folder.parents) if (root / ".git").exists()), folder)


def find_run(
    run_id: str,
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    repo: str | os.PathLike[str] = ".",
) -> TrackedRun:
    """Find a run in all experiments of a store.

    Args:
        run_id: Its readable id, or MLflow's own 32 hexadecimal digits.
        tracking_uri: The store, or None for the one in use here.
        repo: The repository whose own store is the default.

    Returns:
        The run.

    Raises:
        InvalidRunIdError: The id holds characters that no run id has.
        RunNotFoundError: There is no such run; the closest ids are named.
        AmbiguousRunError: Several runs carry the id.
        StoreError: The store does not answer.
    """
    check_run_id(run_id)
    store, client = open_store(tracking_uri, repo=repo)
    if _MLFLOW_ID.fullmatch(run_id):
        with quiet_mlflow(), contextlib.suppress(Exception):  # not there under that id: searched by the tag below
            run = client.get_run(run_id)
            return TrackedRun(str(run.data.tags.get(RUN_ID_TAG, run_id)), run, store, client)
    found = the_run(client, run_id, store)
    if found is None:
        raise RunNotFoundError(_not_found(run_id, store, client))
    return TrackedRun(run_id, found, store, client)


def the_run(client: MlflowClient, run_id: str, store: Store) -> Run | None:
    """Return the run that carries the id, in any experiment, or None.

    Raises:
        AmbiguousRunError: Several runs carry the id.
        StoreError: The store failed.
    """
    found = _search(client, f"tags.`{RUN_ID_TAG}` = '{run_id}'")
    if len(found) > 1:
        message = (
            f"{len(found)} runs of {store.name} carry the id '{run_id}'. Name the one that is meant by its MLflow id: "
            + ", ".join(str(run.info.run_id) for run in found)
        )
        raise AmbiguousRunError(message)
    return found[0] if found else None


def list_runs(
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    experiment: str | None = None,
    repo: str | os.PathLike[str] = ".",
) -> list[TrackedRun]:
    """Return the tracked runs of a store, the newest first.

    Args:
        tracking_uri: The store, or None for the one in use here.
        experiment: Only runs of this experiment.
        repo: The repository whose own store is the default.

    Returns:
        The runs.

    Raises:
        RunNotFoundError: There is no such experiment.
        StoreError: The store does not answer.
    """
    store, client = open_store(tracking_uri, repo=repo)
    experiments: Sequence[str] | None = None
    if experiment is not None:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = sorted(str(other.name) for other in client.search_experiments())
            message = f"There is no experiment '{experiment}' in {store.name}; there are: {', '.join(names)}."
            raise RunNotFoundError(message)
        experiments = [str(found.experiment_id)]
    runs = _search(client, f"tags.`{RUN_ID_TAG}` LIKE '%'", experiments=experiments)
    return [TrackedRun(str(run.data.tags[RUN_ID_TAG]), run, store, client) for run in runs]


def resolve_references(
    references: Sequence[str],
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    experiment: str | None = None,
    repo: str | os.PathLike[str] = ".",
) -> list[str]:
    """Turn what a user names (run ids, ``latest``, ``all``) into run ids, each once.

    Args:
        references: What was named.
        tracking_uri: The store, or None for the one in use here.
        experiment: For ``latest`` and ``all``: only runs of this experiment.
        repo: The repository whose own store is the default.

    Returns:
        Run ids in the order in which they were named; ``all`` from the oldest to the newest.

    Raises:
        RunNotFoundError: One of them is not in the store.
        InvalidRunIdError: One of them cannot be a run id.
        StoreError: The store does not answer.
    """
    ids: dict[str, None] = {}
    for reference in references:
        if reference in {"latest", "all"}:
            runs = list_runs(tracking_uri=tracking_uri, experiment=experiment, repo=repo)
            if not runs:
                where = resolve_store(tracking_uri, default_root(repo)).name
                message = f"There is no tracked run in {where}" + (
                    f", experiment '{experiment}'." if experiment else "."
                )
                raise RunNotFoundError(message)
            chosen = runs[:1] if reference == "latest" else reversed(runs)
            ids.update(dict.fromkeys(run.run_id for run in chosen))
        else:
            ids[find_run(reference, tracking_uri=tracking_uri, repo=repo).run_id] = None
    return list(ids)


def _search(client: MlflowClient, text: str, *, experiments: Sequence[str] | None = None) -> list[Run]:
    from mlflow.exceptions import MlflowException

    try:
        with quiet_mlflow(), impatient():
            ids = list(experiments) if experiments is not None else _experiment_ids(client)
            return list(_matches(client, ids, text))
    except (MlflowException, OSError) as error:
        message = f"The store could not be searched: {first_line(error)}. Try again when it answers."
        raise StoreError(message) from error


def _matches(client: MlflowClient, experiments: list[str], text: str) -> Iterator[Run]:
    token: str | None = None
    while experiments:
        page = client.search_runs(
            experiments, text, max_results=_PAGE, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _experiment_ids(client: MlflowClient) -> list[str]:
    ids: list[str] = []
    token: str | None = None
    while True:
        page = client.search_experiments(max_results=_PAGE, page_token=token)
        ids.extend(str(experiment.experiment_id) for experiment in page)
        token = page.token
        if not token:
            return ids


def _not_found(run_id: str, store: Store, client: MlflowClient) -> str:
    known = [str(run.data.tags[RUN_ID_TAG]) for run in _search(client, f"tags.`{RUN_ID_TAG}` LIKE '%'")]
    close = difflib.get_close_matches(run_id, known, n=3, cutoff=0.5)
    close += [other for other in known if run_id in other and other not in close][:3]
    message = f"There is no run '{run_id}' in {store.name} ({len(known)} tracked runs)."
    if close:
        message += f" Closest: {', '.join(close)}."
    return message + " Another store is named with --rlab-tracking-uri, tracking_uri=, or MLFLOW_TRACKING_URI."


def names_that_start_with(client: MlflowClient, prefix: str) -> dict[str, str]:
    """Return the run ids of a store that begin with ``prefix``, by MLflow's id of the run."""
    found = _search(client, f"tags.`{RUN_ID_TAG}` LIKE '{prefix}%'")
    return {str(run.info.run_id): str(run.data.tags[RUN_ID_TAG]) for run in found}
