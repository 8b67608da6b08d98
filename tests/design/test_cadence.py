"""Is the next step of a cadence the first one that is due, and is it the same when many steps are asked at once?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from researchlab.design._cadence import NEVER, Cadence, Selector, Timer
from researchlab.errors import ArgumentError

PARTS = st.fixed_dictionaries(
    {},
    optional={
        "every": st.integers(1, 30),
        "at": st.lists(st.integers(1, 300), max_size=5),
        "per_decade": st.integers(1, 20),
    },
)
CADENCES = PARTS.filter(lambda parts: parts.get("every") or parts.get("at") or parts.get("per_decade")).map(
    lambda parts: Cadence(**parts)
)


@given(CADENCES, st.integers(0, 400))
def test_the_next_step_is_the_first_one_that_is_due(cadence, step):
    following = cadence.next_step(step)
    assert following > step
    between = range(step + 1, min(following, step + 500))
    assert not any(cadence.includes(other) for other in between)
    assert following == NEVER or cadence.includes(following)


@given(CADENCES, st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_a_selector_takes_the_steps_that_are_due_however_they_come(cadence, lengths):
    selector = Selector(cadence)
    start, found = 1, []
    for length in lengths:
        steps = np.arange(start, start + length)
        found += steps[selector(steps, steps.astype(float))].tolist()
        start += length
    assert found == [step for step in range(1, start) if cadence.includes(step)]


@given(st.lists(st.floats(0, 3), min_size=1, max_size=50), st.floats(0.1, 5), st.integers(1, 7))
def test_a_selector_and_a_timer_tell_the_same_time(gaps, seconds, parts):
    times = np.cumsum(gaps)
    steps = np.arange(1, len(times) + 1)
    cadence = Cadence(every_seconds=seconds)
    selector = Selector(cadence)
    chosen = np.concatenate([selector(s, t) for s, t in zip(np.array_split(steps, parts), np.array_split(times, parts),
                                                            strict=True)])  # fmt: skip
    last, wanted = times[0], []
    for time in times:
        wanted.append(bool(time >= last + seconds))
        last = time if wanted[-1] else last
    assert chosen.tolist() == wanted


@pytest.mark.parametrize("per_decade", [1, 3, 10])
def test_decades_have_their_steps(per_decade):
    cadence = Cadence(per_decade=per_decade)
    steps = [step for step in range(1, 10001) if cadence.includes(step)]
    assert steps[0] == 1
    assert {10, 100, 1000, 10000} <= set(steps)
    assert len([step for step in steps if 1000 <= step < 10000]) == per_decade


def test_a_timer_starts_anew_when_it_was_due():
    timer = Timer(Cadence(every_seconds=10, every=7), now=100.0)
    assert (timer.seconds_left(103.0), timer.is_due(1, 103.0), timer.is_due(7, 104.0)) == (7.0, False, True)
    assert timer.is_due(8, 110.0)
    assert not timer.is_due(9, 119.9)
    assert Timer(Cadence(every=3), now=0.0).seconds_left(1e9) == math.inf


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs one of every="),
        ({"at": []}, "needs one of every="),
        ({"every": 0}, "every must be a whole number of at least 1; it is 0"),
        ({"every": 1.5}, "every must be"),
        ({"every": True}, "every must be"),
        ({"at": [0]}, "at must be"),
        ({"every_seconds": 0}, "every_seconds must be a positive number"),
        ({"every_seconds": math.inf}, "every_seconds must be"),
        ({"every_seconds": "a"}, "every_seconds must be"),
        ({"per_decade": 0}, "per_decade must be"),
    ],
)
def test_what_is_no_cadence_is_refused(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        Cadence(**arguments)
