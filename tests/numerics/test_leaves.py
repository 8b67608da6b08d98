from __future__ import annotations

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from helpers.numbers import arrays
from hypothesis import given

from researchlab.errors import LeafError
from researchlab.numerics.dtypes import raw_bytes
from researchlab.numerics.leaves import int_value, leaf_from_bytes, leaf_text, leaves_of, structure_text


class Sub(eqx.Module):
    val: jax.Array
    name: str = eqx.field(static=True)


class Model(eqx.Module):
    sub: Sub
    layers: list
    opts: dict
    bias: jax.Array | None
    act: object


def model():
    return Model(
        sub=Sub(jnp.arange(6.0).reshape(2, 3), "a"),
        layers=[jnp.ones(2, jnp.bfloat16), (np.float32(0.5), 3)],
        opts={"lr": 0.1, "a.b": True},
        bias=None,
        act=jax.nn.relu,
    )


def test_paths_are_dotted_and_parts_with_a_dot_are_escaped():
    paths = [leaf.path for leaf in leaves_of(model())]
    inside = ["sub.val", "layers.0", "layers.1.0", "layers.1.1", "opts.a\\.b", "opts.lr"]
    assert paths == [*inside, "bias", "act"]
    assert [leaf.path for leaf in leaves_of({1: 0, 2: {"a\\": 0}})] == ["1", "2.a\\\\"]


def test_kinds_and_dtypes_of_leaves():
    tree = {"jax": jnp.float32(1), "weak": jnp.asarray(1.0), "numpy": np.int8(1), "text": "x", "key": jax.random.key(1)}
    leaves = {leaf.path: leaf for leaf in leaves_of(tree | {"int": 1, "bool": True, "float": 0.5, "complex": 1j})}
    kinds = {path: (leaf.kind, leaf.dtype, leaf.weak_type) for path, leaf in leaves.items()}
    assert kinds == {
        "jax": ("array", "float32", False),
        "weak": ("array", "float32", True),
        "numpy": ("array", "int8", False),
        "text": ("static", "str", False),
        "key": ("key", "key<fry>", False),
        "int": ("scalar", "int", False),
        "bool": ("scalar", "bool", False),
        "float": ("scalar", "float", False),
        "complex": ("scalar", "complex", False),
    }


def test_a_single_leaf_has_the_path_of_the_tree():
    assert [leaf.path for leaf in leaves_of(1.0)] == [""]
    assert [leaf.path for leaf in leaves_of(1.0, prefix="state")] == ["state"]
    assert [leaf.path for leaf in leaves_of({"a": [1]}, prefix="state", separator="/")] == ["state/a/0"]


@pytest.mark.parametrize(
    "dtype",
    ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "bool", "complex64", "float4_e2m1fn"],
)
def test_jax_arrays_keep_dtype_and_bits(dtype):
    array = np.array([0, 1, 1]).astype(getattr(ml_dtypes, dtype, dtype))
    (leaf,) = leaves_of(jnp.asarray(array))
    assert leaf.dtype == dtype
    assert leaf.array.tobytes() == array.tobytes()


def test_arrays_on_the_cpu_are_shared():
    array = jnp.arange(1000.0)
    (leaf,) = leaves_of(array)
    assert np.shares_memory(leaf.array, np.asarray(array))
    own = np.arange(1000.0)
    assert np.shares_memory(leaves_of(own)[0].array, own)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_keys_are_their_key_data(impl):
    keys = jax.random.split(jax.random.key(3, impl=impl), 5)
    (leaf,) = leaves_of(keys)
    assert (leaf.kind, leaf.dtype, leaf.shape) == ("key", str(keys.dtype), (5,))
    np.testing.assert_array_equal(leaf.array, jax.random.key_data(keys))


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, -(2**63), 2**63, 10**400, -(10**400)])
def test_python_ints_of_any_size_are_kept(value):
    (leaf,) = leaves_of(value)
    assert int_value(leaf) == value
    assert leaf.shape == ()
    assert hex(value) in leaf_text(leaf)


def test_layout_and_byte_order_do_not_change_the_bits():
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    for other in (np.asfortranarray(array), array.astype(">i4"), np.repeat(array, 2, axis=1)[:, ::2]):
        (leaf,) = leaves_of(other)
        assert leaf.dtype == "int32"
        assert leaf.array.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "value",
    [np.array([None]), np.zeros(2, [("a", "f4")]), np.ma.masked_array([1.0], [True]), object()],
    ids=["objects", "structured", "masked", "object"],  # an id with an address in it differs between xdist's workers
)
def test_what_has_no_bits_and_no_text_cannot_be_compared(value):
    (leaf,) = leaves_of([value])
    assert leaf.kind == "static"
    assert not leaf.comparable


def test_a_sharded_array_is_gathered():
    mesh = jax.make_mesh((1,), ("x",))
    array = jax.device_put(jnp.arange(4.0), jax.NamedSharding(mesh, jax.P("x")))
    assert leaves_of(array)[0].array.tolist() == [0, 1, 2, 3]


def test_a_traced_leaf_is_named():
    with pytest.raises(LeafError, match=r"'w'.*outside of jit"):
        jax.jit(lambda w: leaves_of({"w": w}))(1.0)


def test_a_donated_leaf_is_named():
    array = jnp.arange(4.0)
    array.delete()
    with pytest.raises(LeafError, match=r"'w'.*donated"):
        leaves_of({"w": array})


def test_donating_a_state_later_does_not_change_its_leaves():
    array = jnp.arange(1000.0)
    (leaf,) = leaves_of(array)
    before = leaf.array.copy()
    jax.jit(lambda x: x + 1, donate_argnums=0)(array).block_until_ready()
    assert leaf.array.tobytes() == before.tobytes()


def test_structure_text_holds_static_fields_and_no_address():
    text = structure_text((model(), jax.tree_util.Partial(lambda x: x)))
    assert "'a'" in text
    assert " at 0x" not in text
    assert text != structure_text((eqx.tree_at(lambda m: m.bias, model(), 1, is_leaf=lambda x: x is None), None))


@given(arrays())
def test_a_leaf_is_rebuilt_from_its_bytes(array):
    (leaf,) = leaves_of(array)
    back = leaf_from_bytes(
        path="x",
        kind="array",
        dtype=leaf.dtype,
        shape=leaf.shape,
        weak_type=False,
        data=raw_bytes(leaf.array),
        static=None,
    )
    assert back.array.dtype == array.dtype
    assert back.array.shape == array.shape
    assert back.array.tobytes() == array.tobytes()


def test_numerics_are_imported_without_jax():
    code = (
        "import sys, researchlab.numerics.compare, researchlab.numerics.compare_metrics, researchlab.tracking.trace;"
        "print(sorted({'jax', 'mlflow', 'equinox', 'pytest'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
