"""Which numpy dtype is behind a stored name, and how are its bits read?

A stored dtype is a name (``float32``, ``bfloat16``, ``int4``, ``<U5``). The extension types of ml_dtypes are found by
name here, because ``np.savez`` and friends turn them into ``V2`` (ml_dtypes#206); bits are always little-endian.
"""

from __future__ import annotations

import functools as ft
import math
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Types narrower than the byte that holds them: what the upper bits of the byte say is left to whoever wrote it.
_NARROW = {
    "int1": 1,
    "uint1": 1,
    "int2": 2,
    "uint2": 2,
    "int4": 4,
    "uint4": 4,
    "float4_e2m1fn": 4,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
}
_COMPLEX_PARTS = {"complex64": "float32", "complex128": "float64", "complex32": "float16", "bcomplex32": "bfloat16"}
_UNSIGNED_FLOATS = frozenset({"float8_e8m0fnu"})
_FLOAT0 = np.dtype([("float0", np.void, 0)])
_X87_BYTES = 10


@ft.cache
def dtype_named(name: str) -> np.dtype[Any]:
    """Return the dtype that ``dtype_name`` calls ``name``.

    Raises:
        ValueError: this machine's numpy and ml_dtypes have no dtype of that name, or it has no exact bits (object).
    """
    if name == "float0":
        return _FLOAT0
    try:
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name, name))
    except TypeError:
        dtype = np.dtype(object)
    if dtype_name(dtype) != name:
        msg = (
            f"dtype {name!r} is unknown to numpy {np.__version__} and ml_dtypes {ml_dtypes.__version__}. "
            "Install the versions that the run was recorded with (`pip install -U ml_dtypes numpy`)."
        )
        raise ValueError(msg)
    return dtype


def dtype_name(dtype: np.dtype[Any]) -> str | None:
    """Return the name that brings ``dtype`` back (whatever its byte order), or None where it has no exact bits."""
    if dtype == _FLOAT0:
        return "float0"
    if dtype.names is not None or dtype.subdtype is not None:
        return None
    if dtype.kind in "SU":
        return dtype.newbyteorder("<").str
    if dtype.kind in "biufcmM" or is_extension(dtype):
        return dtype.name
    return None


def is_extension(dtype: np.dtype[Any]) -> bool:
    """Return whether ``dtype`` is one of ml_dtypes' (bfloat16, the float8 family, int4 ...)."""
    scalar = getattr(ml_dtypes, dtype.name, None)
    return isinstance(scalar, type) and dtype.type is scalar


def is_number(dtype: np.dtype[Any]) -> bool:
    """Return whether ``dtype`` holds booleans or numbers."""
    return dtype.kind in "biufc" or is_extension(dtype)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether ULPs are defined for ``dtype``: real floats of 64 bits or fewer."""
    if is_extension(dtype):
        return dtype.name.startswith(("float", "bfloat"))
    return dtype.kind == "f" and dtype.itemsize <= 8  # noqa: PLR2004 - a long double has no integer of its width


def part_dtype(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype of the two parts of a complex ``dtype``, None for every other (a complex long double too)."""
    part = _COMPLEX_PARTS.get(dtype.name)
    return None if part is None else dtype_named(part)


def bit_width(dtype: np.dtype[Any]) -> int:
    """Return how many bits of each element count."""
    return _NARROW.get(dtype.name, 8 * dtype.itemsize)


def has_sign_bit(dtype: np.dtype[Any]) -> bool:
    """Return whether a float ``dtype`` stores its sign (float8_e8m0fnu has none)."""
    return dtype.name not in _UNSIGNED_FLOATS


def exact(array: NDArray[Any]) -> NDArray[Any]:
    """Return ``array`` C-contiguous and little-endian, without padding that means nothing; a copy only where needed."""
    array = np.asarray(array, order="C")
    if array.dtype.kind in "iufcmMU" and array.dtype != array.dtype.newbyteorder("<"):
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.kind in "fc" and not is_extension(array.dtype) and np.finfo(array.dtype).nmant == 63:  # noqa: PLR2004
        # An x87 long double is 10 bytes of number and 2 to 6 bytes of whatever was in the register's slot.
        array = array.copy()
        part = array.dtype.itemsize // (2 if array.dtype.kind == "c" else 1)
        array.reshape(-1).view(np.uint8).reshape(-1, part)[:, _X87_BYTES:] = 0
    return array


def words(flat: NDArray[Any]) -> NDArray[Any]:
    """Return the bits of a flat array as unsigned integers.

    Args:
        flat: shape ``(n,)``, contiguous, any dtype that has a name.

    Returns:
        Shape ``(n, k)``: one unsigned integer per element (k = 1) where its width has one, else k bytes. A view, unless
        the dtype is narrower than a byte (the unused bits are cleared).
    """
    dtype = flat.dtype
    if dtype.itemsize == 0:
        return np.zeros((flat.size, 1), np.uint8)
    if dtype.itemsize in {1, 2, 4, 8}:
        bits = flat.view(f"<u{dtype.itemsize}").reshape(-1, 1)
    else:
        bits = flat.view(np.uint8).reshape(-1, dtype.itemsize)
    width = _NARROW.get(dtype.name)
    return bits if width is None else bits & np.uint8((1 << width) - 1)


def raw_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of a C-contiguous array as a flat view."""
    if array.dtype.itemsize == 0:
        return np.zeros(0, np.uint8)
    return array.reshape(-1).view(np.uint8)


def array_from(name: str, data: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the array of dtype ``name`` whose bytes are ``data``, sharing its memory.

    Raises:
        ValueError: the name is unknown, or there are not as many bytes as ``shape`` needs.
    """
    dtype = dtype_named(name)
    found = memoryview(data).nbytes
    expected = math.prod(shape) * dtype.itemsize
    if found != expected:
        msg = f"{found} bytes for {name}{list(shape)}, which needs {expected}"
        raise ValueError(msg)
    if expected == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, np.uint8).view(dtype).reshape(shape)


def number_text(array: NDArray[Any]) -> str:
    """Return one element (shape ``()``) as the shortest decimal that reads back to the same value."""
    dtype = array.dtype
    part = part_dtype(dtype)
    if part is not None:
        real, imaginary = array.reshape(1).view(part)
        tail = number_text(np.asarray(imaginary))
        return f"{number_text(np.asarray(real))}{'' if tail.startswith('-') else '+'}{tail}j"
    if not is_extension(dtype):
        item = array[()]
        return repr(item.item()) if dtype.kind in "SUb" else str(item)
    if not is_float(dtype):
        return str(int(array))
    value = float(array)
    if not math.isfinite(value):
        return str(value)
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        with np.errstate(all="ignore"):  # rounding up may leave the dtype's range
            back = float(np.asarray(float(text)).astype(dtype))
        if back == value:
            return repr(float(text))
    return repr(value)


def bits_text(array: NDArray[Any]) -> str:
    """Return the bits of one element (shape ``()``) in hexadecimal; the two parts of a complex number apart."""
    part = part_dtype(array.dtype)
    pieces = array.reshape(1).view(part) if part is not None else array.reshape(1)
    return " ".join("0x" + words(piece.reshape(1)).tobytes()[::-1].hex() for piece in pieces)


def value_text(array: NDArray[Any]) -> str:
    """Return one element (shape ``()``) in decimal and in bits: ``0.1 (0x3dcccccd)``."""
    return f"{number_text(array)} ({bits_text(array)})"
