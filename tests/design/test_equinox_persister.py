from __future__ import annotations

import stat

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import Config, EquinoxPersister, State
from researchlab.errors import CheckpointError, CheckpointNotFoundError

DTYPES = [
    "bool", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16", "float32",
    "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "complex64",
]  # fmt: skip


class Anything(State):
    leaf: object
    after: jax.Array


def made(leaf):
    return Anything(leaf, jnp.arange(3))


def bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(jax.random.key_impl(leaf)), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    array = np.asarray(leaf)
    return type(leaf), array.dtype, array.shape, array.tobytes()


LEAVES = [
    *(jnp.asarray(np.array([0, 1, 1]), dtype) for dtype in DTYPES),
    jnp.array([[-0.0, jnp.nan], [jnp.inf, 1e-45]]),
    jax.lax.bitcast_convert_type(jnp.asarray(0x7FC00123, jnp.uint32), jnp.float32),
    jnp.zeros((0, 3)),
    jax.random.key(3),
    jax.random.key(3, impl="rbg"),
    jax.random.split(jax.random.key(3), 4),
    np.arange(4, dtype=np.float64)[::2],
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(3, dtype=">i4"),
    np.float64(0.1),
    np.asarray(jnp.asarray([1.5], jnp.bfloat16)),
    np.asarray(jnp.asarray(1.5, jnp.bfloat16))[()],
    True,
    3,
    0.1,
    -0.0,
    1 + 2j,
]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: f"{type(leaf).__name__}-{getattr(leaf, 'dtype', '')}")
def test_every_leaf_comes_back_bit_for_bit(tmp_path, leaf):
    state = made(leaf)
    EquinoxPersister().save(state, Config(), 5, tmp_path / "a.eqx")
    blank = made(jnp.zeros_like(leaf) if isinstance(leaf, jax.Array) else leaf)
    loaded, config, step = EquinoxPersister().load(tmp_path / "a.eqx", blank, Config())
    assert bits(loaded.leaf) == bits(leaf)
    assert loaded.after.tolist() == [0, 1, 2]
    assert (config, step) == (Config(), 0)


@pytest.mark.parametrize("leaf", [jnp.ones(2), jax.random.key(1, impl="rbg"), jnp.ones(2, jnp.float8_e5m2)], ids=str)
def test_an_abstract_structure_is_enough(tmp_path, leaf):
    EquinoxPersister().save(made(leaf), Config(), 0, tmp_path / "a.eqx")
    abstract = eqx.filter_eval_shape(lambda: made(leaf))
    loaded, _, _ = EquinoxPersister().load(tmp_path / "a.eqx", abstract, Config())
    assert bits(loaded.leaf) == bits(leaf)


def test_a_weakly_typed_leaf_stays_weak(tmp_path):
    weak = jnp.asarray(2.0)
    EquinoxPersister().save(made(weak), Config(), 0, tmp_path / "a.eqx")
    loaded, _, _ = EquinoxPersister().load(tmp_path / "a.eqx", made(jnp.asarray(0.0)), Config())
    assert loaded.leaf.weak_type
    assert (loaded.leaf * jnp.ones((), jnp.bfloat16)).dtype == (weak * jnp.ones((), jnp.bfloat16)).dtype
    strong, _, _ = EquinoxPersister().load(tmp_path / "a.eqx", made(jnp.zeros((), jnp.float32)), Config())
    assert not strong.leaf.weak_type


def test_a_sharded_leaf_is_sharded_again(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    state = made(jax.device_put(jnp.arange(4.0), sharding))
    EquinoxPersister().save(state, Config(), 0, tmp_path / "a.eqx")
    loaded, _, _ = EquinoxPersister().load(tmp_path / "a.eqx", state, Config())
    assert loaded.leaf.sharding == sharding
    assert loaded.leaf.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_functions_and_static_fields_are_taken_from_the_structure(tmp_path):
    def network(seed):
        return made(eqx.nn.MLP(2, 2, 3, 1, activation=jnp.tanh, key=jax.random.key(seed)))

    EquinoxPersister().save(network(0), Config(), 0, tmp_path / "a.eqx")
    loaded, _, _ = EquinoxPersister().load(tmp_path / "a.eqx", network(1), Config())
    assert eqx.tree_equal(loaded, network(0))


def test_equinox_reads_the_file(tmp_path):
    state = made({"w": jnp.arange(2.0), "n": 3, "half": jnp.ones(2, jnp.bfloat16)})
    EquinoxPersister().save(state, Config(), 0, tmp_path / "a.eqx")
    blank = made({"w": jnp.zeros(2), "n": 0, "half": jnp.zeros(2, jnp.bfloat16)})
    assert eqx.tree_equal(eqx.tree_deserialise_leaves(tmp_path / "a.eqx", blank), state)


def test_a_file_that_equinox_wrote_is_read(tmp_path):
    state = made({"w": jnp.arange(2.0), "n": 3, "half": jnp.ones(2, jnp.bfloat16), "x": np.float32(1)})
    eqx.tree_serialise_leaves(tmp_path / "a.eqx", state)
    loaded, _, _ = EquinoxPersister().load(tmp_path / "a.eqx", state, Config())
    assert eqx.tree_equal(loaded, state)


def test_missing_parents_are_made_and_a_missing_suffix_is_added(tmp_path):
    EquinoxPersister().save(made(1), Config(), 0, str(tmp_path / "a" / "b" / "last"))
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["last.eqx"]
    assert EquinoxPersister().load(tmp_path / "a" / "b" / "last", made(0), Config())[0].leaf == 1


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.eqx"
    EquinoxPersister().save(made(1), Config(), 0, path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"leaf \.leaf\['big'\] cannot be stored"):
        EquinoxPersister().save(made({"big": 10**30}), Config(), 0, path)
    with pytest.raises(CheckpointError, match=r"leaf \.leaf"):
        EquinoxPersister().save(made(np.array([None])), Config(), 0, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.eqx"]


def test_the_file_has_the_usual_permissions(tmp_path):
    EquinoxPersister().save(made(1), Config(), 0, tmp_path / "a.eqx")
    (tmp_path / "b").touch()
    assert stat.S_IMODE((tmp_path / "a.eqx").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_a_missing_file_says_what_is_there(tmp_path):
    EquinoxPersister().save(made(1), Config(), 0, tmp_path / "step-1.eqx")
    with pytest.raises(FileNotFoundError, match=r"step-2.eqx: .* has step-1.eqx") as caught:
        EquinoxPersister().load(tmp_path / "step-2.eqx", made(1), Config())
    assert isinstance(caught.value, CheckpointNotFoundError)
    with pytest.raises(CheckpointNotFoundError, match="no folder"):
        EquinoxPersister().load(tmp_path / "nowhere" / "a.eqx", made(1), Config())


@pytest.mark.parametrize(
    ("stored", "wanted", "said"),
    [
        (jnp.ones(3), jnp.ones(4), r"\.leaf: float32\[3\] in the file, float32\[4\] expected"),
        (jnp.ones(3), jnp.ones(3, jnp.int32), r"\.leaf: float32\[3\] in the file, int32\[3\] expected"),
        (jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.float8_e5m2), r"2-byte raw\[3\] in the file, 1-byte raw\[3\]"),
        (np.ones(3), jnp.ones(3), r"\.leaf: float64\[3\] in the file, float32\[3\] expected"),
        (jax.random.key(0), jax.random.key(0, impl="rbg"), r"\.leaf: uint32\[2\] in the file, uint32\[4\] expected"),
        (1, 1.0, r"\.leaf: int64\[\] in the file, float64\[\] expected"),
        ({"a": 1}, {"a": 1, "b": 2}, r"has 2 leaves, 3 are expected \(none for \.after\)"),
        ({"a": 1, "b": 2}, {"a": 1}, r"has 3 leaves, 2 are expected"),
    ],
)
def test_another_structure_is_named_leaf_by_leaf(tmp_path, stored, wanted, said):
    EquinoxPersister().save(made(stored), Config(), 0, tmp_path / "a.eqx")
    with pytest.raises(CheckpointError, match=said):
        EquinoxPersister().load(tmp_path / "a.eqx", made(wanted), Config())


def test_leaves_that_the_structure_lacks_at_the_end_are_noticed(tmp_path):
    EquinoxPersister().save([jnp.ones(1), jnp.ones(2)], Config(), 0, tmp_path / "a.eqx")
    with pytest.raises(CheckpointError, match="has 2 leaves, 1 are expected"):
        EquinoxPersister().load(tmp_path / "a.eqx", [jnp.ones(1)], Config())


@pytest.mark.parametrize("kept", [0, 5, 60, 130, 140, -1])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, kept):
    path = tmp_path / "a.eqx"
    EquinoxPersister().save(made(jnp.ones(3)), Config(), 0, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"damaged or cut off after|has 0 leaves|has 1 leaves"):
        EquinoxPersister().load(path, made(jnp.ones(3)), Config())


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.eqx").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(CheckpointError, match="damaged or cut off after 0 leaves"):
        EquinoxPersister().load(tmp_path / "a.eqx", made(1), Config())
