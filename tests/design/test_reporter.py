# ruff: noqa: ARG005 - a telemetry takes what it is given

from __future__ import annotations

import gc

import jax.numpy as jnp
import numpy as np
import pytest

from researchlab import _recording
from researchlab.design import MetricEntry, MLFlowTelemetry, Telemetry, _reporter
from researchlab.design._reporter import Reporter, source_name, takes_batches
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
