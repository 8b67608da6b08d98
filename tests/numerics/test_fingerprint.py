from __future__ import annotations

import hashlib

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from helpers.numbers import arrays
from helpers.precision import enable_x64
from hypothesis import given, settings
from hypothesis import strategies as st

from researchlab.errors import LeafError
from researchlab.numerics.fingerprint import (
    _add,
    _compiled,
    _mixed,
    _positions,
    _times,
    fingerprint,
    fingerprint_leaves,
    lanes,
)
from researchlab.numerics.leaves import leaves_of

# jax 0.7 has it in jax.experimental only, later ones only here.

MULTIPLIERS = [2654435761, 2246822519, 3266489917, 668265263]
OFFSETS = [608135816, 2242054355, 320440878, 57701188]


def mix(word):
    word = word ^ (word >> np.uint32(16))
    word = word * np.uint32(0x85EBCA6B)
    word = word ^ (word >> np.uint32(13))
    word = word * np.uint32(0xC2B2AE35)
    return word ^ (word >> np.uint32(16))


def reference_lanes(words, start=0):
    """The definition, in NumPy: the words of an array, and the number of the first of them."""
    position = np.arange(start, start + len(words), dtype=np.uint64)
    low, high = (position & np.uint64(2**32 - 1)).astype(np.uint32), (position >> np.uint64(32)).astype(np.uint32)
    found = []
    for multiplier, offset in zip(np.array(MULTIPLIERS, np.uint32), np.array(OFFSETS, np.uint32), strict=True):
        seed = (low * multiplier + offset) ^ mix(high * multiplier)
        found.append(mix(words ^ seed).sum(dtype=np.uint32))
    return np.array(found, "<u4")


def reference_words(array):
    size = array.dtype.itemsize
    content = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8).reshape(-1, size)
    if array.dtype.name in {"int4", "uint4", "float4_e2m1fn"}:
        content = content & 15
    if array.dtype.name in {"int2", "uint2"}:
        content = content & 3
    if array.dtype.name in {"float6_e2m3fn", "float6_e3m2fn"}:
        content = content & 63
    padded = np.zeros((len(content), -(-size // 4) * 4), np.uint8)
    padded[:, :size] = content
    return padded.reshape(-1).view("<u4")


def reference(array, *, kind="array", dtype=None, shape=None):
    shape = array.shape if shape is None else shape
    head = "\0".join([kind, dtype or array.dtype.name, ",".join(map(str, shape)), ""]).encode()
    with np.errstate(over="ignore"):
        tail = reference_lanes(reference_words(array)).tobytes()
    return hashlib.blake2b(b"researchlab fingerprint 1\0" + head + tail, digest_size=16).hexdigest()


def only(leaf):
    (found,) = fingerprint(leaf).values()
    return found


@settings(deadline=None, max_examples=60)
@given(arrays())
def test_it_is_what_numpy_computes(array):
    assert only(array) == reference(array)


@settings(deadline=None, max_examples=30)
@given(arrays(["bool", "int4", "uint4", "int8", "uint16", "int32", "float16", "bfloat16", "float32", "float8_e4m3fn",
               "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn", "complex64"]))  # fmt: skip
def test_an_array_of_jax_has_that_of_numpy(array):
    assert only(jnp.asarray(array)) == only(np.asarray(array)) == reference(array)


@settings(deadline=None, max_examples=12)
@given(arrays(["int64", "uint64", "float64", "complex128", "float32", "int4"]))
def test_x64_changes_nothing(array):
    outside = only(array)
    with enable_x64(True):  # noqa: FBT003 - its only parameter
        assert only(jnp.asarray(array)) == only(array) == outside


def test_it_is_what_it_was():
    # A stored checkpoint or trace holds these: a change of the definition must be a new version of it.
    assert only(jnp.arange(5.0)) == "a9bbf7a412e0ba0ce9e2033f3cff0a37"


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (3,), (0,)])
def test_keys_are_their_data_and_their_implementation(impl, shape):
    key = jax.random.key(3, impl=impl)
    keys = jax.random.split(key, shape) if shape else key
    data = np.asarray(jax.random.key_data(keys))
    assert only(keys) == reference(data, kind="key", dtype=str(keys.dtype), shape=shape)
    assert only(keys) != only(jax.random.key_data(keys))


def test_what_differs_in_a_bit_differs():
    zeros = np.zeros(4, np.float32)
    nan = np.array(0x7FC00000, np.uint32).view(np.float32)
    other_nan = np.array(0x7FC00001, np.uint32).view(np.float32)
    different = [
        zeros, -zeros, zeros.reshape(2, 2), zeros[:3], zeros[:0], zeros[:0].reshape(0, 2), zeros.astype(np.int32),
        zeros.astype(np.int16), zeros.astype(ml_dtypes.bfloat16), zeros.astype(bool), np.float32(0), nan, other_nan,
        np.array([1, 0, 0, 0], np.float32), np.array([0, 1, 0, 0], np.float32), np.array([1, 2, 3, 4], np.float32),
        np.array([2, 1, 3, 4], np.float32), np.array([1, 2], "<u8"), np.array([2**32, 2], "<u8"),
        np.array([0j, 1j]), np.array([0j, 1]), 0, 0.0, -0.0, False, 0j, 2**64, -(2**64), None, "", "a", jnp.tanh,
    ]  # fmt: skip
    found = [only(leaf) for leaf in different]
    assert len(set(found)) == len(found)
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in found)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_bit_or_two_elements_never_go_unnoticed(data):
    array = np.frombuffer(data.draw(st.binary(min_size=256, max_size=256)), np.uint32).copy()
    before = only(array)
    place, bit = data.draw(st.integers(0, 63)), data.draw(st.integers(0, 31))
    array[place] ^= np.uint32(1 << bit)
    assert only(array) != before
    array[place] ^= np.uint32(1 << bit)
    other = data.draw(st.integers(0, 63))
    swapped = array.copy()
    swapped[[place, other]] = swapped[[other, place]]
    assert (only(swapped) == before) == bool((swapped == array).all())


def test_layout_holder_and_weak_type_change_nothing():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = [array, np.asfortranarray(array), array.astype(">f4"), jnp.asarray(array), jnp.asarray(array.T).T]
    assert len({only(leaf) for leaf in same}) == 1
    assert only(jnp.asarray(1.0)) == only(jnp.float32(1)) == only(np.float32(1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int4", "complex64", "bool"])
@pytest.mark.parametrize("spec", [("x",), (None, "x"), ()])
@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_shards_change_nothing(dtype, spec, kind):
    array = jnp.asarray(np.arange(8).reshape(4, 2) % 3).astype(dtype)
    mesh = jax.make_mesh((2,), ("x",), axis_types=(kind,), devices=jax.devices()[:2])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    assert only(jax.device_put(array, sharding)) == only(array)


def test_compiled_eager_and_traced_lanes_are_the_same():
    array = jnp.linspace(-1, 1, 30, dtype=jnp.float32).reshape(5, 6)
    eager = lanes(array).tolist()
    assert jax.jit(lanes)(array).tolist() == eager
    assert jax.lax.scan(lambda carry, x: (carry, lanes(x)), 0, array[None])[1][0].tolist() == eager
    assert jax.vmap(lanes)(array[None])[0].tolist() == eager


def test_it_is_compiled_once_for_each_kind_of_leaf():
    tree = {name: jnp.full((7, 11), value) for name, value in zip("abc", (1.0, 2.0, 3.0), strict=True)}
    fingerprint(tree)
    compiled = _compiled()._cache_size()
    fingerprint(jax.tree.map(lambda leaf: leaf + 1, tree))
    assert _compiled()._cache_size() == compiled


def test_static_leaves_have_that_of_their_text():
    tree = {"f": jax.nn.relu, "same": jax.nn.relu, "other": jax.nn.tanh, "object": object(), "none": None, "x": 1}
    found = fingerprint(tree)
    assert list(found) == ["f", "none", "other", "same", "x"]
    assert found["f"] == found["same"] != found["other"]


def test_paths_are_those_of_leaves_of():
    tree = {"a": [jnp.ones(2), 3], "b.c": eqx.nn.Linear(2, 2, key=jax.random.key(0))}
    assert list(fingerprint(tree)) == [leaf.path for leaf in leaves_of(tree)]
    assert list(fingerprint(tree, prefix="s", separator="/"))[:2] == ["s/a/0", "s/a/1"]
    assert list(fingerprint(tree).values()) == fingerprint_leaves(leaves_of(tree))


def test_a_leaf_without_values_is_named():
    gone = jnp.ones(3)
    gone.delete()
    with pytest.raises(LeafError, match="'a' was deleted"):
        fingerprint({"a": gone})
    with pytest.raises(LeafError, match="'a' is traced"):
        jax.jit(lambda x: fingerprint({"a": x}))(1.0)


numbers = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(numbers, numbers, st.integers(0, 2**64 - 1), numbers)
def test_positions_beyond_32_bits_are_exact(low, high, factor, more):
    pair = jnp.uint32(low), jnp.uint32(high)
    found = _add(_times(pair, factor), (jnp.uint32(more), None))
    expected = (((high << 32) + low) * factor + more) % 2**64
    assert (int(found[1]) << 32) + int(found[0]) == expected


def test_words_beyond_32_bits_have_their_number():
    low, high = _positions((3, 4), 2)
    assert (low.tolist(), high) == ([[0, 2, 4, 6], [8, 10, 12, 14], [16, 18, 20, 22]], None)
    words, start = np.arange(9, dtype=np.uint32), 5 * 2**32 - 4
    numbers = np.arange(start, start + 9, dtype=np.uint64)
    place = jnp.asarray(numbers.astype(np.uint32)), jnp.asarray((numbers >> 32).astype(np.uint32))
    found = [int(np.asarray(_mixed(jnp.asarray(words), place, lane)).sum(dtype=np.uint32)) for lane in range(4)]
    assert found == reference_lanes(words, start).tolist()
