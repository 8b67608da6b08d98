"""How is a checkpoint written while the next steps run, so that none is lost and no error unseen?"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from collections import deque
from typing import TYPE_CHECKING

from researchlab.errors import ResearchlabWarning

if TYPE_CHECKING:
    from collections.abc import Callable

_WAITING_AT_MOST = 1


class BackgroundWriter:
    """Does one job after the other in a thread; one more may wait, and whoever brings a third waits with it.

    The thread lives as long as there is something to do and is no daemon: Python waits for it before it exits. The
    first error of a job is raised by the next ``submit`` or ``wait``.
    """

    def __init__(self) -> None:
        self.forget()
        _everyone.add(self)

    def forget(self) -> None:
        """Start anew without what waits: a forked child has the parent's jobs, and none of its threads."""
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._is_running = False
        self._error: BaseException | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Have ``job`` done; wait while another one is waiting.

        Raises:
            BaseException: what an earlier job raised; ``job`` is not done then.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._jobs) < _WAITING_AT_MOST)
            self._raise_error()
            self._jobs.append(job)
            if self._is_running:
                return
            self._is_running = True
        thread = threading.Thread(target=self._work, name="researchlab-checkpoints", daemon=False)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is exiting
            self._work()

    def wait(self) -> None:
        """Return when nothing is left to do.

        Raises:
            BaseException: what a job raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._is_running)
            self._raise_error()

    def unseen_error(self) -> BaseException | None:
        """Return the error that nobody has been told, once."""
        _failed.discard(self)
        error, self._error = self._error, None
        return error

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._is_running = False
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
                self._changed.notify_all()
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - it is raised where somebody can catch it
                self._error = self._error or error
                _failed.add(self)

    def _raise_error(self) -> None:
        error = self.unseen_error()
        if error is not None:
            raise error


_everyone: weakref.WeakSet[BackgroundWriter] = weakref.WeakSet()
_failed: set[BackgroundWriter] = set()  # also those that nobody else holds any more


def _forget_all() -> None:
    _failed.clear()
    for writer in _everyone:
        writer.forget()


def _tell_unseen_errors() -> None:
    for writer in list(_failed):
        error = writer.unseen_error()
        if error is not None:
            warnings.warn(f"a checkpoint was not written: {error}", ResearchlabWarning, stacklevel=1)


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_tell_unseen_errors)
