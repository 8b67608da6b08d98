"""Reads films back with imageio, which is not what they are written with."""

from __future__ import annotations

import gc
import os
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import imageio.v3 as iio

if TYPE_CHECKING:
    from pathlib import Path


def read_film(path: Path, **options: Any) -> Any:
    """Return the frames of a film, uint8 of shape ``(frames, height, width, channels)``."""
    # Without the variable, imageio forks its ffmpeg, of which JAX warns.
    with mock.patch.dict(os.environ, {"IMAGEIO_FFMPEG_NO_PREVENT_SIGINT": "1"}), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its pipes to the garbage collector
        frames = iio.imread(path, **options)
        gc.collect()
    return frames
