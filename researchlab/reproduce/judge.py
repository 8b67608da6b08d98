"""Given what was recorded and what came back, what is the verdict? Pure: no git, no MLflow, no processes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from researchlab.numerics.compare import compare_leaves, incomparable
from researchlab.numerics.compare_metrics import compare_metrics
from researchlab.reproduce.verdict import Divergence, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from researchlab.numerics.compare import LeafDifference
    from researchlab.numerics.compare_metrics import MetricComparison
    from researchlab.tracking.record import Record
    from researchlab.tracking.trace import Trace, TracedState


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The outcome of comparing two traces.

    Attributes:
        kind: REPRODUCED, DIVERGED, FAILED or NOT COMPARABLE.
        reason: Why, in a sentence.
        first: The first difference.
        differences: A line for each metric and leaf that differs.
        compared: What was compared, in words.
        not_compared: What was not, and why.
    """

    kind: VerdictKind
    reason: str
    first: Divergence | None = None
    differences: tuple[str, ...] = ()
    compared: str = ""
    not_compared: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _StateComparison:
    differences: tuple[tuple[TracedState, LeafDifference], ...]
    states: int
    leaves: int
    not_compared: tuple[str, ...]


def judge(stored_record: Record, stored: Trace, received_record: Record, received: Trace) -> Judgement:
    """Compare what a run recorded with what its re-execution computed.

    Args:
        stored_record: The run's record.
        stored: The run's trace.
        received_record: The record of the re-execution.
        received: The trace of the re-execution.

    Returns:
        The outcome. A run that was interrupted is compared as far as it came.
    """
    result = stored_record.result
    interrupted = result is None or result.status == "KILLED" or stored.truncated
    metrics = compare_metrics(stored.metrics, received.metrics, prefix=interrupted, ignore=stored_record.volatile)
    states = _compare_states(stored.states, received.states, prefix=interrupted)
    compared = _in_words(metrics, states)
    not_compared = [f"metric '{name}': volatile" for name in metrics.ignored]
    not_compared += states.not_compared
    if interrupted:
        why = "killed" if result is None or result.status == "KILLED" else "cut off"
        not_compared.append(f"what comes after the point at which the run was {why} ({metrics.beyond} values)")
    ended = _ended(stored_record, received_record, interrupted=interrupted)
    if ended is not None:
        return dataclasses.replace(ended, compared=compared, not_compared=tuple(not_compared))
    first = _first(metrics, states)
    if first is not None:
        lines = [f"metric {difference.describe()}" for difference in sorted(metrics.differences, key=lambda d: d.step)]
        lines += [f"State '{state.source}' {difference.describe()}" for state, difference in states.differences]
        return Judgement(
            VerdictKind.DIVERGED,
            f"the bits differ first at {first.where()}" if first.step is not None else f"the bits differ in the {first.where()}",
            first,
            tuple(lines),
            compared,
            tuple(not_compared),
        )
    if not metrics.points and not states.leaves:
        return Judgement(
            VerdictKind.NOT_COMPARABLE,
            "the run recorded no metric and no State. Log metrics, run a Loop, or call tracker.log_state(...), and track it again",
            compared="nothing",
            not_compared=tuple(not_compared),
        )
    return Judgement(
        VerdictKind.REPRODUCED, "every bit is equal", compared=compared, not_compared=tuple(not_compared)
    )


def same_difference(first: Judgement, second: Judgement) -> bool:
    """Return whether two re-executions differ from the record in the same way."""
    return (first.kind, first.first, first.differences) == (second.kind, second.first, second.differences)


def _ended(stored: Record, received: Record, *, interrupted: bool) -> Judgement | None:
    """Judge by how the two ended, where that settles it."""
    if received.result is None or received.result.status == "KILLED":
        return Judgement(VerdictKind.FAILED, "the re-execution was stopped before its end")
    if interrupted or stored.result is None:
        return None
    if received.result.status == stored.result.status:
        return None
    if received.result.status == "FAILED":
        return Judgement(VerdictKind.FAILED, f"the re-execution raised {received.result.error}; the run had finished")
    return None if stored.result.status == "FINISHED" else Judgement(
        VerdictKind.DIVERGED, f"the run had raised {stored.result.error}; the re-execution finished"
    )


def _compare_states(stored: Sequence[TracedState], received: Sequence[TracedState], *, prefix: bool) -> _StateComparison:
    others = dict(_numbered(received))
    differences: list[tuple[TracedState, LeafDifference]] = []
    not_compared: list[str] = []
    states = leaves = 0
    for key, state in _numbered(stored):
        if prefix and state.step is None:
            not_compared.append(f"State '{state.source}': the run was interrupted, so that it is not its final one")
            continue
        other = others.pop(key, None)
        found = compare_leaves(state.leaves, () if other is None else other.leaves)
        differences += [(state, difference) for difference in found]
        silent = set() if other is None else set(incomparable(state.leaves, other.leaves))
        not_compared += [f"leaf '{path}' of State '{state.source}': it has no stable text" for path in sorted(silent)]
        states += 1
        leaves += len(state.leaves) - len(silent)
    if not prefix:
        for state in others.values():
            differences += [(state, difference) for difference in compare_leaves((), state.leaves)]
    return _StateComparison(tuple(differences), states, leaves, tuple(not_compared))


def _numbered(states: Iterable[TracedState]) -> list[tuple[tuple[str, int | None, int], TracedState]]:
    """Give each State a key: its source, its step, and how often that pair came before."""
    seen: Counter[tuple[str, int | None]] = Counter()
    keyed: list[tuple[tuple[str, int | None, int], TracedState]] = []
    for state in states:
        place = (state.source, state.step)
        keyed.append(((*place, seen[place]), state))
        seen[place] += 1
    return keyed


def _first(metrics: MetricComparison, states: _StateComparison) -> Divergence | None:
    """Return the difference at the smallest step; a final State comes after all steps."""
    candidates: list[Divergence] = []
    if metrics.first is not None:
        found = metrics.first
        candidates.append(Divergence(found.step, found.name, "metric", found.stored, found.received, found.ulp))
    for state, difference in states.differences[:1]:
        index = difference.first_index
        place = f"[{', '.join(map(str, index))}]" if index else ""
        name = f"{state.source}: {difference.path}{place}"
        candidates.append(Divergence(state.step, name, "leaf", difference.stored, difference.received, difference.ulp))
    return min(candidates, key=lambda item: float("inf") if item.step is None else item.step, default=None)


def _in_words(metrics: MetricComparison, states: _StateComparison) -> str:
    parts: list[str] = []
    if metrics.points:
        parts.append(f"{_count(metrics.metrics, 'metric')} ({_count(metrics.points, 'value')})")
    if states.leaves:
        parts.append(f"{_count(states.states, 'State')} ({_count(states.leaves, 'leaf', 'leaves')})")
    return ", ".join(parts)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
