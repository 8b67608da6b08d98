"""How many steps may go by before somebody looks up: at the clock, at a signal, at the progress bar?"""

from __future__ import annotations

_SEGMENT_SECONDS = 0.25
_GROWTH = 2


class Pace:
    """Finds how many steps fit into a quarter of a second: a signal is served soon, and looking up costs nothing.

    It starts with one step and at most doubles, because nobody knows how long the first step takes. A step that takes
    longer is a segment of its own.
    """

    def __init__(self) -> None:
        """Start with one step."""
        self._most = 1
        self._rate: float | None = None

    @property
    def steps_per_second(self) -> float | None:
        """How fast it goes now; None before the first measured segment."""
        return self._rate

    def length(self, limit: int, *, seconds: float = _SEGMENT_SECONDS) -> int:
        """Return how many steps the next segment has.

        Args:
            limit: at most so many, at least 1.
            seconds: something is due by the clock in so many seconds.
        """
        most = self._most
        if self._rate is not None:
            most = min(most, max(1, int(self._rate * min(seconds, _SEGMENT_SECONDS))))
        return max(1, min(limit, most))

    def note(self, steps: int, seconds: float) -> None:
        """Learn from a segment that has ended."""
        if steps <= 0:
            return
        self._rate = steps / max(seconds, 1e-9)
        fitting = max(1, int(self._rate * _SEGMENT_SECONDS))
        self._most = min(fitting, max(self._most, steps) * _GROWTH)
