"""How far apart are two floats, counted in the numbers between them?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from researchlab.errors import LeafError
from researchlab.numerics.dtypes import bit_width, has_sign_bit, is_float, part_dtype, words

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

NAN_DISTANCE: Final = 2**64 - 1
"""The distance between a NaN and a number: more than any two numbers can be apart."""


MANY_ULPS: Final = 1_000_000
"""A distance beyond which the number of ULPs tells a reader nothing."""


def ulps_text(distance: int) -> str:
    """Return a distance for a reader."""
    return f"{distance} ULP" if distance <= MANY_ULPS else "over a million ULP"


def has_ulps(dtype: np.dtype[Any]) -> bool:
    """Return whether ``ulp_distance`` takes ``dtype``: floats of up to 64 bits, and complex numbers of them."""
    return is_float(dtype) or part_dtype(dtype) is not None


def ulp_distance(stored: ArrayLike, received: ArrayLike) -> NDArray[np.uint64]:
    """Return the distance of each pair of elements in units in the last place (ULP).

    It is the number of steps of ``nextafter`` from one to the other: 0 if and only if the values are equal. -0.0 and
    0.0 are 0 apart although their bits differ, and so are two NaNs whatever their payloads. A complex pair is as far
    apart as the farther of its parts. An infinity lies one step after the largest finite number.

    Args:
        stored: any float or complex dtype of numpy or ml_dtypes up to 64 bits a part, any shape.
        received: the same dtype and shape.

    Returns:
        uint64 of the same shape; ``NAN_DISTANCE`` where exactly one of the two is NaN.

    Raises:
        LeafError: the dtypes or shapes differ, or ULPs are not defined for the dtype.
    """
    left, right = np.asarray(stored), np.asarray(received)
    if left.dtype != right.dtype or left.shape != right.shape:
        msg = (
            f"ULPs need two arrays of one dtype and shape: stored {left.dtype}{list(left.shape)}, received "
            f"{right.dtype}{list(right.shape)}. Convert one of them first."
        )
        raise LeafError(msg)
    if not has_ulps(left.dtype):
        msg = f"ULPs are not defined for {left.dtype}: compare floats of 64 bits or fewer, or the bits themselves."
        raise LeafError(msg)
    shape, part = left.shape, part_dtype(left.dtype)
    left, right = _flat(left), _flat(right)
    if part is None:
        return _real_distance(left, right).reshape(shape)
    return _real_distance(left.view(part), right.view(part)).reshape(-1, 2).max(axis=1).reshape(shape)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False)


def _real_distance(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.uint64]:
    with np.errstate(invalid="ignore"):  # looking at a signalling NaN is an invalid operation
        left_nan, right_nan = np.isnan(left).astype(bool), np.isnan(right).astype(bool)
    left_negative, left_magnitude = _sign_and_magnitude(left)
    right_negative, right_magnitude = _sign_and_magnitude(right)
    # The bits of a float grow with its magnitude, so that the distance from zero is the magnitude's bits.
    distance = np.where(
        left_negative == right_negative,
        np.maximum(left_magnitude, right_magnitude) - np.minimum(left_magnitude, right_magnitude),
        left_magnitude + right_magnitude,
    )
    distance[left_nan & right_nan] = 0
    distance[left_nan != right_nan] = NAN_DISTANCE
    return distance


def _sign_and_magnitude(flat: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    bits = words(flat)[:, 0].astype(np.uint64)
    if not has_sign_bit(flat.dtype):
        return np.zeros(bits.shape, bool), bits
    sign = np.uint64(1 << (bit_width(flat.dtype) - 1))
    return (bits & sign) != 0, bits & (sign - np.uint64(1))
