"""How does somebody who waits see how far it is?"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from researchlab.errors import ResearchlabWarning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SECONDS_A_LINE = 60.0
_GONE = (OSError, ValueError, AttributeError)  # a closed pipe, a closed file, no stream at all


class Progress:
    """A progress bar: in a terminal or a notebook that of tqdm, elsewhere (a log file) a plain line a minute."""

    def __init__(self, *, start: int, end: int, names: Sequence[str] | None) -> None:
        """Show it.

        Args:
            start: the number of completed steps.
            end: the number of steps to come to.
            names: metrics to show; None for all of them, up to four.
        """
        self._names = names
        self._start, self._end = start, end
        self._began = self._last_line = time.monotonic()
        self._bar: Any = None
        self._has_warned = False
        if _is_interactive():
            from tqdm.auto import tqdm

            self._bar = tqdm(initial=start, total=end, unit="step", dynamic_ncols=True)

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show that ``step`` steps are completed."""
        self._show(step, self._chosen(metrics), is_last=False)

    def close(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show the last state and end the bar."""
        self._show(step, self._chosen(metrics), is_last=True)

    def _show(self, step: int, shown: Mapping[str, str], *, is_last: bool) -> None:
        with contextlib.suppress(*_GONE):  # nobody looks any more: a closed pipe is not worth the run
            if self._bar is None:
                if is_last or time.monotonic() - self._last_line >= _SECONDS_A_LINE:
                    self._line(step, shown)
                return
            if shown:
                self._bar.set_postfix(shown, refresh=False)
            self._bar.update(step - self._bar.n)
            if is_last:
                self._bar.close()

    def _line(self, step: int, shown: Mapping[str, str]) -> None:
        from tqdm import tqdm

        elapsed = time.monotonic() - self._began
        meter = tqdm.format_meter(
            step, self._end, elapsed, initial=self._start, unit="step", ncols=0, postfix=", ".join(
                f"{name}={value}" for name, value in shown.items()
            )
        )  # fmt: skip
        sys.stderr.write(f"{meter}\n")
        sys.stderr.flush()
        self._last_line = time.monotonic()

    def _chosen(self, metrics: Mapping[str, Any]) -> dict[str, str]:
        names = list(metrics)[:4] if self._names is None else [name for name in self._names if name in metrics]
        unknown = [name for name in self._names or () if metrics and name not in metrics]
        if unknown and not self._has_warned:
            self._has_warned = True
            msg = f"progress shows no {', '.join(unknown)}: the metrics are {', '.join(list(metrics)[:8])}"
            warnings.warn(msg, ResearchlabWarning, stacklevel=2)
        return {name: f"{metrics[name]:.4g}" for name in names}


def _is_interactive() -> bool:
    return (
        sys.stderr is not None and not getattr(sys.stderr, "closed", False) and sys.stderr.isatty()
    ) or "ipykernel" in sys.modules
