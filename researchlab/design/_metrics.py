"""Is every metric of a step a scalar number, and which?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, SupportsFloat, cast

import jax
import jax.numpy as jnp
import numpy as np

from researchlab.design._nested import flatten_names
from researchlab.errors import MetricError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Number = bool | int | float


def flatten_metrics(metrics: Mapping[str, Any], step: int | None) -> dict[str, Any]:
    """Return the metrics of one step by dotted name, checked to be real scalars. Values stay as and where they are.

    Args:
        metrics: what the step function returned.
        step: its number, for the error; None while it is traced, when a note on the error tells it.

    Raises:
        MetricError: a metric is no real scalar number; names it, its step and its shape.
        ArgumentError: two metrics have the same dotted name.
    """
    flat = flatten_names(metrics, what="metric")
    for name, value in flat.items():
        problem = _problem(value)
        if problem:
            which = f"metric {name!r}" if step is None else f"metric {name!r} of step {step}"
            msg = f"{which} is {problem}, not a scalar number: return a scalar, such as its mean"
            raise MetricError(msg)
    return {name: value for name, value in flat.items() if not isinstance(value, Mapping)}


def to_host(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked metrics on the host with their bits: NumPy scalars, or Python numbers where they were some."""
    return {name: _on_host(value) for name, value in flat.items()}


def to_numbers(flat: Mapping[str, Any], step: int) -> dict[str, Number]:
    """Return checked metrics as Python numbers; a float keeps its value, bfloat16 and float32 are widened exactly.

    Raises:
        MetricError: a value cannot be read as a number.
    """
    return {name: _number(name, value, step) for name, value in flat.items()}


def column_numbers(column: NDArray[Any]) -> list[Number]:
    """Return a metric of several steps (shape ``[n]``) as the Python numbers that ``to_numbers`` gives step by step."""
    if jnp.issubdtype(column.dtype, jnp.integer):
        return column.astype(np.uint64 if column.dtype.kind == "u" else np.int64).tolist()
    return (column if column.dtype.kind == "b" else column.astype(np.float64)).tolist()


def to_float(name: str, value: Number, step: int) -> float:
    """Return a Python number as a float.

    Raises:
        MetricError: an integer is beyond the largest float.
    """
    try:
        return float(value)
    except OverflowError:
        msg = f"metric {name!r} of step {step} is an integer beyond the largest float: scale it, or log its logarithm"
        raise MetricError(msg) from None


def _problem(value: object) -> str:
    if isinstance(value, bool | int | float) or (isinstance(value, Mapping) and not value):
        return ""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        is_real = jnp.issubdtype(value.dtype, jnp.bool_) or (
            jnp.issubdtype(value.dtype, jnp.number) and not jnp.issubdtype(value.dtype, jnp.complexfloating)
        )
        return "" if is_real and value.shape == () else f"{value.dtype} of shape {value.shape}"
    if isinstance(value, SupportsFloat) and getattr(value, "shape", ()) == ():
        return ""
    return f"{value!r:.60} of type {type(value).__name__}"


def _on_host(value: Any) -> Any:
    if isinstance(value, jax.Array | np.ndarray):
        return np.asarray(value)[()]
    return value if isinstance(value, bool | int | float | np.generic) else float(value)


def _number(name: str, value: Any, step: int) -> Number:
    host = _on_host(value)
    if isinstance(host, bool | int | float) and not isinstance(host, np.generic):
        return host
    number: object = cast("np.generic", host).item()
    # ml_dtypes' small integers give their own scalar type back from item().
    return number if isinstance(number, bool | int | float) else to_float(name, cast("float", number), step)
