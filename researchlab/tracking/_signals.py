"""How does a run that is told to stop (SIGTERM, SIGHUP, Ctrl-C) end as KILLED, with everything flushed?"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(SystemExit):
    """Raised in the main thread on SIGTERM, so that `with` blocks and `finally` clauses run before the process ends."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)  # what a shell reports for a process that the signal ended


class TerminationWatch:
    """Turns SIGTERM and SIGHUP into an exception while it is on, or calls the handler that the program set.

    Attributes:
        received: Whether one of them came.
    """

    def __init__(self) -> None:
        self.received = False

    def start(self) -> None:
        """Take the signals. Only the main thread can; elsewhere nothing changes."""
        if not _is_main_thread():
            return
        _watches.append(self)
        for number in _ENDING:
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN, _handle):  # installed from C (None), or ignored on purpose (nohup)
                _before[number] = handler
                signal.signal(number, _handle)

    def stop(self) -> None:
        """Give the signals back when no other watch is on, unless the program has set another handler since."""
        if self in _watches:
            _watches.remove(self)
        if _watches or not _is_main_thread():
            return
        for number in _ENDING:
            if signal.getsignal(number) is _handle:
                signal.signal(number, _before[number])


# One handler for all watches: trackers may end in another order than they began.
_watches: list[TerminationWatch] = []
_before: dict[int, Any] = {}
_process = os.getpid()


def _handle(number: int, frame: FrameType | None) -> None:
    before = _before[number]
    is_ours = bool(_watches) and os.getpid() == _process
    if is_ours:
        for watch in _watches:
            watch.received = True
    if callable(before):
        before(number, frame)
    elif is_ours:
        raise Terminated(number)
    else:  # a forked worker, or the handler was put back by someone after the run
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


@contextlib.contextmanager
def deferred_signals() -> Generator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until the block is through; a second Ctrl-C does not wait."""
    if not _is_main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and number in came:
            raise KeyboardInterrupt
        came.append(number)

    handlers: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, *_ENDING):
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):
                handlers[number] = handler
                signal.signal(number, note)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
