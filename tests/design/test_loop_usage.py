# ruff: noqa: ARG002, ARG005 - callbacks and streams take what they are given
"""What a Loop says to those who use it in a way that cannot be meant."""

from __future__ import annotations

import os

import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import ArrayDataProvider, Config, Loop, MLFlowTelemetry
from researchlab.errors import ArgumentError, CheckpointError, ResearchlabWarning, StepError


class Settings(Config):
    rate: float = 0.5


def step(state, config, batch):
    return state + config.rate, {"x": state}


def loop(**options):
    return Loop(Settings(), jnp.zeros(()), step, None, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"log_every": 10}, "log_every=10 needs a telemetry"),
        ({"callbacks": print}, r"callbacks must be a list of functions .* say callbacks=\[...\]"),
        ({"callbacks": [3]}, "a callback is a function .* it is 3"),
        ({"progress": "loss"}, r"say progress=\['loss'\]"),
        ({"on_nonfinite": "warn"}, "on_nonfinite must be one of 'raise', 'stop', 'ignore'; it is 'warn'"),
        ({"telemetry": MLFlowTelemetry}, r"telemetry is the class MLFlowTelemetry: make one of it"),
        ({"telemetry": Settings()}, "telemetry is a Settings, which has no log_metrics"),
        ({"persister": MLFlowTelemetry()}, "persister is a MLFlowTelemetry, which has no save"),
        ({"visualizer": Settings()}, "visualizer is a Settings, which has no render"),
        ({"scan_steps": 0}, "scan_steps must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant_are_refused(options, said):
    with pytest.raises(ArgumentError, match=said):
        loop(**options)


@pytest.mark.parametrize("resume", [True, 10])
def test_what_to_resume_from_is_auto_or_a_path(resume, tmp_path):
    with pytest.raises(ArgumentError, match="resume must be 'auto', the path of a checkpoint, or None"):
        loop(checkpoint_dir=tmp_path).run(3, resume=resume)


def test_a_folder_of_checkpoints_is_no_checkpoint(tmp_path):
    loop(checkpoint_dir=tmp_path).run(3)
    with pytest.raises(ArgumentError, match="is a folder of checkpoints, up to step-0000000003: give the path of one"):
        loop(checkpoint_dir=tmp_path).run(5, resume=tmp_path)


def test_an_exception_of_a_callback_says_where_it_came_from():
    def look(loop, metrics):
        raise KeyError

    with pytest.raises(KeyError) as caught:
        loop(callbacks=[(look, 4)], jit=True).run(10)
    assert "look after step 4" in caught.value.__notes__[-1]


def test_the_config_is_not_changed_in_a_run():
    def change(loop, metrics):
        loop.config = Settings(rate=2)

    with pytest.raises(ArgumentError, match=r"setting loop\.config cannot be"):
        loop(callbacks=[(change, 1)]).run(2)
    own = loop(jit=True)
    own.run(2)
    own.config = Settings(rate=2)
    assert float(own.run(2)) == 5.0


def test_a_run_that_starts_afresh_among_checkpoints_of_another_is_warned_of_them(tmp_path):
    loop(checkpoint_dir=tmp_path).run(5)
    with pytest.warns(ResearchlabWarning, match="of an earlier run, up to step 5, and this run starts afresh"):
        loop(checkpoint_dir=tmp_path).run(2)
    again = loop(checkpoint_dir=tmp_path)
    again.run(7, resume="auto")
    again.run(1)
    assert again.step == 8


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").touch()
    own = loop(checkpoint_dir=tmp_path / "file" / "checkpoints")
    with pytest.raises(ArgumentError, match="file is not a folder"):
        own.run(5)
    assert own.step == 0


def test_when_no_checkpoint_is_whole_it_is_said_that_the_run_starts_anew(tmp_path):
    loop(checkpoint_dir=tmp_path).run(5)
    (tmp_path / "step-0000000005" / "leaves.safetensors").write_bytes(b"")
    own = loop(checkpoint_dir=tmp_path)
    with pytest.warns(ResearchlabWarning) as caught:
        own.run(5, resume="auto")
    said = [str(warning.message) for warning in caught]
    assert any("is passed over" in text for text in said)
    assert any("no whole checkpoint" in text and "the run starts anew" in text for text in said)


def test_a_metric_that_progress_does_not_find_is_named(capfd):
    with pytest.warns(ResearchlabWarning, match="progress shows no los: the metrics are x"):
        loop(progress=["los"], jit=True).run(3)
    assert "3/3" in capfd.readouterr().err


def test_a_progress_bar_that_nobody_reads_does_not_end_the_run(monkeypatch):
    class Gone:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        def isatty(self):
            return False

    monkeypatch.setattr("sys.stderr", Gone())
    own = loop(progress=True)
    own.run(3)
    assert own.step == 3


@pytest.mark.parametrize("mode", [{}, {"jit": True}, {"scan_steps": 7}], ids=str)
def test_a_run_that_a_callback_ended_takes_no_step_when_it_is_started_again(mode, tmp_path, caplog):
    def enough(loop, metrics):
        if loop.step >= 20:
            loop.stop("converged")

    def run(**how):
        own = loop(callbacks=[(enough, 10)], save_every=10, checkpoint_dir=tmp_path, **mode)
        own.run(100, **how)
        return own

    first, second = run(resume="auto"), run(resume="auto")
    assert (first.step, second.step, float(second.state)) == (20, 20, float(first.state))
    assert "over after step 20 (converged)" in caplog.text
    assert run(resume=tmp_path / "step-0000000020").step == 30


@pytest.mark.parametrize("data", [{"x": np.zeros(3)}, "batches", ArrayDataProvider])
def test_what_gives_no_batches_is_refused(data):
    with pytest.raises(ArgumentError, match=r"data_provider is .* which gives no batches: make an ArrayDataProvider"):
        Loop(Settings(), jnp.zeros(()), step, data)


def test_a_generator_in_the_state_is_refused_where_it_would_not_come_back(tmp_path):
    def draw(state, config, batch):
        return {**state, "x": jnp.float32(state["rng"].normal())}, {}

    state = {"x": jnp.float32(0), "rng": np.random.default_rng(0)}
    with pytest.raises(CheckpointError, match=r"leaf 'rng' is a numpy.random.*Generator: a checkpoint can neither"):
        Loop(None, state, draw, None, checkpoint_dir=tmp_path).run(3)
    with pytest.raises(StepError, match=r"leaf rng is a numpy.random.*Generator, .* a compiled step would draw once"):
        Loop(None, state, draw, None, jit=True).run(3)


def test_a_number_of_numpy_is_a_cadence():
    seen = []
    loop(callbacks=[(lambda loop, metrics: seen.append(loop.step), np.int64(2))]).run(5)
    assert seen == [2, 4]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_the_first_step(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ArgumentError, match="cannot be written to"):
        loop(checkpoint_dir=tmp_path / "checkpoints").run(5)
