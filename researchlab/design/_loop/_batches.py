"""Where does a Loop take its batches from, one at a time or for many steps at once?"""

from __future__ import annotations

import contextlib
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


class Batches(Generic[S]):
    """The batches of one Loop.

    Attributes:
        provider: what the Loop was given.
        steps: it, where it computes the batch of any step inside of a compiled one; else None.
        is_empty: there is no data, and each batch is None.
        needs_state: the host has to be shown the State for each batch.
    """

    def __init__(self, provider: DataProvider[S] | Iterable[Any] | None) -> None:
        """Take what the Loop was given; nothing is drawn yet.

        Raises:
            ArgumentError: it gives no batches.
        """
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
        self._peeked: list[Any] = []
        self._position_before: Any = None
        self._held: list[Any] = []

    @contextlib.contextmanager
    def held(self, state: S | None) -> Generator[None]:
        """Give the same batch again and again in the block; behind it the data stand where they stood."""
        if self.steps is not None:
            before = self.steps.step
            try:
                yield
            finally:
                self.steps.seek(before)
            return
        if not self.is_empty:
            self._held = [self.peek(state)]
        try:
            yield
        finally:
            self._held = []

    def next(self, state: S | None) -> Any:
        """Return the next batch; StopIteration at the end of the data.

        Args:
            state: the current State; None only where ``needs_state`` is false.
        """
        if self._held:
            return self._held[0]
        if self._peeked:
            return self._peeked.pop(0)
        if self.provider is None:
            return None
        if hasattr(self.provider, "get_batch"):
            return cast("DataProvider[S]", self.provider).get_batch(cast("S", state))
        if self._iterator is None:
            self._iterator = iter(self.provider)
        return next(self._iterator)

    def peek(self, state: S | None) -> Any:
        """Return the next batch, which ``next`` will return again."""
        if not self._peeked:
            self._position_before = self.position()
            self._peeked.append(self.next(state))
        return self._peeked[0]

    def take(self, count: int) -> list[Any]:
        """Return up to ``count`` batches; fewer at the end of the data."""
        taken: list[Any] = []
        for _ in range(count):
            try:
                taken.append(self.next(None))
            except StopIteration:
                break
        return taken

    def put_back(self, batches: list[Any]) -> None:
        """Let ``next`` give these again, in their order."""
        self._position_before = None  # counted from the start instead
        self._peeked[:0] = batches

    def position(self) -> Any:
        """Return where the data stand, for a checkpoint; None where nobody can tell."""
        if self._peeked:
            return self._position_before
        get_position = getattr(self.provider, "get_position", None)
        return None if get_position is None else get_position()

    def go_to(self, step: int, position: Any) -> None:
        """Go to the batch that follows ``step`` completed steps, from a start.

        Args:
            step: the number of completed steps.
            position: as ``position`` gave it then, or None.

        Raises:
            DataError: the data end before, or the provider cannot be put there.
        """
        self._peeked.clear()
        provider = cast("Any", self.provider)
        if provider is None:
            return
        if position is not None and hasattr(provider, "set_position"):
            provider.set_position(position)
        elif hasattr(provider, "seek"):
            provider.seek(step)
        elif not hasattr(provider, "get_batch"):
            if self._iterator is None:
                self._iterator = iter(provider)
            skipped = sum(1 for _ in itertools.islice(self._iterator, step))
            if skipped < step:
                msg = f"the data end after {skipped} batches and cannot be put behind step {step}: give the same data"
                raise DataError(msg)
        else:
            msg = (
                f"{type(provider).__name__} cannot be put behind step {step}: make it a DataProvider, and define"
                " get_position and set_position where get_batch looks at the State"
            )
            raise DataError(msg)


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


def same_layout(one: Any, other: Any) -> bool:
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
