from __future__ import annotations

import math
import struct
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from helpers.numbers import NUMBERS, bits_of, scalars
from hypothesis import given
from hypothesis import strategies as st

from researchlab.errors import MetricError
from researchlab.numerics.scalars import decode_scalar, encode_scalar, scalar_text


@given(scalars())
def test_a_numpy_scalar_of_any_dtype_comes_back_with_its_bits(value):
    dtype, bits = encode_scalar(value, name="m")
    assert dtype == value.dtype.name
    back = decode_scalar(dtype, bits)
    assert back.dtype == value.dtype
    assert back.tobytes() == value.tobytes()


@pytest.mark.parametrize("name", NUMBERS)
@given(data=st.data())
def test_arrays_of_one_element_keep_their_dtype_and_bits(name, data):
    raw = data.draw(bits_of(name))
    scalar = decode_scalar(name, raw)
    for value in (np.asarray(scalar), np.asarray(scalar).reshape(1), np.asarray(scalar).reshape(1, 1)):
        assert encode_scalar(value, name="m") == (name, raw)


@given(st.integers() | st.integers(-(2**63) - 2, -(2**63) + 2) | st.integers(2**63 - 2, 2**63 + 2))
def test_python_ints_of_any_size_come_back(value):
    dtype, bits = encode_scalar(value, name="m")
    assert dtype == ("int64" if -(2**63) <= value < 2**63 else "int")
    assert decode_scalar(dtype, bits) == value
    if dtype == "int":
        with pytest.raises(OverflowError):
            value.to_bytes(len(bits) - 1, "little", signed=True)
        assert int(scalar_text(dtype, bits), 16) == value


@given(st.binary(min_size=8, max_size=8))
def test_python_floats_keep_nan_payloads_and_signed_zeros(raw):
    (value,) = struct.unpack("<d", raw)
    assert encode_scalar(value, name="m") == ("float64", raw)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(True, "bool"), (False, "bool"), (1 - 2j, "complex128"), (-0.0, "float64"), (math.inf, "float64")],
)
def test_other_python_numbers_have_the_dtype_that_numpy_gives_them(value, dtype):
    assert encode_scalar(value, name="m") == (dtype, np.array(value).tobytes())


@pytest.mark.parametrize(
    "value", ["0.1", "nan", b"1e3", Decimal("0.1"), Fraction(1, 3), np.str_("0.1"), np.array("0.1")]
)
def test_what_mlflow_would_convert_becomes_the_same_float(value):
    expected = float(value.item()) if isinstance(value, np.ndarray) else float(value)
    dtype, bits = encode_scalar(value, name="m")
    assert dtype == "float64"
    assert bits == struct.pack("<d", expected)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e4m3fn", "int4", "uint32", "bool", "complex64"])
def test_a_jax_scalar_keeps_its_dtype(name):
    value = jnp.array(1, dtype=name)
    assert encode_scalar(value, name="m") == encode_scalar(np.asarray(value), name="m")
    assert encode_scalar(value, name="m")[0] == name


def test_big_endian_scalars_have_the_bits_of_little_endian_ones():
    assert encode_scalar(np.array(0.1, ">f4"), name="m") == encode_scalar(np.float32(0.1), name="m")


def test_the_padding_of_a_long_double_does_not_count():
    dirty = np.full(1, 0xFF, dtype=np.uint8).repeat(np.dtype(np.longdouble).itemsize).view(np.longdouble)
    dirty[0] = np.longdouble(1) / 3  # writes 10 of the 16 bytes on x86
    for value in (dirty, dirty.reshape(())):
        assert encode_scalar(value, name="m") == encode_scalar(np.longdouble(1) / 3, name="m")


def test_the_unused_bits_of_a_narrow_integer_do_not_count():
    clean = np.array([0x0F], np.uint8).view(ml_dtypes.int4)
    dirty = np.array([0xFF], np.uint8).view(ml_dtypes.int4)
    assert encode_scalar(clean, name="m") == encode_scalar(dirty, name="m") == ("int4", b"\x0f")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.zeros(3), "shape (3,)"),
        (np.zeros(0), "shape (0,)"),
        ([0.5], "a list"),
        (None, "NoneType"),
        ("fast", "'fast'"),
        ({"a": 1}, "a dict"),
        (np.datetime64("2026-01-01"), "datetime64"),
        (np.array([None]), "object"),
        (np.ma.masked, "masked"),
        (jax.random.key(0), "key<fry>"),
    ],
    ids=lambda value: str(type(value)),
)
def test_what_is_not_one_number_is_refused_by_name(value, found):
    with pytest.raises(MetricError) as caught:
        encode_scalar(value, name="train/loss")
    assert "'train/loss'" in str(caught.value)
    assert found in str(caught.value)


def test_a_traced_value_is_refused_with_the_way_out():
    def step(x):
        encode_scalar(x, name="loss")
        return x

    with pytest.raises(MetricError, match="return it from the jitted function"):
        jax.jit(step)(1.0)


@pytest.mark.parametrize(("dtype", "bits"), [("float32", b"123"), ("float31", b"1234"), ("object", b"12345678")])
def test_bits_that_do_not_fit_are_refused(dtype, bits):
    with pytest.raises(ValueError, match=dtype):
        decode_scalar(dtype, bits)


@given(scalars([name for name in NUMBERS if "complex" not in name]))
def test_the_decimal_text_reads_back_to_the_same_value(value):
    text, _, bits = scalar_text(*encode_scalar(value, name="m")).partition(" ")
    assert bits.startswith("(0x")
    if value.dtype.kind != "b":
        back = np.asarray(float(text) if "float" in value.dtype.name else int(text)).astype(value.dtype)[()]
        with np.errstate(invalid="ignore"):
            assert back == value or (np.isnan(value) and np.isnan(back))
