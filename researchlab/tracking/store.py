"""Which MLflow store do runs go to, and is it ready?

One store a repository: with no URI given, runs go to `mlflow.db` and `mlartifacts/` at the root of the (main) work
tree, whichever folder the script is started from. mlflow is imported when a store is opened, never before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from researchlab.errors import StoreError
from researchlab.tracking._git import without_credentials
from researchlab.tracking._wording import store_option

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from mlflow import MlflowClient

#: Names of the default store, at the root of the repository.
DATABASE_FILE = "mlflow.db"
ARTIFACT_FOLDER = "mlartifacts"

#: Seconds that a tracking server has to answer, once when a run starts and once when it ends.
SERVER_TIMEOUT = 10

_SQLITE = "sqlite:///"
_IN_MEMORY = ("", ":memory:")
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
        name = self.tracking_uri[len(_SQLITE) :].partition("?")[0]
        return Path(unquote(name)) if self.tracking_uri.startswith(_SQLITE) and name not in _IN_MEMORY else None

    @property
    def name(self) -> str:
        """The tracking URI without credentials, for messages."""
        return self.tracking_uri if self.database is not None else without_credentials(self.tracking_uri)

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
        with quiet_mlflow(), impatient(), _few_database_retries():
            import mlflow

            try:
                client = mlflow.MlflowClient(tracking_uri=self.tracking_uri)
                client.search_experiments(max_results=1)
            except Exception as error:
                raise self._refused(error) from error
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
            raise self._refused(error) from error
        if experiment.lifecycle_stage == "deleted":
            message = (
                f"The experiment '{name}' in {self.name} is deleted. Bring it back with "
                f"`MLFLOW_TRACKING_URI={self.name} mlflow experiments restore -x {experiment.experiment_id}`, "
                "or track under another name."
            )
            raise StoreError(message)
        return str(experiment.experiment_id)

    def _refused(self, error: Exception) -> StoreError:
        said = first_line(error).replace(self.tracking_uri, self.name)
        if _is_connection_error(error):
            option = store_option().rstrip("=")
            message = (
                f"The tracking server {self.name} does not answer ({_why_no_answer(said)}). Start it or correct the "
                f"URI; to use this repository's own store instead, leave out {option} and unset MLFLOW_TRACKING_URI."
            )
            return StoreError(message)
        advice = "Check the URI and the rights on it."
        if "out-of-date" in str(error):
            advice = f"Back the database up and run: mlflow db upgrade '{self.name}'"
        return StoreError(f"MLflow cannot use the store {self.name}: {said[:300]}. {advice}")


def default_files(root: Path) -> tuple[Path, ...]:
    """Return the files and folders of the stores that a repository may hold at its root, MLflow's own included."""
    return (*Store(_SQLITE + str(root / DATABASE_FILE)).files(), root / "mlruns")


def resolve_store(tracking_uri: str | os.PathLike[str] | None, root: Path) -> Store:
    """Choose the store: the argument, what MLflow was told (environment or ``set_tracking_uri``), or the default.

    Args:
        tracking_uri: The user's choice, or None.
        root: Folder of the default store: the root of the repository, or the working directory outside of one.

    Returns:
        The store, not opened yet.

    Raises:
        StoreError: The URI names a file store, which MLflow no longer opens.
    """
    chosen = _chosen(tracking_uri)
    if not chosen:
        return _default_store(root)
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
        if path not in _IN_MEMORY:
            return Store(f"{_SQLITE}{Path(path).absolute()}{mark}{options}")
    return Store(chosen)


def is_store_named(tracking_uri: str | os.PathLike[str] | None) -> bool:
    """Return whether somebody chose the store: the argument, the environment or ``mlflow.set_tracking_uri``."""
    return bool(_chosen(tracking_uri))


def _chosen(tracking_uri: str | os.PathLike[str] | None) -> str | None:
    return os.fspath(tracking_uri) if tracking_uri is not None else _told_to_mlflow()


def _default_store(root: Path) -> Store:
    if re.search(r"\?|%[0-9A-Fa-f]{2}", str(root)):  # SQLAlchemy 2.1 decodes the latter, 2.0 does not
        message = (
            f"The folder {root} has a '?' or an encoded character such as '%20' in its name, which a database URI "
            "cannot hold. Rename it, or pass a tracking_uri."
        )
        raise StoreError(message)
    return Store(_SQLITE + str(root / DATABASE_FILE))


def _told_to_mlflow() -> str | None:
    import sys

    if "mlflow" not in sys.modules:
        return os.environ.get("MLFLOW_TRACKING_URI")
    import mlflow

    return mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None


@contextlib.contextmanager
def quiet_mlflow() -> Generator[None]:
    """Keep MLflow's notes on schemas, its emoji lines and other libraries' warnings out of the user's terminal."""
    importlib.import_module("mlflow")  # it configures its loggers when it is imported
    with _silence:
        yield


@contextlib.contextmanager
def impatient() -> Generator[None]:
    """Let a tracking server that does not answer fail within seconds: MLflow repeats a request for minutes."""
    with _hurry:
        yield


class _Shared:
    """A change to the whole process, made when the first thread needs it and undone when the last one is through."""

    def __init__(self, change: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._undo.enter_context(self._change())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._undo.close()


@contextlib.contextmanager
def _silenced() -> Generator[None]:
    # urllib3 warns of each request that is repeated.
    wanted = {"mlflow": logging.WARNING, "alembic": logging.WARNING, "urllib3": logging.ERROR}
    loggers = [logging.getLogger(name) for name in wanted]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.getEffectiveLevel(), wanted[logger.name]))
    try:
        with _variables({"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}), warnings.catch_warnings():
            # SQLAlchemy 2.1 warns when MLflow's mappers are configured; under `-W error` that breaks them for the
            # process.
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _hurried() -> contextlib.AbstractContextManager[None]:
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SERVER_TIMEOUT)}
    return _variables(
        {name: value for name, value in wanted.items() if name not in os.environ}
    )  # the user knows better


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _few_database_retries() -> Generator[None]:
    """Let a database that cannot be opened fail at once: MLflow tries for 100 s, and warns each time."""
    from mlflow.store.db import utils

    before = utils.MAX_RETRY_COUNT
    utils.MAX_RETRY_COUNT = 1
    try:
        yield
    finally:
        utils.MAX_RETRY_COUNT = before


_silence = _Shared(_silenced)
_hurry = _Shared(_hurried)


def _create_database(database: Path, artifact_root: str) -> None:
    """Make the database beside its place and link it there, so that nobody ever sees a half-made one.

    MLflow's own first open is not safe: of six processes that open a new file at once, five die. Here each of them
    makes a database of its own and exactly one link succeeds, without a lock that a killed process could leave behind.
    """
    if database.exists():
        return
    try:
        # Among the artifacts, which no snapshot holds: another process may capture the repository at this moment.
        artifacts = database.parent / ARTIFACT_FOLDER
        artifacts.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".rlab-new-store-", dir=artifacts))
    except OSError as error:
        message = (
            f"The store {database} cannot be made: {error.strerror}. Pass a tracking_uri in a folder that is writable."
        )
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
    with contextlib.closing(sqlite3.connect(folder / DATABASE_FILE)) as database, database:
        # The default experiment of the template keeps its artifacts where the template was made.
        database.execute("UPDATE experiments SET artifact_location = ? || '/' || experiment_id", (store.artifact_root,))
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


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line without credentials and without a full stop at its end."""
    text = re.sub(r"(?<=://)[^/\s'\"]*@(?=[^/\s])", "", str(error))
    lines = text.strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _why_no_answer(said: str) -> str:
    """Return the system's own words (`Connection refused`) out of what requests and urllib3 put around them."""
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)|(timed out)|(too many \d+ error responses)", said)
    return next(filter(None, found.groups())) if found else said[:300]


def _is_connection_error(error: BaseException) -> bool:
    """Return whether nobody answered, rather than somebody who refused."""
    import requests

    kinds = (requests.ConnectionError, requests.Timeout)
    return isinstance(error, kinds) or "Max retries exceeded" in str(error) or "timed out" in str(error)
