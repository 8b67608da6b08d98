"""Were the Loops of a run executed in the same way as in its re-execution: compiled or not, how many steps at once?

The way of execution can change bits. That is named beside a verdict, and does not decide it: the bits do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from researchlab.tracking._wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from researchlab.tracking.record import Record

_LONGEST = 100


def execution_differences(recorded: Record, present: Record) -> tuple[str, ...]:
    """Compare how the Loops of two runs were executed.

    Args:
        recorded: The run's record.
        present: The re-execution's.

    Returns:
        A line for each difference, ``loop: mode 'jit' -> 'scan'``. Loops and facts that only one of the two has are
        passed over: another version of researchlab may have recorded them.
    """
    before, now = _ways(recorded), _ways(present)
    lines: list[str] = []
    for source in [source for source in before if source in now]:
        stored, received = before[source], now[source]
        for number, (one, other) in enumerate(zip(stored, received, strict=False), 1):
            where = printable(source) + (f", way {number}" if len(stored) > 1 else "")
            lines += [
                f"{where}: {printable(name)} {_shown(one[name])} -> {_shown(other[name])}"
                for name in one
                if name in other and one[name] != other[name]
            ]
        was_killed = recorded.result is None or recorded.result.status == "KILLED"
        if len(stored) > len(received) or (len(stored) < len(received) and not was_killed):
            lines.append(f"{printable(source)}: ran in {counted(len(stored), 'mode')} -> in {len(received)}")
    return tuple(lines)


def _ways(record: Record) -> dict[str, list[Mapping[str, str]]]:
    ways: dict[str, list[Mapping[str, str]]] = {}
    for execution in record.executions:
        ways.setdefault(execution.source, []).append(execution.facts)
    return ways


def _shown(value: str) -> str:
    text = printable(value)
    return f"'{text[:_LONGEST]}...'" if len(text) > _LONGEST else f"'{text}'"
