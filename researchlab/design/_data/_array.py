"""How do arrays in memory become shuffled batches of equal size?"""

from __future__ import annotations

import functools as ft
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np

from researchlab.design._data._step import StepDataProvider
from researchlab.design._numbers import whole
from researchlab.design._typevars import S
from researchlab.errors import ArgumentError

_MOST_ROWS = 2**31 - 1
_SHOWN_AT_MOST = 8


class ArrayDataProvider(StepDataProvider[S]):
    """Gives rows of arrays, in a new order each epoch where it has a key.

    The arrays are copied to the device once, when the provider is made; a step then needs only the numbers of its rows.
    The order of an epoch is a permutation by ``jax.random.fold_in(key, epoch)``, so a batch is a function of its step.

    All batches are of the same size, as a compiled step needs it: an epoch has ``num_rows // batch_size`` batches, and
    the ``num_rows % batch_size`` rows at the end of its order are left out of it. With a key these are other rows each
    epoch; without one they are always the last rows, which are never seen.

    Attributes:
        batch_size: rows a batch.
        num_rows: rows of each array.
        batches_per_epoch: batches until each row (but the rest) was seen once.

    Example:
        >>> batches = ArrayDataProvider({"x": images, "y": labels}, 64, key=jax.random.key(0))
        >>> next(batches)["x"].shape
        (64, 8, 8)
    """

    def __init__(
        self,
        arrays: Any,
        batch_size: int,
        *,
        key: jax.Array | None = None,
        shuffle: bool | None = None,
        epochs: int | None = None,
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """Copy the arrays to the device.

        Args:
            arrays: PyTree of NumPy or JAX arrays with the same leading axis. Dtypes become what JAX makes of them
                (float64 is float32, unless x64 is enabled); JAX arrays stay where they are.
            batch_size: rows a batch, 1 or more.
            key: a key of ``jax.random``, for the order of the rows.
            shuffle: a new order each epoch; by default when there is a key. False keeps the rows in their order.
            epochs: the data end after so many epochs; None: they never do.
            sharding: where the arrays are put. A State that is spread over a mesh needs
                ``NamedSharding(mesh, PartitionSpec())``, or each step would move them there again.

        Raises:
            ArgumentError: a leaf is no array, the leading axes differ, or another argument makes no sense.
        """
        self.num_rows = _common_length(arrays)
        self.batch_size = _positive("batch_size", batch_size)
        if self.batch_size > self.num_rows:
            msg = f"batch_size={self.batch_size} is more than the {self.num_rows} rows of the arrays: there is no batch"
            raise ArgumentError(msg)
        if shuffle and key is None:
            msg = "shuffle=True needs a key for the order: pass, say, `key=jax.random.key(0)`"
            raise ArgumentError(msg)
        is_shuffled = key is not None and shuffle is not False
        self._key = _checked_key(key) if is_shuffled else None
        self.batches_per_epoch = self.num_rows // self.batch_size
        self.num_batches = None if epochs is None else _positive("epochs", epochs) * self.batches_per_epoch
        self._arrays = jtu.tree_map_with_path(lambda path, leaf: _on_device(path, leaf, sharding), arrays)
        self._epoch = -1  # of the order that is kept
        self._order = np.empty((0, 0), np.int32)

    def constants(self) -> Any:
        """Return the arrays, on the device."""
        return self._arrays

    def rows(self, step: int, count: int) -> np.ndarray:
        """Return the numbers of the rows of ``count`` batches, int32[count, batch_size]."""
        parts: list[np.ndarray] = []
        while count > 0:
            epoch, start = divmod(step, self.batches_per_epoch)
            part = self._order_of(epoch)[start : start + count]
            parts.append(part)
            step += len(part)
            count -= len(part)
        return np.concatenate(parts)

    def traced_batch(self, constants: Any, row: Any, state: S, step: jax.Array) -> Any:
        """Return these rows of the arrays."""
        del state, step
        return _take(constants, row)

    def _eager_batch(self, row: Any, state: S, step: int) -> Any:
        del state, step
        return _compiled_take(self._arrays, row)  # op by op, indexing takes ten times as long; the rows are the same

    def _order_of(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch, int32[batches_per_epoch, batch_size]."""
        if epoch != self._epoch and (self._key is not None or self._epoch < 0):
            if self._key is None:
                order = np.arange(self.num_rows, dtype=np.int32)
            else:
                order = np.asarray(_permutation(self._key, np.uint32(epoch), self.num_rows))
            used = self.batches_per_epoch * self.batch_size
            self._order = order[:used].reshape(self.batches_per_epoch, self.batch_size)
            self._epoch = epoch
        return self._order


def _take(arrays: Any, row: Any) -> Any:
    return jax.tree.map(lambda array: array.at[row].get(mode="promise_in_bounds"), arrays)


_compiled_take = jax.jit(_take)


@ft.partial(jax.jit, static_argnums=2)
def _permutation(key: jax.Array, epoch: Any, length: int) -> jax.Array:
    return jr.permutation(jr.fold_in(key, epoch), length).astype(jnp.int32)


def _common_length(arrays: Any) -> int:
    leaves = jtu.tree_leaves_with_path(arrays)
    if not leaves:
        msg = 'arrays holds no array: pass a PyTree of arrays, such as {"x": images, "y": labels}'
        raise ArgumentError(msg)
    lengths: dict[str, int] = {}
    for path, leaf in leaves:
        name = _name(path)
        if not isinstance(leaf, np.ndarray | jax.Array):
            msg = f"{name} is a {type(leaf).__name__}, not a NumPy or JAX array: convert it with numpy.asarray"
            raise ArgumentError(msg)
        if leaf.ndim == 0:
            msg = f"{name} is a scalar, so it has no rows: repeat it with numpy.full, or close over it in the step"
            raise ArgumentError(msg)
        lengths[name] = leaf.shape[0]
    length = min(lengths.values())
    if length != max(lengths.values()):
        shown = ", ".join(f"{name} has {rows}" for name, rows in list(lengths.items())[:_SHOWN_AT_MOST])
        msg = f"all arrays must have the same number of rows (their leading axis): {shown}"
        raise ArgumentError(msg)
    if length > _MOST_ROWS:
        msg = f"{length} rows cannot be numbered by int32: split the arrays"
        raise ArgumentError(msg)
    return length


def _on_device(path: Any, leaf: Any, sharding: Any) -> jax.Array:
    if isinstance(leaf, jax.Array):
        return leaf if sharding is None else jax.device_put(leaf, sharding)
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
    if dtype != leaf.dtype and np.issubdtype(dtype, np.integer) and leaf.size:
        limits = np.iinfo(dtype)
        if leaf.min() < limits.min or leaf.max() > limits.max:
            msg = (
                f"{_name(path)} holds {leaf.dtype} values that do not fit into {dtype}, which JAX would make of them:"
                ' enable x64 with `jax.config.update("jax_enable_x64", True)`, or encode them in a smaller range'
            )
            raise ArgumentError(msg)
    try:
        # A copy of our own: on a CPU, JAX may use the caller's memory, to which the caller may write later (with
        # may_alias=False as well, which test_the_arrays_are_copied_to_the_device_once found out).
        return jax.device_put(np.array(leaf), sharding)
    except TypeError:
        msg = f"{_name(path)} is of dtype {leaf.dtype}, which JAX does not know: encode it as numbers"
        raise ArgumentError(msg) from None


def _name(path: Any) -> str:
    return f"arrays{jtu.keystr(path)}"


def _positive(name: str, value: object) -> int:
    number = whole(value)
    if number is None or number < 1:
        msg = f"{name} must be a whole number, 1 or more; it is {value!r}"
        raise ArgumentError(msg)
    return number


def _checked_key(key: Any) -> jax.Array:
    try:
        jr.fold_in(key, 0)
    except (TypeError, ValueError):
        msg = f"key must be one key of jax.random, such as `jax.random.key(0)`, not {key!r:.60}"
        raise ArgumentError(msg) from None
    return key
