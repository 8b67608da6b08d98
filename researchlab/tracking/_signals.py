"""How does a run that is told to stop (SIGTERM) end as KILLED, with everything flushed?"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType


class Terminated(SystemExit):
    """Raised in the main thread on SIGTERM, so that `with` blocks and `finally` clauses run before the process ends."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)  # what a shell reports for a process that SIGTERM ended


class TerminationWatch:
    """Turns SIGTERM into an exception while it is on; a handler that the program set is called instead of it.

    Attributes:
        received: Whether SIGTERM came.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None
        self._installed = False

    def start(self) -> None:
        """Install the handler. Only the main thread can; elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)
        if before is None or before is signal.SIG_IGN:
            return  # installed from C (None), or ignored on purpose
        self._before = before
        signal.signal(signal.SIGTERM, self._handle)
        self._installed = True

    def stop(self) -> None:
        """Put the former handler back, unless the program has set another one since."""
        if self._installed and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, self._before)
        self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if callable(self._before):
            self._before(number, frame)
        else:
            raise Terminated
