"""How are batches drawn ahead in the background, by one thread that surely ends?"""

from __future__ import annotations

import atexit
import collections
import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

from researchlab.design._numbers import whole
from researchlab.errors import ArgumentError, DataError, ResearchlabWarning

# How long a batch that is being drawn is waited for before its thread is given up: by `close`, and at the very end.
_CLOSE_SECONDS = 10.0
_EXIT_SECONDS = 2.0
_LOOK_SECONDS = 1.0


class Prefetcher(Iterator[Any]):
    """Draws from an iterator in one thread, at most ``size`` batches ahead.

    What the iterator raises, its end included, comes out where it belongs: after the batches before it. The thread ends
    with the data, with ``close``, when this object goes, and at the end of the interpreter. It holds no reference to
    this object.
    """

    def __init__(self, iterator: Iterator[Any], size: int) -> None:
        """Start the thread; from now on the iterator is its own."""
        self._shared = shared = _Shared(size)
        self._thread = threading.Thread(
            target=_fill,
            args=(iterator, shared),
            name="researchlab-prefetch",
            daemon=True,  # one that is stuck in the user's code must not keep the interpreter from ending
        )
        weakref.finalize(self, shared.stop).atexit = False
        _running[shared] = self._thread
        self._thread.start()

    def __next__(self) -> Any:
        """Return the next batch; wait for it where it is not drawn yet.

        Raises:
            DataError: this is a forked process, which has no such thread.
        """
        return self._shared.take()

    def close(self) -> bool:
        """End the thread; return whether it has ended, which a batch that is being drawn puts off."""
        self._shared.stop()
        if self._shared.process != os.getpid() or self._thread is threading.current_thread():
            return True
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            msg = f"a thread that draws batches is still busy with one after {_CLOSE_SECONDS:.0f} seconds"
            warnings.warn(msg, ResearchlabWarning, stacklevel=3)
        return not self._thread.is_alive()


class _Shared:
    """What the thread and its reader share: batches, and then the exception that ends them."""

    def __init__(self, size: int) -> None:
        self.process = os.getpid()
        self._size = size
        self._changed = threading.Condition()
        self._batches: collections.deque[Any] = collections.deque()
        self._end: BaseException | None = None
        self._is_stopped = False

    def put(self, batch: Any) -> bool:
        """Add a batch when there is room; return False when no more are wanted."""
        with self._changed:
            while len(self._batches) >= self._size and not self._is_stopped:
                # Not for ever: the garbage collector may call `stop` in this thread, just before it starts to wait.
                self._changed.wait(_LOOK_SECONDS)
            if not self._is_stopped:
                self._batches.append(batch)
                self._changed.notify_all()
            return not self._is_stopped

    def end(self, error: BaseException) -> None:
        """Say what comes after the last batch."""
        with self._changed:
            self._end = error
            self._changed.notify_all()

    def take(self) -> Any:
        """Return the next batch, or raise what ended them."""
        if self.process != os.getpid():
            msg = (
                "the batches of this provider are drawn by a thread of the process that this one was forked from: make"
                " the provider after the fork, or with prefetch=0"
            )
            raise DataError(msg)
        with self._changed:
            while not self._batches and self._end is None and not self._is_stopped:
                self._changed.wait()
            if self._batches:
                batch = self._batches.popleft()
                self._changed.notify_all()
                return batch
            # Raised once and let go: its traceback leads to the reader, which could not be collected any more.
            end, self._end = self._end, StopIteration()
            raise StopIteration if end is None else end

    def stop(self) -> None:
        """Make the thread end as soon as it comes back from drawing a batch."""
        if self.process != os.getpid():  # the lock may be held by a thread that is not here
            return
        with self._changed:
            self._is_stopped = True
            self._batches.clear()
            self._changed.notify_all()


_running: dict[_Shared, threading.Thread] = {}


def ahead(iterator: Iterator[Any], prefetch: int) -> Iterator[Any]:
    """Return the iterator, drawn from ``prefetch`` batches ahead; 0 gives it back as it is."""
    return Prefetcher(iterator, prefetch) if prefetch else iterator


def checked_prefetch(prefetch: object) -> int:
    """Return ``prefetch`` as an int.

    Raises:
        ArgumentError: it is no whole number, or negative.
    """
    number = whole(prefetch)
    if number is None or number < 0:
        msg = f"prefetch must be the number of batches to draw ahead, 0 or more; it is {prefetch!r}"
        raise ArgumentError(msg)
    return number


def _fill(iterator: Iterator[Any], shared: _Shared) -> None:
    end: BaseException = StopIteration()
    try:
        for batch in iterator:
            if not shared.put(batch):
                break
    except BaseException as error:  # noqa: BLE001 - it is raised where the batch is asked for
        end = error
    shared.end(end)
    _running.pop(shared, None)


@atexit.register
def _end_all() -> None:
    # JAX must not be called any more once the interpreter ends; it is imported before this is registered, so that its
    # own clean-up comes after.
    for shared, thread in tuple(_running.items()):
        if shared.process == os.getpid():
            shared.stop()
            thread.join(_EXIT_SECONDS)
