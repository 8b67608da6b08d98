"""Does a run that was broken off and started again end in the same bits as one that was not?"""

# ruff: noqa: ARG002, ARG005 - step functions take what the Loop passes

from __future__ import annotations

import subprocess
import sys
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import (
    ArrayDataProvider,
    Cadence,
    CheckpointPersister,
    Config,
    DataProvider,
    EquinoxPersister,
    FunctionDataProvider,
    IterableDataProvider,
    Loop,
    State,
)
from researchlab.errors import ArgumentError, CheckpointError, DataError, ResearchlabWarning

MODES = {"as given": {}, "jit": {"jit": True}, "scan 7": {"scan_steps": 7}}
EVERY_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
PERSISTERS = {"checkpoint": CheckpointPersister, "equinox": EquinoxPersister}
TOTAL = 20


class Settings(Config):
    rate: float = 0.9


class Walker(State):
    x: jax.Array
    key: jax.Array
    count: int
    scale: float
    host: np.ndarray


def start():
    return Walker(jnp.linspace(0.0, 1.0, 3), jax.random.split(jax.random.key(0)), 0, 1.0, np.zeros((), np.float32))


@jax.jit
def _move(x, key, scale, batch):
    return jnp.sin(x * 0.9) + scale * x.sum() + batch, key[::-1]


def walk(state, config, batch):
    move = jnp.float32(0) if batch is None else jnp.asarray(batch, jnp.float32).mean()
    x, key = _move(state.x, state.key, jnp.asarray(state.scale, jnp.float32), move)
    new = Walker(x, key, state.count + 1, state.scale * 0.5, state.host + np.float32(1))
    return new, {"x": x[0], "count": state.count}


class Own(DataProvider):
    def __init__(self):
        self.number = 0

    def __next__(self):
        self.number += 1
        return np.float32(self.number % 7)


class Looking(Own):
    def get_batch(self, state):
        return np.float32(next(self) + np.asarray(state.x)[1])

    def get_position(self):
        return {"number": self.number}

    def set_position(self, position):
        self.number = position["number"]


def shapes():
    return [np.arange(1 + (number % 5 == 0), dtype=np.float32) for number in range(TOTAL)]


PROVIDERS = {
    "none": lambda: None,
    "list": lambda: [np.float32(number) for number in range(TOTAL)],
    "generator": lambda: (np.float32(number) for number in range(TOTAL)),
    "shapes": shapes,
    "prefetched": lambda: IterableDataProvider(
        [np.float32(number) for number in range(TOTAL)], prefetch=3, to_device=True
    ),
    "prefetched shapes": lambda: IterableDataProvider(shapes, prefetch=3),
    "own": Own,
    "own that looks": Looking,
    "arrays": lambda: ArrayDataProvider(np.arange(11, dtype=np.float32), 4, key=jax.random.key(3)),
    "function": lambda: FunctionDataProvider(lambda step: step * 3 % 7),
    "function that looks": lambda: FunctionDataProvider(lambda state, step: state.x * 0.5 + (step % 3).astype(float)),
}


def bits(tree):
    leaves, treedef = jax.tree_util.tree_flatten(tree)
    return treedef, [_bits(leaf) for leaf in leaves]


def _bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    weak = getattr(leaf, "weak_type", False)
    return type(leaf).__name__, weak, np.asarray(leaf).dtype.name, np.asarray(leaf).tobytes()


def metrics_of(recorder, since):
    return [(step, {name: _bits(np.asarray(value)) for name, value in metrics.items()})
            for metrics, step in recorder.metrics[since:]]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "persister"),
    [
        *((provider, CheckpointPersister) for provider in PROVIDERS.values()),
        *((PROVIDERS[name], EquinoxPersister) for name in ("generator", "arrays")),
    ],
    ids=[*PROVIDERS, "generator, equinox", "arrays, equinox"],
)
@EVERY_MODE
def test_a_run_that_goes_on_ends_in_the_same_bits(mode, provider, persister, recorder, tmp_path):
    if isinstance(provider(), Looking) and "scan_steps" in mode:
        pytest.skip("the State of each step is not there to be looked at")

    def loop(folder):
        return Loop(
            Settings(),
            start(),
            walk,
            provider(),
            persister=persister(),
            save_every=5,
            checkpoint_dir=tmp_path / folder,
            **mode,
        )

    straight = loop("straight").run(TOTAL)
    wanted = metrics_of(recorder, 0)
    assert len(wanted) == TOTAL
    loop("stopped").run(13, resume="auto")
    since = len(recorder.metrics)
    other = loop("stopped")
    final = other.run(TOTAL, resume="auto")
    assert other.step == TOTAL
    assert bits(final)[1] == bits(straight)[1]
    assert metrics_of(recorder, since) == wanted[13:]


@EVERY_MODE
@pytest.mark.parametrize("persister", PERSISTERS.values(), ids=PERSISTERS.keys())
def test_leaves_that_the_first_step_makes_another_kind_of_come_back_as_they_were_saved(mode, persister, tmp_path):
    """As given, a Python number or numpy array is a jax array after the first step, and a weak type a strong one."""

    def step(state, config, batch):
        new = {
            "number": jnp.asarray(state["number"], jnp.float32) + 1,
            "whole": jnp.asarray(state["whole"], jnp.int32) + 1,
            "host": jnp.asarray(state["host"]) + 1,
            "weak": jnp.asarray(state["weak"], jnp.float32) * jnp.float32(1.5),
            "back": 2.5 if not mode else state["back"],
        }
        return new, {}

    def loop():
        state = {"number": 1.0, "whole": 1, "host": np.zeros(2, np.float32), "weak": jnp.asarray(1.0), "back": 2.5}
        return Loop(None, state, step, None, persister=persister(), checkpoint_dir=tmp_path, **mode)

    straight = Loop(None, loop().state, step, None, **mode).run(6)
    loop().run(2)
    final = loop().run(6, resume="auto")
    if persister is EquinoxPersister:  # its files have bits only
        assert [entry[2:] for entry in bits(final)[1]] == [entry[2:] for entry in bits(straight)[1]]
    else:
        assert bits(final) == bits(straight)


def test_a_number_that_was_an_array_at_first_comes_back_too(tmp_path):
    def loop():
        return Loop(
            None, {"n": jnp.float32(1.0)}, lambda s, c, b: ({"n": float(s["n"]) + 1.5}, {}), None,
            persister=EquinoxPersister(), checkpoint_dir=tmp_path,
        )  # fmt: skip

    loop().run(2)
    assert loop().run(3, resume="auto") == {"n": 5.5}


@EVERY_MODE
def test_a_damaged_checkpoint_is_passed_over(mode, tmp_path):
    def loop(folder):
        return Loop(Settings(), start(), walk, None, save_every=4, checkpoint_dir=tmp_path / folder, **mode)

    straight = loop("straight").run(TOTAL)
    loop("own").run(10)
    leaves = tmp_path / "own" / "step-0000000008" / "leaves.safetensors"
    content = bytearray(leaves.read_bytes())
    content[-1] ^= 1
    leaves.write_bytes(content)
    with pytest.warns(ResearchlabWarning, match=r"step-0000000008 is passed over: .* is damaged"):
        final = loop("own").run(TOTAL, resume="auto")
    assert bits(final) == bits(straight)


def test_a_cut_off_equinox_file_is_passed_over(tmp_path):
    def loop():
        return Loop(
            None, jnp.zeros(3), lambda s, c, b: (s + 1, {}), None,
            persister=EquinoxPersister(), save_every=4, checkpoint_dir=tmp_path,
        )  # fmt: skip

    loop().run(8)
    newest = tmp_path / "step-0000000008.eqx"
    newest.write_bytes(newest.read_bytes()[:-5])
    with pytest.warns(ResearchlabWarning, match=r"step-0000000008.eqx is passed over"):
        assert float(loop().run(10, resume="auto")[0]) == 10.0


@EVERY_MODE
def test_a_checkpoint_beyond_the_number_of_steps_is_not_used(mode, tmp_path):
    def loop():
        return Loop(Settings(), start(), walk, None, save_every=4, checkpoint_dir=tmp_path, **mode)

    straight = Loop(Settings(), start(), walk, None, **mode).run(6)
    loop().run(20)
    other = loop()
    assert bits(other.run(6, resume="auto")) == bits(straight)
    assert other.step == 6
    other = loop()
    other.run(3, resume="auto")
    assert other.step == 3


def test_another_config_is_warned_about_by_name(tmp_path):
    Loop(Settings(rate=0.5), start(), walk, None, checkpoint_dir=tmp_path).run(2)
    loop = Loop(Settings(rate=0.25), start(), walk, None, checkpoint_dir=tmp_path)
    with pytest.warns(ResearchlabWarning, match=r"from step 2 with another config .*rate: 0.5 -> 0.25"):
        loop.run(4, resume="auto")
    assert (loop.step, loop.config) == (4, Settings(rate=0.25))


@EVERY_MODE
@pytest.mark.parametrize("persister", PERSISTERS.values(), ids=PERSISTERS.keys())
def test_a_checkpoint_of_another_structure_is_an_error_that_names_leaves(mode, persister, tmp_path):
    step = lambda s, c, b: (s, {})  # noqa: E731
    Loop(None, {"a": jnp.zeros(3)}, step, None, persister=persister(), checkpoint_dir=tmp_path, **mode).run(2)
    loop = Loop(None, {"a": jnp.zeros(4)}, step, None, persister=persister(), checkpoint_dir=tmp_path, **mode)
    with pytest.raises(CheckpointError, match=r"a'.*float32\[3\].*float32\[4\] expected"):
        loop.run(4, resume="auto")
    assert loop.step == 0


@EVERY_MODE
def test_a_state_that_a_callback_sets_is_what_goes_on(mode, tmp_path):
    def halve(loop, metrics):
        loop.state = eqx.tree_at(lambda s: s.x, loop.state, loop.state.x * 0.5)

    def loop(folder):
        return Loop(
            Settings(), start(), walk, None, callbacks=[(halve, 3)], save_every=6, checkpoint_dir=tmp_path / folder,
            **mode,
        )  # fmt: skip

    straight = loop("straight").run(TOTAL)
    loop("own").run(9, resume="auto")
    assert bits(loop("own").run(TOTAL, resume="auto"))[1] == bits(straight)[1]


@EVERY_MODE
@pytest.mark.parametrize("provider", [PROVIDERS[name] for name in ("list", "own that looks", "arrays", "function")])
def test_the_same_loop_may_be_resumed_again(mode, provider, tmp_path):
    if isinstance(provider(), Looking) and "scan_steps" in mode:
        pytest.skip("the State of each step is not there to be looked at")
    loop = Loop(Settings(), start(), walk, provider(), checkpoint_dir=tmp_path, **mode)
    for _ in range(2):
        loop.run(10, resume="auto")
    assert loop.step == TOTAL
    straight = Loop(Settings(), start(), walk, provider(), **mode).run(TOTAL)
    assert bits(loop.state)[1] == bits(straight)[1]


@EVERY_MODE
def test_a_loop_can_go_back_where_its_data_can(mode, tmp_path):
    cadence = Cadence(at=[5, 15])
    loop = Loop(Settings(), start(), walk, PROVIDERS["list"](), save_every=cadence, checkpoint_dir=tmp_path, **mode)
    first = bits(loop.run(15))
    saved = (tmp_path / "step-0000000015" / "manifest.json").stat().st_mtime_ns
    loop.load_checkpoint(tmp_path / "step-0000000005")
    # A list has no position to go back to in the checkpoint, so that the Loop counts.
    assert loop.step == 5
    assert bits(loop.run(10)) == first
    assert (tmp_path / "step-0000000015" / "manifest.json").stat().st_mtime_ns > saved


def test_a_generator_cannot_go_back(tmp_path):
    loop = Loop(Settings(), start(), walk, PROVIDERS["generator"](), save_every=5, checkpoint_dir=tmp_path)
    loop.run(15)
    with pytest.raises(DataError, match=r"15 batches were drawn from generator, which cannot go back to step 5"):
        loop.load_checkpoint(tmp_path / "step-0000000005")
    assert loop.step == 15


def test_data_that_are_too_short_are_named(tmp_path):
    Loop(Settings(), start(), walk, PROVIDERS["list"](), checkpoint_dir=tmp_path).run(10)
    loop = Loop(Settings(), start(), walk, PROVIDERS["list"]()[:5], checkpoint_dir=tmp_path)
    with pytest.raises(DataError, match="the data end after 5 batches and cannot be put behind step 10"):
        loop.run(20, resume="auto")
    assert loop.step == 0


def test_a_provider_that_looks_without_a_position_says_what_to_define(tmp_path):
    class Blind(Own):
        def get_batch(self, state):
            return next(self)

    Loop(Settings(), start(), walk, Blind(), checkpoint_dir=tmp_path).run(3)
    with pytest.raises(DataError, match=r"Define get_position\(self\) and set_position"):
        Loop(Settings(), start(), walk, Blind(), checkpoint_dir=tmp_path).run(5, resume="auto")


def test_resume_needs_a_folder_and_starts_afresh_in_an_empty_one(tmp_path):
    with pytest.raises(ArgumentError, match="checkpoint_dir"):
        Loop(Settings(), start(), walk, None).run(1, resume="auto")
    loop = Loop(Settings(), start(), walk, None, checkpoint_dir=tmp_path / "new")
    loop.run(2, resume="auto")
    assert loop.step == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Loop(Settings(), start(), walk, None, checkpoint_dir=tmp_path).run(0, resume="auto")


@EVERY_MODE
def test_a_path_goes_on_from_that_checkpoint(mode, tmp_path):
    straight = Loop(
        Settings(), start(), walk, PROVIDERS["arrays"](), save_every=5, checkpoint_dir=tmp_path, **mode
    ).run(TOTAL)  # fmt: skip
    loop = Loop(Settings(), start(), walk, PROVIDERS["arrays"](), **mode)
    assert bits(loop.run(TOTAL, resume=tmp_path / "step-0000000010")) == bits(straight)
    assert loop.step == TOTAL


CHILD = """
import sys
sys.path.insert(0, {folder!r})
import warnings; warnings.simplefilter("error")
import numpy as np, jax
from researchlab.design import ArrayDataProvider, Loop
from resumed_model import step, start
loop = Loop(None, start(), step, ArrayDataProvider(np.arange(64, dtype=np.float32), 8, key=jax.random.key(1)),
            checkpoint_dir={checkpoints!r}, save_every=100, **{mode})
state = loop.run({steps}, resume="auto")
np.save({out!r}, np.concatenate([np.asarray(leaf).ravel().astype(np.float32) for leaf in state.values()]))
"""
MODEL = """
import jax, jax.numpy as jnp
def start():
    return {"w": jax.random.normal(jax.random.key(0), (8, 8)), "b": jnp.zeros(8), "step": 0}
def step(state, config, batch):
    def loss(w): return jnp.mean((jnp.tanh(w @ batch) - jnp.cos(batch)) ** 2)
    value, grad = jax.value_and_grad(loss)(state["w"])
    w = state["w"] - jnp.float32(0.01) * grad
    return {"w": w, "b": state["b"] * jnp.float32(0.5) + w.sum(0), "step": state["step"] + 1}, {"loss": value}
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", [MODES["jit"], MODES["scan 7"]], ids=["jit", "scan 7"])
def test_another_process_goes_on_bit_for_bit(mode, tmp_path):
    (tmp_path / "resumed_model.py").write_text(MODEL)

    def run(name, checkpoints, steps):
        out = tmp_path / f"{name}.npy"
        code = CHILD.format(
            folder=str(tmp_path), checkpoints=str(tmp_path / checkpoints), mode=mode, steps=steps, out=str(out)
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
        return np.load(out).tobytes()

    straight = run("straight", "one", 250)
    run("first", "two", 130)
    assert run("second", "two", 250) == straight
