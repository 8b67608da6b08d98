"""Where a Loop hands over what it computed, without knowing who records it.

``design`` and ``tracking`` never import each other: both know this protocol. A tracker registers itself while its run
is active; whatever computes asks for ``current()`` and hands over metrics and States.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping


class Recorder(Protocol):
    """What an active run offers to whoever computes."""

    def record_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep every metric of one step with its exact bits."""
        ...

    def record_state(self, state: Any, step: int | None, *, source: str) -> None:
        """Keep the leaves of ``state``; a later State of the same source takes its place."""
        ...


_lock = threading.Lock()
_everyone: list[Recorder] = []
_own: contextvars.ContextVar[tuple[Recorder, ...]] = contextvars.ContextVar("researchlab_recorders", default=())
_recorded: contextvars.ContextVar[frozenset[tuple[str, int]]] = contextvars.ContextVar(
    "researchlab_recorded", default=frozenset()
)


def push(recorder: Recorder) -> None:
    """Make ``recorder`` the current one, for this thread first and for threads that have none of their own."""
    with _lock:
        _everyone.append(recorder)
    _own.set((*_own.get(), recorder))


def pop(recorder: Recorder) -> None:
    """Take ``recorder`` out, wherever it stands."""
    with _lock:
        _everyone[:] = [other for other in _everyone if other is not recorder]
    _own.set(tuple(other for other in _own.get() if other is not recorder))


def current() -> Recorder | None:
    """Return the recorder of the innermost active run, or None where nothing is tracked."""
    with _lock:
        # A context that was copied before a run ended (a thread's, an asyncio task's) still names its recorder.
        own = [recorder for recorder in _own.get() if any(recorder is other for other in _everyone)]
        return (own or _everyone or [None])[-1]


@contextlib.contextmanager
def already_recorded(points: Iterable[tuple[str, int]]) -> Generator[None]:
    """Say that these (metric, step) pairs were recorded, so that logging them to MLflow records them no second time."""
    token = _recorded.set(frozenset(points))
    try:
        yield
    finally:
        _recorded.reset(token)


def is_recorded(name: str, step: int) -> bool:
    """Return whether the point was handed over by the Loop that is logging it now."""
    return (name, step) in _recorded.get()
