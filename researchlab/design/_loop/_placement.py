"""On which devices does a compiled step run, and how do its arrays get there and back?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jax import Array
    from jax.sharding import Sharding
    from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of a State are.

    Attributes:
        sharding: for what each device has whole (the ring, counters); None where one device does all.
        blocks_each_step: wait for each step. Steps with collectives that run ahead of each other on the CPU backend
            can wait for each other for ever.
    """

    sharding: Sharding | None
    blocks_each_step: bool

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Placement:
        """Read it off the arrays of a State."""
        spread = [array.sharding for array in arrays if len(array.sharding.device_set) > 1]
        if not spread:
            return cls(None, blocks_each_step=False)
        first = spread[0]
        whole: Sharding = first
        if isinstance(first, NamedSharding):
            whole = NamedSharding(first.mesh, PartitionSpec())
        platform = next(iter(first.device_set)).platform
        return cls(whole, blocks_each_step=platform == "cpu")

    def replicated(self, value: Any) -> Array:
        """Return an array that each device has whole; every process gives the same value."""
        if self.sharding is None:
            return jnp.asarray(value)
        if self.sharding.is_fully_addressable:
            return jax.device_put(value, self.sharding)
        # Unlike `device_put`, which compares the values of all processes, it waits for nobody.
        host = np.asarray(value)
        return jax.make_array_from_callback(host.shape, self.sharding, lambda index: host[index])

    def ring(self, control: NDArray[np.uint32], words: int) -> Array:
        """Return an empty ring that begins with the control words."""
        return self.replicated(np.concatenate([control, np.zeros(words, np.uint32)]))

    def settle(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Bring arrays that one device has to all devices of a State that is spread over several."""
        if self.sharding is None:
            return arrays
        return tuple(
            array if len(array.sharding.device_set) > 1 else jax.device_put(array, self.sharding) for array in arrays
        )

    def out_shardings(self, arrays: Sequence[Array]) -> Any:
        """Return where the results of a step belong, so that the State stays where it is."""
        if self.sharding is None:
            return None
        return tuple(array.sharding for array in arrays), self.sharding

    def fetch(self, array: Array) -> NDArray[Any]:
        """Return an array that each device has whole on the host."""
        return np.asarray(array if array.is_fully_addressable else array.addressable_data(0))

    def facts(self) -> Mapping[str, str]:
        """Return what may change bits."""
        if self.sharding is None:
            return {"devices": "1"}
        mesh = getattr(self.sharding, "mesh", None)
        shape = "x".join(map(str, mesh.devices.shape)) if mesh is not None else ""
        return {"devices": f"{len(self.sharding.device_set)}{f' ({shape})' if shape else ''}"}
