from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researchlab.design import DataProvider, IterableDataProvider
from researchlab.errors import ArgumentError, DataError


def batches(count=20):
    return [{"x": np.full((2,), number, np.float32), "name": f"batch {number}"} for number in range(count)]


def numbers(provider, count=None):
    return [int(batch["x"][0]) for batch in itertools.islice(provider, count)]


def drawing_threads():
    return [thread for thread in threading.enumerate() if thread.name == "researchlab-prefetch"]


def wait_until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    gc.collect()
    wait_until(lambda: not drawing_threads())


class Drawn:
    """Batches 0, 1, ... that count how many were drawn."""

    def __init__(self, stop=None, fail_at=None):
        self.count, self.stop, self.fail_at = 0, stop, fail_at

    def __iter__(self):
        for number in itertools.count() if self.stop is None else range(self.stop):
            if number == self.fail_at:
                msg = f"batch {number} is broken"
                raise OSError(msg)
            self.count += 1
            yield {"x": np.full((2,), number, np.float32)}


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize(
    "form", [list, iter, lambda data: lambda: (batch for batch in data)], ids=["list", "generator", "function"]
)
def test_it_gives_what_the_iterable_gives_and_ends_with_it(form, prefetch):
    provider = IterableDataProvider(form(batches(5)), prefetch=prefetch)
    assert numbers(provider) == [0, 1, 2, 3, 4]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(provider)
    assert provider.get_position() == 5


@given(st.integers(0, 3), st.integers(0, 20), st.integers(0, 20), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_batch_after_seek_is_that_of_straight_iteration(prefetch, before, step, is_closed):
    provider = IterableDataProvider(batches(20), prefetch=prefetch)
    assert numbers(provider, before) == list(range(before))
    assert provider.get_position() == before
    if is_closed:
        provider.close()
    (provider.seek if before % 2 else provider.set_position)(step)
    assert provider.get_position() == step
    assert numbers(provider) == list(range(step, 20))


def test_the_position_counts_what_was_handed_out_and_not_what_was_drawn_ahead():
    drawn = Drawn()
    provider = IterableDataProvider(drawn, prefetch=4)
    assert numbers(provider, 3) == [0, 1, 2]
    wait_until(lambda: drawn.count == 8)  # 3 handed out, 4 ready, 1 waits for room
    assert provider.get_position() == 3
    provider.close()
    assert drawn.count == 8
    other = IterableDataProvider(Drawn(), prefetch=2)
    other.set_position(provider.get_position())
    assert numbers(other, 2) == [3, 4]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_exception_comes_out_at_its_batch_and_again_when_asked_again(prefetch):
    provider = IterableDataProvider(Drawn(fail_at=3), prefetch=prefetch)
    assert numbers(provider, 3) == [0, 1, 2]
    with pytest.raises(OSError, match="batch 3 is broken"):
        next(provider)
    assert provider.get_position() == 3
    with pytest.raises(OSError, match="batch 3 is broken"):
        next(provider)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_after_ctrl_c_no_batch_is_lost(prefetch):
    interrupts = iter([4])

    class Interrupted(Drawn):
        def __iter__(self):
            for batch in super().__iter__():
                if int(batch["x"][0]) == 4 and next(interrupts, None):
                    raise KeyboardInterrupt
                yield batch

    provider = IterableDataProvider(Interrupted(), prefetch=prefetch)
    with pytest.raises(KeyboardInterrupt):
        numbers(provider, 10)
    assert numbers(provider, 3) == [4, 5, 6]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_generator_cannot_go_back(prefetch):
    provider = IterableDataProvider(iter(Drawn()), prefetch=prefetch)
    assert numbers(provider, 3) == [0, 1, 2]
    provider.seek(5)
    assert numbers(provider, 1) == [5]
    with pytest.raises(DataError, match="pass a function that makes it"):
        provider.seek(2)


def test_data_that_are_too_short_for_the_place_say_so():
    with pytest.raises(DataError, match=r"end after 5 batches.* follow step 7"):
        IterableDataProvider(batches(5)).seek(7)


@pytest.mark.parametrize(
    "options", [{"to_device": True}, {"sharding": jax.sharding.SingleDeviceSharding(jax.devices()[1])}]
)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_arrays_are_put_on_the_device_and_text_is_left(prefetch, options):
    raw = np.zeros(128, np.uint8)
    start = -raw.ctypes.data % 64
    memory = raw[start : start + 8].view(np.float32)  # so aligned that JAX would use it as it is on a CPU

    def reused():
        for number in range(4):
            memory[:] = number
            yield {"x": memory, "name": np.array([f"batch {number}"]), "count": number}

    given_out = list(IterableDataProvider(reused, prefetch=prefetch, **options))
    assert [batch["x"].tolist() for batch in given_out] == [[number, number] for number in range(4)]
    assert {device for batch in given_out for device in batch["x"].devices()} == {jax.devices()["sharding" in options]}
    assert [batch["name"][0] for batch in given_out] == [f"batch {number}" for number in range(4)]
    assert [type(batch["count"]) for batch in given_out] == [int] * 4


def test_the_thread_ends_when_the_provider_goes_or_is_closed():
    provider = IterableDataProvider(Drawn(), prefetch=2)
    next(provider)
    assert len(drawing_threads()) == 1
    del provider
    gc.collect()
    wait_until(lambda: not drawing_threads())
    provider = IterableDataProvider(Drawn(), prefetch=2)
    next(provider)
    provider.close()
    provider.close()
    assert not drawing_threads()


def test_closing_ends_the_generator_behind_it():
    ended = threading.Event()

    def generator():
        try:
            yield from Drawn()
        finally:
            ended.set()

    provider = IterableDataProvider(generator, prefetch=2)
    next(provider)
    provider.close()
    assert ended.is_set()


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(3)", "os.kill(os.getpid(), 2)"])
@pytest.mark.slow
def test_the_interpreter_ends_while_batches_are_drawn(ending):
    code = f"""
import os
import numpy as np
from researchlab.design import IterableDataProvider
def batches():
    try:
        while True:
            yield np.ones(1000)
    finally:
        print("closed")
provider = IterableDataProvider(batches, prefetch=3, to_device=True)
for _ in range(5):
    next(provider)
{ending}
"""
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert finished.returncode == (0 if ending == "pass" else 3 if "Exit" in ending else -2), finished.stderr
    assert finished.stdout == "closed\n"
    assert "Fatal" not in finished.stderr


@pytest.mark.slow
def test_a_forked_process_is_told_that_it_has_no_thread():
    code = """
import itertools, os, warnings
warnings.simplefilter("ignore")
from researchlab.design import IterableDataProvider
provider = IterableDataProvider(itertools.count, prefetch=3)
next(provider)
child = os.fork()
if child == 0:
    try:
        next(provider)
    except ValueError as error:
        provider.close()
        os._exit(0 if "forked" in str(error) else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), next(provider))
"""
    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert finished.stdout.split() == ["0", "1"], finished.stderr


@pytest.mark.parametrize(
    ("iterable", "options", "message"),
    [
        (3, {}, "must be an iterable of batches"),
        ([], {"prefetch": -1}, "prefetch must be"),
        ([], {"prefetch": True}, "prefetch must be"),
        ([], {"prefetch": 1.5}, "prefetch must be"),
    ],
)
def test_what_gives_no_batches_is_refused(iterable, options, message):
    with pytest.raises(ArgumentError, match=message):
        IterableDataProvider(iterable, **options)


def test_a_function_that_returns_no_iterable_is_named():
    with pytest.raises(DataError, match="must return an iterable, not 3"):
        next(IterableDataProvider(lambda: 3))


def test_a_provider_of_ones_own_is_brought_to_its_place_by_dropping_batches():
    class Counting(DataProvider):
        number = 0

        def __next__(self):
            self.number += 1
            return self.number

    counting = Counting()
    counting.seek(4)
    assert next(counting) == 5
    assert counting.get_position() is None
    counting.close()
    with pytest.raises(DataError, match="Counting keeps no position"):
        counting.set_position(3)


def test_a_provider_that_looks_at_the_state_is_told_what_to_define():
    class Looking(DataProvider):
        def __next__(self):
            return 1

        def get_batch(self, state):
            return state

    Looking().seek(0)
    with pytest.raises(DataError, match=r"Looking cannot be brought to the batch after step 3.*get_position"):
        Looking().seek(3)


def test_a_long_way_shows_a_progress_bar_and_a_short_one_does_not(capsys, monkeypatch):
    IterableDataProvider(batches()).seek(20)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("researchlab.design._data._skip._SHOWN_AFTER_SECONDS", 0)
    IterableDataProvider(batches()).seek(20)
    assert "IterableDataProvider: to the batch after step 20" in capsys.readouterr().err
