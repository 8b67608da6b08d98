"""Do a step function called as given, compiled, and in a loop on the device give the same run?"""

# ruff: noqa: ARG005 - step functions take what the Loop passes

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.precision import enable_x64

from researchlab.design import (
    ArrayDataProvider,
    Config,
    DataProvider,
    FunctionDataProvider,
    IterableDataProvider,
    Loop,
    State,
    Telemetry,
)
from researchlab.errors import DataError, MetricError

MODES = {"as given": {}, "jit": {"jit": True}, "scan 7": {"scan_steps": 7}}
COMPILED = {name: options for name, options in MODES.items() if options}
LENGTHS = {"scan 1": {"scan_steps": 1}, "scan 100": {"scan_steps": 100}}
EVERY_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
EVERY_COMPILED_MODE = pytest.mark.parametrize("mode", COMPILED.values(), ids=COMPILED.keys())


class Settings(Config):
    rate: float = 0.5


class Walker(State):
    x: jax.Array
    count: jax.Array


def start():
    return Walker(jnp.arange(3.0), jnp.asarray(0, jnp.int32))


def walk(state, config, batch):
    # Exact in binary, so that no order of operations changes a bit.
    move = jnp.float32(1.0) if batch is None else jnp.asarray(batch, jnp.float32).sum()
    x = state.x * jnp.float32(config.rate) + move
    return Walker(x, state.count + 1), {"move": move, "half": {"count": state.count + 1}, "rate": config.rate}


class Told(Telemetry):
    def __init__(self):
        self.seen = []

    def log_metrics(self, metrics, step):
        self.seen.append((step, metrics))

    def log_params(self, params):
        pass


class Own(DataProvider):
    def __init__(self, numbers):
        self.numbers = iter(numbers)

    def __next__(self):
        return next(self.numbers)


class Looking(Own):
    def get_batch(self, state):
        return np.float32(next(self) + np.asarray(state.x)[0])


NUMBERS = [np.float32(number % 5) for number in range(25)]
PROVIDERS = {
    "none": lambda: None,
    "list": lambda: NUMBERS,
    "generator": lambda: (number for number in NUMBERS),
    "prefetched": lambda: IterableDataProvider(NUMBERS, prefetch=2, to_device=True),
    "own": lambda: Own(NUMBERS),
    "own that looks": lambda: Looking(NUMBERS),
    "arrays": lambda: ArrayDataProvider(np.arange(12, dtype=np.float32), 4, key=jax.random.key(0)),
    "arrays in order": lambda: ArrayDataProvider(np.arange(12, dtype=np.float32), 5, epochs=12),
    "function": lambda: FunctionDataProvider(lambda step: step % 5),
    "function that looks": lambda: FunctionDataProvider(lambda state, step: state.count + step % 3),
}


def run_of(provider, options, recorder, step_fn=walk, state=None, steps=23):
    told = Told()
    before = len(recorder.metrics)
    loop = Loop(Settings(), start() if state is None else state, step_fn, provider, told, **options)
    final = loop.run(steps)
    recorded = [(step, metrics) for metrics, step in recorder.metrics[before:]]
    return loop, final, recorded, told.seen


def bits(tree):
    leaves, treedef = jax.tree_util.tree_flatten(tree)
    return treedef, [(type(leaf).__name__, np.asarray(leaf).dtype, np.asarray(leaf).tobytes()) for leaf in leaves]


def as_numbers(recorded):
    return [(step, [(name, float(value), np.asarray(value).dtype.kind) for name, value in metrics.items()])
            for step, metrics in recorded]  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS.keys())
def test_every_mode_gives_the_same_state_and_metrics(provider, recorder):
    _, wanted, wanted_record, wanted_seen = run_of(provider(), {}, recorder)
    assert len(wanted_record) == len(wanted_seen) == 23
    looks = isinstance(provider(), Looking)
    for name, options in {**COMPILED, **LENGTHS}.items():
        if looks and "scan_steps" in options:
            continue
        loop, final, record, seen = run_of(provider(), options, recorder)
        assert loop.step == 23, name
        assert bits(final) == bits(wanted), name
        assert as_numbers(record) == as_numbers(wanted_record), name
        assert seen == wanted_seen, name
        assert [[type(value) for value in metrics.values()] for _, metrics in seen] == [
            [type(value) for value in metrics.values()] for _, metrics in wanted_seen
        ]


@EVERY_MODE
@pytest.mark.parametrize("length", [0, 6, 7, 8])
@pytest.mark.parametrize("kind", ["list", "arrays", "function"])
def test_the_data_end_where_they_end(mode, length, kind, recorder):
    provider = {
        "list": lambda: NUMBERS[:length],
        "arrays": lambda: ArrayDataProvider(np.ones(max(1, length), np.float32), 1, epochs=1),
        "function": lambda: FunctionDataProvider(lambda step: step, num_batches=length),
    }[kind]()
    if kind == "arrays" and not length:
        pytest.skip("arrays without rows are refused")
    loop, _, record, seen = run_of(provider, mode, recorder)
    assert (loop.step, len(record), len(seen), int(loop.state.count)) == (length,) * 4
    assert [step for step, _ in record] == list(range(1, length + 1))
    loop.run(3)
    assert loop.step == length


@EVERY_MODE
def test_a_provider_that_begins_again_after_its_end_ends_each_run(mode):
    class Epochs(DataProvider):
        drawn = 0

        def __next__(self):
            self.drawn += 1
            if self.drawn % 5 == 0:
                raise StopIteration
            return np.float32(self.drawn)

    loop = Loop(Settings(), start(), walk, Epochs(), **mode)
    assert [(loop.run(20), loop.step)[1] for _ in range(3)] == [4, 8, 12]


@EVERY_MODE
def test_batches_may_change_their_shape(mode, recorder):
    def step(state, config, batch):
        return Walker(state.x + batch.sum(), state.count + 1), {"size": batch.shape[0], "sum": batch.sum()}

    batches = [np.ones(4 if number % 4 else 2, np.float32) for number in range(17)]
    loop, final, record, _ = run_of(batches, mode, recorder, step)
    assert [metrics["size"] for _, metrics in record] == [len(batch) for batch in batches]
    assert [metrics["sum"] for _, metrics in record] == [len(batch) for batch in batches]
    assert (loop.step, float(final.x[0])) == (17, sum(map(len, batches)))


@EVERY_COMPILED_MODE
def test_metrics_that_change_with_the_shape_of_the_batch_are_named(mode):
    def step(state, config, batch):
        return state, {"one": batch[0]} if batch.shape[0] == 1 else {"many": batch.sum()}

    batches = [np.ones(2, np.float32), np.ones(1, np.float32)]
    loop = Loop(Settings(), start(), step, batches, **mode)
    with pytest.raises(MetricError, match=r"they were many float32, now they are one float32"):
        loop.run(2)
    assert loop.step == 1


@pytest.mark.parametrize("provider", [None, "list", "arrays"])
@pytest.mark.parametrize("mode", [*COMPILED.values(), LENGTHS["scan 100"]])
def test_one_compilation_is_enough(provider, mode):
    """One trace finds the metrics; the other is the compilation, also with ragged chunks and in a second run."""
    seen = []

    def step(state, config, batch):
        seen.append(1)
        return walk(state, config, batch)

    data = None if provider is None else PROVIDERS[provider]()
    loop = Loop(Settings(), start(), step, data, **mode)
    loop.run(16)
    loop.run(7)
    loop.run(1)
    assert len(seen) == 2


@EVERY_COMPILED_MODE
def test_a_provider_that_fails_lets_the_steps_before_it_be_taken(mode, recorder):
    def batches():
        yield from NUMBERS[:5]
        msg = "disk on fire"
        raise OSError(msg)

    loop = Loop(Settings(), start(), walk, batches(), **mode)
    with pytest.raises(OSError, match="disk on fire") as caught:
        loop.run(20)
    assert (loop.step, int(loop.state.count), len(recorder.metrics)) == (5, 5, 5)
    assert recorder.states[0][0] is loop.state
    assert "In step 6 of a researchlab Loop" in caught.value.__notes__[0]


@EVERY_MODE
def test_a_metric_keeps_its_bits_whatever_its_dtype(mode, recorder):
    values = {
        "f32": jnp.float32(0.1), "bf16": jnp.bfloat16(0.1), "f16": jnp.float16(-0.0), "f8": jnp.float8_e4m3fn(0.4375),
        "i8": jnp.int8(-3), "u32": jnp.uint32(2**32 - 1), "i4": jnp.int4(-5), "u4": jnp.uint4(13),
        "bool": jnp.zeros((), bool),
        "nan": jnp.float32(jnp.nan), "inf": -jnp.float32(jnp.inf),
    }  # fmt: skip
    held = {"python": 0.1, "big": 2**60 + 1, "flag": True, "double": np.float64(0.1), "none": {}}

    def step(state, config, batch):
        return state, {**dict(zip(values, state, strict=True)), **held}

    Loop(None, tuple(values.values()), step, None, **mode).run(9)
    assert len(recorder.metrics) == 9
    for metrics, _ in recorder.metrics:
        assert list(metrics) == [name for name in (*values, *held) if name != "none"]
        for name, value in values.items():
            assert np.asarray(metrics[name]).dtype == value.dtype, name
            assert np.asarray(metrics[name]).tobytes() == np.asarray(value).tobytes(), name
        for name in ("python", "big", "flag", "double"):
            assert metrics[name] == held[name], name


@EVERY_COMPILED_MODE
def test_64_bit_metrics_keep_their_bits(mode, recorder):
    with enable_x64(True):  # noqa: FBT003 - its only parameter
        values = (jnp.float64(0.1), jnp.int64(-(2**40) - 1), jnp.uint64(2**64 - 1))
        Loop(None, values, lambda s, c, b: (s, dict(zip("abc", s, strict=True))), None, **mode).run(3)
    for metrics, _ in recorder.metrics:
        assert [np.asarray(value).tobytes() for value in metrics.values()] == [
            np.asarray(value).tobytes() for value in values
        ]


@EVERY_COMPILED_MODE
def test_a_python_integer_beyond_64_bits_is_named(mode):
    with pytest.raises(
        MetricError, match=r"metric 'big' is 1267650600228229401496703205376, an integer beyond 64 bits"
    ):
        Loop(None, jnp.zeros(()), lambda s, c, b: (s, {"big": 2**100}), None, **mode).run(1)


@EVERY_COMPILED_MODE
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, eqx.filter_jit], ids=["plain", "jax.jit", "eqx.filter_jit"])
def test_configs_that_are_equal_but_not_the_same_never_share_a_step(mode, wrap):
    def step(state, config, batch):
        kind = {bool: 1.0, int: 2.0, float: 3.0}[type(config)]
        sign = 1.0 if str(config)[0] != "-" else -1.0
        return state + jnp.float32(kind * sign), {}

    wrapped = jax.jit(step, static_argnums=1) if wrap is jax.jit else wrap(step)
    configs = [1, 1.0, True, 0.0, -0.0]
    finals = [float(Loop(config, jnp.float32(0), wrapped, None, **mode).run(1)) for config in configs]
    assert finals == [2.0, 3.0, 1.0, 3.0, -3.0]


@EVERY_MODE
def test_a_config_set_between_two_runs_counts(mode):
    loop = Loop(Settings(rate=1.0), start(), walk, None, **mode)
    loop.run(2)
    loop.config = Settings(rate=0.0)
    assert np.asarray(loop.run(1).x).tolist() == [1.0, 1.0, 1.0]


@EVERY_COMPILED_MODE
def test_a_step_function_that_ends_the_data_itself_does_not_look_like_their_end(mode):
    with pytest.raises((StopIteration, RuntimeError)):
        Loop(None, jnp.zeros(()), lambda s, c, b: next(iter(())), None, **mode).run(1)


@EVERY_MODE
def test_the_data_of_a_function_begin_where_the_provider_stands(mode):
    provider = FunctionDataProvider(lambda step: step.astype(jnp.float32))
    provider.seek(10)
    loop = Loop(None, jnp.zeros(()), lambda s, c, b: (s + b, {}), provider, **mode)
    assert float(loop.run(3)) == 10 + 11 + 12
    assert provider.step == 13
    assert float(loop.run(1)) == 10 + 11 + 12 + 13


def test_scan_refuses_a_provider_that_must_see_each_state():
    with pytest.raises(Exception, match=r"scan_steps=7 cannot show Looking.get_batch the State"):
        Loop(Settings(), start(), walk, Looking(NUMBERS), scan_steps=7)


@EVERY_MODE
def test_more_metrics_than_the_ring_has_rows_are_all_recorded(mode, recorder, monkeypatch):
    from researchlab.design._loop import _compiled

    monkeypatch.setattr(_compiled, "_MOST_ROWS", 4)
    _, _, record, _ = run_of(None, mode, recorder, steps=300)
    assert [step for step, _ in record] == list(range(1, 301))
    assert [int(metrics["half.count"]) for _, metrics in record] == list(range(1, 301))


def test_nobody_listening_changes_no_bit(recorder):
    from researchlab import _recording

    for options in COMPILED.values():
        _, wanted, _, _ = run_of(None, options, recorder)
        _recording.pop(recorder)
        silent = Loop(Settings(), start(), walk, None, **options).run(23)
        _recording.push(recorder)
        assert bits(silent) == bits(wanted)


@EVERY_MODE
def test_endless_iterables_and_long_runs_agree(mode):
    loop = Loop(Settings(rate=1.0), start(), walk, itertools.repeat(np.float32(1.0)), **mode)
    assert float(loop.run(1000).x[0]) == 1000.0


@EVERY_MODE
def test_a_dry_run_without_data_says_so(mode):
    with pytest.raises(DataError, match="the data have ended"):
        Loop(Settings(), start(), walk, [], **mode).dry_run()
