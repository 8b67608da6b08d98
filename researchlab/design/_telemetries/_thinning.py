"""Which of the steps that wait are shown, when more wait than a store takes? Pure: no threads, no clock.

The rule: when they fit into one request, all. Else those whose number is divisible by the smallest power of two that
makes them fit, plus the newest.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from researchlab._recording import MetricBlock
from researchlab.design._metrics import column_numbers
from researchlab.design._telemetries._telemetry import MetricEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Part = MetricBlock | MetricEntry
    """Steps that wait: several, as arrays, or a single one."""

_POWERS = 64


def thinned(parts: Sequence[Part], most: int) -> list[Part]:
    """Return what is kept of ``parts``, oldest first.

    Args:
        parts: what waits; the last step of the last one is the newest.
        most: how many values fit. The newest step is kept whole, also where it alone has more.
    """
    counts = [steps_in(part) for part in parts]
    if sum(count * values_a_step(part) for part, count in zip(parts, counts, strict=True)) <= most:
        return list(parts)
    steps = np.concatenate([part.steps if isinstance(part, MetricBlock) else np.array([part.step]) for part in parts])
    keep = _kept(steps, np.repeat([values_a_step(part) for part in parts], counts), most)
    ends = list(itertools.accumulate(counts))
    masks = (keep[end - count : end] for end, count in zip(ends, counts, strict=True))
    return [selected(part, mask) for part, mask in zip(parts, masks, strict=True) if mask.any()]


def copied(part: Part, most: int) -> Part:
    """Return what ``thinned`` keeps of one part, with arrays of its own."""
    (kept,) = thinned([part], most)
    return (
        kept
        if kept is not part or isinstance(part, MetricEntry)
        else selected(part, np.ones(len(part.steps), np.bool_))
    )


def selected(part: Part, mask: NDArray[np.bool_]) -> Part:
    """Return a part with the steps of the mask only (bool of shape ``[n]``, not empty), its arrays copied."""
    if isinstance(part, MetricEntry):
        return part
    columns = {name: column[mask] for name, column in part.columns.items()}
    return MetricBlock(part.steps[mask], part.times[mask], columns)


def entries_of(part: Part) -> list[MetricEntry]:
    """Return a part step by step, as Python numbers."""
    if isinstance(part, MetricEntry):
        return [part]
    names = tuple(part.columns)
    columns = [column_numbers(column) for column in part.columns.values()]
    rows: Any = zip(*columns, strict=True) if columns else itertools.repeat((), len(part.steps))
    steps, times = part.steps.tolist(), (part.times * 1000).astype(np.int64).tolist()
    return [
        MetricEntry(dict(zip(names, row, strict=True)), step, time)
        for row, step, time in zip(rows, steps, times, strict=True)
    ]


def steps_in(part: Part) -> int:
    """Return how many steps a part has."""
    return len(part.steps) if isinstance(part, MetricBlock) else 1


def values_a_step(part: Part) -> int:
    """Return how many metrics each of its steps has."""
    return len(part.columns) if isinstance(part, MetricBlock) else len(part.metrics)


def _kept(steps: NDArray[np.int64], values: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    # The largest power of two that divides each step; 0 is divisible by all.
    exponents = np.frexp((steps & -steps).astype(np.float64))[1] - 1
    exponents[steps == 0] = _POWERS - 1
    newest = np.zeros(steps.size, np.bool_)
    newest[-1] = True
    divisible = np.cumsum(np.bincount(exponents, weights=values, minlength=_POWERS)[::-1])[::-1]
    total = divisible + np.where(np.arange(_POWERS) > exponents[-1], values[-1], 0)
    fitting = np.flatnonzero(total <= most)
    return newest | (exponents >= fitting[0]) if fitting.size else newest
