"""How do the arrays of a batch get to the device?"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def to_device(batch: Any, sharding: jax.sharding.Sharding | None) -> Any:
    """Return a PyTree with its arrays on the device.

    Args:
        batch: its NumPy and JAX arrays go to the device; Python numbers, and arrays of what JAX does not know (text),
            stay as they are.
        sharding: where to; None: the default device.
    """
    return jax.tree.map(lambda leaf: _put(leaf, sharding), batch)


def _put(leaf: Any, sharding: jax.sharding.Sharding | None) -> Any:
    if isinstance(leaf, jax.Array):
        return leaf if sharding is None else jax.device_put(leaf, sharding)
    if not isinstance(leaf, np.ndarray | np.generic):
        return leaf
    try:
        # A copy of our own: an iterable may write the next batch into the same memory, which JAX may use on a CPU.
        return jax.device_put(np.array(leaf), sharding)
    except TypeError:
        return leaf
