from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from researchlab.numerics.compare_metrics import compare_metrics
from researchlab.numerics.history import MetricHistory

VALUES = st.sampled_from([0.0, 0, -0.0, 1.0, np.float32(1.0), float("nan"), 1, 2**80, 2**80 + 1, True])
HISTORIES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 3), VALUES), max_size=12)


def history(*points):
    return MetricHistory.from_values(points)


def keyed(points):
    """Return {(name, step, occurrence): (dtype, bits)}, the slow and obvious way."""
    seen = Counter()
    result = {}
    for name, metric in MetricHistory.from_values(points).metrics.items():
        for index in range(len(metric)):
            step = int(metric.steps[index])
            result[name, step, seen[name, step]] = (metric.dtype(index), metric.bits(index))
            seen[name, step] += 1
    return result


@given(HISTORIES, HISTORIES, st.booleans())
def test_comparison_agrees_with_a_slow_reference(stored, received, prefix):
    left, right = keyed(stored), keyed(received)
    last = {name: max(step for other, step, _ in left if other == name) for name, _, _ in left}
    beyond = {key for key in right.keys() - left.keys() if key[1] >= last.get(key[0], -9)} if prefix else set()
    wrong = {key for key in (left.keys() | right.keys()) - beyond if left.get(key) != right.get(key)}
    result = compare_metrics(MetricHistory.from_values(stored), MetricHistory.from_values(received), prefix=prefix)
    assert result.points == len(left.keys() & right.keys())
    assert result.beyond == len(beyond)
    assert {(d.name, d.step, d.occurrence) for d in result.differences} == {
        min(key for key in wrong if key[0] == name) for name in {key[0] for key in wrong}
    }
    for difference in result.differences:
        key = (difference.name, difference.step, difference.occurrence)
        assert difference.differing == sum(other[0] == difference.name for other in wrong)
        assert difference.size == sum(other[0] == difference.name for other in (left.keys() | right.keys()) - beyond)
        expected = (
            "extra" if key not in left
            else "missing" if key not in right
            else "dtype" if left[key][0] != right[key][0]
            else "value"
        )  # fmt: skip
        assert difference.reason == expected
        assert "\n" not in difference.describe()
    if result.differences:
        assert result.first.step == min(key[1] for key in wrong)
    else:
        assert result.first is None


@given(HISTORIES)
def test_a_history_equals_itself(points):
    result = compare_metrics(MetricHistory.from_values(points), MetricHistory.from_values(points))
    assert result.differences == ()
    assert result.points == len(points)


def test_the_order_between_metrics_and_between_steps_does_not_matter():
    result = compare_metrics(
        history(("a", 1, 0.5), ("b", 1, 1.5), ("a", 2, 2.5)), history(("b", 1, 1.5), ("a", 2, 2.5), ("a", 1, 0.5))
    )
    assert result.differences == ()


def test_of_two_metrics_that_differ_at_one_step_the_one_logged_first_is_first():
    stored = history(("z", 0, 0.0), ("a", 0, 0.0), ("z", 1, 0.0), ("a", 1, 0.0))
    received = history(("a", 0, 0.0), ("z", 0, 0.0), ("z", 1, 1.0), ("a", 1, 1.0))
    assert [difference.name for difference in compare_metrics(stored, received).differences] == ["z", "a"]
    assert compare_metrics(stored, received).first.name == "z"


def test_the_line_names_step_values_bits_and_ulps():
    up = np.nextafter(np.float32(0.1), np.float32(1))
    stored = history(("loss", 0, np.float32(1)), ("loss", 5, np.float32(0.1)))
    result = compare_metrics(stored, history(("loss", 0, np.float32(1)), ("loss", 5, up)))
    assert result.first.describe() == (
        "loss: 1/2 points differ; first at step 5: "
        "stored 0.1 (0x3dcccccd), received 0.10000001 (0x3dccccce), 1 ULP apart"
    )
    assert result.first.ulp == 1


def test_the_same_bits_in_another_dtype_are_a_difference():
    result = compare_metrics(history(("m", 0, 0.0), ("n", 0, 1)), history(("m", 0, 0), ("n", 0, 1)))
    assert [(d.name, d.reason, d.stored) for d in result.differences] == [
        ("m", "dtype", "float64 0.0 (0x0000000000000000)")
    ]


def test_ignored_metrics_are_named_and_not_judged():
    result = compare_metrics(
        history(("system/cpu", 0, 1.0), ("loss", 0, 1.0)),
        history(("loss", 0, 1.0), ("System", 0, 1.0)),
        ignore=["system/*"],
    )
    assert result.ignored == ("system/cpu",)
    assert result.metrics == 2
    assert [difference.name for difference in result.differences] == ["System"]


def test_an_interrupted_original_is_compared_as_far_as_it_got():
    stored = history(("loss", 0, 1.0), ("epoch", 0, 1.0), ("loss", 1, 2.0), ("loss", 2, 3.0))
    going_on = [("loss", 3, 4.0), ("epoch", 1, 5.0), ("final", 0, 6.0)]
    received = history(("loss", 0, 1.0), ("epoch", 0, 1.0), ("loss", 1, 2.0), ("loss", 2, 3.0), *going_on)
    assert [difference.reason for difference in compare_metrics(stored, received).differences] == ["extra"] * 3
    result = compare_metrics(stored, received, prefix=True)
    assert result.differences == ()
    assert (result.points, result.beyond) == (4, 3)
    same_step = history(("loss", 0, 1.0), ("loss", 0, 2.0), ("loss", 0, 3.0))
    assert compare_metrics(history(("loss", 0, 1.0)), same_step, prefix=True).beyond == 2
    shorter = history(("loss", 0, 1.0), ("epoch", 0, 1.0), ("loss", 1, 2.0))
    assert compare_metrics(stored, shorter, prefix=True).first.reason == "missing"


def test_empty_histories_are_equal():
    result = compare_metrics(history(), history())
    assert (result.differences, result.metrics, result.points, result.first) == ((), 0, 0, None)
