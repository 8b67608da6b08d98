"""What a run keeps of a Loop: its metrics in blocks, its files, and how it was executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import mlflow
import numpy as np
import pytest
from helpers.stores import points_of, run_of

from researchlab import ExperimentTracker, _recording
from researchlab._recording import MetricBlock
from researchlab.design import MLFlowTelemetry
from researchlab.design._telemetries._reporter import Reporter
from researchlab.errors import ResearchlabError, ResearchlabWarning
from researchlab.tracking.record import ExecutionRecord, read_record

if TYPE_CHECKING:
    from helpers.repos import Repo

    from researchlab.tracking.store import Store


def tracker_in(store: Store) -> ExperimentTracker:
    return ExperimentTracker("tests", tracking_uri=store.tracking_uri)


def block(first: int, count: int) -> MetricBlock:
    steps = np.arange(first, first + count)
    columns = {
        "loss": (1 / steps).astype(np.float32),
        "count": steps + 2**62,
        "small": steps.astype(ml_dtypes.bfloat16),
    }
    return MetricBlock(steps, steps * 1.0, columns)


def artifacts_of(store: Store, tracker: ExperimentTracker, folder: str | None = None) -> list[str]:
    client = mlflow.MlflowClient(store.tracking_uri)
    return sorted(item.path for item in client.list_artifacts(tracker.mlflow_run_id, folder))


def content_of(store: Store, tracker: ExperimentTracker, name: str) -> str:
    client = mlflow.MlflowClient(store.tracking_uri)
    return Path(client.download_artifacts(tracker.mlflow_run_id, name)).read_text()


def test_a_loops_metrics_are_in_the_trace_once_and_in_mlflow(project: Repo, own_store: Store) -> None:
    with tracker_in(own_store) as tracker:
        reporter = Reporter(_recording.current(), MLFlowTelemetry())
        reporter.block(block(1, 3))
        reporter.metrics({"loss": np.float32(0.5)}, 4)
        reporter.close()
        mlflow.log_metric("loss", 0.25, step=5)
    run = run_of(tracker, own_store)
    made = block(1, 3)
    assert points_of(run) == [
        *(("loss", step, "float32", made.columns["loss"][step - 1].tobytes()) for step in (1, 2, 3)),
        ("loss", 4, "float32", np.float32(0.5).tobytes()),
        ("loss", 5, "float64", np.float64(0.25).tobytes()),
        *(("count", step, "int64", np.int64(step + 2**62).tobytes()) for step in (1, 2, 3)),
        *(("small", step, "bfloat16", made.columns["small"][step - 1].tobytes()) for step in (1, 2, 3)),
    ]
    history = mlflow.MlflowClient(own_store.tracking_uri).get_metric_history(tracker.mlflow_run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        *((step, float(np.float32(1 / step))) for step in (1, 2, 3)),
        (4, 0.5),
        (5, 0.25),
    ]
    assert [point.timestamp for point in history[:3]] == [1000, 2000, 3000]
    record = run.record()
    assert record.result is not None
    assert (record.result.metrics, record.result.points) == (3, 11)


def test_a_block_that_a_full_disk_refuses_costs_a_warning_and_not_the_run(
    project: Repo, own_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(ResearchlabWarning, match="No space left"), tracker_in(own_store) as tracker:  # noqa: PT031
        assert tracker._live is not None
        writer = tracker._live.trace

        def fail(batch: Any) -> None:
            message = "No space left"
            raise OSError(message)

        monkeypatch.setattr(writer._metrics_stream, "write", fail)
        tracker.record_metric_block(block(1, 3))
        with pytest.raises(Exception, match="No space left"):
            writer.flush()
        tracker.record_metric_block(block(4, 3))
        tracker.record_metric_block(block(7, 3))


def test_how_loops_were_executed_is_in_the_record_once_for_each_way(project: Repo, own_store: Store) -> None:
    with tracker_in(own_store) as tracker:
        tracker.record_execution({"mode": "jit", "scan": "none"}, source="loop")
        tracker.record_execution({"mode": "scan", "scan": "100"}, source="loop")
        tracker.record_execution({"mode": "jit", "scan": "none"}, source="loop-2")
        for _ in range(3):
            tracker.record_execution({"scan": "none", "mode": "jit"}, source="loop")
        early = run_of(tracker, own_store).record()  # what a run that is killed outright leaves
    ways = (
        ExecutionRecord(source="loop", facts={"mode": "jit", "scan": "none"}),
        ExecutionRecord(source="loop", facts={"mode": "scan", "scan": "100"}),
        ExecutionRecord(source="loop-2", facts={"mode": "jit", "scan": "none"}),
    )
    assert early.executions == ways
    record = run_of(tracker, own_store).record()
    assert record.executions == ways
    assert record.result is not None
    old = json.loads(record.to_json())
    del old["executions"]
    assert read_record(json.dumps(old), where="test").executions == ()


def test_a_file_of_a_loop_becomes_an_artifact(project: Repo, own_store: Store) -> None:
    video = project.write("out/video#1.mp4", "first")
    other = project.write("other/video#1.mp4", "other")
    with tracker_in(own_store) as tracker:
        tracker.record_artifact(video, folder="videos")
        tracker.record_artifact(other, folder="videos")
        tracker.record_artifact(video)
        video.write_text("second")
        tracker.record_artifact(Path("out/video#1.mp4"), folder="videos")
        video.unlink()
    assert artifacts_of(own_store, tracker, "videos") == ["videos/video_1-2.mp4", "videos/video_1.mp4"]
    assert content_of(own_store, tracker, "videos/video_1.mp4") == "second"
    assert content_of(own_store, tracker, "videos/video_1-2.mp4") == "other"
    assert content_of(own_store, tracker, "video_1.mp4") == "first"
    assert run_of(tracker, own_store).record().not_recorded == ()


def test_a_file_does_not_take_the_place_of_the_runs_own_documents(project: Repo, own_store: Store) -> None:
    mine = project.write("record.json", "mine")
    with tracker_in(own_store) as tracker:
        tracker.record_artifact(mine, folder="rlab")
    assert run_of(tracker, own_store).record().run_id == tracker.run_name
    assert content_of(own_store, tracker, "rlab/record-2.json") == "mine"


@pytest.mark.parametrize(
    ("name", "folder", "said"),
    [
        ("missing.mp4", "", "No such file"),
        ("out", "", "Is a directory"),
        ("out/a.txt", "../..", "no relative one"),
        ("out/a.txt", "/tmp", "no relative one"),
    ],
)
def test_a_file_that_cannot_be_kept_costs_a_warning(
    project: Repo, own_store: Store, name: str, folder: str, said: str
) -> None:
    project.write("out/a.txt", "text")
    with pytest.warns(ResearchlabWarning, match=f"{name} did not become an artifact.*{said}"):  # noqa: SIM117
        with tracker_in(own_store) as tracker:
            tracker.record_artifact(project.top / name, folder=folder)
    record = run_of(tracker, own_store).record()
    assert record.result is not None
    assert record.result.status == "FINISHED"
    assert said in record.not_recorded[0]


def test_what_a_loop_hands_over_needs_an_active_run(own_store: Store) -> None:
    tracker = tracker_in(own_store)
    for call in (
        lambda: tracker.record_metric_block(block(1, 1)),
        lambda: tracker.record_artifact(Path("a")),
        lambda: tracker.record_execution({}, source="loop"),
    ):
        with pytest.raises(ResearchlabError, match="needs an active run"):
            call()
