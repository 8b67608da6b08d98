from __future__ import annotations

import json
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from researchlab.design import ArrayDataProvider, FunctionDataProvider, State, StepDataProvider
from researchlab.errors import ArgumentError, DataError


class Point(State):
    x: jax.Array


def table(rows=10):
    return {"x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2), "y": np.arange(rows, dtype=np.int32)}


def shuffled(rows=10, batch_size=3, **options):
    return ArrayDataProvider(table(rows), batch_size, key=jr.key(7), **options)


def noise(step):
    return {"noise": jr.normal(jr.fold_in(jr.key(3), step), (4,)), "step": step}


def bits(tree):
    return [
        (np.asarray(leaf).dtype, np.asarray(leaf).shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)
    ]


def aligned(count):
    """Return int32 zeros in memory that JAX would use as it is on a CPU."""
    memory = np.zeros(count * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * 4].view(np.int32)


def take(provider, count):
    return [bits(next(provider)) for _ in range(count)]


def compiled_loop(provider, first, count):
    """Return the batches of steps from one compiled loop, as a Loop would get them."""
    rows, constants = provider.rows(first, count), provider.constants()
    row = jax.tree.map(lambda leaf: leaf[0], rows)
    like = jax.eval_shape(lambda: provider.traced_batch(constants, row, None, jnp.int32(0)))
    out = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), like)

    @jax.jit
    def run(constants, rows, out, first):
        def body(index, out):
            row = jax.tree.map(lambda leaf: leaf[index], rows)
            batch = provider.traced_batch(constants, row, None, first + index)
            return jax.tree.map(lambda all_, one: all_.at[index].set(one), out, batch)

        return jax.lax.fori_loop(0, count, body, out)

    stacked = run(constants, jax.tree.map(jnp.asarray, rows), out, jnp.int32(first))
    return [bits(jax.tree.map(operator.itemgetter(index), stacked)) for index in range(count)]


def one_compiled_step_each(provider, first, count):
    @jax.jit
    def batch(constants, row, step):
        return provider.traced_batch(constants, row, None, step)

    steps = range(first, first + count)
    rows = [jax.tree.map(lambda leaf: leaf[0], provider.rows(step, 1)) for step in steps]
    return [bits(batch(provider.constants(), row, jnp.int32(step))) for step, row in zip(steps, rows, strict=True)]


@pytest.mark.parametrize(
    "make",
    [
        shuffled,
        lambda: ArrayDataProvider(table(), 4),
        lambda: ArrayDataProvider({"keys": jr.split(jr.key(0), 6), "b": jnp.arange(6) > 2}, 2, key=jr.PRNGKey(1)),
        lambda: FunctionDataProvider(noise),
    ],
    ids=["shuffled", "in order", "keys", "function"],
)
def test_batches_are_the_same_bits_by_next_in_a_compiled_step_and_in_a_compiled_loop(make):
    def raw(batches):  # typed keys have no bits of their own
        return jax.tree.map(
            lambda leaf: jr.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf, batches
        )

    provider = make()
    plain = provider.traced_batch
    provider.traced_batch = lambda *arguments: raw(plain(*arguments))
    straight = [bits(raw(batch)) for batch, _ in zip(make(), range(12), strict=False)]
    assert one_compiled_step_each(provider, 0, 12) == straight
    assert compiled_loop(provider, 0, 12) == straight
    assert compiled_loop(provider, 5, 7) == straight[5:]


@given(st.integers(1, 12), st.data())
@settings(max_examples=15, deadline=None)
def test_each_epoch_is_a_permutation_less_the_rest(rows, data):
    batch_size = data.draw(st.integers(1, rows))
    provider = shuffled(rows, batch_size, epochs=3)
    epochs = np.split(np.concatenate([batch["y"] for batch in provider]), 3)
    for seen in epochs:
        assert len(seen) == len(set(seen.tolist())) == rows // batch_size * batch_size
        assert set(seen.tolist()) <= set(range(rows))


def test_each_epoch_has_another_order_and_each_key_too():
    first = take(shuffled(50, 50), 2)
    assert first[0] != first[1]
    assert take(shuffled(50, 50), 2) == first
    assert take(ArrayDataProvider(table(50), 50, key=jr.key(8)), 2) != first


@given(st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_the_batch_after_seek_is_that_of_straight_iteration(step, before):
    for make in (shuffled, lambda: ArrayDataProvider(table(), 3), lambda: FunctionDataProvider(noise)):
        straight = take(make(), step + 2)[step:]
        sought, placed = make(), make()
        for _ in range(before % 3):
            next(sought)
        sought.seek(step)
        assert take(sought, 2) == straight
        other = make()
        other.seek(step)
        placed.set_position(json.loads(json.dumps(other.get_position())))
        assert take(placed, 2) == straight


@given(st.integers(0, 30), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_rows_of_many_steps_are_those_of_each(step, count):
    provider = shuffled()
    rows = provider.rows(step, count)
    assert rows.dtype == np.int32
    assert rows.shape == (count, 3)
    assert rows.tolist() == [shuffled().rows(step + index, 1)[0].tolist() for index in range(count)]


def test_the_data_end_after_their_epochs_and_stay_ended():
    provider = shuffled(10, 3, epochs=2)
    assert (provider.num_batches, provider.batches_per_epoch, provider.num_rows) == (6, 3, 10)
    assert len(list(provider)) == 6
    with pytest.raises(StopIteration):
        next(provider)
    provider.seek(5)
    assert len(list(provider)) == 1
    provider.seek(6)
    assert list(provider) == []
    assert len(list(FunctionDataProvider(noise, num_batches=2))) == 2


def test_without_a_key_the_rows_keep_their_order():
    provider = ArrayDataProvider(table(5), 2, epochs=2)
    assert [batch["y"].tolist() for batch in provider] == [[0, 1], [2, 3], [0, 1], [2, 3]]
    unshuffled = ArrayDataProvider(table(5), 2, key=jr.key(0), shuffle=False)
    assert next(unshuffled)["y"].tolist() == [0, 1]


def test_the_arrays_are_copied_to_the_device_once():
    arrays = {"host": aligned(64), "device": jnp.arange(64)}
    provider = ArrayDataProvider(arrays, 4)
    first = provider.constants()
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(first))
    assert first["device"] is arrays["device"]
    arrays["host"][:] = 1
    next(provider)
    assert provider.constants()["host"] is first["host"]
    assert not first["host"].any()


def test_the_arrays_can_live_on_every_device_of_a_mesh():
    mesh = jax.make_mesh((2,), ("data",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    provider = ArrayDataProvider(table(), 3, key=jr.key(7), sharding=everywhere)
    assert provider.constants()["x"].sharding == everywhere
    assert take(provider, 4) == take(shuffled(), 4)


@pytest.mark.parametrize(
    ("arrays", "batch_size", "options", "message"),
    [
        ({"x": np.zeros(3), "y": [np.zeros((4, 2))]}, 1, {}, r"arrays\['x'\] has 3, arrays\['y'\]\[0\] has 4"),
        ({"x": np.zeros(3), "y": 4}, 1, {}, r"arrays\['y'\] is a int"),
        ({"x": np.zeros(())}, 1, {}, r"arrays\['x'\] is a scalar"),
        ({"x": np.array(["a"])}, 1, {}, r"arrays\['x'\] is of dtype <U1"),
        ({"x": np.array([2**40])}, 1, {}, r"arrays\['x'\] holds int64 values .* int32"),
        ({}, 1, {}, "holds no array"),
        (np.zeros(3), 4, {}, "batch_size=4 is more than the 3 rows"),
        (np.zeros(0), 1, {}, "more than the 0 rows"),
        (np.zeros(3), 0, {}, "batch_size must be"),
        (np.zeros(3), True, {}, "batch_size must be"),
        (np.zeros(3), 1, {"epochs": 0}, "epochs must be"),
        (np.zeros(3), 1, {"shuffle": True}, "shuffle=True needs a key"),
        (np.zeros(3), 1, {"key": 0}, "key must be one key"),
        (np.zeros(3), 1, {"key": jr.split(jr.key(0))}, "key must be one key"),
    ],
)
def test_arrays_that_make_no_batches_are_refused(arrays, batch_size, options, message):
    with pytest.raises(ArgumentError, match=message):
        ArrayDataProvider(arrays, batch_size, **options)


@pytest.mark.parametrize("position", [-1, 1.5, True, "3", None, {"step": 3}])
def test_a_position_that_is_no_step_is_refused(position):
    with pytest.raises(DataError, match="ArrayDataProvider must be a whole number"):
        shuffled().set_position(position)


def test_seeking_beyond_the_end_is_refused():
    with pytest.raises(DataError, match=r"end after 6 batches.* follow step 7"):
        shuffled(epochs=2).seek(7)


def test_a_function_may_look_at_the_state():
    provider = FunctionDataProvider(lambda state, step: state.x + step)
    assert int(provider.get_batch(Point(jnp.int32(10)))) == 10
    assert int(provider.get_batch(Point(jnp.int32(20)))) == 21
    provider.seek(5)
    assert int(provider.get_batch(Point(jnp.int32(0)))) == 5
    with pytest.raises(DataError, match="get_batch"):
        next(provider)


def test_a_function_gets_the_step_as_an_int32_array_also_when_it_is_not_compiled():
    step = next(FunctionDataProvider(lambda step: step))
    assert isinstance(step, jax.Array)
    assert (step.dtype, step.shape, step.weak_type) == (jnp.int32, (), False)


def test_arrays_that_a_function_carries_are_handed_over_as_arguments():
    class Table(eqx.Module):
        values: jax.Array

        def __call__(self, step):
            return self.values[step]

    provider = FunctionDataProvider(Table(jnp.arange(5.0)))
    assert [leaf.shape for leaf in jax.tree.leaves(provider.constants())] == [(5,)]
    assert [float(next(provider)) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    "batch_at",
    [
        lambda: 0,
        lambda state: state,
        lambda step, state: (step, state),
        lambda state, step, config: (state, step, config),
        lambda *everything: everything,
        lambda step, *, key: (step, key),
        3,
        type,
    ],
)
def test_a_function_of_other_arguments_is_refused(batch_at):
    with pytest.raises(ArgumentError, match=r"lambda state, step|batch_at\(state, step\)"):
        FunctionDataProvider(batch_at)


def test_arguments_with_defaults_do_not_count():
    assert int(next(FunctionDataProvider(lambda step, scale=3: step + scale))) == 3


def test_a_step_beyond_int32_is_an_error():
    provider = FunctionDataProvider(noise)
    provider.seek(2**31)
    with pytest.raises(DataError, match="int32"):
        next(provider)


def test_a_provider_of_ones_own_needs_one_method():
    class Squares(StepDataProvider):
        def traced_batch(self, constants, row, state, step):  # noqa: ARG002 - the interface
            return step * step

    squares = Squares()
    squares.seek(3)
    assert [int(next(squares)) for _ in range(2)] == [9, 16]
    assert compiled_loop(squares, 2, 3) == [bits(np.int32(number)) for number in (4, 9, 16)]
