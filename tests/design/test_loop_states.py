"""Which States can a compiled Loop take, and how does it say that a step broke its contract?"""

# ruff: noqa: ARG002, ARG005 - step functions take what the Loop passes

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import Loop, State
from researchlab.errors import ArgumentError, ResearchlabWarning, StepError

MODES = {"jit": {"jit": True}, "scan 7": {"scan_steps": 7}}
EVERY_COMPILED_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
EVERY_MODE = pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["as given", *MODES.keys()])


class Everything(State):
    flag: bool
    whole: int
    real: float
    pair: complex
    host: np.ndarray
    scalar: np.float32
    key: jax.Array
    keys: jax.Array
    weak: jax.Array
    low: jax.Array
    eight: jax.Array
    four: jax.Array
    function: Any
    nested: dict[str, Any]
    missing: jax.Array | None
    empty: jax.Array
    name: str = eqx.field(static=True)


def everything():
    return Everything(
        flag=False,
        whole=3,
        real=0.5,
        pair=1j,
        host=np.arange(3, dtype=np.int32),
        scalar=np.float32(2),
        key=jax.random.key(0),
        keys=jax.random.split(jax.random.key(1, impl="rbg"), 3),
        weak=jnp.asarray(1.0),
        low=jnp.ones(2, jnp.bfloat16),
        eight=jnp.ones(2, jnp.float8_e4m3fn),
        four=jnp.asarray([-8, 7], jnp.int4),
        function=jax.nn.relu,
        nested={"list": [jnp.zeros(2), (jnp.int32(1), "text")], "module": eqx.nn.Linear(2, 2, key=jax.random.key(2))},
        missing=None,
        empty=jnp.zeros((0, 3)),
        name="all",
    )


def change_everything(state, config, batch):
    key, _ = jax.random.split(state.key)
    return dataclasses.replace(
        state,
        flag=~jnp.asarray(state.flag),
        whole=state.whole + 1,
        real=state.real * 2,
        pair=state.pair * 1j,
        host=state.host + 1,
        scalar=state.scalar * np.float32(2),
        key=key,
        keys=state.keys[::-1],
        weak=state.weak + 1,
        low=state.low * 2,
        four=state.four[::-1],
        nested={**state.nested, "list": [state.nested["list"][0] + 1.0, state.nested["list"][1]]},
    ), {}


def bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes() if hasattr(leaf, "dtype") else leaf


@EVERY_COMPILED_MODE
def test_every_kind_of_leaf_is_carried_and_comes_back_as_the_type_it_was(mode):
    initial = everything()
    final = Loop(None, initial, change_everything, None, **mode).run(9)
    wanted = initial
    for _ in range(9):
        wanted = change_everything(wanted, None, None)[0]
    wanted = dataclasses.replace(wanted, flag=bool(wanted.flag))
    assert (final.flag, final.whole, final.real, final.pair) == (True, 12, 256.0, -1 + 0j)
    assert [type(getattr(final, name)) for name in ("flag", "whole", "real", "pair")] == [bool, int, float, complex]
    assert jax.tree_util.tree_structure(final) == jax.tree_util.tree_structure(initial)
    assert final.function is jax.nn.relu
    found = jax.tree_util.tree_flatten_with_path(final)[0]
    for (path, leaf), other in zip(found, jax.tree_util.tree_leaves(wanted), strict=True):
        assert bits(leaf) == bits(other), path
        assert getattr(leaf, "dtype", None) == getattr(other, "dtype", None), path
    assert str(jax.random.key_impl(final.keys)) == "rbg"


@EVERY_COMPILED_MODE
def test_the_callers_state_can_still_be_used(mode):
    initial = everything()
    before = [bits(leaf) for leaf in jax.tree_util.tree_leaves(initial)]
    loop = Loop(None, initial, change_everything, None, **mode)
    first = loop.run(3)
    kept = [bits(leaf) for leaf in jax.tree_util.tree_leaves(first)]
    loop.run(3)
    assert [bits(leaf) for leaf in jax.tree_util.tree_leaves(initial)] == before
    assert [bits(leaf) for leaf in jax.tree_util.tree_leaves(first)] == kept


@EVERY_COMPILED_MODE
def test_what_the_caller_writes_into_its_numpy_arrays_does_not_count(mode):
    for size in (3, 1024):
        initial = np.zeros(size, np.float32)
        loop = Loop(None, (initial,), lambda s, c, b: ((s[0] + 1,), {}), None, **mode)
        loop.dry_run()
        loop.run(2)
        initial[:] = 9.0
        assert np.asarray(loop.run(2)[0]).tolist() == [4.0] * size


@EVERY_COMPILED_MODE
def test_two_leaves_may_share_a_buffer_and_a_state_may_be_one_array(mode):
    shared = jnp.arange(3.0)
    final = Loop(None, {"a": shared, "b": shared}, lambda s, c, b: ({"a": s["b"], "b": s["b"]}, {}), None, **mode).run(
        9
    )
    assert np.asarray(final["a"]).tolist() == np.asarray(final["b"]).tolist() == [0.0, 1.0, 2.0]
    assert float(Loop(None, shared, lambda s, c, b: (s + 1, {}), None, **mode).run(9)[0]) == 9.0
    assert Loop(None, 3, lambda s, c, b: (s + 1, {}), None, **mode).run(9) == 12
    assert Loop(None, (), lambda s, c, b: (s, {}), None, **mode).run(9) == ()


@EVERY_MODE
def test_a_state_kept_by_a_callback_stays_readable(mode):
    kept = []
    loop = Loop(
        None, {"x": jnp.zeros(3), "n": 0}, lambda s, c, b: ({"x": s["x"] + 1, "n": s["n"] + 1}, {}), None,
        callbacks=[(lambda loop, metrics: kept.append((loop.step, loop.state)), 2)], **mode,
    )  # fmt: skip
    loop.run(20)
    assert [(step, float(state["x"][0]), state["n"]) for step, state in kept] == [(n, n, n) for n in range(2, 21, 2)]


@EVERY_MODE
def test_a_callback_may_set_the_state(mode):
    def reset(loop, metrics):
        loop.state = jnp.zeros(3)

    loop = Loop(None, jnp.zeros(3), lambda s, c, b: (s + 1, {}), None, callbacks=[(reset, 7)], **mode)
    assert float(loop.run(20)[0]) == 6.0


@EVERY_COMPILED_MODE
@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"x": jnp.zeros(2), "f": jax.nn.relu}, r"leaf x: before float32\[3\], now float32\[2\]"),
        ({"x": jnp.zeros(3, jnp.int32), "f": jax.nn.relu}, r"leaf x: before float32\[3\], now int32\[3\]"),
        ({"x": jnp.zeros(3), "f": jax.nn.gelu}, r"leaf f: before .*relu.*, now .*gelu"),
        ({"x": jnp.zeros(3), "f": jnp.zeros(3)}, r"leaf f: before .*relu.*, now float32\[3\]"),
        ({"y": jnp.zeros(3), "f": jax.nn.relu}, r"leaf y is new; leaf x is gone"),
    ],
)
def test_a_callback_that_sets_another_kind_of_state_is_told_the_leaf(mode, state, said):
    def spoil(loop, metrics):
        loop.state = state

    initial = {"x": jnp.zeros(3), "f": jax.nn.relu}
    loop = Loop(None, initial, lambda s, c, b: ({**s, "x": s["x"] + 1}, {}), None, callbacks=[(spoil, 7)], **mode)
    with pytest.raises(StepError, match=said):
        loop.run(20)
    assert (loop.step, float(loop.state["x"][0])) == (7, 7.0)


@EVERY_MODE
def test_between_two_runs_any_state_may_be_set(mode):
    loop = Loop(None, jnp.zeros(3), lambda s, c, b: (jax.tree.map(lambda x: x + 1, s), {}), None, **mode)
    loop.run(2)
    loop.state = {"other": jnp.int32(5), "number": 1.0}
    final = loop.run(2)
    assert (int(final["other"]), final["number"], loop.step) == (7, 3.0, 4)
    loop.state = {"other": jnp.int32(5), "number": jnp.float32(1)}
    assert isinstance(loop.run(2)["number"], jax.Array)


class Net(State):
    x: jax.Array
    n: int
    f: Any
    width: int = eqx.field(static=True)


def net():
    return Net(jnp.zeros(3), 0, jax.nn.relu, 4)


@EVERY_COMPILED_MODE
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: dataclasses.replace(s, x=s.x.astype(jnp.bfloat16)), r"x: before float32\[3\], after bfloat16\[3\]"),
        (lambda s: dataclasses.replace(s, x=jnp.zeros(4)), r"x: before float32\[3\], after float32\[4\]"),
        (lambda s: dataclasses.replace(s, n=s.n * 0.5), r"n: before int32\[\] \(a Python int\), after float32\[\]"),
        (lambda s: dataclasses.replace(s, n=1.5), r"n: before int32\[\] \(a Python int\), after float32\[\]"),
        (lambda s: dataclasses.replace(s, f=jax.nn.gelu), r"f, which is static: before .*relu.*, after .*gelu"),
        (lambda s: dataclasses.replace(s, width=5), r"width, which is static: before 4 of type int, after 5"),
        (lambda s: dataclasses.replace(s, n=None), r"leaf n is gone"),
        (lambda s: {"x": s.x}, r"leaf n is gone; leaf f is gone"),
        (lambda s: dataclasses.replace(s, n="text"), r"n, which is static: before 0 of type int, after 'text'"),
        (lambda s: None, r"leaf x is gone"),
    ],
)  # fmt: skip
def test_a_step_that_changes_what_must_stay_is_told_leaf_before_and_after(mode, change, said):
    loop = Loop(None, net(), lambda s, c, b: (change(s), {}), None, **mode)
    with pytest.raises(StepError, match=said) as caught:
        loop.run(3)
    assert "In step 1 of a researchlab Loop" in caught.value.__notes__[-1]
    assert loop.step == 0
    assert loop.state.n == 0
    assert float(loop.state.x[0]) == 0.0


@EVERY_COMPILED_MODE
@pytest.mark.parametrize(
    "step",
    [
        lambda s, c, b: (s + 1 if s[0] > 0 else s, {}),
        lambda s, c, b: (s, {"x": float(s[0])}),
        lambda s, c, b: (jnp.asarray(np.asarray(s)), {}),
        lambda s, c, b: (s, {"x": s[0].item()}),
        lambda s, c, b: (s[s > 0], {}),
        lambda s, c, b: (s, {"x": jnp.zeros(int(s[0]))}),
        lambda s, c, b: (s, {"x": range(3)[s.astype(int)[0]]}),
    ],
    ids=["if", "float", "numpy", "item", "mask", "shape", "index"],
)
def test_a_step_that_cannot_be_traced_is_told_what_to_do(mode, step):
    loop = Loop(None, jnp.zeros(3), step, None, **mode)
    with pytest.raises(StepError, match=r"step_fn cannot be compiled.*jax.lax.cond.*or leave out jit=True") as caught:
        loop.run(3)
    assert "In step 1" in caught.value.__notes__[-1]
    assert loop.state.tolist() == [0.0] * 3


@EVERY_COMPILED_MODE
def test_numbers_and_arrays_that_do_not_fit_into_32_bits_are_named(mode):
    with pytest.raises(StepError, match=r"leaf n is 1099511627776, which does not fit .* JAX_ENABLE_X64"):
        Loop(None, {"n": 2**40}, lambda s, c, b: ({"n": s["n"] + 1}, {}), None, **mode).run(1)
    with pytest.raises(StepError, match=r"leaf x is a numpy array of float64, .* narrow to float32"):
        Loop(None, {"x": np.zeros(2)}, lambda s, c, b: (s, {}), None, **mode).run(1)


class Noisy(State):
    dropout: eqx.nn.Dropout
    key: jax.Array
    count: int
    scale: float

    def step(self, config, batch):
        """The layer branches on a flag, and the scale is not a float32."""
        key, now = jax.random.split(self.key)
        assert self.scale == 0.1
        x = self.dropout(jnp.ones(4), key=now)
        return Noisy(self.dropout, key, self.count + 1, self.scale), {"x": x.sum(), "count": self.count}


@EVERY_COMPILED_MODE
def test_numbers_that_the_step_leaves_alone_stay_numbers(mode, recorder):
    state = Noisy(eqx.nn.Dropout(0.5), jax.random.key(0), 0, 0.1)
    loop = Loop(None, state, Noisy.step, None, **mode)
    final = loop.run(9)
    assert (final.count, final.scale, final.dropout) == (9, 0.1, state.dropout)
    assert [int(metrics["count"]) for metrics, _ in recorder.metrics] == list(range(9))
    assert {float(metrics["x"]) for metrics, _ in recorder.metrics} > {4.0}
    # Between two runs they may change, and the step is compiled anew.
    loop.state = dataclasses.replace(final, dropout=eqx.nn.inference_mode(final.dropout))
    loop.run(3)
    assert [float(metrics["x"]) for metrics, _ in recorder.metrics[9:]] == [4.0] * 3


@EVERY_COMPILED_MODE
def test_a_callback_that_changes_a_number_which_the_step_leaves_alone_is_told_what_to_do(mode):
    def turn_off(loop, metrics):
        loop.state = {**loop.state, "on": False}

    loop = Loop(None, {"x": jnp.zeros(2), "on": True}, lambda s, c, b: (s, {}), None, callbacks=[(turn_off, 2)], **mode)
    with pytest.raises(StepError, match=r"leaf on: before True of type bool, now False.* can be an array"):
        loop.run(5)


@EVERY_COMPILED_MODE
def test_branching_on_a_number_that_the_step_changes_names_it(mode):
    def step(state, config, batch):
        return {"n": state["n"] + 1, "m": 0.5}, {"early": 1} if state["n"] < 3 else {}

    with pytest.raises(StepError, match=r"The step changes the Python numbers n, so that they are"):
        Loop(None, {"n": 0, "m": 0.5}, step, None, **mode).run(5)


@EVERY_COMPILED_MODE
def test_a_weak_leaf_that_the_step_makes_strong_and_the_other_way_round(mode):
    def strong(state, config, batch):
        return state.astype(jnp.float32) * jnp.ones((), jnp.float32), {}

    traces = []

    def weak(state, config, batch):
        traces.append(state.weak_type)
        return jax.lax.full_like(state, 1.0) * 0 + 0.5, {}

    assert not Loop(None, jnp.asarray(1.0), strong, None, **mode).run(9).weak_type
    final = Loop(None, jnp.float32(1.0), lambda s, c, b: (jnp.where(s > 0, 0.5, 1.0), {}), None, **mode).run(9)
    assert (float(final), final.weak_type) == (0.5, False)
    Loop(None, jnp.float32(1.0), weak, None, **mode).run(9)
    assert traces == [False, False]


@EVERY_COMPILED_MODE
def test_a_step_that_fails_on_the_device_says_that_the_state_is_lost_and_where_to_go_on(mode, tmp_path):
    def step(state, config, batch):
        return eqx.error_if(state + 1, state[0] > 6, "went too far"), {"x": state[0]}

    loop = Loop(None, jnp.zeros(3), step, None, save_every=5, checkpoint_dir=tmp_path, **mode)
    with pytest.warns(ResearchlabWarning, match="lost"), pytest.raises(Exception, match="went too far") as caught:
        loop.run(20)
    notes = " ".join(caught.value.__notes__)
    assert "Its State is lost" in notes or "loop.state is the State after" in notes
    if "lost" in notes:
        with pytest.raises(StepError, match=r"the State is lost: .*resume='auto'"):
            _ = loop.state
        with pytest.raises(StepError, match="the State is lost"):
            loop.save_checkpoint(tmp_path / "own")
        assert loop.step == 5
    loop.load_checkpoint(tmp_path / "step-0000000005")
    assert (loop.step, float(loop.state[0])) == (5, 5.0)
    assert float(loop.run(2)[0]) == 7.0


def test_a_second_ctrl_c_in_the_middle_of_a_compiled_call_leaves_a_loop_that_says_so(tmp_path, monkeypatch):
    loop = Loop(None, {"n": 0}, lambda s, c, b: ({"n": s["n"] + 1}, {}), None, jit=True, save_every=5,
                checkpoint_dir=tmp_path)  # fmt: skip
    loop.run(7)
    compiled = loop._compiled

    def interrupted(*arguments):
        run(*arguments)
        raise KeyboardInterrupt

    run = compiled._run
    monkeypatch.setattr(compiled, "_run", interrupted)
    with pytest.warns(ResearchlabWarning, match="the State is lost"), pytest.raises(KeyboardInterrupt):
        loop.run(1)
    monkeypatch.undo()
    assert loop.step == 7
    for use in (lambda: loop.state, lambda: loop.run(1), loop.dry_run, loop._checkpoint):
        with pytest.raises(StepError, match="the State is lost"):
            use()
    assert loop.run(2, resume="auto") == {"n": 9}
    assert loop.step == 9


def test_an_array_of_the_caller_is_let_go_while_the_steps_are_taken():
    initial = jnp.zeros(3)
    reference = weakref.ref(initial)
    alive = []

    def look(loop, metrics):
        gc.collect()
        alive.append(reference() is not None)

    loop = Loop(None, initial, lambda s, c, b: (s + 1, {}), None, jit=True, callbacks=[(look, 2)])
    del initial
    loop.run(2)
    assert alive == [False]


@EVERY_MODE
@pytest.mark.parametrize("call", ["run", "dry_run", "load_checkpoint"])
def test_a_callback_cannot_start_what_the_loop_is_doing(mode, call, tmp_path):
    arguments = {"run": (1,), "dry_run": (), "load_checkpoint": (tmp_path,)}[call]
    loop = Loop(
        None, jnp.zeros(()), lambda s, c, b: (s + 1, {}), None,
        callbacks=[(lambda loop, metrics: getattr(loop, call)(*arguments), 3)], **mode,
    )  # fmt: skip
    with pytest.raises(ArgumentError, match=rf"{call}\(\) cannot be called while this Loop is running already"):
        loop.run(5)
    assert (loop.step, float(loop.state)) == (3, 3.0)


@EVERY_MODE
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("where", ["callback", "telemetry", "data"])
def test_step_and_state_agree_whatever_is_raised(mode, error, where, recorder):
    from researchlab.design import Telemetry

    class Failing(Telemetry):
        def log_params(self, params):
            pass

        def log_metrics(self, metrics, step):
            if where == "telemetry" and step == 4:
                raise error

    def data():
        for number in range(20):
            if where == "data" and number == 10:
                raise error
            yield np.float32(1)

    def fail(loop, metrics):
        if where == "callback":
            raise error

    loop = Loop(
        None, jnp.zeros(()), lambda s, c, b: (s + b, {"x": s + b}), data(), Failing(),
        callbacks=[(fail, 5)], **mode,
    )  # fmt: skip
    with pytest.raises(error):
        loop.run(20)
    assert loop.step == float(loop.state) > 0
    assert [(step, float(metrics["x"])) for metrics, step in recorder.metrics] == [
        (n, float(n)) for n in range(1, loop.step + 1)
    ]
    assert recorder.states == [(loop.state, None, "loop")]
    assert loop.step == {"callback": 5, "data": 10, "telemetry": loop.step}[where]
