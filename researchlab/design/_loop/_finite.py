"""Which leaves and metrics hold a NaN or an infinity?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from researchlab.numerics.leaves import path_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jax import Array

_SHOWN = 4


def can_be_non_finite(leaf: Any) -> bool:
    """Return whether a leaf is of a dtype that has NaNs or infinities."""
    if isinstance(leaf, (float, complex)):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.inexact))


def is_finite(leaf: Any) -> Array | np.bool_:
    """Return whether all elements are finite; a bool scalar, traced where the leaf is."""
    if not isinstance(leaf, jax.Array):
        # By numpy: jax would make a float64 of 1e300 an infinite float32.
        array = np.asarray(leaf)
        return np.isfinite(array if array.dtype.itemsize > 1 else array.astype(np.float32)).all()
    array = leaf
    if not jnp.issubdtype(array.dtype, jnp.complexfloating) and jnp.finfo(array.dtype).bits < 16:  # noqa: PLR2004 - float8
        array = array.astype(jnp.float32)
    return jnp.isfinite(array).all()


def non_finite_names(state: object, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the leaves of a State and the metrics that hold a NaN or an infinity, on the host."""
    names = [
        f"leaf {path_text(keys)}"
        for keys, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        if can_be_non_finite(leaf) and not bool(is_finite(leaf))
    ]
    names += [f"metric {name!r}" for name, value in metrics.items() if not np.isfinite(_as_float(value))]
    return tuple(names)


def first_places(state: object, names: Collection[str]) -> str:
    """Return the first element of each named leaf that is NaN or infinite: ``x[3] is nan``; with replicas, whose it is.

    Args:
        state: the State that holds them.
        names: as ``non_finite_names`` gives them; those of metrics are passed over.
    """
    places: list[str] = []
    for keys, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        path = path_text(keys)
        is_here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        if f"leaf {path}" in names and is_here and np.ndim(leaf):
            array = np.asarray(leaf)
            wide = array if array.dtype.itemsize > 1 else array.astype(np.float32)
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(wide))[0])
            places.append(f"{path}[{', '.join(map(str, index))}] is {wide[index]}")
    return ", ".join(places[:_SHOWN])


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond the largest float
        return 0.0
