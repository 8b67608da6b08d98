"""Where is a tracked run, and which ones are there?"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import (
    AmbiguousRunError,
    GitError,
    NotARepositoryError,
    RunNotFoundError,
    StoreError,
)
from researchlab.tracking._tags import RUN_ID_TAG
from researchlab.tracking._tracked_run import TrackedRun
from researchlab.tracking._wording import counted, store_option
from researchlab.tracking.store import Store, first_line, impatient, is_store_named, quiet_mlflow, resolve_store
from researchlab.tracking.utils import check_run_id

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Generator, Iterator, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import Run

#: How one comes to a first run.
FIRST_RUN = (
    'To track a first run, put `with ExperimentTracker("name"):` around what a script computes '
    "(`from researchlab import ExperimentTracker`), and start the script."
)

_MLFLOW_ID = re.compile(r"[0-9a-f]{32}")
_PAGE = 1000
_SEVERAL = 2


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
    store = existing_store(tracking_uri, repo=repo)
    return store, store.open()


def existing_store(tracking_uri: str | os.PathLike[str] | None = None, *, repo: str | os.PathLike[str] = ".") -> Store:
    """Return the store that runs of this place go to, not opened yet.

    Args:
        tracking_uri: The store, or None for the one in use here.
        repo: The repository whose own store is the default.

    Returns:
        The store; a local one exists.

    Raises:
        StoreError: It is a local one that does not exist.
    """
    store = resolve_store(tracking_uri, default_root(repo))
    if store.database is not None and not store.database.exists():
        advice = "" if is_store_named(tracking_uri) else f" {FIRST_RUN}"
        message = (
            f"There is no store {store.database}. No run was tracked there; name another store with {store_option()} "
            f"or MLFLOW_TRACKING_URI, or another repository.{advice}"
        )
        raise StoreError(message)
    return store


def missing_default_store(
    tracking_uri: str | os.PathLike[str] | None = None, *, repo: str | os.PathLike[str] = "."
) -> Path | None:
    """Return where the default store will be made when nothing was tracked yet and no other store is named, else None.

    Args:
        tracking_uri: The store, or None for the one in use here.
        repo: The repository whose own store is the default.
    """
    if is_store_named(tracking_uri):
        return None
    database = resolve_store(None, default_root(repo)).database
    return None if database is None or database.exists() else database


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
    limit: int | None = None,
) -> list[TrackedRun]:
    """Return the tracked runs of a store, the newest first.

    Args:
        tracking_uri: The store, or None for the one in use here.
        experiment: Only runs of this experiment.
        repo: The repository whose own store is the default.
        limit: Return at most so many.

    Returns:
        The runs.

    Raises:
        RunNotFoundError: There is no such experiment.
        StoreError: The store does not answer.
    """
    store, client = open_store(tracking_uri, repo=repo)
    experiments: Sequence[str] | None = None
    if experiment is not None:
        with _answered(), quiet_mlflow(), impatient():
            found = client.get_experiment_by_name(experiment)
            known = [] if found is not None else client.search_experiments()
        if found is None:
            names = sorted(str(other.name) for other in known)
            message = f"There is no experiment '{experiment}' in {store.name}; there are: {', '.join(names)}."
            raise RunNotFoundError(message)
        experiments = [str(found.experiment_id)]
    runs = _search(client, f"tags.`{RUN_ID_TAG}` LIKE '%'", experiments=experiments, limit=limit)
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
        Run ids in the order in which they were named; ``all`` from the oldest to the newest. A run that shares its
        readable id with another one is named by its MLflow id.

    Raises:
        RunNotFoundError: One of them is not in the store.
        InvalidRunIdError: One of them cannot be a run id.
        StoreError: The store does not answer.
    """
    ids: dict[str, None] = {}
    for reference in references:
        if reference in {"latest", "all"}:
            limit = 1 if reference == "latest" else None
            runs = list_runs(tracking_uri=tracking_uri, experiment=experiment, repo=repo, limit=limit)
            if not runs:
                where = resolve_store(tracking_uri, default_root(repo)).name
                message = f"There is no tracked run in {where}" + (
                    f", experiment '{experiment}'." if experiment else "."
                )
                raise RunNotFoundError(message)
            runs.reverse()
        else:
            runs = [find_run(reference, tracking_uri=tracking_uri, repo=repo)]
        ids.update(dict.fromkeys(_unambiguous(runs, named=references)))
    return list(ids)


def _unambiguous(runs: Sequence[TrackedRun], *, named: Collection[str]) -> list[str]:
    """Return the readable id of each run, or MLflow's where several runs of the store carry that."""
    if all(run.run_id in named for run in runs):
        return [run.run_id for run in runs]  # found by that very id, which is refused where several carry it
    # One search for one run, and one for any number of them.
    text = f"tags.`{RUN_ID_TAG}` " + (
        f"= '{runs[0].run_id}'" if len(runs) == 1 and "'" not in runs[0].run_id else "LIKE '%'"
    )
    carried = Counter(str(run.data.tags[RUN_ID_TAG]) for run in _search(runs[0].client, text))
    return [run.run_id if carried[run.run_id] < _SEVERAL else str(run.run.info.run_id) for run in runs]


def _search(
    client: MlflowClient, text: str, *, experiments: Sequence[str] | None = None, limit: int | None = None
) -> list[Run]:
    with _answered(), quiet_mlflow(), impatient():
        ids = list(experiments) if experiments is not None else _experiment_ids(client)
        return list(itertools.islice(_matches(client, ids, text, page_size=min(limit or _PAGE, _PAGE)), limit))


@contextlib.contextmanager
def _answered() -> Generator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        message = f"The store could not be searched: {first_line(error)}. Try again when it answers."
        raise StoreError(message) from error


def _matches(client: MlflowClient, experiments: list[str], text: str, *, page_size: int) -> Iterator[Run]:
    token: str | None = None
    while experiments:
        page = client.search_runs(
            experiments, text, max_results=page_size, order_by=["attributes.start_time DESC"], page_token=token
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
    message = f"There is no run '{run_id}' in {store.name} ({counted(len(known), 'tracked run')})."
    if close:
        message += f" Closest: {', '.join(close)}."
    return message + f" Another store is named with {store_option()} or MLFLOW_TRACKING_URI."


def names_that_start_with(client: MlflowClient, prefix: str) -> dict[str, str]:
    """Return the run ids of a store that begin with ``prefix``, by MLflow's id of the run."""
    found = _search(client, f"tags.`{RUN_ID_TAG}` LIKE '{prefix}%'")
    return {str(run.info.run_id): str(run.data.tags[RUN_ID_TAG]) for run in found}
