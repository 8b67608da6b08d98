"""Are two metric histories the same, bit for bit, and if not, at which step do they first differ?"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from researchlab.numerics.dtypes import dtype_named
from researchlab.numerics.scalars import decode_scalar, scalar_text
from researchlab.numerics.ulp import NAN_DISTANCE, has_ulps, ulp_distance, ulps_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from researchlab.numerics.history import MetricHistory, Points

MetricReason = Literal["missing", "extra", "dtype", "value"]


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """Where one metric first differs.

    Attributes:
        name: the metric.
        step: the first step (by number) at which it differs.
        occurrence: which of the points of that step, counted from 0; more than one where a step was logged repeatedly.
        reason: the point is only stored ("missing") or only received ("extra"), or has another dtype or value.
        stored: the stored value in decimal and in bits (or its dtype, or "nothing").
        received: the received one, likewise.
        ulp: the distance in ULPs; None for other types than floats, and for a NaN against a number.
        differing: how many of the metric's points differ.
        size: how many points of the metric were judged.
    """

    name: str
    step: int
    occurrence: int
    reason: MetricReason
    stored: str
    received: str
    ulp: int | None
    differing: int
    size: int

    def describe(self) -> str:
        """Return the difference in one line."""
        again = f" (time {self.occurrence + 1} at this step)" if self.occurrence else ""
        what = f"{self.reason} differs: " if self.reason == "dtype" else ""
        apart = "" if self.ulp is None else f", {ulps_text(self.ulp)} apart"
        return (
            f"{self.name}: {self.differing}/{self.size} points differ; first at step {self.step}{again}: "
            f"{what}stored {self.stored}, received {self.received}{apart}"
        )


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """The outcome of comparing two histories.

    Attributes:
        differences: the first difference of each metric that differs, in the order in which the metrics were first
            logged (stored ones first).
        metrics: how many metrics were judged.
        points: how many points were held against each other.
        ignored: the metrics that a glob of ``ignore`` matched.
        beyond: how many received points lie beyond the end of the interrupted original and were not judged.
    """

    differences: tuple[MetricDifference, ...]
    metrics: int
    points: int
    ignored: tuple[str, ...]
    beyond: int

    @property
    def first(self) -> MetricDifference | None:
        """The difference at the smallest step; of several there the one whose metric was logged first."""
        return min(self.differences, key=lambda difference: difference.step, default=None)


def compare_metrics(
    stored: MetricHistory, received: MetricHistory, *, prefix: bool = False, ignore: Sequence[str] = ()
) -> MetricComparison:
    """Compare two histories bit for bit; points are matched by name, step and how often the step was logged before.

    Args:
        stored: the history as it was.
        received: the history as it is now.
        prefix: the original was interrupted: points that a metric has from its last stored step on, and metrics that
            were not reached at all, are counted in ``beyond`` and are no differences.
        ignore: globs of metrics that are not judged (``system/*``).

    Returns:
        The first difference of each metric, and what was compared.
    """
    names = list(dict.fromkeys([*stored.metrics, *received.metrics]))
    ignored = tuple(name for name in names if any(fnmatch.fnmatchcase(name, glob) for glob in ignore))
    differences: list[MetricDifference] = []
    metrics = points = beyond = 0
    for name in names:
        if name in ignored:
            continue
        left, right = stored.metrics.get(name), received.metrics.get(name)
        if prefix and (left is None or not len(left)):
            beyond += 0 if right is None else len(right)
            continue
        metrics += 1
        if left is not None and right is not None and _same(left, right):
            points += len(left)
            continue
        matched = _match(left, right)
        if prefix and left is not None and right is not None:
            kept = matched.extra[right.steps[matched.extra] < left.steps.max()]
            beyond += matched.extra.size - kept.size
            matched = _Matched(matched.left, matched.right, matched.missing, kept)
        points += matched.left.size
        difference = _first_difference(name, left, right, matched)
        if difference is not None:
            differences.append(difference)
    return MetricComparison(tuple(differences), metrics, points, ignored, beyond)


@dataclass(frozen=True, slots=True)
class _Matched:
    """Indices into two metrics' points: pairs by (step, occurrence) in that order, and what has no partner."""

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    missing: NDArray[np.intp]
    extra: NDArray[np.intp]


def _same(left: Points, right: Points) -> bool:
    """Return whether two metrics are equal point for point in logging order: the common case, and the quick one."""
    return (
        np.array_equal(left.steps, right.steps)
        and np.array_equal(left.offsets, right.offsets)
        and np.array_equal(left.data, right.data)
        and np.array_equal(_dtype_codes(left, right), right.codes)
    )


def _dtype_codes(left: Points, right: Points) -> NDArray[Any]:
    """Return the dtypes of ``left`` in the codes of ``right`` (-1 for a dtype that it has not)."""
    known = {dtype: code for code, dtype in enumerate(right.dtypes)}
    return np.array([known.get(dtype, -1) for dtype in left.dtypes], np.int64)[left.codes]


def _match(left: Points | None, right: Points | None) -> _Matched:
    nothing = np.zeros(0, np.int64)
    left_steps = nothing if left is None else left.steps
    right_steps = nothing if right is None else right.steps
    # Steps by rank instead of by value, so that (step, occurrence) fits one integer.
    _, ranks = np.unique(np.concatenate([left_steps, right_steps]), return_inverse=True)
    ranks = ranks.reshape(-1).astype(np.int64)
    width = max(left_steps.size, right_steps.size) + 1
    left_keys = ranks[: left_steps.size] * width + _occurrences(ranks[: left_steps.size])
    right_keys = ranks[left_steps.size :] * width + _occurrences(ranks[left_steps.size :])
    _, at_left, at_right = np.intersect1d(left_keys, right_keys, assume_unique=True, return_indices=True)
    missing, extra = np.ones(left_keys.size, bool), np.ones(right_keys.size, bool)
    missing[at_left], extra[at_right] = False, False
    return _Matched(at_left, at_right, np.flatnonzero(missing), np.flatnonzero(extra))


def _occurrences(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each point how many earlier points have the same step."""
    order = np.argsort(ranks, kind="stable")
    ordered = ranks[order]
    starts = np.searchsorted(ordered, ordered)
    occurrences = np.empty(ranks.size, np.int64)
    occurrences[order] = np.arange(ranks.size) - starts
    return occurrences


def _first_difference(
    name: str, left: Points | None, right: Points | None, matched: _Matched
) -> MetricDifference | None:
    reason: MetricReason
    candidates: list[tuple[int, int, MetricReason, int, int]] = []  # step, occurrence, reason, index left, index right
    differing = matched.missing.size + matched.extra.size
    if left is not None and right is not None:
        unequal = _unequal_pairs(left, right, matched)
        differing += unequal.size
        if unequal.size:
            at_left, at_right = int(matched.left[unequal[0]]), int(matched.right[unequal[0]])
            reason = "value" if left.dtype(at_left) == right.dtype(at_right) else "dtype"
            step, occurrence = _place(left, at_left)
            candidates.append((step, occurrence, reason, at_left, at_right))
    alone: tuple[tuple[Points | None, NDArray[np.intp], MetricReason], ...] = (
        (left, matched.missing, "missing"),
        (right, matched.extra, "extra"),
    )
    for points, indices, reason in alone:
        if points is not None and indices.size:
            index = int(indices[np.argmin(points.steps[indices])])
            step, occurrence = _place(points, index)
            candidates.append((step, occurrence, reason, index, index))
    if not candidates:
        return None
    step, occurrence, reason, at_left, at_right = min(candidates)
    size = matched.left.size + matched.missing.size + matched.extra.size
    stored_text = "nothing" if left is None or reason == "extra" else _text(left, at_left, reason)
    received_text = "nothing" if right is None or reason == "missing" else _text(right, at_right, reason)
    ulp = _ulp(left, at_left, right, at_right) if reason == "value" and left is not None and right is not None else None
    return MetricDifference(name, step, occurrence, reason, stored_text, received_text, ulp, differing, size)


def _unequal_pairs(left: Points, right: Points, matched: _Matched) -> NDArray[np.intp]:
    """Return which matched pairs have another dtype or other bits, in the order of the pairs."""
    unequal = _dtype_codes(left, right)[matched.left] != right.codes[matched.right]
    left_bits, right_bits = left.all_bits(), right.all_bits()
    pairs = zip(matched.left.tolist(), matched.right.tolist(), strict=True)
    unequal |= np.fromiter((left_bits[i] != right_bits[j] for i, j in pairs), bool, matched.left.size)
    return np.flatnonzero(unequal)


def _place(points: Points, index: int) -> tuple[int, int]:
    step = points.steps[index]
    return int(step), int(np.count_nonzero(points.steps[:index] == step))


def _text(points: Points, index: int, reason: MetricReason) -> str:
    dtype, text = points.dtype(index), scalar_text(points.dtype(index), points.bits(index))
    return f"{dtype} {text}" if reason == "dtype" else text


def _ulp(left: Points, at_left: int, right: Points, at_right: int) -> int | None:
    dtype = left.dtype(at_left)
    if dtype == "int" or not has_ulps(dtype_named(dtype)):
        return None
    distance = int(ulp_distance(decode_scalar(dtype, left.bits(at_left)), decode_scalar(dtype, right.bits(at_right))))
    return None if distance == NAN_DISTANCE else distance
