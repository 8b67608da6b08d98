"""What came out of a re-execution, and what is the evidence?"""

from __future__ import annotations

import dataclasses
import enum
import math
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class VerdictKind(enum.StrEnum):
    """The outcomes that a re-execution can have."""

    REPRODUCED = "REPRODUCED"
    DIVERGED = "DIVERGED"
    NONDETERMINISTIC = "NONDETERMINISTIC"
    NOT_RESTORED = "NOT RESTORED"
    NOT_RE_EXECUTABLE = "NOT RE-EXECUTABLE"
    FAILED = "FAILED"
    NOT_COMPARABLE = "NOT COMPARABLE"


#: What each outcome means, in words for people who meet it the first time.
MEANING = {
    VerdictKind.REPRODUCED: "the same bits came back",
    VerdictKind.DIVERGED: "other bits came back",
    VerdictKind.NONDETERMINISTIC: "other bits came back, and two re-executions differ from each other too",
    VerdictKind.NOT_RESTORED: "its code or an input could not be brought back exactly, so that nothing was judged",
    VerdictKind.NOT_RE_EXECUTABLE: "the record does not say how to start the program again",
    VerdictKind.FAILED: "the re-execution did not come to its end",
    VerdictKind.NOT_COMPARABLE: "there is nothing recorded that could be compared",
}


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The first place at which the bits differ.

    Attributes:
        step: The step, or None for a final State.
        name: The metric, or the State's source and the leaf's path.
        kind: ``metric`` or ``leaf``.
        stored: The recorded value, in decimal and hexadecimal.
        received: The value that came now.
        ulp: Distance in units in the last place, or None where that has no meaning.
    """

    step: int | None
    name: str
    kind: str
    stored: str
    received: str
    ulp: int | None = None

    def where(self) -> str:
        """Return the place in words."""
        return f"{'final State' if self.step is None else f'step {self.step}'}, {self.kind} '{self.name}'"

    def distance(self) -> str:
        """Return how far apart the values are: in few ULPs, else relative to the stored one, or nothing."""
        if self.ulp is None:
            return ""
        from researchlab.numerics.ulp import MANY_ULPS, ulps_text

        if self.ulp <= MANY_ULPS:
            return ulps_text(self.ulp)
        try:
            stored, received = (complex(text.split()[0]) for text in (self.stored, self.received))
            relative = abs(received - stored) / abs(stored)
        except (ValueError, ZeroDivisionError, OverflowError):
            relative = math.inf
        return f"relative difference {relative:.2g}" if math.isfinite(relative) else ulps_text(self.ulp)


@dataclasses.dataclass(frozen=True)
class EnvironmentDifference:
    """One fact of the environment that differs from the record.

    Attributes:
        name: The fact, as in ``packages.jaxlib``.
        recorded: What the run had.
        now: What the re-execution had.
    """

    name: str
    recorded: str
    now: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of a re-execution with its evidence.

    Attributes:
        kind: The outcome.
        run_id: The run that was judged.
        reason: Why, in a sentence.
        code: What was restored, in words.
        started: The command that was run, in words.
        first: The first difference.
        differences: Each difference, a line each.
        compared: What was compared, in words.
        not_compared: What was not, and why.
        environment: What differs between the recorded and the present environment.
        execution: What differs in how its Loops were executed, a line each.
        exit_code: Exit code of the re-execution, or None when it was not run.
        output: The tail of what it printed, when it failed.
        executions: How often the program was executed again: twice where a second time was to tell whether it is
            deterministic.
        seconds: Wall time of the (first) re-execution.
        recorded_seconds: Wall time of the run.
        timed_out: Whether the time limit ended the re-execution, which says nothing of the run.
        kept: The scratch folder, when it was to be kept.
        store: Tracking URI of the store that holds the run.
    """

    kind: VerdictKind
    run_id: str
    reason: str
    code: str = ""
    started: str = ""
    first: Divergence | None = None
    differences: tuple[str, ...] = ()
    compared: str = ""
    not_compared: tuple[str, ...] = ()
    environment: tuple[EnvironmentDifference, ...] = ()
    execution: tuple[str, ...] = ()
    exit_code: int | None = None
    output: str = ""
    executions: int = 0
    seconds: float | None = None
    recorded_seconds: float | None = None
    timed_out: bool = False
    kept: Path | None = None
    store: str = ""

    @property
    def ok(self) -> bool:
        """Whether the same bits came back."""
        return self.kind is VerdictKind.REPRODUCED

    @property
    def command(self) -> str:
        """The command that repeats this re-execution."""
        return f"pytest --rlab-reproduce {self.run_id} --rlab-tracking-uri {shlex.quote(self.store)}"

    def summary(self) -> str:
        """Return the outcome in one line."""
        return f"{self.kind}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the outcome with its evidence as plain values for JSON; what ``kind`` is, is called ``verdict``."""
        facts = dataclasses.asdict(self)
        del facts["kind"]
        kept = None if self.kept is None else str(self.kept)
        return {"run_id": self.run_id, "verdict": self.kind.value, "ok": self.ok} | facts | {"kept": kept}

    def _meaning(self) -> str:
        if self.kind is VerdictKind.DIVERGED and self.executions > 1:
            return f"{MEANING[self.kind]}, twice the same: code, inputs or environment changed"
        return MEANING[self.kind]

    def report(self) -> str:
        """Return the outcome with its evidence, for a terminal of 100 columns."""
        lines = [f"{self.kind}  {self.run_id}", f"  {self._meaning()}", ""]
        lines += self._evidence() + self._circumstances()
        if not self.ok:
            lines += _row("again", self.command)
        if self.output:
            lines += ["", "  the end of its output:", *(f"  | {line}" for line in self.output.splitlines())]
        return "\n".join(lines)

    def _evidence(self) -> list[str]:
        lines: list[str] = []
        if self.first is not None:
            lines += _row("first", self.first.where())
            lines += _row("  stored", self.first.stored) + _row("  received", self.first.received)
            lines += _row("  apart", self.first.distance())
        if not self.ok and (self.first is None or self.kind is not VerdictKind.DIVERGED):
            lines += _row("reason", self.reason)
        if len(self.differences) > 1:
            lines += _rows("differences", self.differences)
        return lines + _row("compared", self.compared) + _rows("not compared", self.not_compared)

    def _circumstances(self) -> list[str]:
        lines = _row("code", self.code) + _row("command", self.started) + _rows("execution", self.execution)
        if not self.ok and (self.compared or self.environment):
            different = _table([(item.name, f"{item.recorded} -> {item.now}") for item in self.environment])
            lines += _rows("environment", different or ["as recorded"])
        elif self.environment:
            number = len(self.environment)
            lines += _row("environment", f"{number} recorded {'fact differs' if number == 1 else 'facts differ'}")
        if self.seconds is not None:
            recorded = "" if self.recorded_seconds is None else f" (the run itself: {self.recorded_seconds:.1f} s)"
            lines += _row("time", f"{self.seconds:.1f} s{recorded}")
        lines += _row("exit code", str(self.exit_code) if self.exit_code else "")
        return lines + _row("kept", "" if self.kept is None else str(self.kept))


_SHOWN = 12
_COLUMN = 14


def _row(name: str, text: str) -> list[str]:
    """Return a named row; further lines of the text stand under the first."""
    if not text:
        return []
    first, *rest = text.splitlines()
    return [f"  {name:<{_COLUMN}}{first}", *(f"  {'':<{_COLUMN}}{line}" for line in rest)]


def _rows(name: str, texts: Sequence[str]) -> list[str]:
    shown = list(texts[:_SHOWN])
    if len(texts) > _SHOWN:
        shown.append(f"and {len(texts) - _SHOWN} more")
    return _row(name, "\n".join(shown))


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {text}" for name, text in rows]
