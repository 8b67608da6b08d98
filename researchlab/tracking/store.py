"""Which MLflow store do runs go to, and is it ready?

One store a repository: with no URI given, runs go to `mlflow.db` and `mlartifacts/` at the root of the (main) work tree,
whichever folder the script is started from. mlflow is imported when a store is opened, never before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from researchlab.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

#: Names of the default store, at the root of the repository.
DATABASE_FILE = "mlflow.db"
ARTIFACT_FOLDER = "mlartifacts"

#: Seconds that a tracking server has to answer before a run starts.
SERVER_TIMEOUT = 10.0

_SQLITE = "sqlite:///"
_SIDE_FILES = ("-wal", "-shm", "-journal")


@dataclasses.dataclass(frozen=True)
class Store:
    """An MLflow store.

    Attributes:
        tracking_uri: Where runs go; a sqlite path in it is absolute.
    """

    tracking_uri: str

    @property
    def database(self) -> Path | None:
        """The sqlite file of a local store, else None."""
        if not self.tracking_uri.startswith(_SQLITE):
            return None
        return Path(unquote(self.tracking_uri[len(_SQLITE) :].partition("?")[0]))

    @property
    def artifact_root(self) -> str | None:
        """Where new experiments of a local store keep artifacts; None leaves it to the server."""
        database = self.database
        return None if database is None else (database.parent / ARTIFACT_FOLDER).as_uri()

    def files(self) -> tuple[Path, ...]:
        """Return the files and folders that a local store consists of, which no snapshot may hold."""
        database = self.database
        if database is None:
            return ()
        side = [database.with_name(database.name + suffix) for suffix in _SIDE_FILES]
        return (database, *side, database.parent / ARTIFACT_FOLDER)

    def open(self) -> MlflowClient:
        """Open the store, making a local one that does not exist yet.

        Returns:
            A client of the store.

        Raises:
            StoreError: The store cannot be reached, or MLflow cannot use it.
        """
        database = self.database
        if database is not None:
            _create_database(database, self.artifact_root or "")
        elif urlsplit(self.tracking_uri).scheme in {"http", "https"}:
            _ask_server(self.tracking_uri)
        with quiet_mlflow():
            import mlflow

            try:
                client = mlflow.MlflowClient(tracking_uri=self.tracking_uri)
                client.search_experiments(max_results=1)
            except Exception as error:
                raise StoreError(_refused(self.tracking_uri, error)) from error
        return client

    def experiment_id(self, client: MlflowClient, name: str) -> str:
        """Return the id of the experiment, making it where it is missing; safe when many make it at once.

        Args:
            client: A client of this store.
            name: Name of the experiment.

        Returns:
            The id.

        Raises:
            StoreError: The experiment was deleted, or the store failed.
        """
        from mlflow.exceptions import MlflowException

        try:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    return str(client.create_experiment(name, artifact_location=self.artifact_root))
                except MlflowException:
                    # Another process made it first, or the store refused: the second look tells.
                    experiment = client.get_experiment_by_name(name)
                    if experiment is None:
                        raise
        except MlflowException as error:
            raise StoreError(_refused(self.tracking_uri, error)) from error
        if experiment.lifecycle_stage == "deleted":
            message = (
                f"The experiment '{name}' in {self.tracking_uri} is deleted. Bring it back with "
                f"`MLFLOW_TRACKING_URI={self.tracking_uri} mlflow experiments restore -x {experiment.experiment_id}`, "
                "or track under another name."
            )
            raise StoreError(message)
        return str(experiment.experiment_id)


def default_files(root: Path) -> tuple[Path, ...]:
    """Return the files and folders of the stores that a repository may hold at its root, the folder of MLflow's own included."""
    return (*Store(_SQLITE + str(root / DATABASE_FILE)).files(), root / "mlruns")


def resolve_store(tracking_uri: str | os.PathLike[str] | None, root: Path) -> Store:
    """Choose the store: the argument, else what MLflow was told (environment or ``set_tracking_uri``), else the default.

    Args:
        tracking_uri: The user's choice, or None.
        root: Folder of the default store: the root of the repository, or the working directory outside of one.

    Returns:
        The store, not opened yet.

    Raises:
        StoreError: The URI names a file store, which MLflow no longer opens.
    """
    chosen = os.fspath(tracking_uri) if tracking_uri is not None else _told_to_mlflow()
    if not chosen:
        return Store(_SQLITE + str(root / DATABASE_FILE))
    scheme = urlsplit(chosen).scheme
    if scheme in {"", "file"} and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        path = unquote(urlsplit(chosen).path) if scheme else chosen
        database = Path(path).absolute() / DATABASE_FILE
        message = (
            f"The tracking URI '{chosen}' names a folder, and MLflow no longer keeps runs in plain folders. "
            f"Use a database file: '{_SQLITE}{database}'."
        )
        raise StoreError(message)
    if chosen.startswith(_SQLITE):
        path, mark, options = chosen[len(_SQLITE) :].partition("?")
        if path and path != ":memory:":
            return Store(f"{_SQLITE}{Path(path).absolute()}{mark}{options}")
    return Store(chosen)


def _told_to_mlflow() -> str | None:
    import sys

    if "mlflow" not in sys.modules:
        return os.environ.get("MLFLOW_TRACKING_URI")
    import mlflow

    return mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None


@contextlib.contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Keep MLflow's notes on schema creation, its emoji lines and other libraries' warnings out of the user's terminal."""
    noisy = [logging.getLogger(name) for name in ("mlflow", "alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent")]
    before = [logger.level for logger in noisy]
    switch = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    printing = os.environ.get(switch)
    os.environ[switch] = "true"
    for logger in noisy:
        logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
    try:
        with warnings.catch_warnings():
            # SQLAlchemy 2.1 warns when MLflow's mappers are configured; under `-W error` that breaks them for the process.
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, before, strict=True):
            logger.setLevel(level)
        if printing is None:
            os.environ.pop(switch, None)
        else:
            os.environ[switch] = printing


def _create_database(database: Path, artifact_root: str) -> None:
    """Make the database beside its place and link it there, so that nobody ever sees a half-made one.

    MLflow's own first open is not safe: of six processes that open a new file at once, five die. Here each of them makes a
    database of its own and exactly one link succeeds, without a lock that a killed process could leave behind.
    """
    if database.exists():
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".rlab-new-store-", dir=database.parent))
    except OSError as error:
        message = f"The store {database} cannot be made: {error.strerror}. Pass a tracking_uri in a folder that is writable."
        raise StoreError(message) from error
    try:
        fresh = folder / DATABASE_FILE
        with quiet_mlflow():
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            SqlAlchemyStore(_SQLITE + str(fresh), artifact_root).engine.dispose()
        _publish(fresh, database)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(fresh: Path, database: Path) -> None:
    try:
        os.link(fresh, database)
    except FileExistsError:
        return  # another process was first
    except OSError:
        # A file system without hard links: the rename is atomic too, but replaces a database that came in between.
        if not database.exists():
            fresh.replace(database)


def scratch_store(folder: Path) -> Store:
    """Make a store for one re-execution, from a template that is kept between re-executions.

    MLflow needs over a second to make a database, and a thirtieth of that to open a copy of one.

    Args:
        folder: An empty folder.

    Returns:
        The store, ready to open.
    """
    import importlib.metadata

    template = cache_folder() / f"template-mlflow-{importlib.metadata.version('mlflow')}.db"
    store = Store(_SQLITE + str(folder / DATABASE_FILE))
    _create_database(template, (folder / ARTIFACT_FOLDER).as_uri())
    shutil.copyfile(template, folder / DATABASE_FILE)
    return store


def cache_folder() -> Path:
    """Return the folder of the user's cache that researchlab keeps its own files in, made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    folder = Path(base) / "researchlab"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"researchlab-{os.getuid()}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def local_path(uri: str) -> Path | None:
    """Return the folder of a ``file:`` URI or a plain path, or None when it lies elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme and uri.startswith("/") else None


def _ask_server(uri: str) -> None:
    """Fail within seconds when the server does not answer; MLflow's own retries take minutes."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    request = Request(uri.rstrip("/") + "/health", headers={"User-Agent": "researchlab"})  # noqa: S310 (http or https, see caller)
    try:
        with urlopen(request, timeout=SERVER_TIMEOUT):  # noqa: S310
            return
    except HTTPError:
        return  # it answered; a proxy or an older server may not know /health
    except (URLError, OSError) as error:
        reason: Any = getattr(error, "reason", error)
        message = (
            f"The tracking server {uri} does not answer ({reason}). Start it or correct the URI; to track into this "
            "repository instead, leave out tracking_uri and unset MLFLOW_TRACKING_URI."
        )
        raise StoreError(message) from error


def _refused(uri: str, error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    advice = "Check the URI and the rights on it"
    if "out-of-date" in str(error):
        advice = f"Back the database up and run `mlflow db upgrade '{uri}'`"
    return f"MLflow cannot use the store {uri}: {first or type(error).__name__}. {advice}."
