"""How do the processes of one computation agree on how far to go and when to stop?"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Decision:
    """What happens next.

    Attributes:
        steps: how many steps to take.
        stop: stop instead.
        told: because a process was told to by a signal.
        collect: fetch the metrics.
        due: which events are due by the clock.
        recorded: the run is tracked, so that its State is wanted at the end.
    """

    steps: int
    stop: bool
    told: bool
    collect: bool
    due: tuple[bool, ...]
    recorded: bool


class Alone:
    """One process decides by itself."""

    is_first = True
    count = 1

    def agree(self, proposal: Decision, *, step: int) -> Decision:
        """Return the proposal."""
        del step
        return proposal


class Together:
    """All processes do what the first one proposes, and stop when any of them was told to."""

    def __init__(self) -> None:
        """Find out who this process is."""
        self.is_first = jax.process_index() == 0
        self.count = jax.process_count()

    def agree(self, proposal: Decision, *, step: int) -> Decision:
        """Return what all processes do; waits for all of them."""
        from jax.experimental import multihost_utils

        told = proposal.told
        # jax.distributed takes SIGTERM itself, and says so here; it raises where that service is off.
        with contextlib.suppress(RuntimeError):
            told = told or bool(multihost_utils.reached_preemption_sync_point(step))
        flags = (proposal.stop or told, told, proposal.collect, proposal.recorded, *proposal.due)
        own = np.array([proposal.steps, *flags], np.int32)
        everyone: Any = np.asarray(multihost_utils.process_allgather(own)).reshape(self.count, -1)
        return Decision(
            steps=int(everyone[0, 0]),
            stop=bool(everyone[:, 1].any()),
            told=bool(everyone[:, 2].any()),
            collect=bool(everyone[0, 3]),
            recorded=bool(everyone[0, 4]),
            due=tuple(bool(value) for value in everyone[0, 5:]),
        )


def processes() -> Alone | Together:
    """Return how this computation is spread; does not start a backend where it is not."""
    return Together() if jax.distributed.is_initialized() and jax.process_count() > 1 else Alone()
