"""Which image is an array that a user calls a frame?"""

from __future__ import annotations

from typing import Any

import numpy as np

from researchlab.errors import FrameError

_SHAPES = "[height, width], [height, width, 3] or [height, width, 4]"
_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_ROUNDING = 1e-3  # what an average or an interpolation may leave beyond 0 and 1


def as_rgb(frame: Any) -> np.ndarray:
    """Return a frame as colours, uint8[height, width, 3].

    Args:
        frame: uint8 of 0 to 255, floating point of 0 to 1, or bool; grey [height, width], RGB [height, width, 3], or
            RGBA [height, width, 4], which is laid over white.

    Raises:
        FrameError: it has another shape or dtype, or values outside of that range.
    """
    values = np.asarray(frame)
    if values.ndim == 2:  # noqa: PLR2004 - height and width
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in _CHANNELS or 0 in values.shape:  # noqa: PLR2004
        msg = f"a frame must be {_SHAPES}; it is {values.dtype}{list(np.shape(frame))}"
        raise FrameError(msg)
    levels = _levels(values)
    if levels.shape[2] == 4:  # noqa: PLR2004
        opacity = levels[:, :, 3:].astype(np.uint32)
        blended = levels[:, :, :3] * opacity + 255 * (255 - opacity)
        levels = ((blended + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def padded_to_even(image: np.ndarray) -> np.ndarray:
    """Return the image with its last row and column repeated where their number is odd, as video encoders need it."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _levels(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values * np.uint8(255)
    if values.dtype.kind in "iuOSUMmcV" and not _is_small_float(values.dtype):
        msg = f"a frame must be uint8 (0 to 255), floating point (0 to 1) or bool; its dtype is {values.dtype}"
        raise FrameError(msg)
    numbers = values.astype(np.float32)
    low, high = float(numbers.min()), float(numbers.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also false for NaN
        msg = (
            f"the values of a floating-point frame must lie between 0 and 1; they go from {low:g} to {high:g}:"
            " scale them, or return uint8"
        )
        raise FrameError(msg)
    return (np.clip(numbers, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _is_small_float(dtype: np.dtype[Any]) -> bool:
    import jax.numpy as jnp

    return jnp.issubdtype(dtype, jnp.floating)  # bfloat16 and float8 are of NumPy's kind "V"
