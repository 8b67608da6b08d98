"""How do the metrics of a Loop get to its recorder and its telemetry?"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from researchlab._recording import already_recorded, record_block
from researchlab.design._metrics import to_host, to_numbers
from researchlab.design._telemetries._background import BackgroundSender
from researchlab.design._telemetries._telemetry import MetricEntry, Telemetry
from researchlab.design._telemetries._thinning import entries_of, selected, values_a_step
from researchlab.errors import ResearchlabWarning, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from researchlab._recording import MetricBlock, Recorder
    from researchlab.design._metrics import Number
    from researchlab.design._telemetries._thinning import Part

Select = Callable[["NDArray[np.int64]", "NDArray[np.float64]"], "NDArray[np.bool_]"]
"""Which of some steps (their numbers, their times in seconds since 1970, both of shape ``[n]``) are to be shown."""

_FLUSH_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0


class Reporter:
    """Hands the metrics of one ``Loop.run`` to the active run's recorder and to the telemetry.

    The recorder gets every step, the telemetry those that ``select`` takes: from a background thread where it has a
    telemetry for that, in batches, about one a second, where it overrides ``log_metrics_batch``, else step by step.
    When its store fails, the values are kept and sent again later, and the Loop goes on.
    """

    def __init__(
        self, recorder: Recorder | None, telemetry: Telemetry[Any, Any] | None, *, select: Select | None = None
    ) -> None:
        """Take both; either may be None.

        Args:
            recorder: keeps every value.
            telemetry: is shown the selected steps.
            select: is asked once for each step, in their order; None shows every step.
        """
        self._recorder = recorder
        self._telemetry = telemetry
        self._select = select
        self._takes_batches = telemetry is not None and takes_batches(telemetry)
        self._sender: BackgroundSender | None = None
        self._asks_for_background = telemetry is not None and goes_in_background(telemetry)
        self._waiting: list[MetricEntry] = []
        self._wait_seconds = _FLUSH_SECONDS
        self._last_flush = time.monotonic()
        self._has_warned = False
        self._last: Mapping[str, Any] = {}
        self._last_step = 0
        self._latest: dict[str, Number] | None = {}

    @property
    def latest(self) -> Mapping[str, Number]:
        """The metrics of the last step as Python numbers, whether it was selected or not; empty before the first.

        Raises:
            MetricError: a value cannot be read as a number.
        """
        if self._latest is None:
            self._latest = to_numbers(self._last, self._last_step)
        return self._latest

    def params(self, params: Mapping[str, Any]) -> None:
        """Hand over the parameters; a store that fails is warned about."""
        if self._telemetry is None:
            return
        try:
            self._telemetry.log_params(params)
        except StoreError as error:
            _warn(f"the parameters were not logged: {error}")

    def metrics(self, flat: Mapping[str, Any], step: int) -> None:
        """Hand over the checked metrics of one step."""
        self._last, self._last_step, self._latest = flat, step, None
        if self._recorder is None and self._telemetry is None:
            return
        self._last = host = to_host(flat)
        if self._recorder is not None:
            self._recorder.record_metrics(host, step)
        if self._telemetry is None:
            return
        now = time.time_ns()
        if self._select is None or self._select(np.array([step], np.int64), np.array([now / 1e9]))[0]:
            self._show(self._telemetry, MetricEntry(to_numbers(host, step), step, now // 1_000_000))

    def block(self, block: MetricBlock) -> None:
        """Hand over the metrics of several steps. The block's arrays may be reused when this returns.

        Raises:
            MetricError: a column is not of numbers.
        """
        if not len(block.steps):
            return
        # Scalars are copies: they outlive the arrays.
        self._last = {name: column[-1] for name, column in block.columns.items()}
        self._last_step, self._latest = int(block.steps[-1]), None
        if self._recorder is not None:
            record_block(self._recorder, block)
        if self._telemetry is None:
            return
        if self._select is None:
            self._show(self._telemetry, block)
        elif (mask := self._select(block.steps, block.times)).any():
            self._show(self._telemetry, selected(block, mask))

    def close(self) -> None:
        """Send what waits; what cannot be sent now is counted in a warning."""
        if self._sender is not None:
            self._sender.close()
        if self._telemetry is None or not self._waiting:
            return
        error = self._flush(self._telemetry, is_last=True)
        if error is not None:
            values = sum(len(entry.metrics) for entry in self._waiting)
            kept = "the run's trace has them" if self._recorder is not None else "they are lost, as no run is tracked"
            first, last = self._waiting[0].step, self._waiting[-1].step
            _warn(f"{values} metric values of steps {first} to {last} were not delivered, {kept}: {error}")

    def _show(self, telemetry: Telemetry[Any, Any], part: Part) -> None:
        if self._asks_for_background and not values_a_step(part):
            return
        sender = self._background(telemetry)
        if sender is not None:
            sender.add(part)
        elif self._takes_batches:
            self._waiting += entries_of(part)
            if time.monotonic() - self._last_flush >= self._wait_seconds:
                self._flush(telemetry)
        else:
            for entry in entries_of(part):
                with self._recorded([entry]):
                    telemetry.log_metrics(entry.metrics, entry.step)

    def _background(self, telemetry: Telemetry[Any, Any]) -> BackgroundSender | None:
        # Asked for when there is something to send, and again by a forked child, where the thread does not live.
        sender = self._sender
        if self._asks_for_background and (sender is None or sender.pid != os.getpid()):
            target = telemetry.in_background()
            if target is None:
                self._asks_for_background = False
            else:
                name, recorded = type(telemetry).__name__, self._recorder is not None
                sender = self._sender = BackgroundSender(target, name=name, recorded=recorded)
        return sender

    def _flush(self, telemetry: Telemetry[Any, Any], *, is_last: bool = False) -> StoreError | None:
        try:
            with self._recorded(self._waiting):
                telemetry.log_metrics_batch(tuple(self._waiting))
        except StoreError as error:
            # A store that is down may take minutes to say so: ask it less and less often.
            self._wait_seconds = min(2 * self._wait_seconds, _LONGEST_WAIT_SECONDS)
            if not self._has_warned and not is_last:
                self._has_warned = True
                _warn(f"metrics wait for the store, the Loop goes on and will try again: {error}")
            return error
        else:
            self._waiting.clear()
            self._wait_seconds = _FLUSH_SECONDS
            return None
        finally:
            self._last_flush = time.monotonic()

    def _recorded(self, entries: Iterable[MetricEntry]) -> contextlib.AbstractContextManager[None]:
        if self._recorder is None:
            return contextlib.nullcontext()
        return already_recorded([(name, entry.step) for entry in entries for name in entry.metrics])


def takes_batches(telemetry: Telemetry[Any, Any]) -> bool:
    """Return whether ``log_metrics_batch`` of this telemetry is its own, and not older than its ``log_metrics``.

    A subclass of a batching telemetry that overrides ``log_metrics`` alone means to see every step.
    """
    if "log_metrics" in getattr(telemetry, "__dict__", {}):
        return False
    for cls in type(telemetry).__mro__:
        if "log_metrics_batch" in vars(cls):
            return cls is not Telemetry
        if "log_metrics" in vars(cls):
            return False
    return False


def goes_in_background(telemetry: Telemetry[Any, Any]) -> bool:
    """Return whether ``in_background`` of this telemetry is its own, and not older than its other methods."""
    if {"log_metrics", "log_metrics_batch"} & getattr(telemetry, "__dict__", {}).keys():
        return False
    for cls in type(telemetry).__mro__:
        if "in_background" in vars(cls):
            return cls is not Telemetry
        if "log_metrics" in vars(cls) or "log_metrics_batch" in vars(cls):
            return False
    return False


_loops_of: weakref.WeakKeyDictionary[Recorder, list[weakref.ref[object]]] = weakref.WeakKeyDictionary()


def source_name(recorder: Recorder, loop: object) -> str:
    """Return how a recorder calls this Loop: ``loop``, ``loop-2``, ... in the order of first runs under it."""
    loops = _loops_of.setdefault(recorder, [])
    known = [index for index, reference in enumerate(loops) if reference() is loop]
    if not known:
        loops.append(weakref.ref(loop))
    index = known[0] if known else len(loops) - 1
    return f"loop-{index + 1}" if index else "loop"


def _warn(message: str) -> None:
    warnings.warn(message, ResearchlabWarning, stacklevel=3)
