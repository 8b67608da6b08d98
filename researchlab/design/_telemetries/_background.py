"""How do metrics reach a slow store while the Loop goes on?"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from researchlab._recording import already_recorded
from researchlab.design._telemetries._thinning import copied, entries_of, steps_in, thinned, values_a_step
from researchlab.errors import ResearchlabWarning, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.design._telemetries._telemetry import MetricEntry, Telemetry
    from researchlab.design._telemetries._thinning import Part

_log = logging.getLogger(__name__)

VALUES_A_REQUEST: Final = 1000
SHORTEST_PAUSE: Final = 1.0
PAUSE_FOR_REQUEST: Final = 20.0
LONGEST_WAIT: Final = 60.0
LONGEST_END: Final = 10.0
#: So many values may wait as they are. Beyond, they are thinned while they wait, so that memory stays flat: to so many
#: more than a request takes that the request keeps the same steps as if all had waited.
MOST_WAITING: Final = 16 * VALUES_A_REQUEST
THINNED_TO: Final = MOST_WAITING // 2


class BackgroundSender:
    """Sends metrics to a telemetry from one thread of its own, and spends about a twentieth of the time on it.

    The pause after a request is 20 times as long as the request took, and at least a second. A request has up to 1000
    values. When more wait, those steps are sent that ``thinned`` keeps; a run that gives less than that is sent whole.

    What goes wrong in the thread is told to the thread that adds and closes: a StoreError is warned about once, and the
    store is asked again; a ResearchlabWarning is warned about; any other exception is raised.
    """

    def __init__(self, telemetry: Telemetry[Any, Any], *, name: str, recorded: bool) -> None:
        """Prepare to send; the thread starts with the first metrics.

        Args:
            telemetry: may be called from another thread.
            name: what it is called in messages.
            recorded: the run's trace has the values.
        """
        self.pid = os.getpid()  # a forked child has neither the thread nor a lock that it can trust
        self._telemetry = telemetry
        self._name = name
        self._is_recorded = recorded
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting: list[Part] = []
        self._values = 0
        self._in_flight: list[Part] = []
        self._is_closing = self._is_given_up = self._is_done = False
        self._failure: BaseException | None = None
        self._refusal: StoreError | None = None
        self._messages: list[str] = []
        self._has_warned = False
        self._steps = self._steps_sent = 0
        self._is_thinned = False

    def add(self, part: Part) -> None:
        """Hand metrics over; what is kept of the arrays is copied.

        Raises:
            Exception: what the telemetry raised in the thread, other than a StoreError.
        """
        with self._changed:
            if not self._waiting:
                self._changed.notify_all()  # else the thread waits for the clock: waking it each time costs the Loop
            self._steps += steps_in(part)
            kept = copied(part, THINNED_TO)  # of a block of many steps, only what can be needed is copied
            self._is_thinned = self._is_thinned or steps_in(kept) < steps_in(part)
            self._waiting.append(kept)
            self._values += steps_in(kept) * values_a_step(kept)
            if self._values > MOST_WAITING:
                self._thin(THINNED_TO)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="researchlab-telemetry", daemon=True)
                self._thread.start()
        self._tell()

    def close(self) -> None:
        """Send what waits, for up to ten seconds; what was not delivered is counted in a warning.

        Raises:
            Exception: what the telemetry raised in the thread, other than a StoreError.
        """
        if self._thread is None or self.pid != os.getpid():
            return
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._is_done, timeout=LONGEST_END)
            except BaseException:
                self._is_given_up = True
                with contextlib.suppress(ResearchlabWarning):  # it must not hide the interrupt
                    self._warn_of_lost("it was interrupted")
                raise
            self._is_given_up = True
            self._tell(and_refusal=False)
            if not self._is_done:
                self._warn_of_lost(f"{self._name} did not answer within {LONGEST_END:g} s")
            elif self._refusal is not None:
                self._warn_of_lost(str(self._refusal))
        if self._is_thinned:
            _log.info(
                "%d of %d steps (%.2g %%) went to %s, as more came than it takes; the thinning rule is in the how-to",
                *(self._steps_sent, self._steps, 100 * self._steps_sent / self._steps, self._name),
            )

    def _run(self) -> None:
        try:
            self._send_until_closed()
        except BaseException as error:  # noqa: BLE001 - raised where the Loop adds or closes
            self._failure = error
        finally:
            with self._changed:
                self._is_done = True
                self._changed.notify_all()

    def _send_until_closed(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            due = time.monotonic() + pause
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                self._changed.wait_for(lambda: self._is_closing, timeout=max(due - time.monotonic(), 0.0))
                is_last = self._is_closing
                if self._is_given_up or (is_last and not self._waiting):
                    return
                self._thin(VALUES_A_REQUEST)
                self._in_flight, self._waiting, self._values = self._waiting, [], 0
            started = time.monotonic()
            refusal = self._send(self._in_flight)
            took = time.monotonic() - started
            with self._changed:
                if refusal is None:
                    self._steps_sent += sum(map(steps_in, self._in_flight))
                    pause = max(SHORTEST_PAUSE, PAUSE_FOR_REQUEST * took)
                else:
                    self._waiting[:0] = self._in_flight
                    self._values = _values_in(self._waiting)
                    # A store that is down may take minutes to say so: ask it less and less often.
                    pause = min(2 * pause, LONGEST_WAIT)
                self._in_flight, self._refusal = [], refusal
            if is_last and refusal is not None:
                return

    def _send(self, parts: Sequence[Part]) -> StoreError | None:
        entries: list[MetricEntry] = [entry for part in parts for entry in entries_of(part)]
        points = [(name, entry.step) for entry in entries for name in entry.metrics]
        # What is known to be recorded is known by thread.
        recorded = already_recorded(points) if self._is_recorded else contextlib.nullcontext()
        try:
            with recorded:
                self._telemetry.log_metrics_batch(entries)
        except StoreError as error:
            return error
        except ResearchlabWarning as warning:
            # Delivered, with something to say: a warning of this thread could get lost among those of the Loop's.
            with self._changed:
                self._messages.append(str(warning))
        return None

    def _thin(self, most: int) -> None:
        kept = thinned(self._waiting, most)
        values = _values_in(kept)
        self._is_thinned = self._is_thinned or values < self._values
        self._waiting, self._values = kept, values

    def _tell(self, *, and_refusal: bool = True) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        with self._changed:
            messages, self._messages = self._messages, []
        for message in messages:
            _warn(message)
        refusal = self._refusal
        if and_refusal and refusal is not None and not self._has_warned:
            self._has_warned = True
            _warn(f"metrics wait for the store, the Loop goes on and will try again: {refusal}")

    def _warn_of_lost(self, why: str) -> None:
        parts = [*self._in_flight, *self._waiting]
        if not parts:
            return
        kept = "the run's trace has them" if self._is_recorded else "they are lost, as no run is tracked"
        first, last = _first_step(parts[0]), _last_step(parts[-1])
        _warn(f"{_values_in(parts)} metric values of steps {first} to {last} were not delivered, {kept}: {why}")


def _values_in(parts: Sequence[Part]) -> int:
    return sum(steps_in(part) * values_a_step(part) for part in parts)


def _first_step(part: Part) -> int:
    return entries_of(part)[0].step


def _last_step(part: Part) -> int:
    return entries_of(part)[-1].step


def _warn(message: str) -> None:
    warnings.warn(message, ResearchlabWarning, stacklevel=4)
