"""Where does a Loop take its batches from, one at a time or for many steps at once?"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any, Generic, cast

import jax
import jax.numpy as jnp
import numpy as np

from researchlab.design._data import DataProvider, StepDataProvider
from researchlab.design._typevars import S
from researchlab.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from jax import Array


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What the provider gave, or raised, ahead of the step that it is for.

    Attributes:
        batch: the batch.
        error: what was raised instead, be it the StopIteration at the end of the data.
        position: where the data stood before.
    """

    batch: Any
    error: Exception | None
    position: Any


class Batches(Generic[S]):
    """The batches of one Loop.

    Attributes:
        provider: what the Loop was given.
        steps: it, where it computes the batch of any step inside of a compiled one; else None.
        is_empty: there is no data, and each batch is None.
        needs_state: the host has to be shown the State for each batch.
        remembers: keep what was given since ``forget``, for ``give_back``.
    """

    def __init__(self, provider: DataProvider[S] | Iterable[Any] | None) -> None:
        """Take what the Loop was given; nothing is drawn yet.

        Raises:
            ArgumentError: it gives no batches.
        """
        if isinstance(provider, (str, bytes, dict, type)):
            kind = f"the class {provider.__name__}" if isinstance(provider, type) else f"a {type(provider).__name__}"
            msg = (
                f"data_provider is {kind}, which gives no batches: make an ArrayDataProvider(arrays, batch_size) of"
                " arrays, or give an iterable of batches"
            )
            raise ArgumentError(msg)
        if provider is not None and not _gives_batches(provider):
            kind = type(provider).__name__
            msg = f"data_provider must be a DataProvider, an iterable of batches or None, not a {kind}"
            raise ArgumentError(msg)
        self.provider = provider
        self.steps = cast("StepDataProvider[S]", provider) if isinstance(provider, StepDataProvider) else None
        self.is_empty = provider is None
        self.needs_state = (
            self.steps is None and hasattr(provider, "get_batch") and not _has_plain_get_batch(cast("Any", provider))
        )
        self._iterator: Iterator[Any] | None = None
        self._count = 0  # of batches drawn, those that wait included
        self._waiting: collections.deque[_Drawn] = collections.deque()
        self._held: list[Any] = []
        self.remembers = False
        self._given: list[_Drawn] = []

    @contextlib.contextmanager
    def held(self, state: S | None) -> Generator[None]:
        """Give the same batch again and again in the block; behind it the data stand where they stood.

        Raises:
            DataError: the data have ended.
        """
        before = 0 if self.steps is None else self.steps.step
        if self.steps is not None and self.steps.num_batches is not None and before >= self.steps.num_batches:
            raise _no_batch_to_try()
        if self.steps is None and not self.is_empty:
            try:
                self._held = [self.peek(state)]
            except StopIteration:
                raise _no_batch_to_try() from None
        try:
            yield
        finally:
            self._held = []
            if self.steps is not None:
                self.steps.seek(before)

    def next(self, state: S | None) -> Any:
        """Return the next batch; StopIteration at the end of the data.

        Args:
            state: the current State; None only where ``needs_state`` is false.
        """
        if self._held:
            return self._held[0]
        if self._waiting:
            drawn = self._waiting.popleft()
        elif self.remembers:
            position = self.position()
            drawn = _Drawn(self._draw(state), None, position)
        else:
            return self._draw(state)
        batch = _batch_of(drawn)
        if self.remembers:
            self._given.append(drawn)
        return batch

    def peek(self, state: S | None) -> Any:
        """Return the next batch, which ``next`` will return again."""
        if not self._waiting:
            position = self.position()
            self._waiting.append(_Drawn(self._draw(state), None, position))
        elif self._waiting[0].error is not None:
            return self.next(state)
        return self._waiting[0].batch

    def take(self, count: int) -> list[Any]:
        """Return up to ``count`` batches that can stand in one stack; none at the end of the data.

        What cannot (a batch of another shape, the end of the data, an error of the provider) waits for the next call,
        so that the steps before it are taken first.
        """
        if self._held:
            return self._held * count
        taken: list[_Drawn] = []
        try:
            while len(taken) < count:
                if not self._waiting:
                    self._waiting.append(self._drawn_ahead())
                first = self._waiting[0]
                if taken and (first.error is not None or not _same_layout(taken[0].batch, first.batch)):
                    break
                self._waiting.popleft()
                if isinstance(first.error, StopIteration):
                    break
                _batch_of(first)
                taken.append(first)
        except KeyboardInterrupt:
            self._waiting.extendleft(reversed(taken))
            raise
        if self.remembers:
            self._given += taken
        return [drawn.batch for drawn in taken]

    def forget(self) -> None:
        """Let go of the batches that were remembered."""
        self._given.clear()

    def give_back(self, count: int) -> None:
        """Let the last batches, whose steps were not taken, come again.

        Args:
            count: how many; at most as many as were given since ``forget``.
        """
        if self.steps is not None:
            self.steps.seek(self.steps.step - count)
        elif not self.is_empty and count:
            self._waiting.extendleft(reversed(self._given[-count:]))
        self.forget()

    def position(self) -> Any:
        """Return where the data stand, for a checkpoint; None where nobody can tell."""
        if self._waiting:
            return self._waiting[0].position
        get_position = getattr(self.provider, "get_position", None)
        return None if get_position is None else get_position()

    def go_to(self, step: int, position: Any) -> None:
        """Go to the batch that follows ``step`` completed steps.

        Args:
            step: the number of completed steps.
            position: as ``position`` gave it then, or None.

        Raises:
            DataError: the data end before, or the provider cannot be put there.
        """
        provider = cast("Any", self.provider)
        if provider is None:
            return
        if position is not None and hasattr(provider, "set_position"):
            provider.set_position(position)
        elif isinstance(provider, DataProvider) and type(provider).seek is not DataProvider.seek:
            provider.seek(step)
        elif hasattr(provider, "get_batch") and not isinstance(provider, DataProvider):
            msg = (
                f"{type(provider).__name__} cannot be put behind step {step}: make it a DataProvider, and define"
                " get_position and set_position where get_batch looks at the State"
            )
            raise DataError(msg)
        elif step == self._count - len(self._waiting):
            return  # they are there
        else:
            self._skip_to(step)
        self._waiting.clear()
        self._count = step

    def _skip_to(self, step: int) -> None:
        """Draw and drop batches; those that were drawn already count."""
        provider = cast("Any", self.provider)
        if step < self._count:
            again = iter(provider)
            if again is provider or again is self._iterator:
                msg = (
                    f"{self._count} batches were drawn from {type(provider).__name__}, which cannot go back to step"
                    f" {step}: make a new Loop with the data from their start"
                )
                raise DataError(msg)
            self._iterator, self._count = again, 0
        if isinstance(provider, DataProvider):
            provider.seek(step - self._count)
            return
        if self._iterator is None:
            self._iterator = iter(provider)
        skipped = self._count + sum(1 for _ in itertools.islice(self._iterator, step - self._count))
        if skipped < step:
            msg = f"the data end after {skipped} batches and cannot be put behind step {step}: give the same data"
            raise DataError(msg)

    def _draw(self, state: S | None) -> Any:
        if self.provider is None:
            return None
        if hasattr(self.provider, "get_batch"):
            batch = cast("DataProvider[S]", self.provider).get_batch(cast("S", state))
        else:
            if self._iterator is None:
                self._iterator = iter(self.provider)
            batch = next(self._iterator)
        self._count += 1
        return batch

    def _drawn_ahead(self) -> _Drawn:
        position = self.position()
        try:
            return _Drawn(self._draw(None), None, position)
        except Exception as error:  # noqa: BLE001 - raised when it is its step's turn
            return _Drawn(None, error, position)


def _batch_of(drawn: _Drawn) -> Any:
    if drawn.error is not None:
        raise drawn.error
    return drawn.batch


def _no_batch_to_try() -> DataError:
    return DataError("there is no batch to try a step with: the data have ended. Give the Loop its data anew")


def stacked(batches: list[Any], length: int) -> Any:
    """Return batches of one structure and shape with a leading axis, filled up to ``length`` with zeros.

    Args:
        batches: at least one.
        length: of the leading axis.
    """
    on_device = any(isinstance(leaf, jax.Array) for leaf in jax.tree_util.tree_leaves(batches[0]))

    def stack(*leaves: Any) -> Any:
        missing = length - len(leaves)
        if on_device:
            stack = jnp.stack([jnp.asarray(leaf) for leaf in leaves])
            return jnp.concatenate([stack, jnp.zeros((missing, *stack.shape[1:]), stack.dtype)]) if missing else stack
        whole = np.zeros((length, *np.shape(leaves[0])), np.asarray(leaves[0]).dtype)
        np.stack([np.asarray(leaf) for leaf in leaves], out=whole[: len(leaves)])
        return whole

    return jax.tree_util.tree_map(stack, *batches)


def filled_up(rows: Any, length: int) -> Any:
    """Return rows with a leading axis, filled up to ``length`` with zeros."""

    def fill(leaf: Any) -> Any:
        missing = length - leaf.shape[0]
        if not missing:
            return leaf
        module = jnp if isinstance(leaf, jax.Array) else np
        return module.concatenate([leaf, module.zeros((missing, *leaf.shape[1:]), leaf.dtype)])

    return jax.tree_util.tree_map(fill, rows)


def _same_layout(one: Any, other: Any) -> bool:
    """Return whether two batches can stand in one stack."""

    def layout(batch: Any) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten(batch)
        return treedef, [(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]

    return layout(one) == layout(other)


def row_of(rows: Any, index: Array | int) -> Any:
    """Return one row of a stack; traced."""
    return jax.tree_util.tree_map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), rows)


def _has_plain_get_batch(provider: Any) -> bool:
    own = getattr(type(provider), "get_batch", None)
    return own is DataProvider.get_batch and "get_batch" not in getattr(provider, "__dict__", {})


def _gives_batches(provider: object) -> bool:
    return hasattr(provider, "get_batch") or hasattr(provider, "__iter__") or hasattr(provider, "__getitem__")
