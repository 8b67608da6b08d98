"""Which steps does JAX's profiler see?"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import jax

from researchlab.design._cadence import NEVER
from researchlab.design._numbers import whole_number
from researchlab.errors import ArgumentError, ResearchlabWarning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PAIR = 2


class Profile:
    """Writes a profiler trace of the steps after ``start``, up to and including ``stop``.

    Attributes:
        files: what was written.
    """

    def __init__(self, window: Sequence[int] | None, folder: Path) -> None:
        """Take the window; None profiles nothing.

        Raises:
            ArgumentError: it is no window.
        """
        self.files: tuple[Path, ...] = ()
        self._folder = folder
        self._start = self._stop = NEVER
        self._is_on = self._has_begun = False
        self._window = window
        if window is None:
            return
        if not isinstance(window, (tuple, list)) or len(window) != _PAIR:
            raise _no_window(window)
        start = whole_number("profile[0]", window[0], at_least=0)
        stop = whole_number("profile[1]", window[1], at_least=1)
        if start >= stop:
            raise _no_window(window)
        self._start, self._stop = start, stop

    def next_step(self, step: int) -> int:
        """Return at which step there is something to do."""
        return min([number for number in (self._start, self._stop) if number > step], default=NEVER)

    def at(self, step: int) -> None:
        """Start or stop the profiler where it is time; a profiler that fails is warned about."""
        try:
            if step == self._start and not self._is_on:
                if not self._folder.exists():
                    self._folder.mkdir(parents=True)
                    (self._folder / ".gitignore").write_text("*\n")  # as checkpoints are: no part of a snapshot
                jax.profiler.start_trace(str(self._folder))
                self._is_on = self._has_begun = True
            elif step >= self._stop:
                self.close()
        except Exception as error:  # noqa: BLE001 - a profile is never worth the run
            self._start = self._stop = NEVER
            warnings.warn(f"nothing is profiled from step {step} on: {error!r}", ResearchlabWarning, stacklevel=2)

    def close(self) -> None:
        """Stop the profiler, and see what it wrote."""
        if self._start != NEVER and not self._has_begun:
            message = f"nothing was profiled: the run did not begin step {self._start + 1} of profile={self._window}"
            self._start = NEVER
            warnings.warn(message, ResearchlabWarning, stacklevel=2)
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
            found = (path for path in self._folder.rglob("*") if path.is_file() and path.name != ".gitignore")
            self.files = tuple(sorted(found))


def _no_window(window: object) -> ArgumentError:
    return ArgumentError(
        f"profile must be (start, stop), two numbers of completed steps with start < stop; it is {window!r}"
    )
