"""How do the metrics of a Loop get to its recorder and its telemetry?"""

from __future__ import annotations

import contextlib
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from researchlab._recording import already_recorded
from researchlab.design._metrics import to_host, to_numbers
from researchlab.design._telemetry import MetricEntry, Telemetry
from researchlab.errors import ResearchlabWarning, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from researchlab._recording import Recorder

_FLUSH_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0


class Reporter:
    """Hands the metrics of one ``Loop.run`` to the active run's recorder and to the telemetry.

    A telemetry that overrides ``log_metrics_batch`` gets batches, about one a second. When its store fails, the values
    are kept and sent again later, and the Loop goes on.
    """

    def __init__(self, recorder: Recorder | None, telemetry: Telemetry[Any, Any] | None) -> None:
        """Take both; either may be None."""
        self._recorder = recorder
        self._telemetry = telemetry
        self._takes_batches = telemetry is not None and takes_batches(telemetry)
        self._waiting: list[MetricEntry] = []
        self._wait_seconds = _FLUSH_SECONDS
        self._last_flush = time.monotonic()
        self._has_warned = False

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
        if self._recorder is None and self._telemetry is None:
            return
        host = to_host(flat)
        if self._recorder is not None:
            self._recorder.record_metrics(host, step)
        if self._telemetry is None:
            return
        entry = MetricEntry(to_numbers(host, step), step, time.time_ns() // 1_000_000)
        if self._takes_batches:
            self._waiting.append(entry)
            if time.monotonic() - self._last_flush >= self._wait_seconds:
                self._flush(self._telemetry)
        else:
            with self._recorded([entry]):
                self._telemetry.log_metrics(entry.metrics, step)

    def close(self) -> None:
        """Send what waits; what cannot be sent now is counted in a warning."""
        if self._telemetry is None or not self._waiting:
            return
        error = self._flush(self._telemetry, is_last=True)
        if error is not None:
            values = sum(len(entry.metrics) for entry in self._waiting)
            kept = "the run's trace has them" if self._recorder is not None else "they are lost, as no run is tracked"
            first, last = self._waiting[0].step, self._waiting[-1].step
            _warn(f"{values} metric values of steps {first} to {last} were not delivered, {kept}: {error}")

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
