from __future__ import annotations

import math
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from helpers.numbers import NUMBERS, array_leaf, arrays, bits_of
from hypothesis import given
from hypothesis import strategies as st

from researchlab.numerics import compare
from researchlab.numerics.compare import compare_leaves, incomparable
from researchlab.numerics.dtypes import array_from, bit_width, has_sign_bit, is_extension, is_float
from researchlab.numerics.leaves import leaves_of


def reasons(stored, received):
    return [(d.path, d.reason) for d in compare_leaves(leaves_of(stored), leaves_of(received))]


@given(arrays(min_side=1), st.data())
def test_any_flipped_bit_is_found_with_its_index(array, data):
    index = tuple(data.draw(st.integers(0, side - 1)) for side in array.shape)
    changed = array.copy()
    element = np.ravel_multi_index(index, array.shape) if index else 0
    if array.dtype == bool:
        changed.reshape(-1)[element] ^= True
    else:
        bit = data.draw(st.integers(0, bit_width(array.dtype) - 1))
        changed.reshape(-1).view(np.uint8)[element * array.dtype.itemsize + bit // 8] ^= np.uint8(1 << (bit % 8))
    assert compare_leaves([array_leaf(array)], [array_leaf(array.copy())]) == ()
    (difference,) = compare_leaves([array_leaf(array)], [array_leaf(changed)])
    assert difference.reason == "value"
    assert difference.first_index == index
    assert difference.differing == 1
    assert difference.size == array.size
    assert "\n" not in difference.describe()


@given(st.sampled_from(NUMBERS), st.data(), st.integers(1, 5))
def test_comparison_agrees_with_a_slow_reference_whatever_the_chunk(name, data, chunk):
    count = data.draw(st.integers(0, 12))
    left, right = (array_from(name, data.draw(bits_of(name, count=count)), (count,)) for _ in range(2))
    unequal = [i for i in range(count) if left[i].tobytes() != right[i].tobytes()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "CHUNK", chunk)
        differences = compare_leaves([array_leaf(left)], [array_leaf(right)])
    assert bool(differences) == bool(unequal)
    if not unequal:
        return
    (difference,) = differences
    assert difference.differing == len(unequal)
    assert difference.first_index == (unequal[0],)
    if left.dtype.kind in "iu" or (is_extension(left.dtype) and "int" in name):
        assert difference.max_abs == float(max(abs(int(left[i]) - int(right[i])) for i in unequal))
    if is_float(left.dtype):
        steps = [reference_ulp(left[i], right[i]) for i in unequal]
        known = [step for step in steps if step is not None]
        assert difference.ulp == steps[0]
        assert difference.max_ulp == max(known, default=None)
        assert difference.nans == steps.count(None)


def reference_ulp(left, right):
    """Return the distance by ordering Python ints; None for a NaN against a number."""
    with np.errstate(invalid="ignore"):
        nans = int(np.isnan(left)) + int(np.isnan(right))
    if nans:
        return 0 if nans == 2 else None
    width = bit_width(left.dtype)

    def place(value):
        bits = int.from_bytes(value.tobytes(), "little")
        if not has_sign_bit(value.dtype):
            return bits
        magnitude = bits & ((1 << (width - 1)) - 1)
        return -magnitude if bits >> (width - 1) & 1 else magnitude

    return abs(place(left) - place(right))


def test_differences_come_in_stored_order_then_what_was_added():
    stored = {"a": 1, "b": "x", "c": jnp.zeros(2), "d": jnp.zeros(2), "e": jnp.zeros(2), "f": 1.0, "g": 0, "h": None}
    received = {
        "a": 1.0,
        "b": "y",
        "c": jnp.zeros(3),
        "d": jnp.zeros(2, "bfloat16"),
        "e": np.zeros(2, "f4"),
        "f": "1.0",
    }
    received |= {"h": jnp.ones(1), "new": jnp.ones((2, 3))}
    assert reasons(stored, received) == [
        ("a", "dtype"),
        ("b", "static"),
        ("c", "shape"),
        ("d", "dtype"),
        ("f", "kind"),
        ("g", "removed"),
        ("h", "kind"),
        ("new", "added"),
    ]
    assert [d.describe() for d in compare_leaves(leaves_of(stored), leaves_of(received))][
        -1
    ] == "new: added, float32[2,3]"


def test_a_weak_type_is_a_difference_and_a_value_is_a_greater_one():
    assert reasons(jnp.asarray(1.0), jnp.float32(1)) == [("", "weak_type")]
    assert reasons(jnp.asarray(1.0), jnp.float32(2)) == [("", "value")]


def test_the_sign_of_zero_and_the_payload_of_a_nan_are_differences_of_no_ulp():
    quiet, other = (np.array([bits], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    for left, right in ((np.zeros(1), -np.zeros(1)), (quiet, other)):
        (difference,) = compare_leaves([array_leaf(left)], [array_leaf(right)])
        assert difference.ulp == 0
    assert compare_leaves([array_leaf(quiet)], [array_leaf(quiet.copy())]) == ()


def test_the_line_names_counts_index_values_bits_and_ulps():
    stored = jnp.zeros((2, 3)).at[1, 2].set(0.1)
    received = stored.at[1, 2].set(jnp.nextafter(jnp.float32(0.1), jnp.float32(1))).at[1, 1].set(0)
    (difference,) = compare_leaves(leaves_of({"w": stored}), leaves_of({"w": received}))
    assert difference.describe() == (
        "w: 1/6 differ; first at [1, 2]: stored 0.1 (0x3dcccccd), received 0.10000001 (0x3dccccce); 1 ULP apart; "
        "7.45e-09 in value"
    )


def test_a_nan_against_a_number_is_counted_and_hides_no_ulps():
    (difference,) = compare_leaves([array_leaf(np.array([np.nan, 1.0]))], [array_leaf(np.array([1.0, 2.0]))])
    assert (difference.ulp, difference.max_ulp, difference.nans) == (None, 2**52, 1)
    assert "1 NaN against a number" in difference.describe()


@pytest.mark.parametrize(("left", "right", "size"), [(2**62, 2**62 + 1, 1.0), (-(2**63), 2**63 - 1, 2.0**64)])
def test_integer_distances_do_not_pass_through_floats(left, right, size):
    (difference,) = compare_leaves([array_leaf(np.array([left]))], [array_leaf(np.array([right]))])
    assert difference.max_abs == size


@pytest.mark.parametrize(("left", "right"), [(1, 2), (10**30, 10**30 + 1), (2**62, 2**70), (0, 10**400)])
def test_python_ints_differ_by_value(left, right):
    (difference,) = compare_leaves(leaves_of(left), leaves_of(right))
    assert difference.reason == "value"
    assert difference.max_abs == (float(right - left) if right < 10**300 else math.inf)
    assert reasons(left, left) == []


def test_keys_differ_by_their_data():
    (difference,) = compare_leaves(leaves_of(jax.random.key(0)), leaves_of(jax.random.key(1)))
    assert difference.reason == "value"
    assert difference.max_abs is None
    assert reasons(jax.random.key(0), jax.random.key(0, impl="rbg")) == [("", "dtype")]
    assert reasons(jax.random.key(0), jax.random.key_data(jax.random.key(0))) == [("", "kind")]


def test_the_unused_bits_of_a_narrow_dtype_do_not_count():
    clean, dirty = (np.array([bits], np.uint8).view(ml_dtypes.int4) for bits in (0x0F, 0xFF))
    assert compare_leaves([array_leaf(clean)], [array_leaf(dirty)]) == ()


@pytest.mark.parametrize("dtype", ["<U5", "S3", "datetime64[us]"])
def test_text_bytes_and_dates_are_compared_by_their_bits(dtype):
    left = np.array(["126", "127"]).astype(dtype)
    right = np.array(["126", "128"]).astype(dtype)
    assert reasons(left, left.copy()) == []
    (difference,) = compare_leaves(leaves_of(left), leaves_of(right))
    assert difference.first_index == (1,)
    assert "128" in difference.describe()


def test_leaves_of_one_path_are_matched_in_their_order():
    tree = {1: jnp.zeros(1), "1": jnp.ones(1)}
    leaves = [array_leaf(np.asarray(value), "1") for value in tree.values()]
    assert compare_leaves(leaves, leaves) == ()
    assert [d.reason for d in compare_leaves(leaves, leaves[:1])] == ["removed"]


def test_what_has_no_text_is_no_difference_but_named():
    stored, received = leaves_of({"a": object(), "b": 1}), leaves_of({"a": object(), "b": 1})
    assert compare_leaves(stored, received) == ()
    assert incomparable(stored, received) == ("a",)


def test_one_changed_element_of_a_large_array_costs_little_memory():
    left = np.zeros(10_000_000, np.float32)
    right = left.copy()
    right[-1] = 1
    tracemalloc.start()
    (difference,) = compare_leaves([array_leaf(left)], [array_leaf(right)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert difference.first_index == (9_999_999,)
    assert peak < 4_000_000
