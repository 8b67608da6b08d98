"""How is a change to the user's checkout finished or taken back when Ctrl-C comes in the middle of it?"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HeldSignals:
    """The signals that came and wait to be obeyed."""

    def __init__(self) -> None:
        self.numbers: tuple[signal.Signals, ...] = ()
        self.came: list[int] = []

    def obey(self) -> None:
        """Stop here when the process was told to.

        Raises:
            KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP came.
        """
        if self.came or signal.sigpending().intersection(self.numbers):
            raise KeyboardInterrupt

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: this is the handler."""
        del frame
        self.came.append(number)


@contextlib.contextmanager
def held_signals() -> Generator[HeldSignals]:
    """Keep Ctrl-C, SIGTERM and SIGHUP from cutting the block in two; ``obey`` says where it may end.

    They are blocked as well, which the git processes of the block inherit: a terminal sends Ctrl-C to them too, and a
    git that is cut off leaves the checkout half done. Outside the main thread nothing is held: nothing interrupts it.
    """
    held = HeldSignals()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    held.numbers = tuple(number for number in _SIGNALS if signal.getsignal(number) not in {None, signal.SIG_IGN})
    handlers = {number: signal.signal(number, held.note) for number in held.numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, held.numbers)
    try:
        yield held
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # what is pending arrives here
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in held.came:
            if number != signal.SIGINT:
                os.kill(os.getpid(), number)
