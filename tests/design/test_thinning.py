from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from researchlab._recording import MetricBlock
from researchlab.design import MetricEntry
from researchlab.design._metrics import to_numbers
from researchlab.design._telemetries._thinning import copied, entries_of, selected, steps_in, thinned, values_a_step


def block(steps, metrics=1):
    steps = np.array(steps, np.int64)
    columns = {f"m{number}": steps * 1.0 for number in range(metrics)}
    return MetricBlock(steps, steps / 10, columns)


def entry(step, metrics=1):
    return MetricEntry({f"m{number}": float(step) for number in range(metrics)}, step, step * 100)


def shown(parts):
    return [(entry.step, len(entry.metrics)) for part in parts for entry in entries_of(part)]


def rule(steps, most):
    """The rule as it is told: ``steps`` are pairs of a number and how many values it has."""
    for power in range(64):
        kept = [item for item in steps[:-1] if item[0] % 2**power == 0] + steps[-1:]
        if sum(values for _, values in kept) <= most:
            return kept
    return steps[-1:]


PARTS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4), st.booleans()), min_size=1, max_size=6)


def parts_from(sizes, first):
    parts = []
    for count, metrics, is_block in sizes:
        numbers = range(first, first + count)
        parts += [block(numbers, metrics)] if is_block else [entry(number, metrics) for number in numbers]
        first += count
    return parts


@given(PARTS, st.integers(0, 2**40), st.integers(1, 60))
def test_the_kept_steps_are_those_of_the_rule(sizes, first, most):
    parts = parts_from(sizes, first)
    assert shown(thinned(parts, most)) == rule(shown(parts), most)


@given(
    st.lists(st.integers(1, 60) | st.integers(100, 2000), min_size=1, max_size=40),
    st.integers(0, 1000),
    st.integers(1, 3),
    st.integers(6, 12),
)
def test_what_is_thinned_while_it_waits_leaves_the_same_steps(counts, first, metrics, most):
    parts = parts_from([(count, metrics, True) for count in counts], first)
    waiting = []
    for part in parts:
        waiting.append(copied(part, 8 * most))
        if sum(values for _, values in shown(waiting)) > 16 * most:
            waiting = thinned(waiting, 8 * most)
    assert shown(thinned(waiting, most)) == rule(shown(parts), most)


def test_the_newest_step_is_kept_whole_though_it_alone_is_too_much():
    assert shown(thinned([block([1, 2, 3], 5), entry(4, 5)], 2)) == [(4, 5)]


def test_steps_that_count_back_after_a_checkpoint_was_loaded_are_thinned_too():
    assert shown(thinned([block([5, 6, 7, 8]), block([5, 6, 7])], 3)) == [(8, 1), (7, 1)]


@pytest.mark.parametrize("copy", [lambda part: selected(part, np.array([True] * 3)), lambda part: copied(part, 3)])
def test_what_is_kept_is_a_copy(copy):
    original = block([1, 2, 3])
    part = copy(original)
    original.columns["m0"][:] = 9
    original.steps[:] = 9
    assert [(item.step, item.metrics) for item in entries_of(part)] == [
        (1, {"m0": 1.0}),
        (2, {"m0": 2.0}),
        (3, {"m0": 3.0}),
    ]
    assert (steps_in(part), values_a_step(part)) == (3, 1)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.1, -0.0, np.inf], np.float32),
        np.array([0.1, -0.0, np.inf], np.float16),
        np.array([0.1, 5e-324], np.float64),
        np.array([0.1], np.longdouble),
        np.array([2**53 + 1, -(2**63)], np.int64),
        np.array([2**64 - 1], np.uint64),
        np.array([2**24 + 1], ">i4"),
        np.array([True, False]),
        np.array([0.1, -0.0], ml_dtypes.bfloat16),
        np.array([0.5], ml_dtypes.float8_e4m3fn),
        np.array([-3], ml_dtypes.int4),
    ],
    ids=lambda values: values.dtype.name,
)  # fmt: skip
def test_a_column_gives_the_numbers_that_its_steps_give(values):
    steps = np.arange(len(values))
    entries = entries_of(MetricBlock(steps, steps * 0.001, {"m": values}))
    wanted = [to_numbers({"m": value}, 1)["m"] for value in values]
    assert [item.metrics["m"] for item in entries] == wanted
    assert [item.timestamp_ms for item in entries] == steps.tolist()
    assert {type(item.metrics["m"]) for item in entries} <= {bool, int, float}
