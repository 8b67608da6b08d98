"""What happens at the first NaN or infinity?"""

# ruff: noqa: ARG005 - step functions take what the Loop passes

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import ArrayDataProvider, DataProvider, FunctionDataProvider, Loop
from researchlab.errors import NonFiniteError, ResearchlabWarning

MODES = {"as given": {}, "jit": {"jit": True}, "scan 7": {"scan_steps": 7}}
EVERY_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
BAD = 17


def step(state, config, batch):
    count = state["count"] + 1
    bad = jnp.where(count >= BAD, jnp.inf, 1.0)
    return {"count": count, "x": state["x"] * bad, "ok": state["ok"] + 1}, {
        "n": count,
        "loss": bad.astype(jnp.bfloat16),
    }


def start():
    return {"count": jnp.int32(0), "x": jnp.ones(3), "ok": jnp.ones(2, jnp.float16)}


@EVERY_MODE
def test_raise_names_the_first_step_and_what_is_not_finite(mode, recorder, tmp_path):
    loop = Loop(None, start(), step, None, on_nonfinite="raise", save_every=5, checkpoint_dir=tmp_path, **mode)
    with pytest.raises(NonFiniteError, match=r"leaf x, metric 'loss' of step 17 is not finite") as caught:
        loop.run(100)
    assert isinstance(caught.value, FloatingPointError)
    assert (loop.step, int(loop.state["count"]), len(recorder.metrics)) == (BAD, BAD, BAD)
    assert np.isinf(loop.state["x"]).all()
    assert sorted(path.name[-2:] for path in tmp_path.glob("step-*")) == ["05", "10", "15"]


@EVERY_MODE
def test_stop_ends_the_run_with_a_warning(mode, recorder):
    loop = Loop(None, start(), step, None, on_nonfinite="stop", **mode)
    with pytest.warns(ResearchlabWarning, match=r"the run stops: leaf x, metric 'loss' of step 17"):
        final = loop.run(100)
    assert (loop.step, int(final["count"]), len(recorder.metrics)) == (BAD, BAD, BAD)
    assert recorder.states == [(final, None, "loop")]


@EVERY_MODE
def test_ignore_goes_on(mode):
    assert int(Loop(None, start(), step, None, **mode).run(100)["count"]) == 100


@EVERY_MODE
@pytest.mark.parametrize("data", ["list", "arrays", "function"])
def test_the_data_stand_behind_the_step_that_was_not_finite(mode, data):
    """Steps that were on their way when it was found are not taken, and their batches come again."""
    provider = {
        "list": lambda: [np.int32(number) for number in range(100)],
        "arrays": lambda: ArrayDataProvider(np.arange(100, dtype=np.int32), 1),
        "function": lambda: FunctionDataProvider(lambda step: step),
    }[data]()

    def bad_at(state, config, batch):
        number = jnp.asarray(batch).sum()
        return {"x": jnp.where(number == BAD - 1, jnp.nan, 0.0), "n": number}, {"n": number}

    loop = Loop(None, {"x": jnp.zeros(()), "n": jnp.int32(0)}, bad_at, provider, on_nonfinite="stop", **mode)
    loop.run(1)
    with pytest.warns(ResearchlabWarning, match="step 17"):
        loop.run(60)
    assert (loop.step, int(loop.state["n"])) == (BAD, BAD - 1)
    loop.state = {"x": jnp.zeros(()), "n": jnp.int32(0)}
    assert int(loop.run(3)["n"]) == BAD + 2
    assert loop.step == BAD + 3


class Counted(DataProvider):
    number = 0

    def __next__(self):
        self.number += 1
        return np.zeros(1, np.int32)

    def get_position(self):
        return self.number


@EVERY_MODE
def test_a_checkpoint_of_that_step_has_its_position_in_the_data(mode):
    loop = Loop(None, start(), step, Counted(), on_nonfinite="stop", **mode)
    loop.run(1)
    with pytest.warns(ResearchlabWarning, match="step 17"):
        loop.run(60)
    assert (loop._checkpoint().step, loop._checkpoint().data) == (BAD, BAD)


@EVERY_MODE
@pytest.mark.parametrize(
    "bad",
    [
        jnp.asarray(jnp.nan, jnp.float8_e4m3fn),
        jnp.asarray(jnp.inf, jnp.float8_e5m2),
        jnp.asarray(1j * np.nan, jnp.complex64),
        jnp.asarray([1, jnp.inf], jnp.bfloat16),
    ],
    ids=["float8_e4m3fn", "float8_e5m2", "complex", "bfloat16"],
)
def test_every_dtype_that_can_be_is_looked_at(mode, bad):
    loop = Loop(None, {"a": jnp.zeros_like(bad), "i": jnp.int32(0)}, lambda s, c, b: ({**s, "a": bad}, {}), None,
                on_nonfinite="raise", **mode)  # fmt: skip
    with pytest.raises(NonFiniteError, match="leaf a of step 1 is not finite"):
        loop.run(9)
    assert loop.step == 1


@EVERY_MODE
def test_python_numbers_and_constant_metrics_are_looked_at_too(mode):
    loop = Loop(None, {"a": 1e30}, lambda s, c, b: ({"a": s["a"] * 1e30}, {}), None, on_nonfinite="raise", **mode)
    with pytest.raises(NonFiniteError, match="leaf a of step"):
        loop.run(20)
    loop = Loop(None, {"a": 1}, lambda s, c, b: (s, {"c": float("nan")}), None, on_nonfinite="raise", **mode)
    with pytest.raises(NonFiniteError, match="metric 'c' of step 1 is not finite"):
        loop.run(9)


@EVERY_MODE
def test_large_double_metrics_and_leaves_are_finite(mode):
    loop = Loop(None, {"a": 1}, lambda s, c, b: (s, {"c": 1e300, "n": 2**62}), None, on_nonfinite="raise", **mode)
    loop.run(9)
    assert loop.step == 9
    loop = Loop(None, {"a": np.array([1e300])}, lambda s, c, b: (s, {}), None, on_nonfinite="raise")
    loop.run(3)


def test_looking_changes_no_bit():
    def turn(state, config, batch):
        key, own = jax.random.split(state[1])
        return (jnp.sin(state[0]) + jax.random.normal(own, (3,)), key), {"x": state[0].sum()}

    finals = [
        np.asarray(
            Loop(None, (jnp.ones(3), jax.random.key(0)), turn, None, on_nonfinite=how, **mode).run(30)[0]
        ).tobytes()
        for mode in MODES.values()
        for how in ("ignore", "raise")
    ]
    assert len(set(finals)) == 1
