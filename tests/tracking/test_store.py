"""Where runs go, and that a store is ready or says what to do."""

from __future__ import annotations

import http.server
import logging
import os
import socket
import sqlite3
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from helpers.repos import make_repo
from helpers.scripts import Script
from helpers.stores import mlflow_settings, new_store

from researchlab.errors import StoreError
from researchlab.tracking.runs import default_root, find_run, list_runs
from researchlab.tracking.store import (
    Store,
    cache_folder,
    first_line,
    impatient,
    local_path,
    quiet_mlflow,
    resolve_store,
    scratch_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.repos import Repo

_PASSWORD = "pw-" + "geheim"


@pytest.fixture(autouse=True)
def _unset() -> Iterator[None]:
    mlflow.set_tracking_uri(None)
    yield
    mlflow.set_tracking_uri(None)


def test_the_default_store_is_at_the_root_of_the_main_work_tree(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"sub/deep/a.py": ""})
    repo.git("worktree", "add", "-q", tmp_path / "linked")
    for folder in (repo.top, repo.top / "sub" / "deep", tmp_path / "linked", tmp_path / "linked" / "sub"):
        store = resolve_store(None, default_root(folder))
        assert store.tracking_uri == f"sqlite:///{repo.top}/mlflow.db"
        assert store.artifact_root == (repo.top / "mlartifacts").as_uri()


def test_the_argument_beats_set_tracking_uri_beats_the_environment_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////environment.db")
    assert resolve_store(None, tmp_path).tracking_uri == "sqlite:////environment.db"
    mlflow.set_tracking_uri("sqlite:////told.db")
    assert resolve_store(None, tmp_path).tracking_uri == "sqlite:////told.db"
    assert resolve_store("sqlite:////given.db", tmp_path).tracking_uri == "sqlite:////given.db"


def test_a_relative_database_is_where_the_process_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = resolve_store("sqlite:///runs/my.db?timeout=20", Path("/"))
    assert store.tracking_uri == f"sqlite:///{tmp_path}/runs/my.db?timeout=20"
    assert store.database == tmp_path / "runs" / "my.db"


@pytest.mark.parametrize("uri", ["./mlruns", "mlruns", "file:///tmp/mlruns", "/tmp/mlruns"])
def test_a_folder_is_refused_with_the_remedy(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"'sqlite:///.*/mlruns/mlflow.db'"):
        resolve_store(uri, tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert resolve_store(uri, tmp_path).tracking_uri == uri


@pytest.mark.parametrize("name", ["plain", "with space", "50%", "a#b", "ü'\"x", "a@b"])
def test_a_store_works_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    store = resolve_store(None, tmp_path / name)
    scratch_store(tmp_path / name)  # in place of a migration, which takes long
    assert store.database == tmp_path / name / "mlflow.db"
    client = store.open()
    experiment = store.experiment_id(client, "e")
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "text", "text.txt")
    folder = local_path(run.info.artifact_uri)
    assert folder is not None
    assert folder.is_relative_to(tmp_path / name / "mlartifacts")
    assert (folder / "text.txt").read_text() == "text"
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert Store(store.tracking_uri).open().get_run(run.info.run_id).info.run_id == run.info.run_id


@pytest.mark.parametrize("name", ["what?", "a%20b"])
def test_a_folder_that_no_uri_can_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="a database URI cannot hold"):
        resolve_store(None, tmp_path / name)


def test_a_database_that_cannot_be_opened_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    started = time.monotonic()
    with pytest.raises(StoreError, match="unable to open database file"):
        resolve_store(None, tmp_path).open()
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_makes_no_file(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = resolve_store(uri, tmp_path)
    assert store.database is None
    assert store.files() == ()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_made_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    store = resolve_store(None, tmp_path)
    store.open()
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlartifacts"}
    assert list((tmp_path / "mlartifacts").iterdir()) == []
    assert store.open().get_experiment("0").artifact_location == (tmp_path / "mlartifacts" / "0").as_uri()


def test_a_folder_that_cannot_be_written_to_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be made: .*Pass a tracking_uri in a folder that is writable"):
        resolve_store(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path).open()
    with pytest.raises(StoreError, match="cannot be made"):
        resolve_store("sqlite:////proc/mlflow.db", tmp_path).open()


def test_a_database_of_another_mlflow_names_the_upgrade(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    database = tmp_path / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '728d730b5ebd'")
    connection.close()
    with pytest.raises(StoreError, match=rf"mlflow db upgrade '{store.tracking_uri}'"):
        store.open()


def test_what_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("hello")
    with pytest.raises(StoreError, match="not a database"):
        resolve_store(None, tmp_path).open()
    assert (tmp_path / "mlflow.db").read_text() == "hello"


def test_a_deleted_experiment_names_the_way_back(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    client = store.open()
    number = store.experiment_id(client, "gone")
    assert store.experiment_id(client, "gone") == number
    client.delete_experiment(number)
    with pytest.raises(StoreError, match=f"mlflow experiments restore -x {number}"):
        store.experiment_id(client, "gone")


def test_a_scratch_store_knows_nothing_of_its_template(tmp_path: Path) -> None:
    stores = [new_store(tmp_path / name) for name in ("a", "b")]
    clients = [store.open() for store in stores]
    clients[0].create_run("0")
    assert list(clients[1].search_runs(["0"])) == []
    for store, client in zip(stores, clients, strict=True):
        assert client.get_experiment("0").artifact_location == f"{store.artifact_root}/0"


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "researchlab"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder().is_dir()


# --- servers --------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_server_that_does_not_answer_fails_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("researchlab.tracking.store.SERVER_TIMEOUT", 1)
    before = mlflow_settings()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        closed = f"http://127.0.0.1:{_free_port()}"
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for uri in (closed, hanging):
            started = time.monotonic()
            with pytest.raises(StoreError, match=f"server {uri} does not answer"):
                Store(uri).open()
            assert time.monotonic() - started < 20
    assert mlflow_settings() == before


def test_a_server_that_is_no_mlflow_is_an_error() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        do_POST = do_GET  # noqa: N815 (the name that the server looks for)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(StoreError, match="MLflow cannot use the store http://127"):
                Store(f"http://127.0.0.1:{server.server_port}").open()
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "uri",
    [
        f"http://user:{_PASSWORD}@127.0.0.1:1",
        f"postgresql://user:{_PASSWORD}@127.0.0.1:1/runs",
        f"mysql+nodriver://user:{_PASSWORD}@127.0.0.1:1/runs?password={_PASSWORD}",
        f"nonsense://user:{_PASSWORD}@host/runs",
    ],
)
def test_no_message_shows_a_password(uri: str, tmp_path: Path) -> None:
    store = resolve_store(uri, tmp_path)
    with pytest.raises(StoreError) as caught:
        store.open()
    assert _PASSWORD not in str(caught.value)
    assert _PASSWORD not in store.name


def test_what_an_error_says_is_cut_to_one_line_without_credentials() -> None:
    error = ValueError(f"cannot reach 'https://me:{_PASSWORD}@host/x'.\nTraceback")
    assert first_line(error) == "cannot reach 'https://host/x'"
    assert first_line(KeyError()) == "KeyError"


# --- quiet ----------------------------------------------------------------------------------------


def test_quiet_gives_everything_back_also_when_threads_overlap() -> None:
    def state() -> object:
        return logging.getLogger("mlflow").level, list(warnings.filters), dict(os.environ)

    before = state()
    first, second = quiet_mlflow(), quiet_mlflow()
    first.__enter__()
    inside = threading.Thread(target=second.__enter__)
    inside.start()
    inside.join()
    first.__exit__(None, None, None)
    assert logging.getLogger("mlflow").level == logging.WARNING
    second.__exit__(None, None, None)
    assert state() == before


def test_impatience_leaves_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with impatient():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


# --- processes ------------------------------------------------------------------------------------

_QUIET = """
    import os, sys
    os.chdir("/")  # before the first import
    import numpy as np
    import mlflow
    from researchlab import ExperimentTracker
    with ExperimentTracker() as tracker:
        tracker.log_config({"a": 1})
        mlflow.log_metric("a", np.float32(1))
    loaded = {"jax", "jaxlib", "equinox"} & set(sys.modules)
    assert not loaded, loaded
"""


@pytest.mark.slow
def test_six_first_runs_at_once_are_six_quiet_runs_in_one_store(tmp_path: Path) -> None:
    repo: Repo = make_repo(tmp_path / "repo", {"sub/.keep": ""})
    scripts = [
        Script(_QUIET, place=repo.top / "sub" / "train.py", folder=repo.top / "sub", outputs=tmp_path / f"out{number}")
        for number in range(6)
    ]
    for script in scripts:
        assert (script.wait(), script.stdout, script.stderr) == (0, "", "")
    runs = list_runs(repo=repo.top)
    assert len(runs) == len({run.run_id for run in runs}) == 6
    for run in runs:
        record = run.record()
        assert run.run.info.status == "FINISHED"
        assert record.experiment == "repo"
        assert record.snapshot is not None
        assert record.snapshot.changed == ("sub/train.py",)
        assert record.environment.jax == {}
        assert (record.command.target, record.command.cwd) == ("sub/train.py", "sub")
        assert find_run(run.run_id, repo=repo.top / "sub").run.info.run_id == run.run.info.run_id
    assert {path.name for path in repo.top.iterdir()} == {".git", "sub", "mlflow.db", "mlartifacts"}
    assert not [path for path in (repo.top / "mlartifacts").iterdir() if path.name.startswith(".")]
    assert {path.name for path in (repo.top / "sub").iterdir()} == {".keep", "train.py"}
