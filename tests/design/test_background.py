from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from researchlab import _recording
from researchlab._recording import MetricBlock
from researchlab.design import MetricEntry, Telemetry
from researchlab.design._telemetries import _background
from researchlab.design._telemetries._background import BackgroundSender
from researchlab.errors import ResearchlabWarning, StoreError


class Store(Telemetry):
    """Keeps what it gets, may be made to fail, and waits while its gate is shut."""

    def __init__(self):
        self.entries = []
        self.requests = []
        self.threads = set()
        self.recorded = []
        self.error = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Semaphore(0)

    def log_metrics(self, metrics, step): ...

    def log_params(self, params): ...

    def log_metrics_batch(self, entries):
        self.threads.add(threading.current_thread())
        self.asked.release()
        self.gate.wait(60)
        if self.error is not None:
            raise self.error
        self.requests.append([entry.step for entry in entries])
        self.entries += entries
        self.recorded += [_recording.is_recorded(name, entry.step) for entry in entries for name in entry.metrics]


@pytest.fixture
def store():
    made = Store()
    yield made
    made.gate.set()


@pytest.fixture
def hasty(monkeypatch):
    """No pauses: a request follows as soon as something waits."""
    monkeypatch.setattr(_background, "SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(_background, "PAUSE_FOR_REQUEST", 0.0)


def sender_for(store, *, recorded=True):
    return BackgroundSender(store, name="Store", recorded=recorded)


def entry(step):
    return MetricEntry({"m": float(step)}, step, step)


def block(first, count):
    steps = np.arange(first, first + count)
    return MetricBlock(steps, steps / 1000, {"m": steps * 1.0, "n": steps})


def test_a_slow_run_is_sent_whole_in_order_from_one_other_thread(store, hasty):
    sender = sender_for(store)
    for step in range(1, 51):
        sender.add(entry(step))
    sender.add(block(51, 50))
    sender.close()
    assert [item.step for item in store.entries] == list(range(1, 101))
    assert store.entries[50] == MetricEntry({"m": 51.0, "n": 51}, 51, 51)
    assert len(store.threads) == 1
    assert threading.current_thread() not in store.threads
    assert not any(thread.is_alive() for thread in store.threads)


def test_what_is_sent_counts_as_recorded_in_its_thread(store):
    for recorded in (True, False):
        sender = sender_for(store, recorded=recorded)
        sender.add(block(1, 2))
        sender.close()
    assert store.recorded == [True] * 4 + [False] * 4


def test_a_fast_run_is_thinned_by_powers_of_two_and_says_so_once(store, caplog):
    caplog.set_level(logging.INFO)
    sender = sender_for(store)
    for first in range(1, 100_001, 1000):
        sender.add(block(first, 1000))
    assert sender._values <= _background.MOST_WAITING
    sender.close()
    (steps,) = store.requests
    assert steps == [*range(256, 100_000, 256), 100_000]
    assert [record.getMessage() for record in caplog.records] == [
        "391 of 100000 steps (0.39 %) went to Store, as more came than it takes; the thinning rule is in the how-to"
    ]


def test_a_run_that_was_not_thinned_says_nothing(store, caplog):
    caplog.set_level(logging.INFO)
    sender = sender_for(store)
    sender.add(block(1, 500))
    sender.close()
    assert len(store.entries) == 500
    assert caplog.records == []


def test_the_loop_does_not_wait_for_a_store_that_does_not_answer(store, hasty, monkeypatch):
    monkeypatch.setattr(_background, "LONGEST_END", 0.05)
    store.gate.clear()
    sender = sender_for(store)
    sender.add(entry(1))
    store.asked.acquire()
    for step in range(2, 100):
        sender.add(entry(step))
    with pytest.warns(
        ResearchlabWarning,
        match=r"99 metric values of steps 1 to 99 were not delivered, the run's trace has them: Store did not answer",
    ):
        sender.close()
    store.gate.set()
    for thread in store.threads:
        thread.join()
    assert store.requests == [[1]]


def test_an_exception_of_another_kind_is_raised_once_where_metrics_are_added(store, hasty):
    store.error = KeyError("mine")
    store.gate.clear()
    sender = sender_for(store)
    sender.add(entry(1))
    store.gate.set()
    sender._thread.join()
    with pytest.raises(KeyError, match="mine"):
        sender.add(entry(2))
    sender.close()


def test_an_exception_of_another_kind_is_raised_at_the_end(store):
    store.error = KeyError("mine")
    sender = sender_for(store)
    sender.add(entry(1))
    with pytest.raises(KeyError, match="mine"):
        sender.close()
    sender.close()


def test_what_the_store_has_to_say_of_metrics_that_it_took_is_a_warning_of_the_loop(store):
    def log_metrics_batch(entries):
        store.entries += entries
        msg = "metric 'a@b' is refused"
        raise ResearchlabWarning(msg)

    store.log_metrics_batch = log_metrics_batch
    sender = sender_for(store)
    sender.add(entry(1))
    with pytest.warns(ResearchlabWarning, match="'a@b' is refused"):
        sender.close()
    assert [item.step for item in store.entries] == [1]


def test_what_a_store_refuses_waits_and_is_sent_again(store, hasty):
    store.error = StoreError("store is down")
    store.gate.clear()
    sender = sender_for(store)
    sender.add(entry(1))
    store.asked.acquire()
    store.gate.set()
    store.asked.acquire()  # it asks again
    with pytest.warns(ResearchlabWarning, match="metrics wait for the store.*store is down"):
        sender.add(entry(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sender.add(entry(3))
        store.error = None
        sender.close()
    assert [item.step for item in store.entries] == [1, 2, 3]


@pytest.mark.parametrize(("recorded", "where"), [(True, "trace has them"), (False, "they are lost")])
def test_what_a_store_refuses_to_the_end_is_counted(store, recorded, where):
    store.error = StoreError("store is down")
    sender = sender_for(store, recorded=recorded)
    sender.add(block(1, 4))
    with pytest.warns(ResearchlabWarning, match=f"8 metric values of steps 1 to 4 .*{where}.*store is down"):
        sender.close()


def test_an_interrupt_ends_the_wait_of_the_end(store, hasty, monkeypatch):
    store.gate.clear()
    monkeypatch.setattr(_background, "LONGEST_END", 60.0)
    sender = sender_for(store)
    sender.add(entry(1))
    store.asked.acquire()
    sender.add(entry(2))
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with (
        pytest.warns(ResearchlabWarning, match="2 metric values .* it was interrupted"),
        pytest.raises(KeyboardInterrupt),
    ):
        sender.close()
    timer.join()
    store.gate.set()
    for thread in store.threads:
        thread.join()
    assert store.requests == [[1]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:os.fork:RuntimeWarning")
def test_a_forked_child_does_not_wait_for_a_thread_that_it_does_not_have(store, hasty):
    store.gate.clear()
    sender = sender_for(store)
    sender.add(entry(1))
    store.asked.acquire()
    child = os.fork()
    if child == 0:
        sender.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    store.gate.set()
    sender.close()
    assert store.requests == [[1]]


@pytest.mark.slow
def test_the_interpreter_ends_while_a_request_hangs(tmp_path):
    program = """
import threading
from researchlab.design import MetricEntry, Telemetry
from researchlab.design._telemetries import _background
class Hanging(Telemetry):
    def log_metrics(self, metrics, step): ...
    def log_params(self, params): ...
    def log_metrics_batch(self, entries): threading.Event().wait()
_background.LONGEST_END = _background.SHORTEST_PAUSE = 0.01
for left_open in (False, True):
    sender = _background.BackgroundSender(Hanging(), name="Hanging", recorded=False)
    sender.add(MetricEntry({"m": 1.0}, 1, 0))
    if not left_open:
        sender.close()
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert "Hanging did not answer" in done.stderr
