"""Given what was recorded and what came back, what is the verdict? Pure: no git, no MLflow, no processes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from researchlab.numerics.compare import compare_leaves, incomparable
from researchlab.numerics.compare_metrics import compare_metrics
from researchlab.reproduce.verdict import Divergence, VerdictKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from researchlab.numerics.compare import LeafDifference
    from researchlab.numerics.compare_metrics import MetricComparison
    from researchlab.numerics.leaves import Leaf
    from researchlab.tracking.record import Record, ResultRecord
    from researchlab.tracking.trace import Trace

    StateName = tuple[str, int | None]
    States = Mapping[StateName, tuple[Leaf, ...]]

NOTHING_RECORDED = (
    "the run recorded no metric and no State that could be judged. "
    "Log metrics, run a Loop, or call tracker.log_state(...), and track it again"
)


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
    differences: tuple[tuple[StateName, LeafDifference], ...]
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
    interrupted = result is None or result.status == "KILLED"
    metrics = compare_metrics(stored.metrics, received.metrics, prefix=interrupted, ignore=stored_record.volatile)
    states = _compare_states(stored.states, received.states, prefix=interrupted)
    compared = _in_words(metrics, states)
    not_compared = [f"metric '{name}': volatile" for name in metrics.ignored]
    not_compared += states.not_compared
    if interrupted:
        beyond = f" ({_count(metrics.beyond, 'value')})" if metrics.beyond else ""
        not_compared.append(f"what comes after the point at which the run was killed{beyond}")
    first = _first(metrics, states)
    ended = _ended(stored_record, received_record, interrupted=interrupted, differs=first is not None)
    if ended is not None:
        return dataclasses.replace(ended, compared=compared, not_compared=tuple(not_compared))
    if first is not None:
        lines = [f"metric {difference.describe()}" for difference in sorted(metrics.differences, key=lambda d: d.step)]
        lines += [f"State '{name[0]}' {difference.describe()}" for name, difference in states.differences]
        return Judgement(
            VerdictKind.DIVERGED,
            f"the bits differ first at {first.where()}"
            if first.step is not None
            else f"the bits differ in the {first.where()}",
            first,
            tuple(lines),
            compared,
            tuple(not_compared),
        )
    if not metrics.points and not states.leaves:
        return Judgement(
            VerdictKind.NOT_COMPARABLE,
            NOTHING_RECORDED,
            compared="nothing",
            not_compared=tuple(not_compared),
        )
    return Judgement(VerdictKind.REPRODUCED, "every bit is equal", compared=compared, not_compared=tuple(not_compared))


def _ended(stored: Record, received: Record, *, interrupted: bool, differs: bool) -> Judgement | None:
    """Judge by how the two ended, where that settles it."""
    before, now = stored.result, received.result
    if interrupted:
        # A program may end itself as it did before; ended early, it lacks what the run had computed.
        if now is None or (now.status != "FINISHED" and differs and not (before and before.status == now.status)):
            return Judgement(
                VerdictKind.FAILED, f"the re-execution {_end(now)} before the point at which the run was killed"
            )
        return None
    if now is None or now.status == "KILLED":
        return Judgement(VerdictKind.FAILED, f"the re-execution {_end(now)}; the run {_end(before)}")
    if now.status == "FAILED" and _exception(before) != _exception(now):
        return Judgement(VerdictKind.FAILED, f"the re-execution {_end(now)}; the run {_end(before)}")
    if now.status == "FINISHED" and before is not None and before.status == "FAILED":
        return Judgement(VerdictKind.DIVERGED, f"the run {_end(before)}; the re-execution {_end(now)}")
    return None


def _exception(result: ResultRecord | None) -> str | None:
    """Return the type of the exception that ended a run; its text may name paths of its time."""
    return None if result is None or result.error is None else result.error.partition(":")[0]


def _end(result: ResultRecord | None) -> str:
    if result is None or result.status == "KILLED":
        return "was stopped"
    return f"raised {result.error}" if result.status == "FAILED" else "finished"


def _compare_states(stored: States, received: States, *, prefix: bool) -> _StateComparison:
    differences: list[tuple[StateName, LeafDifference]] = []
    not_compared: list[str] = []
    states = leaves = 0
    for name, before in stored.items():
        if prefix and name[1] is None:
            not_compared.append(f"final State '{name[0]}': the run was killed before its end")
            continue
        now = received.get(name, ())
        differences += [(name, difference) for difference in compare_leaves(before, now)]
        silent = set(incomparable(before, now))
        not_compared += [f"leaf '{path}' of State '{name[0]}': it has no stable text" for path in sorted(silent)]
        states += 1
        leaves += len(before) - len(silent)
    if not prefix:
        for name in [name for name in received if name not in stored]:
            differences += [(name, difference) for difference in compare_leaves((), received[name])]
    return _StateComparison(tuple(differences), states, leaves, tuple(not_compared))


def _first(metrics: MetricComparison, states: _StateComparison) -> Divergence | None:
    """Return the difference at the smallest step; a final State comes after all steps."""
    candidates: list[Divergence] = []
    if metrics.first is not None:
        found = metrics.first
        candidates.append(Divergence(found.step, found.name, "metric", found.stored, found.received, found.ulp))
    for (source, step), difference in sorted(states.differences, key=lambda item: _order(item[0][1]))[:1]:
        index = difference.first_index
        place = f"[{', '.join(map(str, index))}]" if index else ""
        name = f"{source}: {difference.path}{place}"
        candidates.append(Divergence(step, name, "leaf", difference.stored, difference.received, difference.ulp))
    return min(candidates, key=lambda item: _order(item.step), default=None)


def _order(step: int | None) -> float:
    return float("inf") if step is None else step


def _in_words(metrics: MetricComparison, states: _StateComparison) -> str:
    parts: list[str] = []
    if metrics.points:
        parts.append(f"{_count(metrics.metrics, 'metric')} ({_count(metrics.points, 'value')})")
    if states.leaves:
        parts.append(f"{_count(states.states, 'State')} ({_count(states.leaves, 'leaf', 'leaves')})")
    return ", ".join(parts)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
