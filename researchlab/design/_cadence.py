"""After which steps is something due: a checkpoint, a picture, a callback, a point of a curve?"""

from __future__ import annotations

import bisect
import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from researchlab.design._numbers import is_positive, whole_number
from researchlab.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

NEVER = 2**62
"""A step that no run reaches."""


@dataclasses.dataclass(frozen=True, init=False)
class Cadence:
    """Says after which steps something is due: the union of what is given.

    Steps are counted as ``loop.step`` does: over all runs of a Loop, those before a resume included. What is due by the
    clock is due at the first step that ends after the time is up, so that a re-execution does it after other steps:
    prefer steps for what may change the State.

    Attributes:
        every: due after each so many steps.
        every_seconds: due when so many seconds have gone by.
        at: due after these steps, sorted.
        per_decade: due at so many steps in each decade, evenly spaced on a logarithmic scale, the first being step 1;
            steps that fall together count once.

    Example:
        >>> Cadence(every=1000, at=[1, 10, 100])
        Cadence(every=1000, every_seconds=None, at=(1, 10, 100), per_decade=None)
    """

    every: int | None
    every_seconds: float | None
    at: tuple[int, ...]
    per_decade: int | None

    def __init__(
        self,
        *,
        every: int | None = None,
        every_seconds: float | None = None,
        at: Iterable[int] = (),
        per_decade: int | None = None,
    ) -> None:
        """Set it up.

        Raises:
            ArgumentError: a number is not what it should be, or nothing is given.
        """
        steps = tuple(sorted({whole_number("at", step, at_least=1) for step in at}))
        if every_seconds is not None and not is_positive(every_seconds):
            msg = f"every_seconds must be a positive number of seconds; it is {every_seconds!r}"
            raise ArgumentError(msg)
        if every is None and every_seconds is None and not steps and per_decade is None:
            msg = "a Cadence needs one of every=, every_seconds=, at=, per_decade=; leave the cadence out for never"
            raise ArgumentError(msg)
        object.__setattr__(self, "every", None if every is None else whole_number("every", every, at_least=1))
        object.__setattr__(self, "every_seconds", None if every_seconds is None else float(every_seconds))
        object.__setattr__(self, "at", steps)
        decade = None if per_decade is None else whole_number("per_decade", per_decade, at_least=1)
        object.__setattr__(self, "per_decade", decade)

    @classmethod
    def of(cls, name: str, value: int | Cadence) -> Cadence:
        """Return a cadence as it is, and a number of steps as one.

        Args:
            name: the parameter, for the error.
            value: what it was given.

        Raises:
            ArgumentError: the value is neither.
        """
        return value if isinstance(value, Cadence) else cls(every=whole_number(name, value, at_least=1))

    def next_step(self, step: int) -> int:
        """Return the first step after ``step`` that is due by its number, or ``NEVER``."""
        candidates = [NEVER]
        if self.every is not None:
            candidates.append((step // self.every + 1) * self.every)
        index = bisect.bisect_right(self.at, step)
        if index < len(self.at):
            candidates.append(self.at[index])
        if self.per_decade is not None:
            candidates.append(_next_spaced(step, self.per_decade))
        return min(candidates)

    def includes(self, step: int) -> bool:
        """Return whether ``step`` is due by its number."""
        return self.next_step(step - 1) == step


class Timer:
    """A cadence on its way through a run.

    Attributes:
        cadence: the cadence.
    """

    def __init__(self, cadence: Cadence, *, now: float) -> None:
        """Start the clock.

        Args:
            cadence: what to follow.
            now: seconds on a clock that never goes back.
        """
        self.cadence = cadence
        self._last = now

    def seconds_left(self, now: float) -> float:
        """Return after how many seconds the cadence is due by the clock; infinity where it has no clock."""
        seconds = self.cadence.every_seconds
        return math.inf if seconds is None else max(0.0, self._last + seconds - now)

    def is_due(self, step: int, now: float, *, by_clock: bool | None = None) -> bool:
        """Return whether the cadence is due after ``step``, which has just ended; the clock starts anew if it is.

        Args:
            step: the number of completed steps.
            now: seconds on the timer's clock.
            by_clock: whether it is due by another process's clock, which counts instead of the own one.
        """
        by_clock = self.seconds_left(now) == 0.0 if by_clock is None else by_clock
        if by_clock:
            self._last = now
        return by_clock or self.cadence.includes(step)


class Selector:
    """Picks the steps of a cadence out of a long list of them, which may come in parts."""

    def __init__(self, cadence: Cadence) -> None:
        """Begin; the clock of ``every_seconds`` starts at the first step."""
        self._cadence = cadence
        self._last: float | None = None

    def __call__(self, steps: NDArray[np.int64], times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which steps are due.

        Args:
            steps: int64, shape ``(n,)``, ascending.
            times: float64, shape ``(n,)``, in seconds.

        Returns:
            bool, shape ``(n,)``.
        """
        cadence = self._cadence
        chosen = np.zeros(len(steps), np.bool_)
        if not len(steps):
            return chosen
        if cadence.every is not None:
            chosen |= steps % cadence.every == 0
        if cadence.at:
            chosen |= np.isin(steps, cadence.at)
        if cadence.per_decade is not None:
            step = int(steps[0]) - 1
            while (step := _next_spaced(step, cadence.per_decade)) <= int(steps[-1]):
                chosen |= steps == step
        if cadence.every_seconds is not None:
            self._choose_by_clock(cadence.every_seconds, times, chosen)
        return chosen

    def _choose_by_clock(self, seconds: float, times: NDArray[np.float64], chosen: NDArray[np.bool_]) -> None:
        last = float(times[0]) if self._last is None else self._last
        while (index := int(np.searchsorted(times, last + seconds))) < len(times):
            chosen[index] = True
            last = float(times[index])
        self._last = last


def _next_spaced(step: int, per_decade: int) -> int:
    if step < 1:
        return 1
    number = math.floor(math.log10(step) * per_decade)
    while (candidate := round(10 ** (number / per_decade))) <= step:
        number += 1
    return candidate
