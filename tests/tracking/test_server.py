"""The whole way through a real tracking server, and what happens when it dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest
from helpers.repos import make_repo
from helpers.scripts import Script
from helpers.stores import mlflow_settings, new_store, points_of

from researchlab import ExperimentTracker, _recording
from researchlab._recording import MetricBlock
from researchlab.design import MLFlowTelemetry
from researchlab.design._telemetries import _background
from researchlab.design._telemetries._reporter import Reporter
from researchlab.errors import RecordError, ResearchlabWarning, StoreError
from researchlab.reproduce import VerdictKind, reproduce
from researchlab.tracking.record import read_record
from researchlab.tracking.runs import find_run, list_runs
from researchlab.tracking.store import cache_folder
from researchlab.tracking.trace import read_trace
from researchlab.tracking.utils import find_run_by_rlab_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.repos import Repo

pytestmark = pytest.mark.slow


class Server:
    """A real `mlflow server` on a free port."""

    def __init__(self, folder: Path) -> None:
        store = new_store(folder / "db")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        with (folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--backend-store-uri", store.tracking_uri),
                    *("--artifacts-destination", str(folder / "artifacts")),
                    *("--host", "127.0.0.1", "--port", str(port)),
                ],
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < end, (folder / "server.log").read_text()
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.uri + "/health", timeout=2):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """End it without a word."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def freeze(self, *, frozen: bool) -> None:
        """Let it accept requests and answer none, or go on."""
        os.killpg(self._process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests that leave it alive."""
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.kill()


def test_a_run_on_a_server_is_complete_and_found(project: Repo, server: Server) -> None:
    project.write("train.py", "print(2)\n")
    before = mlflow_settings()
    with ExperimentTracker("served", tracking_uri=server.uri) as tracker:
        mlflow.log_metric("a", np.float32(0.1), step=1)
        mlflow.log_metrics({"zero": -0.0, "inf": float("inf")}, step=2)
        tracker.log_config({"a": {"b": 1}})
        tracker.log_state({"w": np.arange(3.0)})
        assert find_run(tracker.run_name, tracking_uri=server.uri).record().result is None
    assert mlflow_settings() == before
    run = find_run(tracker.run_name, tracking_uri=server.uri)
    assert run.run.info.status == "FINISHED"
    assert run.run.data.params == {"a.b": "1"}
    assert b"+print(2)" in run.patch()
    result = run.record().result
    assert result is not None
    assert (result.metrics, result.points, result.states) == (3, 3, 1)
    assert [(name, step, dtype) for name, step, dtype, _ in points_of(run)] == [
        ("a", 1, "float32"),
        ("zero", 2, "float64"),
        ("inf", 2, "float64"),
    ]
    with run.documents() as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["metrics.arrow", "record.json", "state.arrow"]
        assert len(read_trace(folder).states) == 1
    assert not folder.exists()
    assert list((cache_folder() / "unsent").iterdir()) == []
    mlflow.set_tracking_uri(server.uri)
    found = find_run_by_rlab_id(tracker.run_name)
    assert found is not None
    assert found.info.run_id == tracker.mlflow_run_id
    assert find_run_by_rlab_id("2026-02-15_radiant-octopus") is None


def test_a_run_of_a_server_without_a_record_says_so(project: Repo, server: Server) -> None:
    del project
    mlflow.set_tracking_uri(server.uri)
    with mlflow.start_run() as plain:
        pass
    run = find_run(plain.info.run_id, tracking_uri=server.uri)
    with pytest.raises(RecordError, match="has no record"):
        run.record()


def test_a_run_on_a_server_prints_nothing_and_comes_back(server: Server, tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {})
    code = """
        import mlflow
        from researchlab import ExperimentTracker
        with ExperimentTracker("quiet", "quiet") as tracker:
            mlflow.log_metric("a", 1.0)
    """
    script = Script(
        code,
        place=repo.top / "train.py",
        folder=repo.top,
        outputs=tmp_path / "out",
        env={"MLFLOW_TRACKING_URI": server.uri},
    )
    assert (script.wait(), script.stdout, script.stderr) == (0, "", "")
    assert find_run("quiet", tracking_uri=server.uri).run.info.status == "FINISHED"
    assert not (repo.top / "mlflow.db").exists()
    (repo.top / "train.py").write_text("raise SystemExit('edited since')")
    verdict = reproduce("quiet", tracking_uri=server.uri, repo=repo.top)
    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    runs = list_runs(tracking_uri=server.uri)
    assert [run.run_id for run in runs].count("quiet") == 1, "the re-execution leaves no run on the server"


def test_a_server_that_dies_during_a_run_costs_a_warning_and_nothing_else(
    project: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("researchlab.tracking.store.SERVER_TIMEOUT", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project.write("train.py", "print(2)\n")
    server = Server(tmp_path)
    before = mlflow_settings()
    try:
        with ExperimentTracker("served", "frozen", tracking_uri=server.uri) as frozen:
            frozen.record_metrics({"a": 0.5}, 1)
            server.freeze(frozen=True)
            started = time.monotonic()
            with pytest.warns(ResearchlabWarning, match="config.json was not logged"):
                frozen.log_config({"late": 1})
            with pytest.warns(ResearchlabWarning, match=r"'frozen' ended as FINISHED.*Everything is kept in"):
                frozen.__exit__(None, None, None)
            assert time.monotonic() - started < 30
        assert mlflow_settings() == before
        assert (
            cache_folder() / "unsent" / str(frozen.mlflow_run_id) / "config.json"
        ).read_bytes() == b'{\n  "late": 1\n}'
        server.freeze(frozen=False)
        with ExperimentTracker("served", "dead", tracking_uri=server.uri) as dead:
            dead.record_metrics({"a": 0.5}, 1)
            dead.log_state({"w": np.arange(3.0)})
            server.kill()
            started = time.monotonic()
            with pytest.warns(ResearchlabWarning, match=r"'dead' ended as FINISHED") as caught:
                dead.__exit__(None, None, None)
            assert time.monotonic() - started < 30
    finally:
        server.kill()
    assert mlflow_settings() == before
    folder = Path(str(caught[0].message).rpartition(" kept in ")[2])
    record = read_record((folder / "rlab" / "record.json").read_text(), where="test")
    assert record.result is not None
    assert (record.result.status, record.result.points, record.result.states) == ("FINISHED", 1, 1)
    assert b"+print(2)" in (folder / "run.patch").read_bytes()
    trace = read_trace(folder / "rlab")
    assert not trace.truncated
    assert trace.metrics.points == 1
    started = time.monotonic()
    with pytest.raises(StoreError, match="does not answer"):
        ExperimentTracker("served", tracking_uri=server.uri).__enter__()
    assert time.monotonic() - started < 20
    assert mlflow_settings() == before


def test_a_server_that_dies_holds_up_neither_the_steps_of_a_loop_nor_its_end(
    project: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("researchlab.tracking.store.SERVER_TIMEOUT", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_background, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(_background, "PAUSE_FOR_REQUEST", 0.0)
    monkeypatch.setattr(_background, "LONGEST_END", 2.0)
    del project
    server = Server(tmp_path)

    def block(first: int) -> MetricBlock:
        steps = np.arange(first, first + 10)
        return MetricBlock(steps, steps * 1.0, {"loss": steps * 0.5})

    def delivered() -> list[int]:
        history = mlflow.MlflowClient().get_metric_history(str(tracker.mlflow_run_id), "loss")
        return [point.step for point in history]

    try:
        tracker = ExperimentTracker("served", "dies", tracking_uri=server.uri)
        with pytest.warns(ResearchlabWarning) as caught, tracker:  # noqa: PT031
            reporter = Reporter(_recording.current(), MLFlowTelemetry())
            reporter.block(block(1))
            end = time.monotonic() + 60
            while delivered() != list(range(1, 11)):
                assert time.monotonic() < end
                time.sleep(0.1)
            server.freeze(frozen=True)
            started = time.monotonic()
            reporter.block(block(11))
            time.sleep(0.3)  # the thread asks
            server.kill()
            for first in range(21, 1001, 10):
                reporter.block(block(first))
            assert time.monotonic() - started < 10
            started = time.monotonic()
            reporter.close()
            assert time.monotonic() - started < 10
    finally:
        server.kill()
    assert re.search(
        r"990 metric values of steps 11 to 1000 were not delivered, the run's trace has them: ", str(caught[0].message)
    )
    folder = Path(str(caught[-1].message).rpartition(" kept in ")[2])
    assert read_trace(folder / "rlab").metrics.points == 1000


def test_a_file_is_sent_to_a_server_when_the_run_ends(project: Repo, server: Server) -> None:
    with ExperimentTracker("served", tracking_uri=server.uri) as tracker:
        tracker.record_artifact(project.write("a.gif", "pictures"), folder="videos")
    run = find_run(tracker.run_name, tracking_uri=server.uri)
    assert run.record().not_recorded == ()
    path = mlflow.MlflowClient(server.uri).download_artifacts(str(tracker.mlflow_run_id), "videos/a.gif")
    assert Path(path).read_text() == "pictures"
