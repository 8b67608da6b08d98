"""What a tracker records, and that it leaves MLflow and the program as it found them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import struct
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from helpers.stores import mlflow_settings, points_of, run_of, status_of

from researchlab import ExperimentTracker, _recording
from researchlab.errors import ResearchlabError, ResearchlabWarning, StoreError
from researchlab.tracking._tags import BASE_COMMIT_TAG, RUN_ID_TAG, TREE_TAG
from researchlab.tracking.runs import list_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.repos import Repo

    from researchlab.tracking.store import Store


def tracker_in(store: Store, run_name: str | None = None, **options: Any) -> ExperimentTracker:
    return ExperimentTracker("tests", run_name, store.tracking_uri, **options)


def test_a_run_has_tags_patch_record_and_status(project: Repo, own_store: Store) -> None:
    project.write("train.py", "print(2)\n")
    with tracker_in(own_store) as tracker:
        assert tracker.active_run is not None
        assert mlflow.active_run().info.run_id == tracker.mlflow_run_id
        assert status_of(tracker, own_store) == "RUNNING"
        early = run_of(tracker, own_store)
        assert early.record().result is None
        assert b"+print(2)" in early.patch()
    run = run_of(tracker, own_store)
    record = run.record()
    assert tracker.active_run is None
    assert run.run.info.status == "FINISHED"
    assert run.run.info.run_name == tracker.run_name == record.run_id
    assert record.snapshot is not None
    assert run.run.data.tags[RUN_ID_TAG] == tracker.run_name
    assert run.run.data.tags[BASE_COMMIT_TAG] == project.git("rev-parse", "HEAD") == record.snapshot.base_commit
    assert run.run.data.tags[TREE_TAG] == record.snapshot.tree
    assert record.snapshot.changed == ("train.py",)
    assert record.result is not None
    assert record.result.status == "FINISHED"
    assert record.ended_at is not None
    assert record.not_recorded == ()


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (ValueError("wrong"), "FAILED"),
        (SystemExit(3), "FAILED"),
        (SystemExit("a message"), "FAILED"),
        (SystemExit([1]), "FAILED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(), "FINISHED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(130), "KILLED"),
        (asyncio.CancelledError(), "KILLED"),
    ],
    ids=repr,
)
def test_the_status_says_how_the_block_ended(
    project: Repo, own_store: Store, raised: BaseException, status: str
) -> None:
    del project
    tracker = tracker_in(own_store)
    with pytest.raises(type(raised)) as caught, tracker:  # noqa: PT012 (the block is what is tested)
        mlflow.log_metric("a", 1.0)
        raise raised
    assert caught.value is raised
    run = run_of(tracker, own_store)
    result = run.record().result
    assert result is not None
    assert run.run.info.status == result.status == status
    assert result.error is not None
    assert type(raised).__name__ in result.error
    assert len(points_of(run)) == 1


def test_an_exception_that_cannot_be_shown_does_not_hide_the_run(project: Repo, own_store: Store) -> None:
    del project

    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    tracker = tracker_in(own_store)
    with pytest.raises(Mute), tracker:
        raise Mute
    assert status_of(tracker, own_store) == "FAILED"


# --- MLflow's own settings ------------------------------------------------------------------------


STATES = ["unset", "set_experiment", "environment", "set_tracking_uri", "run id in the environment"]


@pytest.fixture(params=STATES)
def settings(
    request: pytest.FixtureRequest, project: Repo, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """MLflow's settings in one of the states that a program may be in."""
    del project
    if request.param == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", other_store.tracking_uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    elif request.param == "set_tracking_uri":
        mlflow.set_tracking_uri(other_store.tracking_uri)
    elif request.param == "set_experiment":
        mlflow.set_tracking_uri(other_store.tracking_uri)
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("other", artifact_location="file:///nowhere"))
    elif request.param == "run id in the environment":
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    return mlflow_settings()


@pytest.fixture(autouse=True)
def _no_experiment_left() -> Iterator[None]:
    from mlflow.tracking import fluent

    yield
    fluent._active_experiment_id = None


def _nothing() -> None:
    pass


def _raise() -> None:
    message = "in the block"
    raise RuntimeError(message)


def _set_uri() -> None:
    mlflow.set_tracking_uri("sqlite:////nowhere/mlflow.db")


def _nested_left_open() -> None:
    mlflow.start_run(nested=True)


def _ended() -> None:
    mlflow.end_run()


def _replaced() -> None:
    mlflow.end_run()
    mlflow.start_run()


def _set_experiment() -> None:
    mlflow.set_experiment("another in the block")


BLOCKS = (_nothing, _raise, _set_uri, _nested_left_open, _ended, _replaced, _set_experiment)


@pytest.mark.parametrize(
    ("settings", "block"),
    [*((state, block) for state in STATES[:2] for block in BLOCKS), *((state, _raise) for state in STATES[2:])],
    indirect=["settings"],
)
def test_mlflow_is_left_as_it_was_found(settings: dict[str, Any], own_store: Store, block: Any) -> None:
    tracker = tracker_in(own_store)
    with contextlib.suppress(RuntimeError), tracker:
        block()
    assert mlflow_settings() == settings
    assert status_of(tracker, own_store) == ("FAILED" if block is _raise else "FINISHED")
    with_status = own_store.open().search_runs(["0", "1", "2"], "attributes.status = 'RUNNING'")
    assert list(with_status) == []


def test_mlflow_is_left_as_it_was_found_when_the_run_cannot_be_started(
    settings: dict[str, Any], own_store: Store, tmp_path: Path
) -> None:
    client = own_store.open()
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    client.create_experiment("blocked", artifact_location=(in_the_way / "artifacts").as_uri())
    tracker = ExperimentTracker("blocked", "name", own_store.tracking_uri)
    with pytest.raises(StoreError, match="could not be started"), tracker:
        pass
    assert mlflow_settings() == settings
    assert _recording.current() is None
    assert tracker.active_run is None
    run = client.search_runs([client.get_experiment_by_name("blocked").experiment_id])[0]
    assert run.info.status == "FAILED"
    with tracker_in(own_store, "works-afterwards") as second:
        pass
    assert status_of(second, own_store) == "FINISHED"


@pytest.mark.parametrize("same", [True, False], ids=["same store", "other store"])
def test_a_tracker_nests_in_a_plain_mlflow_run(project: Repo, own_store: Store, other_store: Store, same: bool) -> None:  # noqa: FBT001
    del project
    outer_store = own_store if same else other_store
    mlflow.set_tracking_uri(outer_store.tracking_uri)
    with mlflow.start_run() as outer:
        before = mlflow_settings()
        with tracker_in(own_store) as tracker:
            mlflow.log_metric("inner", 1.0)
        assert mlflow_settings() == before
        mlflow.log_metric("outer", 2.0)
    inner = run_of(tracker, own_store).run
    assert inner.data.metrics == {"inner": 1.0}
    assert inner.data.tags["mlflow.parentRunId"] == outer.info.run_id
    stored = outer_store.open().get_run(outer.info.run_id)
    assert stored.data.metrics == {"outer": 2.0}
    assert stored.info.status == "FINISHED"


def test_trackers_nest_and_each_gets_its_own_metrics(project: Repo, own_store: Store, other_store: Store) -> None:
    del project
    before = mlflow_settings()
    with tracker_in(own_store, "outer") as outer:
        mlflow.log_metric("first", 1.0)
        with tracker_in(other_store, "inner") as inner:
            assert _recording.current() is inner
            mlflow.log_metric("second", 2.0)
        assert _recording.current() is outer
        mlflow.log_metric("third", 3.0)
    assert mlflow_settings() == before
    assert [name for name, *_ in points_of(run_of(outer, own_store))] == ["first", "third"]
    assert [name for name, *_ in points_of(run_of(inner, other_store))] == ["second"]
    assert run_of(outer, own_store).run.data.metrics == {"first": 1.0, "third": 3.0}
    assert run_of(inner, other_store).record().command.ordinal == 1


def test_trackers_that_end_in_an_odd_order_leave_nothing_behind(
    project: Repo, own_store: Store, other_store: Store
) -> None:
    del project
    before = mlflow_settings()
    first, second = tracker_in(own_store, "first"), tracker_in(other_store, "second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert _recording.current() is second
    second.__exit__(None, None, None)
    assert mlflow_settings() == before
    assert _recording.current() is None
    assert status_of(first, own_store) == status_of(second, other_store) == "FINISHED"


def test_a_tracker_is_used_twice_in_sequence_and_not_twice_at_once(project: Repo, own_store: Store) -> None:
    del project
    generated, given = tracker_in(own_store), tracker_in(own_store, "given")
    names = []
    for tracker in (generated, generated, given, given):
        with tracker:
            names.append(tracker.run_name)
            with pytest.raises(ResearchlabError, match="active already"):
                tracker.__enter__()
            assert status_of(tracker, own_store) == "RUNNING"
    assert len(set(names)) == 4
    assert names[2:] == ["given", "given-2"]
    assert {run.run.info.status for run in list_runs(tracking_uri=own_store.tracking_uri)} == {"FINISHED"}


def test_trackers_in_threads_do_not_disturb_each_other(project: Repo, own_store: Store) -> None:
    del project
    before = mlflow_settings()
    together = threading.Barrier(3, timeout=60)
    trackers = [tracker_in(own_store, f"thread-{number}") for number in range(3)]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with warnings.catch_warnings():
                tracker = trackers[number]
                together.wait()
                with tracker:
                    together.wait()
                    assert _recording.current() is tracker
                    mlflow.log_metric("value", float(number), step=number)
                    together.wait()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert mlflow_settings() == before
    for number, tracker in enumerate(trackers):
        assert points_of(run_of(tracker, own_store)) == [("value", number, "float64", struct.pack("<d", number))]
        assert status_of(tracker, own_store) == "FINISHED"


def test_a_thread_without_a_tracker_records_into_the_one_that_is_active(project: Repo, own_store: Store) -> None:
    del project
    seen: list[object] = []
    with tracker_in(own_store) as tracker:
        thread = threading.Thread(target=lambda: seen.append(_recording.current()))
        thread.start()
        thread.join()
    assert seen == [tracker]


def test_a_context_that_outlives_the_run_has_no_recorder(project: Repo, own_store: Store) -> None:
    import contextvars

    del project
    with tracker_in(own_store):
        copied = contextvars.copy_context()
    assert copied.run(_recording.current) is None


def test_what_needs_an_active_run_says_so(own_store: Store) -> None:
    tracker = tracker_in(own_store)
    for call in (lambda: tracker.log_config({}), lambda: tracker.log_state(1), lambda: tracker.record_metrics({}, 0)):
        with pytest.raises(ResearchlabError, match="inside the block"):
            call()


# --- the program ----------------------------------------------------------------------------------


def test_random_numbers_are_those_of_the_program_without_a_tracker(project: Repo, own_store: Store) -> None:
    del project

    def draw() -> list[float]:
        return [random.random(), float(np.random.random())]  # noqa: NPY002

    def seed() -> None:
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002

    seed()
    untracked = [*draw(), *draw(), *draw()]
    seed()
    tracked = draw()
    with ExperimentTracker("tests", tracking_uri=own_store.tracking_uri) as tracker:
        tracker.log_config({"a": 1})
        tracked += draw()
    tracked += draw()
    assert tracked == untracked


def test_metrics_of_plain_mlflow_are_in_the_trace_bit_for_bit(project: Repo, own_store: Store) -> None:
    del project
    payload = struct.unpack("<d", b"\x01\x00\x00\x00\x00\x00\xf8\x7f")[0]
    with tracker_in(own_store) as tracker:
        client = mlflow.MlflowClient()
        run_id = str(tracker.mlflow_run_id)
        mlflow.log_metric("float32", np.float32(0.1), step=1)
        mlflow.log_metrics({"zero": -0.0, "inf": float("inf")}, step=2)
        mlflow.log_metric("nan", payload)
        mlflow.log_metric("int", 3, step=4)
        mlflow.log_metric("later", 0.5, step=5, synchronous=False)
        client.log_metric(run_id, "client", 0.1, step=6)
        client.log_metric(run_id=run_id, key="keyword", value=0.25)
        client.log_batch(run_id, [mlflow.entities.Metric("batch", -1.5, 0, 7)])
        client.log_batch(run_id=run_id, metrics=[mlflow.entities.Metric("batch", 1.5, 0, 8)])
        mlflow.log_metric("elsewhere", 1.0, run_id=client.create_run("0").info.run_id)
        mlflow.log_metric("float32", np.float32(0.1), step=1)
    run = run_of(tracker, own_store)
    double = struct.Struct("<d").pack
    assert points_of(run) == [
        ("float32", 1, "float32", struct.pack("<f", 0.1)),
        ("float32", 1, "float32", struct.pack("<f", 0.1)),
        ("zero", 2, "float64", double(-0.0)),
        ("inf", 2, "float64", double(float("inf"))),
        ("nan", 0, "float64", b"\x01\x00\x00\x00\x00\x00\xf8\x7f"),
        ("int", 4, "int64", struct.pack("<q", 3)),
        ("later", 5, "float64", double(0.5)),
        ("client", 6, "float64", double(0.1)),
        ("keyword", 0, "float64", double(0.25)),
        ("batch", 7, "float64", double(-1.5)),
        ("batch", 8, "float64", double(1.5)),
    ]
    assert run.run.data.metrics["later"] == 0.5


def test_a_metric_that_mlflow_refuses_raises_mlflows_error_and_the_run_goes_on(project: Repo, own_store: Store) -> None:
    del project
    with tracker_in(own_store) as tracker:
        with pytest.raises(mlflow.MlflowException):
            mlflow.log_metric("a", "not a number")
        mlflow.log_metric("b", 1.0)
    assert [name for name, *_ in points_of(run_of(tracker, own_store))] == ["b"]


def test_a_wrapper_that_someone_else_put_over_mlflow_survives(project: Repo, own_store: Store) -> None:
    del project
    seen: list[str] = []
    before = mlflow.MlflowClient.log_metric
    with pytest.MonkeyPatch.context() as patch:
        with tracker_in(own_store):
            inner = mlflow.MlflowClient.log_metric

            def outer(self: Any, run_id: str, key: str, *args: Any, **kw: Any) -> Any:
                seen.append(key)
                return inner(self, run_id, key, *args, **kw)

            patch.setattr(mlflow.MlflowClient, "log_metric", outer)
        with tracker_in(own_store) as second:
            mlflow.log_metric("a", 1.0)
        assert seen == ["a"]
        assert len(points_of(run_of(second, own_store))) == 1
    with tracker_in(own_store):
        pass
    assert mlflow.MlflowClient.log_metric is before


def test_a_trace_that_cannot_be_written_costs_a_warning_and_not_the_run(
    project: Repo, own_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del project
    with tracker_in(own_store) as tracker:
        live = tracker._live
        assert live is not None
        monkeypatch.setattr(live.trace, "_failure", OSError("No space left on device"))
        with pytest.warns(ResearchlabWarning, match="No space left"):
            mlflow.log_metric("a", 1.0)
        mlflow.log_metric("a", 2.0)
        tracker.log_state({"x": np.zeros(1)})
        monkeypatch.setattr(live.trace, "close", _raise)
        with pytest.warns(ResearchlabWarning, match="in the block"):
            tracker.__exit__(None, None, None)
    run = run_of(tracker, own_store)
    assert run.run.info.status == "FINISHED"
    assert "No space left" in " ".join(run.record().not_recorded)
    assert run.run.data.metrics == {"a": 2.0}


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a'b", "50%", "", "a b", "../x", "-x", "x.lock", "a..b", "ä", "x" * 300, "a/b"])
def test_a_name_that_cannot_be_a_run_id_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a run id"):
        ExperimentTracker("tests", run_name=name)


def test_runs_that_choose_one_name_at_the_same_time_get_different_names(project: Repo, own_store: Store) -> None:
    del project
    with tracker_in(own_store, "same") as first:
        client = own_store.open()
        # Another process that started a run of this name at the same moment.
        rival = client.create_run(first.active_run.info.experiment_id, tags={RUN_ID_TAG: "same"})  # type: ignore[union-attr]
    from researchlab.tracking._live_run import _claim_name

    name = _claim_name(client, rival, "same", wanted="same")
    assert name in {"same-2", "same-3"}
    assert client.get_run(rival.info.run_id).info.run_name == name
    assert run_of(first, own_store).run.info.run_id == first.mlflow_run_id


# --- what cannot be recorded ----------------------------------------------------------------------


def _warnings_of(tracker: ExperimentTracker) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with tracker:
            pass
    return [entry for entry in caught if issubclass(entry.category, ResearchlabWarning)]


def test_outside_of_a_repository_the_run_is_tracked_and_says_what_is_missing(
    project: Repo, own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from researchlab.tracking import command

    del project
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    monkeypatch.setattr(command, "_FIRST_FOLDER", outside)
    tracker = tracker_in(own_store)
    caught = _warnings_of(tracker)
    run = run_of(tracker, own_store)
    record = run.record()
    assert len(caught) == 1
    assert "git init" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert record.snapshot is None
    assert record.not_recorded == (str(caught[0].message),)
    assert BASE_COMMIT_TAG not in run.run.data.tags
    assert run.run.info.status == "FINISHED"


def test_a_repository_without_a_commit_is_recorded(project: Repo, own_store: Store) -> None:
    project.git("update-ref", "-d", "HEAD")
    tracker = tracker_in(own_store)
    assert _warnings_of(tracker) == []
    run = run_of(tracker, own_store)
    snapshot = run.record().snapshot
    assert snapshot is not None
    assert snapshot.base_commit is None
    assert BASE_COMMIT_TAG not in run.run.data.tags
    assert b"+print(1)" in run.patch()


def test_without_git_the_run_is_tracked_and_says_so(
    project: Repo, own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del project
    monkeypatch.setenv("PATH", str(tmp_path))
    tracker = tracker_in(own_store)
    caught = _warnings_of(tracker)
    assert len(caught) == 1
    assert "git" in str(caught[0].message)
    assert run_of(tracker, own_store).record().snapshot is None


def test_without_git_the_default_store_is_still_that_of_the_repository(
    project: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from researchlab.tracking.runs import default_root

    (project.top / "sub").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert default_root(project.top / "sub") == project.top


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_is_not_recorded_and_the_remedy_is_named(project: Repo, own_store: Store) -> None:
    for path in (project.top, project.top / ".git"):
        os.chown(path, 65534, 65534)
    caught = _warnings_of(tracker := tracker_in(own_store))
    assert len(caught) == 1
    assert "safe.directory" in str(caught[0].message)
    assert "safe.directory" in run_of(tracker, own_store).record().not_recorded[0]


def test_a_file_that_cannot_be_captured_is_named_in_warning_and_record(project: Repo, own_store: Store) -> None:
    project.write(".env", "PASSWORD=1\n")
    (project.top / "mlruns").mkdir()
    project.write("mlflow.db-wal", "the store's own")
    caught = _warnings_of(tracker := tracker_in(own_store))
    assert len(caught) == 1
    assert ".env" in str(caught[0].message)
    assert "mlflow" not in str(caught[0].message)
    snapshot = run_of(tracker, own_store).record().snapshot
    assert snapshot is not None
    assert ".env" in snapshot.left_out


# --- the experiment -------------------------------------------------------------------------------


def _experiment_of(tracker: ExperimentTracker, store: Store) -> str:
    with tracker:
        pass
    return run_of(tracker, store).record().experiment


def test_the_experiment_is_the_repositorys_name_or_what_mlflow_was_told(
    project: Repo, own_store: Store, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del project
    uri = own_store.tracking_uri
    assert _experiment_of(ExperimentTracker(tracking_uri=uri), own_store) == "project"
    mlflow.set_tracking_uri(other_store.tracking_uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("told"))
    assert _experiment_of(ExperimentTracker(), other_store) == "told"
    assert _experiment_of(ExperimentTracker(tracking_uri=uri), own_store) == "project"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    assert _experiment_of(ExperimentTracker(), other_store) == "named"
    assert _experiment_of(ExperimentTracker("given"), other_store) == "given"


def test_an_experiment_id_without_a_store_makes_no_store_in_the_folder(
    project: Repo, own_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert _experiment_of(ExperimentTracker(tracking_uri=own_store.tracking_uri), own_store) == "project"
    assert sorted(path.name for path in project.top.iterdir()) == [".git", ".gitignore", "train.py"]


# --- configurations -------------------------------------------------------------------------------


def _artifacts(tracker: ExperimentTracker, store: Store) -> Path:
    return Path(run_of(tracker, store).run.info.artifact_uri.removeprefix("file://"))


def test_a_configuration_becomes_parameters_and_an_artifact(project: Repo, own_store: Store) -> None:
    from researchlab.design import Config

    class Optimiser(Config):
        rate: float = 0.1

    class Settings(Config):
        widths: tuple[int, ...] = (64, 32)
        optimiser: Optimiser = Optimiser()

    path = project.write("conf/base.yaml", "model:\n  depth: 3\n  sizes: [1, 2]\nname: été\n")
    with tracker_in(own_store) as tracker:
        tracker.log_config(path)
        tracker.log_config(str(project.write("other/base.yaml", "second: yes\n")))
        tracker.log_config(Settings())
        tracker.log_config({"run": {"seed": 1, 2: None}, "path": Path("x")})
        tracker.log_config(project.write("empty.yaml", ""))
    run = run_of(tracker, own_store).run
    assert run.data.params == {
        "model.depth": "3",
        "model.sizes": "[1, 2]",
        "name": "été",
        "second": "True",
        "widths": "[64, 32]",
        "optimiser.rate": "0.1",
        "run.seed": "1",
        "run.2": "None",
        "path": "x",
    }
    folder = _artifacts(tracker, own_store)
    assert (folder / "base.yaml").read_bytes() == path.read_bytes()
    assert (folder / "base-2.yaml").read_text() == "second: yes\n"
    assert json.loads((folder / "config.json").read_text())["optimiser"] == {"rate": 0.1}
    assert json.loads((folder / "config-2.json").read_text()) == {"run": {"seed": 1, "2": None}, "path": "x"}


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"fine": 1, "lr": 2}, r"'lr' of this run is '1' already and cannot become '2'"),
        ({"fine": 1, "a@b": 2}, r"'a@b' holds '@'"),
    ],
    ids=["another value", "refused key"],
)
def test_a_refused_configuration_logs_nothing(
    project: Repo, own_store: Store, second: dict[str, Any], said: str
) -> None:
    del project
    with tracker_in(own_store) as tracker:
        tracker.log_config({"lr": 1})
        tracker.log_config({"lr": 1})
        before = sorted(_artifacts(tracker, own_store).iterdir())
        with pytest.raises(ValueError, match=said):
            tracker.log_config(second)
        assert sorted(_artifacts(tracker, own_store).iterdir()) == before
    assert run_of(tracker, own_store).run.data.params == {"lr": "1"}


def test_many_and_long_parameters_are_logged(project: Repo, own_store: Store) -> None:
    del project
    with tracker_in(own_store) as tracker:
        tracker.log_config({f"p{number}": number for number in range(250)})
        with pytest.warns(ResearchlabWarning, match=r"first 6000 characters.*long") as caught:
            tracker.log_config({"long": "x" * 7000})
    assert caught[0].filename == __file__
    params = run_of(tracker, own_store).run.data.params
    assert len(params) == 251
    assert params["long"] == "x" * 6000
    assert len(json.loads((_artifacts(tracker, own_store) / "config-2.json").read_text())["long"]) == 7000
