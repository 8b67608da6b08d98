from __future__ import annotations

import dataclasses
import math
import shutil
import threading
from collections import OrderedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pydantic
import pytest
from helpers.numbers import arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from researchlab.design import Checkpoint, CheckpointPersister, Config, EquinoxPersister, Persister, State
from researchlab.errors import ArgumentError, CheckpointError, CheckpointNotFoundError, DamagedCheckpointError
from researchlab.numerics.leaves import leaves_of


class Anything(State):
    leaf: object
    after: jax.Array
    name: str = eqx.field(static=True, default="a")


class Settings(Config):
    lr: float = 0.1
    widths: tuple[int, ...] = (1, 2)


def made(leaf, name="a"):
    return Anything(leaf, jnp.arange(3), name)


def saved(tmp_path, state, config=None, **options):
    CheckpointPersister(background=False, **options).save(state, config, 5, tmp_path / "c" / "step-5")
    return tmp_path / "c" / "step-5"


def loaded(path, like, config=None):
    return CheckpointPersister().load(path, like, config)[0]


def assert_same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for left, right in zip(leaves_of(one), leaves_of(two), strict=True):
        for name in ("path", "kind", "dtype", "shape", "weak_type", "static"):
            assert getattr(left, name) == getattr(right, name)
        if left.array is not None:
            assert left.array.dtype == right.array.dtype
            assert left.array.tobytes() == right.array.tobytes()
    assert [type(leaf) for leaf in jax.tree.leaves(one)] == [type(leaf) for leaf in jax.tree.leaves(two)]


JAX_DTYPES = [
    "bool", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16",
    "float32", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn", "complex64",
]  # fmt: skip
LEAVES = [
    *(jnp.asarray(np.array([0, 1, 1]).astype(getattr(ml_dtypes, dtype, dtype))) for dtype in JAX_DTYPES),
    jnp.asarray(np.array([-8, -1, 7]).astype(ml_dtypes.int4)),
    jnp.array([[-0.0, jnp.nan], [jnp.inf, 1e-45]]),
    jax.lax.bitcast_convert_type(jnp.asarray(0x7FC00123, jnp.uint32), jnp.float32),
    jax.lax.bitcast_convert_type(jnp.asarray([0x7F800123], jnp.uint32), jnp.float32),
    jnp.zeros((0, 3)),
    jnp.float32(1.5),
    jax.random.key(3),
    jax.random.key(3, impl="rbg"),
    jax.random.split(jax.random.key(3), 4),
    jax.random.split(jax.random.key(3), 4)[:0],
    jnp.asarray(2.0),
    jnp.asarray(2),
    jnp.broadcast_to(jnp.asarray(2.5), (2, 3)),
    np.arange(4, dtype=np.float64)[::2],
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(3, dtype=">i4").astype("<i4"),
    np.float64(0.1),
    np.int8(-3),
    np.longdouble(1) / 3,
    np.array(["a", "bcd"]),
    np.asarray(jnp.asarray([1.5], jnp.bfloat16)),
    np.zeros((), np.complex128),
    True,
    3,
    10**40,
    -(2**63),
    0.1,
    -0.0,
    math.nan,
    1 + 2j,
    None,
    jax.nn.relu,
    "text",
]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: f"{type(leaf).__name__}-{getattr(leaf, 'dtype', '')}")
def test_every_leaf_comes_back_bit_for_bit(tmp_path, leaf):
    path = saved(tmp_path, made(leaf))
    assert_same(loaded(path, made(leaf)), made(leaf))
    if isinstance(leaf, jax.Array):
        assert_same(loaded(path, eqx.filter_eval_shape(lambda: made(leaf))), made(leaf))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), arrays() | st.integers() | st.floats() | st.booleans(), max_size=4))
def test_any_tree_comes_back_bit_for_bit(tmp_path, tree):
    path = saved(tmp_path, made(tree))
    assert_same(loaded(path, made(tree)), made(tree))


def test_config_step_and_data_come_back(tmp_path):
    config = Settings(lr=-0.0, widths=(3,))
    persister = CheckpointPersister()
    persister.save_checkpoint(Checkpoint(made(1), config, 7, {"at": [1, 2.5]}), tmp_path / "a")
    found = persister.load_checkpoint(tmp_path / "a", Checkpoint(made(0), Settings(), 0))
    assert (found.step, found.data, found.config) == (7, {"at": [1, 2.5]}, config)
    assert math.copysign(1, found.config.lr) == -1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_config_that_is_not_finite_comes_back(tmp_path, value):
    class Plain(pydantic.BaseModel):
        lr: float

    @dataclasses.dataclass
    class Own:
        lr: float

    for config in (Settings(lr=value), Plain(lr=value), Own(value), {"lr": value}):
        path = saved(tmp_path, made(1), config)
        other = CheckpointPersister().load(path, made(1), config)[1]
        assert repr(other) == repr(config)


@pytest.mark.parametrize("config", [None, {"a": (1, 2)}, object(), {"f": len}])
def test_a_config_that_json_does_not_carry_is_given_back(tmp_path, config):
    path = saved(tmp_path, made(1), config)
    assert CheckpointPersister().load(path, made(1), config)[1] is config


def test_a_config_that_would_come_back_changed_is_refused(tmp_path):
    class Hidden(Config):
        secret: int = pydantic.Field(default=1, exclude=True)

    saved(tmp_path, made(1), Hidden())
    with pytest.raises(CheckpointError, match=r"Hidden.secret does not come back from JSON: 2 becomes 1"):
        saved(tmp_path, made(1), Hidden(secret=2))


def test_a_config_that_does_not_fit_any_more_is_named(tmp_path):
    class Newer(Config):
        lr: float
        depth: int

    path = saved(tmp_path, made(1), Settings())
    with pytest.raises(CheckpointError, match=r"does not fit Newer:(.|\n)*depth"):
        CheckpointPersister().load(path, made(1), Newer(lr=1, depth=1))


@pytest.mark.parametrize(
    ("stored", "wanted", "said"),
    [
        (jnp.ones(3), jnp.ones(4), r"'leaf': float32\[3\] stored, float32\[4\] expected"),
        (jnp.ones(3), jnp.ones(3, jnp.int32), r"'leaf': float32\[3\] stored, int32\[3\] expected"),
        (jax.random.key(0), jax.random.key(0, impl="rbg"), r"key<fry>\[\] stored, key<rbg>\[\] expected"),
        (1, 1.0, r"'leaf': Python int stored, Python float expected"),
        (jnp.int32(1), 1.0, r"'leaf': int32\[\] stored, Python float expected"),
        ({"a": 1}, {"a": 1, "b": 2}, r"'leaf.b': nothing stored, Python int expected"),
        ({"a": 1, "b": 2}, {"a": 1}, r"'leaf.b': Python int stored, nothing expected"),
        (jax.nn.relu, jax.nn.tanh, r"'leaf': static .*relu stored, static .*tanh expected"),
        (None, 1, r"'leaf': static None stored, Python int expected"),
    ],
)
def test_another_structure_is_named_leaf_by_leaf(tmp_path, stored, wanted, said):
    path = saved(tmp_path, made(stored))
    with pytest.raises(CheckpointError, match=said) as caught:
        loaded(path, made(wanted))
    assert not isinstance(caught.value, DamagedCheckpointError)


def test_another_static_field_is_named(tmp_path):
    path = saved(tmp_path, {"m": made(1, "a")})
    with pytest.raises(CheckpointError, match=r"'m.name': static 'a' stored, static 'b' expected"):
        loaded(path, {"m": made(1, "b")})


def test_a_number_that_became_an_array_comes_back_as_an_array(tmp_path):
    path = saved(tmp_path, made(jnp.int32(3)))
    assert_same(loaded(path, made(0)), made(jnp.int32(3)))
    path = saved(tmp_path, made(3))
    assert_same(loaded(path, made(jnp.int32(0))), made(3))


def test_a_sharded_leaf_is_sharded_again(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    state = made({"a": jax.device_put(jnp.arange(4.0), sharding), "k": jax.random.split(jax.random.key(0), 2)})
    state.leaf["k"] = jax.device_put(state.leaf["k"], sharding)
    found = loaded(saved(tmp_path, state), state)
    assert found.leaf["a"].sharding == sharding
    assert_same(found, state)


@pytest.mark.parametrize("name", ["manifest.json", "leaves.safetensors"])
def test_a_changed_byte_is_found_or_harmless(tmp_path, name):
    state = made({"a": jnp.arange(5.0), "b": 3, "i4": jnp.ones(3, jnp.int4), "t": jnp.array([True, False])})
    path = saved(tmp_path, state, Settings(lr=0.5))
    content = (path / name).read_bytes()
    rng = np.random.default_rng(0)
    places = range(len(content)) if len(content) < 500 else rng.choice(len(content), 400, replace=False)
    found = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        (path / name).write_bytes(damaged)
        try:
            back = CheckpointPersister().load(path, state, Settings())
        except DamagedCheckpointError as error:
            assert name in str(error)  # noqa: PT017 - one of two ends
            found += 1
        else:
            assert_same(back[0], state)
            assert back[1:] == (Settings(lr=0.5), 5)
    assert found > len(places) / 2


@pytest.mark.parametrize("name", ["manifest.json", "leaves.safetensors"])
def test_a_file_that_is_cut_off_is_found(tmp_path, name):
    path = saved(tmp_path, made(jnp.arange(5.0)))
    content = (path / name).read_bytes()
    for length in range(len(content)):
        (path / name).write_bytes(content[:length])
        with pytest.raises(DamagedCheckpointError, match=name):
            loaded(path, made(jnp.zeros(5)))
    (path / name).unlink()
    with pytest.raises(DamagedCheckpointError, match=name):
        loaded(path, made(jnp.zeros(5)))


def test_a_missing_checkpoint_says_what_is_there(tmp_path):
    path = saved(tmp_path, made(1))
    with pytest.raises(CheckpointNotFoundError, match=r"step-6: .* has step-5"):
        loaded(path.with_name("step-6"), made(1))
    with pytest.raises(CheckpointNotFoundError, match="no folder"):
        loaded(tmp_path / "nowhere" / "a", made(1))


def steps(persister, folder):
    persister.wait()
    return [step for step, _ in persister.checkpoints(folder)]


def test_the_newest_and_every_so_many_stay(tmp_path):
    persister = CheckpointPersister(keep_last=2, keep_every=4)
    (tmp_path / "step-0000000001").mkdir()  # not ours
    for step in range(1, 11):
        persister.save(made(step), None, step, tmp_path / f"step-{step + 10:010d}")
    assert steps(persister, tmp_path) == [20, 19, 16, 12]
    assert (tmp_path / "step-0000000001").is_dir()


def test_what_was_loaded_or_just_written_stays(tmp_path):
    persister = CheckpointPersister(keep_last=1)
    persister.save(made(1), None, 1, tmp_path / "step-1")
    persister.load(tmp_path / "step-1", made(1), None)
    for step in (9, 3):
        persister.save(made(1), None, step, tmp_path / f"step-{step}")
    assert steps(persister, tmp_path) == [9, 3, 1]


@pytest.mark.parametrize("options", [{"keep_last": 0}, {"keep_last": True}, {"keep_every": 2}, {"keep_last": 1.5}])
def test_a_retention_that_makes_no_sense_is_refused(options):
    with pytest.raises(ArgumentError, match=r"keep_(last|every)"):
        CheckpointPersister(**options)


def test_a_new_folder_is_ignored_by_git_and_an_old_one_left_alone(tmp_path):
    path = saved(tmp_path, made(1))
    assert "*" in (path.parent / ".gitignore").read_text().split("\n")
    (tmp_path / "mine").mkdir()
    CheckpointPersister(background=False).save(made(1), None, 1, tmp_path / "mine" / "a")
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["a"]


def test_unfinished_and_foreign_entries_are_not_listed(tmp_path):
    persister = CheckpointPersister(background=False)
    persister.save(made(1), None, 1, tmp_path / "step-0000000001")
    shutil.copytree(tmp_path / "step-0000000001", tmp_path / ".unfinished-1")
    shutil.copytree(tmp_path / "step-0000000001", tmp_path / "step-0000000002.old")
    (tmp_path / "step-3").mkdir()
    (tmp_path / "step-4").touch()
    assert persister.checkpoints(tmp_path) == [(1, tmp_path / "step-0000000001")]
    assert persister.checkpoints(tmp_path / "nowhere") == []
    EquinoxPersister().save(made(1), None, 5, tmp_path / "step-5.eqx")
    assert EquinoxPersister().checkpoints(tmp_path) == [(5, tmp_path / "step-5.eqx")]


def test_a_checkpoint_is_replaced(tmp_path):
    for value in range(3):
        path = saved(tmp_path, made(value))
        assert loaded(path, made(0)).leaf == value
    assert len(list(path.iterdir())) == 2
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_something_else_is_not_replaced(tmp_path, kind):
    target = tmp_path / "c" / "step-5"
    target.parent.mkdir()
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()
    with pytest.raises(CheckpointError, match="no checkpoint has that name"):
        saved(tmp_path, made(1))
    assert [entry.name for entry in target.parent.iterdir()] == ["step-5"]


def test_leftovers_of_the_killed_are_removed_and_those_of_the_living_are_not(tmp_path):
    from researchlab.design._checkpoints import _checkpoint_folder

    (tmp_path / ".unfinished-1").mkdir()
    (tmp_path / ".unfinished-1" / "leaves.safetensors").touch()
    persister = CheckpointPersister(background=False)
    with _checkpoint_folder._temporary_folder(tmp_path) as living:
        persister.save(made(1), None, 1, tmp_path / "step-1")
        assert sorted(tmp_path.iterdir()) == [living, tmp_path / "step-1"]
    assert list(tmp_path.iterdir()) == [tmp_path / "step-1"]


def test_numpy_leaves_may_be_changed_while_they_are_written(tmp_path, monkeypatch):
    held = hold_the_writer(monkeypatch)
    array = np.zeros(3)
    persister = CheckpointPersister()
    persister.save(made(array), None, 1, tmp_path / "a")
    array[:] = 1
    held.set()
    assert persister.load(tmp_path / "a", made(array), None)[0].leaf.tolist() == [0, 0, 0]


def hold_the_writer(monkeypatch):
    from researchlab.design._checkpoints import _checkpoint_persister

    go, real = threading.Event(), _checkpoint_persister.commit

    def commit(*args):
        assert go.wait(60)
        return real(*args)

    monkeypatch.setattr(_checkpoint_persister, "commit", commit)
    return go


def test_one_is_written_one_waits_and_a_third_is_waited_for(tmp_path, monkeypatch):
    go = hold_the_writer(monkeypatch)
    persister = CheckpointPersister()
    persister.save(made(1), None, 1, tmp_path / "step-1")
    persister.save(made(2), None, 2, tmp_path / "step-2")
    third = threading.Thread(target=persister.save, args=(made(3), None, 3, tmp_path / "step-3"))
    third.start()
    third.join(0.3)
    assert third.is_alive()
    assert persister.checkpoints(tmp_path) == []
    go.set()
    third.join(60)
    assert steps(persister, tmp_path) == [3, 2, 1]


def test_an_error_in_the_background_is_raised_once(tmp_path):
    (tmp_path / "a").touch()
    persister = CheckpointPersister()
    persister.save(made(1), None, 1, tmp_path / "a")
    with pytest.raises(CheckpointError, match="no checkpoint has that name"):
        persister.wait()
    persister.wait()
    persister.save(made(1), None, 1, tmp_path / "a" / "b")
    with pytest.raises(CheckpointError, match=r"step 1 was not written to .*b"):
        persister.load(tmp_path / "a", made(1), None)


def test_a_leaf_without_bits_or_values_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"'leaf' is a numpy.ndarray of object"):
        saved(tmp_path, made(np.array([None])))
    gone = jnp.ones(3)
    gone.delete()
    with pytest.raises(CheckpointError, match=r"'leaf' was deleted"):
        saved(tmp_path, made(gone))
    with pytest.raises(CheckpointError, match="position of the data provider"):
        CheckpointPersister().save_checkpoint(Checkpoint(made(1), None, 1, object()), tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"the path 'leaf.1'"):
        saved(tmp_path, made(OrderedDict({1: 1, "1": 2})))


def test_other_programs_read_the_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    tree = {"w": jnp.ones((2, 3)), "n": np.arange(4)[::2], "k": jax.random.key(1), "__metadata__": 1}
    path = saved(tmp_path, tree)
    found = safetensors.load((path / "leaves.safetensors").read_bytes())
    assert {name: (array.dtype.name, array.tolist()) for name, array in found.items()} == {
        "w": ("float32", [[1.0] * 3] * 2),
        "n": ("int64", [0, 2]),
        "k": ("uint32", [0, 1]),
        "\\__metadata__": ("int64", 1),
    }


def test_a_persister_that_defines_save_and_load_only_keeps_working(tmp_path):
    class Own(Persister):
        def save(self, state, config, step, path):
            path.write_text(f"{state} {config} {step}")

        def load(self, path, state_structure, config_structure):
            return state_structure, config_structure, int(path.read_text().split()[-1])

    own = Own()
    own.save_checkpoint(Checkpoint(made(1), None, 3, {"at": 1}), tmp_path / "step-3")
    own.wait()
    assert own.checkpoints(tmp_path) == [(3, tmp_path / "step-3")]
    assert own.load_checkpoint(tmp_path / "step-3", Checkpoint(made(1), None, 0)).step == 3
