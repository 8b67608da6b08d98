"""Numbers of every dtype for property tests: any bits at all, NaN payloads included."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from researchlab.numerics.dtypes import array_from, bit_width, dtype_named
from researchlab.numerics.leaves import Leaf
from researchlab.numerics.ulp import has_ulps

NUMPY = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
NUMPY += ["bool", "float16", "float32", "float64", "complex64", "complex128"]
EXTENSION = [
    name
    for name, kind in vars(ml_dtypes).items()
    if isinstance(kind, type) and issubclass(kind, np.generic) and not name.startswith("_")
]
NUMBERS = [*NUMPY, *EXTENSION]
FLOATS = [name for name in NUMBERS if has_ulps(dtype_named(name)) and "complex" not in name]
COMPLEX = [name for name in NUMBERS if "complex" in name]


def bits_of(name: str, *, count: int = 1) -> st.SearchStrategy[bytes]:
    """Any valid bits of ``count`` numbers (of a bool 0 or 1; of a narrow type only the bits that it has)."""
    dtype = dtype_named(name)
    if name != "bool" and bit_width(dtype) == 8 * dtype.itemsize:
        return st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize)
    largest = 1 if name == "bool" else 2 ** bit_width(dtype) - 1
    return st.lists(st.integers(0, largest), min_size=count, max_size=count).map(bytes)


@st.composite
def scalars(draw: st.DrawFn, names: list[str] = NUMBERS) -> np.generic:
    """One numpy scalar of any dtype, with any bits."""
    name = draw(st.sampled_from(names))
    return array_from(name, draw(bits_of(name)), ())[()]


@st.composite
def arrays(draw: st.DrawFn, names: list[str] = NUMBERS, *, min_side: int = 0) -> np.ndarray:
    """A read-only array of any dtype, with any bits."""
    name = draw(st.sampled_from(names))
    shape = tuple(draw(st.lists(st.integers(min_side, 4), max_size=3)))
    return array_from(name, draw(bits_of(name, count=math.prod(shape))), shape)


def array_leaf(array: np.ndarray, path: str = "x") -> Leaf:
    """The leaf of one array."""
    return Leaf(path, "array", array.dtype.name, array.shape, weak_type=False, array=array, static=None)
