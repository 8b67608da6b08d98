# ruff: noqa: ARG005 - a telemetry takes what it is given

from __future__ import annotations

import gc
import os

import jax.numpy as jnp
import numpy as np
import pytest

from researchlab import _recording
from researchlab._recording import MetricBlock
from researchlab.design import MetricEntry, MLFlowTelemetry, Telemetry
from researchlab.design._telemetries import _reporter
from researchlab.design._telemetries._reporter import Reporter, goes_in_background, source_name, takes_batches
from researchlab.errors import ResearchlabWarning, StoreError


class Single(Telemetry):
    def __init__(self):
        self.seen = []
        self.params = None

    def log_metrics(self, metrics, step):
        self.seen.append((dict(metrics), step, {name: _recording.is_recorded(name, step) for name in metrics}))

    def log_params(self, params):
        self.params = params


class Batching(Single):
    fails = False

    def log_metrics_batch(self, entries):
        if self.fails:
            msg = "store is down"
            raise StoreError(msg)
        self.seen.append(
            [(dict(entry.metrics), entry.step, _recording.is_recorded("m", entry.step)) for entry in entries]
        )


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(_reporter.time, "monotonic", lambda: Clock.now)
    return Clock


def test_only_a_telemetry_with_its_own_batch_method_takes_batches():
    class Watched(MLFlowTelemetry):
        def log_metrics(self, metrics, step): ...

    class WatchedBatches(Watched):
        def log_metrics_batch(self, entries): ...

    assert not takes_batches(Single())
    assert takes_batches(Batching())
    assert takes_batches(MLFlowTelemetry())
    assert not takes_batches(Watched())
    assert takes_batches(WatchedBatches())
    patched = MLFlowTelemetry()
    patched.log_metrics = lambda metrics, step: None
    assert not takes_batches(patched)


def test_the_default_batch_method_calls_log_metrics_for_each_step():
    telemetry = Single()
    telemetry.log_metrics_batch([MetricEntry({"m": 1.0}, 1, 0), MetricEntry({"m": 2.0}, 2, 0)])
    assert [entry[:2] for entry in telemetry.seen] == [({"m": 1.0}, 1), ({"m": 2.0}, 2)]


def test_the_recorder_gets_the_bits_and_the_telemetry_python_numbers(recorder):
    telemetry = Single()
    Reporter(recorder, telemetry).metrics({"m": jnp.asarray(1.5, jnp.bfloat16), "k": 2}, 1)
    ((recorded, step),) = recorder.metrics
    assert (recorded["m"].dtype, step) == (jnp.bfloat16, 1)
    assert isinstance(recorded["m"], np.generic)
    ((shown, step, _),) = telemetry.seen
    assert (shown, step) == ({"m": 1.5, "k": 2}, 1)
    assert [type(value) for value in shown.values()] == [float, int]


def test_what_is_shown_counts_as_recorded_only_while_a_recorder_has_it(recorder):
    telemetry = Single()
    Reporter(recorder, telemetry).metrics({"m": 1.0}, 1)
    Reporter(None, telemetry).metrics({"m": 1.0}, 1)
    assert [entry[2]["m"] for entry in telemetry.seen] == [True, False]
    assert not _recording.is_recorded("m", 1)


def test_batches_go_once_a_second_and_at_the_end(recorder, clock):
    telemetry = Batching()
    reporter = Reporter(recorder, telemetry)
    for step in range(1, 6):
        clock.now += 0.4
        reporter.metrics({"m": float(step)}, step)
    assert telemetry.seen == [[({"m": float(step)}, step, True) for step in (1, 2, 3)]]
    reporter.close()
    assert telemetry.seen[1] == [({"m": float(step)}, step, True) for step in (4, 5)]
    reporter.close()
    assert len(telemetry.seen) == 2


def test_what_a_failing_store_refuses_is_sent_again_ever_more_patiently(clock):
    telemetry = Batching()
    telemetry.fails = True
    reporter = Reporter(None, telemetry)
    clock.now += 1
    with pytest.warns(ResearchlabWarning, match="metrics wait for the store.*store is down"):
        reporter.metrics({"m": 1.0}, 1)
    clock.now += 2
    reporter.metrics({"m": 2.0}, 2)
    telemetry.fails = False
    clock.now += 3.9
    reporter.metrics({"m": 3.0}, 3)
    assert telemetry.seen == []
    clock.now += 0.1
    reporter.metrics({"m": 4.0}, 4)
    assert [entry[1] for entry in telemetry.seen[0]] == [1, 2, 3, 4]
    reporter.close()


def test_the_last_failure_says_how_many_values_are_missing_and_where_they_are(recorder):
    telemetry = Batching()
    telemetry.fails = True
    reporter = Reporter(recorder, telemetry)
    reporter.metrics({"m": 1.0, "n": 2.0}, 1)
    reporter.metrics({"m": 1.0, "n": 2.0}, 2)
    with pytest.warns(
        ResearchlabWarning, match="4 metric values of steps 1 to 2 were not delivered, the run's trace has them"
    ):
        reporter.close()


def test_loops_are_named_in_the_order_of_their_first_run_for_each_recorder(recorder):
    class Other:
        pass

    first, second = Other(), Other()
    assert [source_name(recorder, loop) for loop in (first, second, first)] == ["loop", "loop-2", "loop"]
    assert source_name(Other(), second) == "loop"
    del first
    gc.collect()
    third = Other()
    assert source_name(recorder, third) == "loop-3"
    assert source_name(recorder, second) == "loop-2"


def block(first, count):
    steps = np.arange(first, first + count)
    return MetricBlock(steps, steps * 0.5, {"m": (steps * 0.1).astype(np.float32), "k": steps})


class Background(Batching):
    """Shows what it gets in the background in a telemetry of its own."""

    def __init__(self):
        super().__init__()
        self.behind = Batching()
        self.asked = 0

    def in_background(self):
        self.asked += 1
        return self.behind


def shown_steps(telemetry):
    return [step for batch in telemetry.seen for _, step, _ in batch]


def test_only_a_telemetry_with_its_own_background_is_called_from_a_thread():
    class Watched(MLFlowTelemetry):
        def log_metrics(self, metrics, step): ...

    class WatchedBatches(MLFlowTelemetry):
        def log_metrics_batch(self, entries): ...

    class Both(WatchedBatches):
        def in_background(self): ...

    class Inherited(MLFlowTelemetry): ...

    assert [goes_in_background(made()) for made in (MLFlowTelemetry, Inherited, Both, Background)] == [True] * 4
    assert [goes_in_background(made()) for made in (Single, Batching, Watched, WatchedBatches)] == [False] * 4
    patched = MLFlowTelemetry()
    patched.log_metrics_batch = lambda entries: None
    assert not goes_in_background(patched)


def test_a_block_goes_to_the_recorder_as_it_is_and_to_the_telemetry_step_by_step(recorder):
    blocks = []
    recorder.record_metric_block = blocks.append
    telemetry = Single()
    reporter = Reporter(recorder, telemetry)
    made = block(1, 3)
    reporter.block(made)
    reporter.close()
    assert blocks == [made]
    assert [entry[:2] for entry in telemetry.seen] == [
        ({"m": float(np.float32(0.1 * step)), "k": step}, step) for step in (1, 2, 3)
    ]
    assert all(entry[2] == {"m": True, "k": True} for entry in telemetry.seen)


def test_a_recorder_that_takes_no_blocks_gets_their_steps(recorder):
    Reporter(recorder, None).block(block(1, 2))
    assert recorder.metrics == [({"m": np.float32(0.1), "k": 1}, 1), ({"m": np.float32(0.2), "k": 2}, 2)]
    assert recorder.metrics[0][0]["m"].dtype == np.float32


def test_an_older_recorder_does_without_artifacts_and_executions(recorder, tmp_path):
    _recording.record_artifact(recorder, tmp_path / "video.mp4")
    _recording.record_execution(recorder, {"mode": "jit"}, source="loop")


def test_batches_of_blocks_go_once_a_second_on_the_thread_of_the_loop(clock):
    telemetry = Batching()
    reporter = Reporter(None, telemetry)
    reporter.block(block(1, 3))
    clock.now += 1
    reporter.block(block(4, 2))
    assert [[step for _, step, _ in batch] for batch in telemetry.seen] == [[1, 2, 3, 4, 5]]
    reporter.close()


def test_the_background_telemetry_gets_blocks_and_steps_in_order(recorder):
    telemetry = Background()
    reporter = Reporter(recorder, telemetry)
    assert telemetry.asked == 0  # a run that gives no metrics needs no store
    reporter.metrics({"m": 1.0}, 1)
    reporter.block(block(2, 3))
    reporter.metrics({"m": 5.0}, 5)
    reporter.close()
    assert shown_steps(telemetry.behind) == [1, 2, 3, 4, 5]
    assert telemetry.asked == 1
    assert telemetry.seen == []
    assert [step for _, step in recorder.metrics] == [1, 2, 3, 4, 5]
    assert all(is_recorded for batch in telemetry.behind.seen for _, _, is_recorded in batch)


def test_a_telemetry_without_a_background_at_the_moment_gets_batches_itself():
    telemetry = Background()
    telemetry.in_background = lambda: None
    reporter = Reporter(None, telemetry)
    reporter.block(block(1, 3))
    reporter.close()
    assert shown_steps(telemetry) == [1, 2, 3]


@pytest.mark.parametrize("kind", [Single, Batching, Background])
def test_the_selection_is_asked_once_for_each_step_and_the_recorder_keeps_all(recorder, kind):
    asked = []

    def select(steps, times):
        assert (steps.dtype, times.dtype) == (np.int64, np.float64)
        asked.extend(steps.tolist())
        return steps % 3 == 0

    telemetry = kind()
    reporter = Reporter(recorder, telemetry, select=select)
    for step in (1, 2, 3):
        reporter.metrics({"m": 1.0}, step)
    reporter.block(block(4, 4))
    reporter.block(block(8, 1))
    reporter.block(block(9, 1))
    reporter.close()
    shown = (
        [entry[1] for entry in telemetry.seen]
        if kind is Single
        else shown_steps(getattr(telemetry, "behind", telemetry))
    )
    assert shown == [3, 6, 9]
    assert asked == [step for _, step in recorder.metrics] == list(range(1, 10))


def test_the_arrays_of_a_block_may_be_reused():
    telemetry = Background()
    reporter = Reporter(None, telemetry)
    made = block(1, 3)
    reporter.block(made)
    for array in (made.steps, made.times, *made.columns.values()):
        array[:] = 0
    assert reporter.latest == {"m": float(np.float32(0.3)), "k": 3}
    reporter.close()
    assert [(metrics["k"], step) for metrics, step, _ in telemetry.behind.seen[0]] == [(1, 1), (2, 2), (3, 3)]


def test_the_latest_metrics_are_python_numbers_of_the_last_step():
    reporter = Reporter(None, None)
    assert reporter.latest == {}
    reporter.metrics({"m": jnp.asarray(1.5, jnp.bfloat16), "ok": True}, 1)
    assert reporter.latest == {"m": 1.5, "ok": True}
    assert [type(value) for value in reporter.latest.values()] == [float, bool]
    reporter.block(block(2, 2))
    assert reporter.latest == {"m": float(np.float32(0.3)), "k": 3}
    reporter.block(block(4, 0))
    assert reporter.latest["k"] == 3


def test_steps_without_metrics_are_no_request(recorder):
    telemetry = Background()
    reporter = Reporter(recorder, telemetry)
    reporter.block(MetricBlock(np.arange(3), np.zeros(3), {}))
    reporter.metrics({}, 3)
    reporter.close()
    assert telemetry.asked == 0
    assert reporter.latest == {}


def test_a_telemetry_that_counts_steps_is_told_of_those_without_metrics():
    telemetry = Single()
    reporter = Reporter(None, telemetry)
    reporter.block(MetricBlock(np.arange(1, 3), np.zeros(2), {}))
    reporter.metrics({}, 3)
    assert [entry[:2] for entry in telemetry.seen] == [({}, 1), ({}, 2), ({}, 3)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:os.fork:RuntimeWarning")
def test_a_forked_child_that_goes_on_has_a_background_of_its_own():
    telemetry = Background()
    reporter = Reporter(None, telemetry)
    reporter.block(block(1, 2))
    child = os.fork()
    if child == 0:
        reporter.block(block(3, 2))
        reporter.close()
        os._exit(0 if shown_steps(telemetry.behind) == [3, 4] else 1)
    assert os.waitpid(child, 0)[1] == 0
    reporter.close()
    assert shown_steps(telemetry.behind) == [1, 2]
