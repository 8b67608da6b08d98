"""Do many seeds at once, and States that are spread over devices, give what single runs give?"""

# ruff: noqa: ARG005 - step functions take what the Loop passes

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from researchlab.design import ArrayDataProvider, EquinoxPersister, FunctionDataProvider, Loop
from researchlab.errors import ArgumentError, NonFiniteError

MODES = {"jit": {"jit": True}, "scan 7": {"scan_steps": 7}}
EVERY_COMPILED_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())


def start(seed):
    return {"x": jnp.ones(3) * jnp.asarray(seed, jnp.float32), "key": jax.random.key(seed), "n": jnp.int32(0)}


def step(state, config, batch):
    x = jnp.sin(state["x"]) + state["n"].astype(float) + (0.0 if batch is None else jnp.asarray(batch).sum())
    return {"x": x, "key": state["key"], "n": state["n"] + 1}, {"x": x[0], "n": state["n"], "rate": 0.5}


@pytest.mark.slow
@EVERY_COMPILED_MODE
@pytest.mark.parametrize("data", ["none", "list", "arrays", "function"])
def test_replicas_equal_single_runs(mode, data, recorder):
    def provider():
        return {
            "none": lambda: None,
            "list": lambda: [np.float32(number) for number in range(20)],
            "arrays": lambda: ArrayDataProvider(np.arange(9, dtype=np.float32), 3, key=jax.random.key(4)),
            "function": lambda: FunctionDataProvider(lambda step: step.astype(jnp.float32)),
        }[data]()

    states = jax.vmap(start)(jnp.arange(4))
    final = Loop(None, states, step, provider(), replicas=4, **mode).run(10)
    together = list(recorder.metrics)
    for seed in range(4):
        recorder.metrics.clear()
        alone = Loop(None, start(seed), step, provider(), **mode).run(10)
        np.testing.assert_allclose(final["x"][seed], alone["x"], rtol=1e-6)
        assert (jax.random.key_data(final["key"][seed]) == jax.random.key_data(alone["key"])).all()
        assert int(final["n"][seed]) == 10
        for (many, number), (one, same) in zip(together, recorder.metrics, strict=True):
            assert number == same
            assert list(many) == [f"{name}/{index}" for name in ("x", "n", "rate") for index in range(4)]
            assert many[f"n/{seed}"] == one["n"]
            assert many[f"rate/{seed}"] == 0.5
            np.testing.assert_allclose(many[f"x/{seed}"], one["x"], rtol=1e-6)


@EVERY_COMPILED_MODE
def test_mean_and_std_over_replicas(mode, recorder):
    states = jnp.arange(4.0)
    Loop(None, states, lambda s, c, b: (s, {"x": s, "i": s.astype(int), "c": 2}), None, replicas=4,
         replica_metrics="mean_std", **mode).run(2)  # fmt: skip
    for metrics, _ in recorder.metrics:
        assert list(metrics) == ["x/mean", "x/std", "i/mean", "i/std", "c/mean", "c/std"]
        np.testing.assert_allclose(list(metrics.values()), [1.5, np.std(range(4)), 1.5, np.std(range(4)), 2.0, 0.0])


@EVERY_COMPILED_MODE
@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": jnp.zeros((4, 2)), "b": jnp.zeros((3, 4))}, r"leaf b is float32\[3,4\]"),
        ({"a": jnp.zeros((4, 2)), "n": 0}, r"leaf n is 0, a Python int"),
        ({"a": jnp.zeros(())}, r"leaf a is float32\[\]"),
        ({"a": jax.random.key(0)}, r"leaf a is key<fry>\[\]"),
        ({}, "this one has none"),
    ],
)
def test_a_state_without_the_axis_of_the_replicas_is_refused(mode, state, said):
    def step(state, config, batch):
        return {name: leaf + 1 if name == "n" else leaf for name, leaf in state.items()}, {}

    with pytest.raises(ArgumentError, match=rf"replicas=4 needs a State .*{said}"):
        Loop(None, state, step, None, replicas=4, **mode).run(1)


@EVERY_COMPILED_MODE
def test_a_number_that_the_step_leaves_alone_is_that_of_all_replicas(mode):
    state = {"x": jnp.zeros(4), "rate": 0.5}
    final = Loop(None, state, lambda s, c, b: ({**s, "x": s["x"] + s["rate"]}, {}), None, replicas=4, **mode).run(3)
    assert (final["x"].tolist(), final["rate"]) == ([1.5] * 4, 0.5)


@EVERY_COMPILED_MODE
def test_a_replica_that_is_not_finite_is_told_by_its_place(mode):
    state = {"x": jnp.array([[1.0, 1.0], [1.0, 2.0], [1.0, 1.0]])}
    loop = Loop(None, state, lambda s, c, b: ({"x": s["x"] / (s["x"] - 2)}, {}), None, replicas=3,
                on_nonfinite="raise", **mode)  # fmt: skip
    with pytest.raises(NonFiniteError, match=r"leaf x of step 1 is not finite: x\[1, 1\] is inf"):
        loop.run(5)


def test_replicas_need_a_compiled_loop():
    with pytest.raises(ArgumentError, match="replicas=4 needs jit=True or scan_steps="):
        Loop(None, jnp.zeros(4), lambda s, c, b: (s, {}), None, replicas=4)


@EVERY_COMPILED_MODE
def test_replicas_go_on_from_a_checkpoint(mode, tmp_path):
    def loop(folder):
        states = jax.vmap(start)(jnp.arange(3))
        return Loop(None, states, step, None, replicas=3, save_every=4, checkpoint_dir=tmp_path / folder, **mode)

    straight = loop("one").run(11)
    loop("two").run(6, resume="auto")
    final = loop("two").run(11, resume="auto")
    assert np.asarray(final["x"]).tobytes() == np.asarray(straight["x"]).tobytes()


@EVERY_COMPILED_MODE
def test_a_non_finite_replica_is_found(mode):
    def grow(state, config, batch):
        return state * 10.0, {"x": state}

    loop = Loop(None, jnp.asarray([1.0, 0.0, 1e35]), grow, None, replicas=3, on_nonfinite="raise", **mode)
    with pytest.raises(NonFiniteError, match=r"of step 4 is not finite"):
        loop.run(20)
    assert loop.step == 4


@EVERY_COMPILED_MODE
def test_one_replica_is_allowed(mode, recorder):
    Loop(None, jnp.zeros((1, 2)), lambda s, c, b: (s + 1.0, {"x": s.sum()}), None, replicas=1, **mode).run(3)
    assert [list(metrics) for metrics, _ in recorder.metrics] == [["x/0"]] * 3


def spread():
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    return mesh, {
        "x": jax.device_put(jnp.arange(8.0), rows),
        "y": jax.device_put(jnp.arange(8.0), rows),
        "w": jax.device_put(jnp.ones((4, 2)), NamedSharding(mesh, PartitionSpec(None, "rows"))),
        "key": jax.random.key(0),
        "n": 0,
    }


def turn(state, config, batch):
    x = jnp.sin(state["x"]) + (0.0 if batch is None else jnp.asarray(batch).sum())
    y = jnp.full(8, x.sum())  # of which the compiler would let each device have all
    return {"x": x, "y": y, "w": state["w"] + x.sum(), "key": state["key"], "n": state["n"] + 1}, {"sum": x.sum()}


@EVERY_COMPILED_MODE
@pytest.mark.parametrize("data", ["none", "list", "arrays"])
def test_a_state_spread_over_devices_stays_where_it_is(mode, data, tmp_path, recorder):
    mesh, initial = spread()
    whole = NamedSharding(mesh, PartitionSpec())

    def provider():
        return {
            "none": lambda: None,
            "list": lambda: [np.ones(2, np.float32)] * 40,
            "arrays": lambda: ArrayDataProvider(np.arange(9, dtype=np.float32), 3, sharding=whole),
        }[data]()

    kept = []

    def loop(folder):
        return Loop(
            None, spread()[1], turn, provider(), save_every=4, checkpoint_dir=tmp_path / folder,
            callbacks=[(lambda loop, metrics: kept.append(loop.state), 5)], **mode,
        )  # fmt: skip

    straight = loop("one").run(12)
    loop("two").run(5, resume="auto")
    final = loop("two").run(12, resume="auto")
    for state in (straight, final, *kept):
        for name in ("x", "y", "w"):
            assert state[name].sharding.is_equivalent_to(initial[name].sharding, state[name].ndim), name
    assert final["n"] == 12
    for name in ("x", "y", "w"):
        assert np.asarray(final[name]).tobytes() == np.asarray(straight[name]).tobytes()
    assert len(recorder.metrics) == 12 + 5 + 7


@EVERY_COMPILED_MODE
def test_a_spread_state_comes_back_from_an_equinox_file(mode, tmp_path):
    def loop():
        return Loop(None, spread()[1], turn, None, persister=EquinoxPersister(), checkpoint_dir=tmp_path, **mode)

    straight = Loop(None, spread()[1], turn, None, **mode).run(8)
    loop().run(3)
    final = loop().run(8, resume="auto")
    assert np.asarray(final["x"]).tobytes() == np.asarray(straight["x"]).tobytes()
    assert final["x"].sharding.is_equivalent_to(straight["x"].sharding, 1)


def test_a_state_on_another_device_stays_there():
    initial = jax.device_put(jnp.zeros(3), jax.devices()[1])
    for mode in MODES.values():
        final = Loop(None, initial, lambda s, c, b: (s + 1, {"x": s[0]}), None, **mode).run(9)
        assert final.device == jax.devices()[1]
        assert float(final[0]) == 9.0


def test_an_ensemble_of_modules_is_a_replicated_state():
    def make(key):
        return eqx.nn.Linear(2, 2, key=key)

    models = eqx.filter_vmap(make)(jax.random.split(jax.random.key(0), 3))

    def step(model, config, batch):
        return eqx.tree_at(lambda m: m.bias, model, model.bias + model(jnp.ones(2))), {"b": model.bias.sum()}

    final = Loop(None, models, step, None, replicas=3, scan_steps=5).run(7)
    assert final.bias.shape == (3, 2)
