"""Where a Loop hands over what it computed, without knowing who records it.

``design`` and ``tracking`` never import each other: both know this protocol. A tracker registers itself while its run
is active; whatever computes asks for ``current()`` and hands over metrics and States.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MetricBlock:
    """The metrics of several steps, oldest first. Who takes a block copies what it keeps: its arrays may be reused.

    Attributes:
        steps: int64 of shape ``[n]``, the number of completed steps.
        times: float64 of shape ``[n]``, when each step ended, in seconds since 1970.
        columns: dotted name to the values of that metric, of shape ``[n]`` and any number dtype of numpy or ml_dtypes.
    """

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    columns: Mapping[str, NDArray[Any]]


class Recorder(Protocol):
    """What an active run offers to whoever computes.

    The last three came later: hand over through ``record_block``, ``record_artifact`` and ``record_execution``, which
    do without them.
    """

    def record_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep every metric of one step with its exact bits."""
        ...

    def record_state(self, state: Any, step: int | None, *, source: str) -> None:
        """Keep the leaves of ``state``; a later State of the same source takes its place."""
        ...

    def record_metric_block(self, block: MetricBlock) -> None:
        """Keep every metric of several steps with its exact bits, as ``record_metrics`` for each step in turn would."""
        ...

    def record_artifact(self, path: Path, *, folder: str = "") -> None:
        """Make a file an artifact of the run, below ``folder``; a failure is warned about."""
        ...

    def record_execution(self, facts: Mapping[str, str], *, source: str) -> None:
        """Keep how ``source`` was executed (compiled or not, scan length, devices): it may change the bits.

        Name every fact each time, also where it says "none": only what two runs both name is compared.
        """
        ...


def record_block(recorder: Recorder, block: MetricBlock) -> None:
    """Hand a block over: step by step to a recorder that takes no blocks."""
    if hasattr(recorder, "record_metric_block"):
        recorder.record_metric_block(block)
        return
    for index, step in enumerate(block.steps.tolist()):
        recorder.record_metrics({name: column[index] for name, column in block.columns.items()}, step)


def record_artifact(recorder: Recorder, path: Path, *, folder: str = "") -> None:
    """Hand a file over, unless the recorder takes none."""
    if hasattr(recorder, "record_artifact"):
        recorder.record_artifact(path, folder=folder)


def record_execution(recorder: Recorder, facts: Mapping[str, str], *, source: str) -> None:
    """Hand over how ``source`` was executed, unless the recorder does not take it."""
    if hasattr(recorder, "record_execution"):
        recorder.record_execution(facts, source=source)


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
