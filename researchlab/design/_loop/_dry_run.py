"""How long does a step take, and how much memory, before a long run is begun?"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import jax

if TYPE_CHECKING:
    from researchlab.design._loop._batches import Batches
    from researchlab.design._loop._steps import Steps


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What one step costs.

    Attributes:
        first_step_seconds: the first step, compilation included.
        step_seconds: the second step, until its results were there.
        state_bytes: the arrays of the State.
        temporary_bytes: what the compiled step needs beside its arguments and results; None where it is not known (a
            step function that is called as given).
        metrics: the metrics of the step.
    """

    first_step_seconds: float
    step_seconds: float
    state_bytes: int
    temporary_bytes: int | None
    metrics: dict[str, Any]

    def __str__(self) -> str:
        """Return it for a reader."""
        lines = [
            f"first step   {self.first_step_seconds:.3g} s, compilation included",
            f"a step       {self.step_seconds:.3g} s",
            f"State        {_size(self.state_bytes)}",
        ]
        if self.temporary_bytes is not None:
            lines.append(f"temporaries  {_size(self.temporary_bytes)}")
        lines += [f"metric       {name} = {value}" for name, value in self.metrics.items()]
        return "\n".join(lines)


def dry_run(steps: Steps[Any], batches: Batches[Any], state: Any) -> DryRun:
    """Take two steps from ``state`` and forget them.

    Args:
        steps: takes them.
        batches: give the same batch for both, and for the step that comes later.
        state: where they start.
    """
    seen: dict[str, Any] = {}

    def done(metrics: Any, step: int) -> None:
        del step
        seen.update(metrics)

    seconds: list[float] = []
    with batches.held(state):
        for _ in range(2):
            began = time.perf_counter()
            steps.advance(1, done, seconds=math.inf)
            jax.block_until_ready(steps.finish())
            seconds.append(time.perf_counter() - began)
        block = steps.collect()
        if block is not None:
            seen.update({name: column[-1] for name, column in block.columns.items()})
        memory = steps.memory()
    return DryRun(
        first_step_seconds=seconds[0],
        step_seconds=seconds[1],
        state_bytes=sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree_util.tree_leaves(state)),
        temporary_bytes=None if memory is None else int(memory.temp_size_in_bytes),
        metrics=seen,
    )


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:  # noqa: PLR2004 - the units' own step
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} GiB"
