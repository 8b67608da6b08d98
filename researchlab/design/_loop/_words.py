"""How do the metrics of a step stand in the words of a buffer on the device, with all of their bits?

One buffer of 32-bit words for all dtypes, because each further array costs a compiled step half a microsecond.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from researchlab.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jax import Array
    from numpy.typing import NDArray

_WORD = 32


@dataclasses.dataclass(frozen=True)
class MetricColumn:
    """One metric: a column of words.

    Attributes:
        name: dotted name.
        dtype: of its values.
    """

    name: str
    dtype: np.dtype[Any]

    @property
    def words(self) -> int:
        """How many words a value takes."""
        return max(1, self.dtype.itemsize * 8 // _WORD)


@dataclasses.dataclass(frozen=True)
class MetricLayout:
    """The metrics of a step.

    Attributes:
        columns: in the order in which the step function returned them.
    """

    columns: tuple[MetricColumn, ...]

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> MetricLayout:
        """Read the layout off the checked, flat metrics of a step while it is traced.

        Raises:
            MetricError: a Python integer is beyond 64 bits.
        """
        return cls(tuple(MetricColumn(name, _dtype(name, value)) for name, value in metrics.items()))

    @property
    def words(self) -> int:
        """How many words a step takes."""
        return sum(column.words for column in self.columns)

    def pack(self, metrics: Mapping[str, Any]) -> Array:
        """Return the words of one step, uint32 of shape ``(words,)``; traced.

        Raises:
            MetricError: they are other metrics than those of the layout.
        """
        found = MetricLayout.of(metrics)
        if found != self:
            msg = (
                "the metrics of a compiled step must stay the same, and changed with the shape of a batch: before they"
                f" were {self}, now they are {found}. Return the same names and dtypes for each shape, or leave out"
                " jit= and scan_steps="
            )
            raise MetricError(msg)
        parts = [as_words(metrics[column.name]) for column in self.columns]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, jnp.uint32)

    def __str__(self) -> str:
        """Return it for a reader."""
        return ", ".join(f"{column.name} {column.dtype}" for column in self.columns) or "none"

    def unpack(self, words: NDArray[np.uint32]) -> dict[str, NDArray[Any]]:
        """Return the metrics of many steps.

        Args:
            words: shape ``(n, words)``.

        Returns:
            Name to values of shape ``(n,)``.
        """
        unpacked: dict[str, NDArray[Any]] = {}
        start = 0
        for column in self.columns:
            own = np.ascontiguousarray(words[:, start : start + column.words])
            unpacked[column.name] = _values(own, column.dtype)
            start += column.words
        return unpacked


def as_words(value: Any) -> Array | NDArray[np.uint32]:
    """Return the bits of a scalar, traced or not, as uint32 of shape ``(1,)`` or ``(2,)``, the low word first."""
    if not isinstance(value, Tracer):
        return _words_on_host(np.asarray(_on_host(value)))
    if value.dtype == jnp.bool_:
        return value.astype(jnp.uint32)[None]
    bits = jnp.finfo(value.dtype).bits if jnp.issubdtype(value.dtype, jnp.floating) else jnp.iinfo(value.dtype).bits
    if bits <= _WORD:
        unsigned = getattr(jnp, f"uint{bits}")
        return lax.bitcast_convert_type(value, unsigned).astype(jnp.uint32)[None]
    return lax.bitcast_convert_type(value, jnp.uint32)


def _words_on_host(value: NDArray[Any]) -> NDArray[np.uint32]:
    if value.dtype == np.bool_:
        return value.astype(np.uint32)[None]
    size = value.dtype.itemsize
    bits = value[None].view(f"<u{size}")
    return bits.view("<u4") if size == 8 else bits.astype(np.uint32)  # noqa: PLR2004 - two words


def _dtype(name: str, value: Any) -> np.dtype[Any]:
    dtype = np.dtype(value.dtype) if isinstance(value, Tracer) else np.asarray(_on_host(value)).dtype
    if dtype == np.object_:
        msg = f"metric {name!r} is {value!r:.40}, an integer beyond 64 bits: return it as a float, or its logarithm"
        raise MetricError(msg)
    return dtype


def _values(words: NDArray[np.uint32], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == np.bool_:
        return words[:, 0].astype(np.bool_)
    size = dtype.itemsize
    if size == 8:  # noqa: PLR2004 - two words
        return words.astype("<u4", copy=False).view("<u8")[:, 0].view(dtype)
    return words[:, 0].astype(f"u{size}").view(dtype)


def _on_host(value: Any) -> Any:
    if isinstance(value, (jax.Array, np.ndarray)):
        return np.asarray(value)[()]
    return value if isinstance(value, (bool, int, float, np.generic)) else float(value)
