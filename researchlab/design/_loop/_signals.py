"""How does a Loop finish its step when it is told to stop?"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Notes Ctrl-C and SIGTERM in its block instead of acting on them; a second one acts at once.

    Behind the block they act as they would have: ``KeyboardInterrupt``, or whatever handler the program has set. Only
    the main thread can take signals; elsewhere nothing changes.

    Attributes:
        received: the signal that came, or None.
    """

    def __init__(self) -> None:
        """Take nothing yet."""
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals, but those that are ignored on purpose or handled outside of Python."""
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):
                    self._before[number] = handler
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the signals back, and let the one that came act, unless an exception is on its way already."""
        del kind, traceback
        self._give_back()
        if self.received is not None and error is None:
            signal.raise_signal(self.received)

    def pass_on(self, number: int) -> None:
        """Act behind the block as on a signal that another process of the computation got, unless one came here."""
        if self.received is None and self._before:
            self.received = number

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
            return
        before = self._before[number]
        if callable(before):
            before(number, frame)
        else:
            self._give_back()
            signal.raise_signal(number)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        self._before = {}
