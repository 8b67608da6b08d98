"""What is a provider whose batch is a function of the step, so that any step can be reached at once?"""

from __future__ import annotations

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from researchlab.design._data._provider import DataProvider, whole_step
from researchlab.design._typevars import S
from researchlab.errors import DataError

_LAST_STEP = 2**31 - 1


class StepDataProvider(DataProvider[S], abc.ABC):
    """Gives a batch that is a function of the step (and of the State, where it looks at it).

    Such a provider can be traced: a Loop that compiles many steps into one calls ``constants`` once, ``rows`` once a
    compiled call, and ``traced_batch`` inside of it. Called from outside, ``next`` and ``get_batch`` do the same, one
    step at a time. Steps count from 0: ``step`` is the number of completed steps before the one that gets the batch.

    A subclass defines ``traced_batch``, and ``constants``, ``rows`` and ``num_batches`` where it needs them.

    Attributes:
        step: the number of the batch that comes next.
        num_batches: the data end after so many batches; None: they never do.
    """

    step: int = 0
    num_batches: int | None = None

    def constants(self) -> Any:
        """Return a PyTree of JAX arrays that every step gets as an argument, the same objects at each call."""
        return ()

    def rows(self, step: int, count: int) -> Any:
        """Return what the steps ``step`` to ``step + count - 1`` need from the host.

        Args:
            step: the first of these steps, 0-based.
            count: how many steps, 1 or more. With ``num_batches``, the last step is below it.

        Returns:
            A PyTree of arrays whose leading axis is exactly ``count`` long; by default one without arrays.
        """
        del step, count
        return ()

    @abc.abstractmethod
    def traced_batch(self, constants: Any, row: Any, state: S, step: jax.Array) -> Any:
        """Return the batch of a step. It is pure, and may be traced by ``jax.jit`` and inside a compiled loop.

        Args:
            constants: what ``constants`` returned.
            row: what ``rows`` returned, at this step: without the leading axis.
            state: the State that the step starts at; None when ``next`` is called.
            step: int32 scalar.
        """

    def __next__(self) -> Any:
        """Return the next batch; raise StopIteration after ``num_batches``."""
        return self.get_batch(None)  # type: ignore[arg-type]

    def get_batch(self, state: S) -> Any:
        """Return the batch of the step ``self.step``, computed op by op, and count on."""
        if self.num_batches is not None and self.step >= self.num_batches:
            raise StopIteration
        if self.step > _LAST_STEP:
            msg = f"step {self.step} of {type(self).__name__} does not fit into an int32: start a further run"
            raise DataError(msg)
        row = jax.tree.map(lambda leaf: leaf[0], self.rows(self.step, 1))
        batch = self._eager_batch(row, state, self.step)
        self.step += 1
        return batch

    def seek(self, step: int) -> None:
        """Go to the batch of the step that follows ``step`` completed steps, at once.

        Raises:
            DataError: ``step`` is no whole number, negative, or beyond the end of the data.
        """
        number = whole_step(step)
        if self.num_batches is not None and number > self.num_batches:
            msg = (
                f"the data of {type(self).__name__} end after {self.num_batches} batches, so there is none to follow"
                f" step {number}: are these the data that the checkpoint was written with?"
            )
            raise DataError(msg)
        self.step = number

    def get_position(self) -> int:
        """Return the number of the batch that comes next."""
        return self.step

    def set_position(self, position: Any) -> None:
        """Go to the batch of that number; the same as ``seek``."""
        self.seek(whole_step(position, what=f"the position of {type(self).__name__}"))

    def _eager_batch(self, row: Any, state: S, step: int) -> Any:
        # A JAX scalar, as when it is traced: arithmetic on a NumPy scalar would give other dtypes.
        return self.traced_batch(self.constants(), row, state, jnp.asarray(np.int32(step)))
