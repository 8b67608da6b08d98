"""How does a function of the step become a provider?"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import equinox as eqx

from researchlab.design._data._provider import whole_step
from researchlab.design._data._step import StepDataProvider
from researchlab.design._typevars import S
from researchlab.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    import jax

_FORMS = "batch_at(step) or batch_at(state, step)"


class FunctionDataProvider(StepDataProvider[S]):
    """Gives what a pure function returns for the step.

    The function is called as it is for a Loop that does not compile, and traced by one that does: its randomness must
    come from a key and the step. Arrays that it closes over become part of the compiled program; a table of some size
    is better a field of an ``equinox.Module`` with ``__call__``, or bound by ``equinox.Partial``, as these are handed
    over as arguments.

    Example:
        >>> def batch_at(step):
        ...     return jax.random.normal(jax.random.fold_in(key, step), (32, 8))
        >>> loop = Loop(config, state, step_fn, FunctionDataProvider(batch_at))
    """

    def __init__(self, batch_at: Callable[..., Any], *, num_batches: int | None = None) -> None:
        """Take the function; it is not called yet.

        Args:
            batch_at: ``batch_at(step)`` or ``batch_at(state, step)``, told apart by how many arguments it must get;
                ``step`` is an int32 scalar array, 0 for the first batch.
            num_batches: the data end after so many batches; None: they never do.

        Raises:
            ArgumentError: ``batch_at`` takes other arguments, or ``num_batches`` is negative.
        """
        self._takes_state = _takes_state(batch_at)
        self._arrays, self._rest = eqx.partition(batch_at, eqx.is_array)
        try:
            self.num_batches = None if num_batches is None else whole_step(num_batches, what="num_batches")
        except DataError as error:
            raise ArgumentError(str(error)) from None

    def constants(self) -> Any:
        """Return the arrays that the function carries, where it is a PyTree."""
        return self._arrays

    def traced_batch(self, constants: Any, row: Any, state: S, step: jax.Array) -> Any:
        """Return what the function does."""
        del row
        batch_at = eqx.combine(constants, self._rest)
        return batch_at(state, step) if self._takes_state else batch_at(step)

    def __next__(self) -> Any:
        """Return the next batch.

        Raises:
            DataError: the function needs the State.
        """
        if self._takes_state:
            msg = "batch_at(state, step) needs the State, so next() has no batch to give: call get_batch(state)"
            raise DataError(msg)
        return super().__next__()


def _takes_state(batch_at: Callable[..., Any]) -> bool:
    if not callable(batch_at):
        msg = f"batch_at must be a function {_FORMS}, not {batch_at!r}"
        raise ArgumentError(msg)
    try:
        parameters = inspect.signature(batch_at).parameters.values()
    except (TypeError, ValueError):
        msg = f"the arguments of {batch_at!r} cannot be told: write `lambda step: ...` or `lambda state, step: ...`"
        raise ArgumentError(msg) from None
    required = [parameter for parameter in parameters if parameter.default is parameter.empty]
    positional = [
        parameter.name
        for parameter in required
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    # The names are looked at to catch what would be called with its arguments swapped or with a step for a State.
    if len(positional) == len(required) and positional not in (["state"], ["step", "state"]):
        if len(positional) == 1:
            return False
        if positional[1:] and not positional[2:]:
            return True
    msg = f"batch_at must take one or two arguments, {_FORMS}; its signature is {inspect.signature(batch_at)}"
    raise ArgumentError(msg)
