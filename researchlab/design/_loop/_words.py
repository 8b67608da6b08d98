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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jax import Array
    from numpy.typing import NDArray

_WORD = 32


@dataclasses.dataclass(frozen=True)
class MetricColumn:
    """One metric: a column of words, or a constant.

    Attributes:
        name: dotted name.
        dtype: of its values; None for a constant, whose type numpy reads off it.
        constant: a value that the compiled step did not compute, the same in each step.
    """

    name: str
    dtype: np.dtype[Any] | None
    constant: Any = None

    @property
    def words(self) -> int:
        """How many words a value takes."""
        return 0 if self.dtype is None else max(1, self.dtype.itemsize * 8 // _WORD)


@dataclasses.dataclass(frozen=True)
class MetricLayout:
    """The metrics of a step.

    Attributes:
        columns: in the order in which the step function returned them.
    """

    columns: tuple[MetricColumn, ...]

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> MetricLayout:
        """Read the layout off the checked, flat metrics of a step while it is traced."""
        return cls(
            tuple(
                MetricColumn(name, np.dtype(value.dtype))
                if isinstance(value, Tracer)
                else MetricColumn(name, None, constant=_on_host(value))
                for name, value in metrics.items()
            )
        )

    @property
    def words(self) -> int:
        """How many words a step takes."""
        return sum(column.words for column in self.columns)

    def pack(self, metrics: Mapping[str, Array]) -> Array:
        """Return the words of one step, uint32 of shape ``(words,)``; traced."""
        parts = [as_words(metrics[column.name]) for column in self.columns if column.words]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, jnp.uint32)

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
            if column.dtype is None:
                unpacked[column.name] = np.full(len(words), column.constant)
            else:
                own = np.ascontiguousarray(words[:, start : start + column.words])
                unpacked[column.name] = _values(own, column.dtype)
            start += column.words
        return unpacked


def as_words(value: Array) -> Array:
    """Return the bits of a traced scalar as uint32 of shape ``(1,)`` or ``(2,)``, the low word first."""
    value = jnp.asarray(value)
    if value.dtype == jnp.bool_:
        return value.astype(jnp.uint32)[None]
    bits = jnp.finfo(value.dtype).bits if jnp.issubdtype(value.dtype, jnp.floating) else jnp.iinfo(value.dtype).bits
    if bits <= _WORD:
        unsigned = getattr(jnp, f"uint{bits}")
        return lax.bitcast_convert_type(value, unsigned).astype(jnp.uint32)[None]
    return lax.bitcast_convert_type(value, jnp.uint32)


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
