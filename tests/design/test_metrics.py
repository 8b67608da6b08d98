from __future__ import annotations

import decimal
import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design._metrics import flatten_metrics, to_float, to_host, to_numbers
from researchlab.errors import ArgumentError, MetricError


def test_nested_metrics_get_dotted_names_and_names_stay_as_they_are():
    metrics = {"train": {"loss": 1.0, "by.layer": {0: 2.0}}, "val/loss": 3.0, "none": {}}
    assert flatten_metrics(metrics, 1) == {"train.loss": 1.0, "train.by.layer.0": 2.0, "val/loss": 3.0}


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(ArgumentError, match=r"metric name 'a\.b'"):
        flatten_metrics({"a": {"b": 1.0}, "a.b": 2.0}, 1)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, True),
        (3, 3),
        (0.1, 0.1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.array(2, np.uint64), 2),
        (np.bool_(1), True),
        (jnp.asarray(1.5), 1.5),
        (jnp.asarray(1.5, jnp.bfloat16), 1.5),
        (jnp.asarray(1.5, jnp.float8_e4m3fn), 1.5),
        (jnp.asarray(3, jnp.int4), 3),
        (jnp.asarray(1, bool), True),
        (fractions.Fraction(1, 2), 0.5),
        (decimal.Decimal("0.5"), 0.5),
    ],
)
def test_real_scalars_become_python_numbers(value, number):
    flat = flatten_metrics({"m": value}, 1)
    (result,) = to_numbers(flat, 1).values()
    assert result == number
    assert type(result) in (bool, int, float)
    assert to_numbers(to_host(flat), 1) == {"m": number}


def test_the_host_values_keep_dtype_and_bits():
    patterns = {"nan": 0x7FC00123, "minus_zero": 0x80000000, "inf": 0x7F800000}
    metrics = {
        name: jax.lax.bitcast_convert_type(jnp.asarray(bits, jnp.uint32), jnp.float32)
        for name, bits in patterns.items()
    }
    host = to_host(flatten_metrics(metrics, 1))
    assert {name: int(value.view(np.uint32)) for name, value in host.items()} == patterns
    assert to_host({"m": jnp.asarray(1, jnp.bfloat16)})["m"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (jnp.ones(3), r"float32 of shape \(3,\)"),
        (np.ones((1,)), r"float64 of shape \(1,\)"),
        (jnp.asarray(1j), r"complex64 of shape \(\)"),
        (jax.random.key(0), r"key<fry> of shape \(\)"),
        (1j, "complex"),
        ("0.5", "'0.5' of type str"),
        (None, "NoneType"),
        ([1.0], "list"),
        (np.str_("a"), "shape"),
        (np.array(None), "object of shape"),
    ],
)
def test_what_is_no_real_scalar_is_named_with_step_and_shape(value, said):
    with pytest.raises(MetricError, match=f"metric 'train.loss' of step 7 is .*{said}"):
        flatten_metrics({"train": {"loss": value}}, 7)


def test_an_integer_beyond_the_floats_is_named():
    with pytest.raises(MetricError, match="'m' of step 2"):
        to_float("m", 10**400, 2)
