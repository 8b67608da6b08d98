# ruff: noqa: ARG002, ARG005 - step functions and parts of a Loop take what it passes

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import (
    Config,
    DataProvider,
    EquinoxPersister,
    FieldSelector,
    Loop,
    Persister,
    State,
    Telemetry,
    Visualizer,
)
from researchlab.errors import ArgumentError, CheckpointNotFoundError, MetricError, ResearchlabWarning, StepError


class Inner(Config):
    shift: float = 0.0


class Settings(Config):
    lr: float = 0.5
    inner: Inner = Inner()


class Walker(State):
    x: jax.Array


def start():
    return Walker(jnp.zeros(()))


def add(state, config, batch):
    x = state.x + (1.0 if batch is None else batch)
    return Walker(x), {"x": x}


class Telling(Telemetry):
    def __init__(self, log):
        self.log = log

    def log_metrics(self, metrics, step):
        self.log.append(("metrics", metrics, step))

    def log_params(self, params):
        self.log.append(("params", params))


class Drawing(Visualizer):
    def __init__(self, log):
        super().__init__()
        self.log = log

    def _render_frame(self, state):
        self.log.append(("frame", float(state.x)))


class Keeping(Persister):
    def __init__(self, log):
        self.log = log

    def save(self, state, config, step, path):
        self.log.append(("save", float(state.x), step, path.name))

    def load(self, path, state_structure, config_structure):
        return Walker(jnp.asarray(9.0)), Settings(lr=9), 9


class Numbers(DataProvider):
    def __init__(self, log, numbers):
        self.log = log
        self.numbers = iter(numbers)

    def __next__(self):
        return next(self.numbers)

    def get_batch(self, state):
        self.log.append(("batch", float(state.x)))
        return next(self)


def test_run_steps_through_the_data_and_counts():
    loop = Loop(Settings(), start(), add, [1.0, 2.0, 3.0])
    final = loop.run(2)
    assert final is loop.state
    assert (float(final.x), loop.step) == (3.0, 2)
    loop.run(1)
    assert (float(loop.state.x), loop.step) == (6.0, 3)


def test_the_end_of_the_data_ends_the_run():
    loop = Loop(Settings(), start(), add, [1.0, 2.0])
    loop.run(10)
    loop.run(10)
    assert (float(loop.state.x), loop.step) == (3.0, 2)


@pytest.mark.parametrize(
    "provider", [[1.0, 1.0, 1.0], (1.0 for _ in range(3)), np.ones(3), itertools.repeat(1.0), None]
)
def test_any_iterable_and_none_give_batches(provider):
    assert float(Loop(Settings(), start(), add, provider).run(3).x) == 3.0


def test_no_steps_leave_the_initial_state():
    state = start()
    assert Loop(Settings(), state, add, []).run(0) is state


def test_the_parts_are_driven_in_the_documented_order(tmp_path):
    log = []
    Loop(
        Settings(),
        start(),
        add,
        Numbers(log, [1.0, 2.0, 3.0, 4.0, 5.0]),
        Telling(log),
        Keeping(log),
        Drawing(log),
        save_every=2,
        checkpoint_dir=tmp_path,
        render_every=2,
    ).run(4)
    assert log == [
        ("params", {"lr": 0.5, "inner.shift": 0.0}),
        ("batch", 0.0),
        ("metrics", {"x": 1.0}, 1),
        ("batch", 1.0),
        ("metrics", {"x": 3.0}, 2),
        ("frame", 3.0),
        ("save", 3.0, 2, "step-0000000002"),
        ("batch", 3.0),
        ("metrics", {"x": 6.0}, 3),
        ("batch", 6.0),
        ("metrics", {"x": 10.0}, 4),
        ("frame", 10.0),
        ("save", 10.0, 4, "step-0000000004"),
    ]


def test_parameters_are_logged_once_and_cadences_count_over_all_runs(tmp_path):
    log = []
    loop = Loop(
        Settings(), start(), add, None, Telling(log), Keeping(log), save_every=3, checkpoint_dir=tmp_path
    )  # fmt: skip
    for _ in range(4):
        loop.run(1)
    assert [entry[0] for entry in log] == ["params", "metrics", "metrics", "metrics", "save", "metrics"]


def test_a_visualizer_draws_each_step_unless_told_otherwise():
    log = []
    Loop(Settings(), start(), add, None, visualizer=Drawing(log)).run(2)
    assert log == [("frame", 1.0), ("frame", 2.0)]


def test_a_broken_visualizer_does_not_stop_the_run():
    class Broken(Visualizer):
        def _render_frame(self, state):
            msg = "no display"
            raise OSError(msg)

    loop = Loop(Settings(), start(), add, None, visualizer=Broken())
    with pytest.warns(
        ResearchlabWarning, match=r"nothing is rendered from step 1 on: Broken raised .*no display"
    ) as caught:
        loop.run(3)
    assert (loop.step, len(caught)) == (3, 1)


def test_a_selected_kernel_is_a_step_function():
    @FieldSelector(x="state.x", lr="config.lr")
    def kernel(x, lr, batch):
        return Walker(x + lr * batch), {}

    assert float(Loop(Settings(), start(), kernel, [1.0, 2.0]).run(2).x) == 1.5
    assert float(Loop(Settings(), start(), eqx.filter_jit(kernel), [1.0, 2.0]).run(2).x) == 1.5


def test_metrics_may_be_none():
    assert Loop(Settings(), start(), lambda s, c, b: (s, None), None).run(1) is not None


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned a NoneType: None"),
        (Walker(jnp.zeros(())), "returned a Walker"),
        ((1,), "returned a tuple of 1"),
        ((1, {}, 2), "returned a tuple of 3"),
        ((1, 0.5), "metrics as a dict .* they are a float: 0.5"),
        ((1, [("a", 1)]), "they are a list"),
    ],
)
def test_a_step_function_that_returns_something_else_is_shown_what(returned, said):
    with pytest.raises(StepError, match=rf"step_fn must return \(new_state, metrics\).*{said}") as caught:
        Loop(Settings(), start(), lambda state, config, batch: returned, None).run(1)
    assert isinstance(caught.value, TypeError)


def test_a_metric_that_is_no_scalar_names_itself_and_its_step():
    def step(state, config, batch):
        return state, {"x": jnp.zeros(2) if batch == 3 else 0.0}

    loop = Loop(Settings(), start(), step, [1, 2, 3])
    with pytest.raises(MetricError, match=r"metric 'x' of step 3 is float32 of shape \(2,\)"):
        loop.run(3)
    assert loop.step == 2


def test_an_exception_of_the_step_keeps_its_type_and_gets_the_step_as_a_note():
    class OwnError(Exception):
        pass

    def step(state, config, batch):
        if batch == 2:
            raise OwnError
        return add(state, config, float(batch))

    loop = Loop(Settings(), start(), step, [1, 2])
    with pytest.raises(OwnError) as caught:
        loop.run(5)
    assert caught.value.__notes__ == ["In step 2 of a researchlab Loop; loop.state is the State after step 1."]
    assert (loop.step, float(loop.state.x)) == (1, 1.0)


def test_a_stop_iteration_of_the_step_function_does_not_look_like_the_end_of_the_data():
    def step(state, config, batch):
        return next(iter(()))

    with pytest.raises(StopIteration):
        Loop(Settings(), start(), step, None).run(1)


@pytest.mark.parametrize("num_steps", [-1, 1.0, "3", None, True])
def test_a_number_of_steps_that_is_none_is_refused(num_steps):
    with pytest.raises(ArgumentError, match="num_steps must be a whole number"):
        Loop(Settings(), start(), add, None).run(num_steps)


def test_a_numpy_integer_is_a_number_of_steps():
    loop = Loop(Settings(), start(), add, None)
    loop.run(np.int64(2))
    assert loop.step == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"save_every": 5}, "save_every=5 needs a checkpoint_dir"),
        ({"save_every": 5, "persister": EquinoxPersister()}, "needs a checkpoint_dir"),
        ({"save_every": 0, "checkpoint_dir": "c", "persister": EquinoxPersister()}, "at least 1"),
        ({"render_every": 5}, "render_every=5 needs a visualizer"),
        ({"render_every": 0, "visualizer": Drawing([])}, "at least 1"),
        ({"step_fn": 3}, "step_fn must be a function"),
        ({"data_provider": 3}, "data_provider must be"),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_the_loop_is_made(options, said):
    with pytest.raises(ArgumentError, match=said):
        Loop(**{"config": Settings(), "initial_state": start(), "step_fn": add, "data_provider": None, **options})


def test_checkpoints_are_written_and_one_is_loaded(tmp_path):
    folder = tmp_path / "new" / "checkpoints"
    loop = Loop(
        Settings(), start(), add, None, persister=EquinoxPersister(), save_every=2, checkpoint_dir=str(folder)
    )  # fmt: skip
    loop.run(5)
    assert sorted(path.name for path in folder.iterdir()) == ["step-0000000002.eqx", "step-0000000004.eqx"]
    loop.load_checkpoint(folder / "step-0000000004.eqx")
    assert (float(loop.state.x), loop.step, loop.config) == (4.0, 0, Settings())
    loop.save_checkpoint(tmp_path / "own")
    assert (tmp_path / "own.eqx").is_file()
    with pytest.raises(CheckpointNotFoundError, match=r"step-0000000002.eqx, step-0000000004.eqx"):
        loop.load_checkpoint(folder / "step-0000000003.eqx")


def test_loading_takes_state_config_and_step_from_the_persister(tmp_path):
    loop = Loop(Settings(), start(), add, None, persister=Keeping([]))
    loop.load_checkpoint("anything")
    assert (float(loop.state.x), loop.step, loop.config) == (9.0, 9, Settings(lr=9))


def test_a_checkpoint_needs_no_persister_of_ones_own(tmp_path):
    loop = Loop(Settings(), start(), add, None)
    loop.run(3)
    loop.save_checkpoint(tmp_path / "own")
    other = Loop(Settings(), start(), add, None)
    other.load_checkpoint(tmp_path / "own")
    assert (float(other.state.x), other.step, other.config) == (3.0, 3, Settings())


def test_a_config_of_any_kind_is_handed_on():
    seen = []
    for config in (None, {"lr": 1.0}, 3):
        log = []
        Loop(config, start(), lambda s, c, b: seen.append(c) or (s, {}), None, Telling(log)).run(1)
        assert log[0] == ("params", config if isinstance(config, dict) else {})
    assert seen == [None, {"lr": 1.0}, 3]


def test_the_active_run_gets_every_metric_and_the_state_at_the_end(recorder):
    loop = Loop(Settings(), start(), add, [1.0, 2.0, 3.0])
    loop.run(2)
    assert [(step, float(metrics["x"])) for metrics, step in recorder.metrics] == [(1, 1.0), (2, 3.0)]
    assert recorder.states == [(loop.state, None, "loop")]
    Loop(Settings(), start(), add, None).run(1)
    loop.run(1)
    assert [(float(state.x), step, source) for state, step, source in recorder.states] == [
        (3.0, None, "loop"),
        (1.0, None, "loop-2"),
        (6.0, None, "loop"),
    ]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_active_run_gets_the_last_whole_state_when_the_run_is_interrupted(recorder, error):
    def step(state, config, batch):
        if batch == 3.0:
            raise error
        return add(state, config, batch)

    loop = Loop(Settings(), start(), step, [1.0, 2.0, 3.0])
    with pytest.raises(error):
        loop.run(3)
    assert recorder.states == [(loop.state, None, "loop")]
    assert len(recorder.metrics) == 2


def test_a_state_that_cannot_be_recorded_does_not_hide_the_error(recorder, monkeypatch):
    def refuse(state, step, *, source):
        msg = "array has been deleted"
        raise RuntimeError(msg)

    monkeypatch.setattr(recorder, "record_state", refuse)

    def step(state, config, batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), pytest.warns(ResearchlabWarning, match="array has been deleted"):
        Loop(Settings(), start(), step, None).run(1)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_batching_telemetry_has_every_step_when_run_returns_or_raises(error):
    class Batching(Telling):
        def log_metrics_batch(self, entries):
            self.log.extend(("batched", entry.metrics, entry.step) for entry in entries)

    def step(state, config, batch):
        if batch == 3.0 and error is not None:
            raise error
        return add(state, config, batch)

    log = []
    loop = Loop(Settings(), start(), step, [1.0, 2.0, 3.0], Batching(log))
    with pytest.raises(error) if error is not None else contextlib.nullcontext():
        loop.run(3)
    assert log[1:3] == [("batched", {"x": 1.0}, 1), ("batched", {"x": 3.0}, 2)]
    assert len(log) == 1 + loop.step


def test_telemetry_that_fails_keeps_its_type_and_the_state_is_recorded(recorder):
    class Failing(Telling):
        def log_metrics(self, metrics, step):
            raise ZeroDivisionError

    loop = Loop(Settings(), start(), add, None, Failing([]))
    with pytest.raises(ZeroDivisionError):
        loop.run(2)
    assert recorder.states == [(loop.state, None, "loop")]


def test_design_loads_no_mlflow():
    code = "import sys, researchlab.design; assert not {'mlflow', 'git'} & set(sys.modules), 'loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)
