"""How is one metric value kept with its exact bits?"""

from __future__ import annotations

import contextlib
import struct
import sys
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from researchlab.errors import MetricError
from researchlab.numerics.dtypes import (
    dtype_name,
    dtype_named,
    exact,
    is_number,
    value_text,
    words,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INT64 = range(-(2**63), 2**63)
# Most metrics are of these: their bits are the memory as it is, without padding or unused bits.
_PLAIN: dict[type, str] = {
    dtype.type: dtype.name
    for dtype in (np.dtype(code) for code in (*"?bhilqBHILQefdFD", ml_dtypes.bfloat16))
    if dtype.isnative and sys.byteorder == "little"
}
_double = struct.Struct("<d").pack
_long = struct.Struct("<q").pack


def encode_scalar(value: Any, *, name: str) -> tuple[str, bytes]:
    """Return the dtype and the bits of a metric's value.

    A Python ``float`` is "float64", ``bool`` "bool", ``complex`` "complex128", ``int`` "int64", or beyond 64 bits "int"
    with the shortest two's complement. Scalars and arrays of one element of numpy, jax or anything else that numpy can
    read keep their dtype (bfloat16, float8 and int4 too); NaN payloads, -0.0 and infinities keep their bits. What
    MLflow would convert (numeric text, Decimal, Fraction, any other object with ``__float__``) becomes "float64" in the
    same way.

    Args:
        value: the metric's value.
        name: the metric's name, for the error.

    Returns:
        The name of the dtype and the little-endian bits, as ``decode_scalar`` takes them.

    Raises:
        MetricError: ``value`` is not one number; the message names the metric, what was given and what to do.
    """
    kind = type(value)
    if kind is float:
        return "float64", _double(value)
    if kind is bool:
        return "bool", b"\x01" if value else b"\x00"
    if kind is int:
        return encode_int(value)
    if (plain := _PLAIN.get(kind)) is not None:
        return plain, value.tobytes()
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return _encode_array(value, name)
    if isinstance(value, complex):
        return "complex128", _double(value.real) + _double(value.imag)
    if isinstance(value, int):
        return encode_int(int(value))
    if isinstance(value, (float, str, bytes, Decimal, Fraction)) or hasattr(kind, "__float__"):
        try:
            return "float64", _double(float(value))
        except Exception as error:  # whatever a foreign __float__ raises
            raise MetricError(_refusal(name, value, "Log a number.")) from error
    raise MetricError(_refusal(name, value, "Log a number; other values belong in an artifact or in log_config."))


def encode_column(values: NDArray[Any], *, name: str) -> tuple[str, NDArray[np.uint8]]:
    """Return the dtype and the bits of many values of one metric, each as ``encode_scalar`` gives them.

    Args:
        values: shape ``[n]``.
        name: the metric's name, for the error.

    Returns:
        The name of the dtype and the little-endian bytes, of shape ``[n, bytes a value]``; a view where possible.

    Raises:
        MetricError: ``values`` is not one number a step.
    """
    if values.ndim != 1:
        raise MetricError(_refusal(name, values, "A block holds one number a step."))
    dtype = dtype_name(values.dtype)
    if dtype is None or not is_number(values.dtype):
        raise MetricError(_refusal(name, values, "Log numbers."))
    column = words(exact(values))
    return dtype, column.view(np.uint8).reshape(len(values), column.itemsize * column.shape[1])


def encode_int(value: int) -> tuple[str, bytes]:
    """Return the dtype and the bits of a Python int: "int64", or beyond it "int" with the shortest two's complement."""
    if value in _INT64:
        return "int64", _long(value)
    length = (value.bit_length() if value >= 0 else (value + 1).bit_length()) // 8 + 1
    return "int", value.to_bytes(length, "little", signed=True)


def decode_scalar(dtype: str, bits: bytes) -> Any:
    """Return the value that ``encode_scalar`` encoded: a numpy scalar of that dtype, or a Python int for "int".

    Raises:
        ValueError: the dtype is unknown here, or ``bits`` is not as long as it needs.
    """
    if dtype == "int":
        return int.from_bytes(bits, "little", signed=True)
    return _array(dtype, bits)[()]


def scalar_text(dtype: str, bits: bytes) -> str:
    """Return an encoded value in decimal and in bits: ``0.1 (0x3dcccccd)``."""
    if dtype == "int":
        return f"{int.from_bytes(bits, 'little', signed=True):#x}"
    return value_text(_array(dtype, bits))


def _array(dtype: str, bits: bytes) -> Any:
    kind = dtype_named(dtype)
    if len(bits) != kind.itemsize:
        msg = f"{len(bits)} bytes for a {dtype}, which has {kind.itemsize}"
        raise ValueError(msg)
    return np.frombuffer(bits, np.uint8).view(kind).reshape(())


def _encode_array(value: Any, name: str) -> tuple[str, bytes]:
    try:
        array = np.asarray(value)
    except Exception as error:  # jax raises a family of its own for tracers, keys and deleted buffers
        # A torch tensor that needs its gradient is refused by numpy, and not by float().
        with contextlib.suppress(Exception):
            return "float64", _double(float(value))
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = f"It cannot be read here ({first_line}): return it from the jitted function and log what comes out."
        raise MetricError(_refusal(name, value, remedy)) from error
    if isinstance(value, np.ndarray) and np.ma.is_masked(value):
        raise MetricError(_refusal(name, value, "It is masked, so that there is no value to log."))
    if (plain := _PLAIN.get(array.dtype.type)) is not None and array.size == 1 and array.dtype.isnative:
        return plain, array.tobytes()
    if array.size != 1:
        remedy = "Log one metric per element, or reduce it first (`.mean()`); whole arrays belong in the State."
        raise MetricError(_refusal(name, value, remedy))
    if not is_number(array.dtype):
        inner = array.item() if array.dtype.kind in "OUS" else None
        if inner is None or hasattr(inner, "__array__"):
            raise MetricError(_refusal(name, value, "Log a number."))
        return encode_scalar(inner, name=name)
    dtype = dtype_name(array.dtype)
    assert dtype is not None  # every number has a name
    return dtype, words(exact(array).reshape(1)).tobytes()


def _refusal(name: str, value: Any, remedy: str) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    of = "" if shape is None else f" of dtype {dtype} and shape {tuple(shape)}"
    text = f" {value!r:.60}" if isinstance(value, (str, bytes)) else ""
    return f"Metric {name!r} is not one number: it is a {kind}{of}{text}. {remedy}"
