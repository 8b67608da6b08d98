from __future__ import annotations

import numpy as np
import pytest
from helpers.numbers import COMPLEX, FLOATS, bits_of
from hypothesis import given
from hypothesis import strategies as st

from researchlab.errors import LeafError
from researchlab.numerics.dtypes import array_from, bit_width, dtype_named, part_dtype
from researchlab.numerics.ulp import NAN_DISTANCE, ulp_distance


@st.composite
def pairs(draw, names=FLOATS):
    name = draw(st.sampled_from(names))
    left, right = (array_from(name, draw(bits_of(name, count=3)), (3,)) for _ in range(2))
    return left, right


def every(name):
    """Every value of a dtype of up to 16 bits."""
    dtype = dtype_named(name)
    return np.arange(2 ** bit_width(dtype), dtype=f"u{dtype.itemsize}").view(dtype)


@given(pairs())
def test_distance_is_symmetric_and_zero_only_between_equal_values(pair):
    left, right = pair
    distance = ulp_distance(left, right)
    assert distance.dtype == np.uint64
    np.testing.assert_array_equal(distance, ulp_distance(right, left))
    with np.errstate(invalid="ignore"):
        left_nan, right_nan = (np.isnan(side).astype(bool) for side in pair)
        equal = (left == right).astype(bool) | (left_nan & right_nan)
    np.testing.assert_array_equal(distance == 0, equal)
    one_nan = left_nan != right_nan
    np.testing.assert_array_equal(distance == np.uint64(NAN_DISTANCE), one_nan)


@pytest.mark.parametrize("name", [name for name in FLOATS if dtype_named(name).itemsize <= 2])
def test_neighbours_of_a_small_dtype_are_one_apart(name):
    values = every(name)
    with np.errstate(invalid="ignore"):
        values = values[~np.isnan(values).astype(bool)]
    ordered = values[np.argsort(values.astype(np.float64), kind="stable")]
    _, first = np.unique(ordered.astype(np.float64), return_index=True)
    ordered = ordered[first]  # -0.0 and 0.0 are one value
    assert (ulp_distance(ordered[:-1], ordered[1:]) == 1).all()
    assert int(ulp_distance(ordered[0], ordered[-1])) == len(ordered) - 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_nextafter_is_one_away(dtype, data):
    value = array_from(np.dtype(dtype).name, data.draw(bits_of(np.dtype(dtype).name)), ())
    with np.errstate(all="ignore"):
        upwards = np.nextafter(value, dtype(np.inf))
    if np.isfinite(value) and np.isfinite(upwards):
        assert int(ulp_distance(value, upwards)) == 1


def test_the_zeros_are_no_distance_apart_and_their_neighbours_two():
    smallest = np.float32(1e-45)
    assert int(ulp_distance(np.float32(-0.0), np.float32(0.0))) == 0
    assert int(ulp_distance(-smallest, smallest)) == 2


def test_the_two_infinities_of_float64_are_less_far_apart_than_a_nan():
    assert int(ulp_distance(-np.inf, np.inf)) == 2 * 0x7FF0000000000000 < NAN_DISTANCE
    assert int(ulp_distance(np.nan, 1.0)) == NAN_DISTANCE


@given(pairs(COMPLEX))
def test_complex_numbers_are_as_far_apart_as_the_farther_part(pair):
    left, right = pair
    part = part_dtype(left.dtype)
    parts = ulp_distance(left.view(part), right.view(part)).reshape(-1, 2)
    np.testing.assert_array_equal(ulp_distance(left, right), parts.max(axis=1))


def test_strides_byte_order_and_shape_do_not_matter():
    left = np.arange(12, dtype=">f4").reshape(3, 4).T
    right = left.astype("<f4") + np.float32(0)
    assert ulp_distance(left.astype("<f4"), right).tolist() == np.zeros((4, 3)).tolist()
    assert ulp_distance(left, (left * 2).astype(">f4")).shape == (4, 3)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.zeros(2, int), np.zeros(2, int)),
        (np.zeros(2, np.longdouble), np.zeros(2, np.longdouble)),
    ],
)
def test_what_has_no_ulps_is_refused(left, right):
    with pytest.raises(LeafError):
        ulp_distance(left, right)
