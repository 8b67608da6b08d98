"""Does what is due now and then happen after the right steps, in the right order, with the right metrics?"""

# ruff: noqa: ARG002, ARG005 - step functions and parts of a Loop take what it passes

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import DataProvider, FunctionDataProvider, Loop, Persister, Telemetry, Visualizer
from researchlab.design._cadence import Cadence
from researchlab.errors import ArgumentError, MetricError, ResearchlabWarning, StepError

MODES = {"as given": {}, "jit": {"jit": True}, "scan 7": {"scan_steps": 7}}
EVERY_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())


def count(state, config, batch):
    return state + 1, {"n": state + 1}


def start():
    return jnp.int32(0)


@EVERY_MODE
@pytest.mark.parametrize(
    "cadence", [1, 3, 10, Cadence(at=[2, 9, 30]), Cadence(per_decade=3), Cadence(every=8, at=[5], per_decade=1)]
)
def test_a_callback_sees_the_metrics_and_the_state_of_its_steps(mode, cadence):
    seen = []
    callback = lambda loop, metrics: seen.append((loop.step, metrics, int(loop.state)))  # noqa: E731
    loop = Loop(None, start(), count, None, callbacks=[(callback, cadence)], **mode)
    loop.run(23)
    loop.run(20)
    cadence = Cadence.of("cadence", cadence)
    assert seen == [(step, {"n": step}, step) for step in range(1, 44) if cadence.includes(step)]


@EVERY_MODE
def test_a_callback_may_stop_the_run(mode, recorder, caplog):
    loop = Loop(None, start(), count, None, callbacks=[(lambda loop, metrics: metrics["n"] > 11 and loop.stop(), 5)],
                **mode)  # fmt: skip
    assert int(loop.run(100)) == 15
    assert (loop.step, len(recorder.metrics)) == (15, 15)
    assert int(loop.run(3)) == 18
    loop.stop()
    assert int(loop.run(1)) == 19


@EVERY_MODE
def test_a_callback_without_a_cadence_is_called_every_100_steps(mode):
    seen = []
    Loop(None, start(), count, None, callbacks=[lambda loop, metrics: seen.append(loop.step)], **mode).run(250)
    assert seen == [100, 200]


@EVERY_MODE
def test_the_telemetry_is_shown_some_steps_and_the_run_has_them_all(mode, recorder):
    class Told(Telemetry):
        def __init__(self):
            self.steps = []

        def log_params(self, params):
            pass

        def log_metrics(self, metrics, step):
            assert metrics == {"n": step}
            self.steps.append(step)

    told = Told()
    loop = Loop(None, start(), count, None, told, log_every=Cadence(every=10, at=[1, 7]), **mode)
    loop.run(14)
    loop.run(20)
    assert told.steps == [1, 7, 10, 20, 30]
    assert [step for _, step in recorder.metrics] == list(range(1, 35))


@EVERY_MODE
def test_a_checkpoint_is_written_behind_the_callback_and_before_the_next_batch(mode, tmp_path):
    log = []

    class Keeping(Persister):
        def save(self, state, config, step, path):
            log.append(("save", step, int(state)))

        def load(self, path, state_structure, config_structure):
            raise NotImplementedError

        def save_checkpoint(self, checkpoint, path):
            log.append(("data", checkpoint.data))
            self.save(checkpoint.state, checkpoint.config, checkpoint.step, path)

    class Drawing(Visualizer):
        def _render_frame(self, state):
            log.append(("frame", int(state)))

    class Numbers(DataProvider):
        number = 0

        def __next__(self):
            self.number += 1
            return np.int32(self.number)

        def get_position(self):
            return self.number

    Loop(
        None, start(), count, Numbers(), persister=Keeping(), visualizer=Drawing(), save_every=3, render_every=3,
        checkpoint_dir=tmp_path, callbacks=[(lambda loop, metrics: log.append(("callback", loop.step)), 3)], **mode,
    ).run(7)  # fmt: skip
    assert log == [
        ("callback", 3), ("frame", 3), ("data", 3), ("save", 3, 3),
        ("callback", 6), ("frame", 6), ("data", 6), ("save", 6, 6),
    ]  # fmt: skip


@EVERY_MODE
def test_batches_of_other_shapes_do_not_shift_the_position_in_the_data(mode, tmp_path):
    """In a loop on the device a batch is drawn before it is known that it does not fit into the stack."""
    positions = []

    class Keeping(Persister):
        def save(self, state, config, step, path):
            raise NotImplementedError

        def load(self, path, state_structure, config_structure):
            raise NotImplementedError

        def save_checkpoint(self, checkpoint, path):
            positions.append((checkpoint.step, checkpoint.data))

    class Shapes(DataProvider):
        number = 0

        def __next__(self):
            self.number += 1
            return np.zeros(1 + self.number % 2)

        def get_position(self):
            return self.number

    Loop(None, start(), count, Shapes(), persister=Keeping(), save_every=1, checkpoint_dir=tmp_path, **mode).run(6)
    assert positions == [(step, step) for step in range(1, 7)]


@EVERY_MODE
def test_by_the_clock(mode):
    seen = []
    loop = Loop(None, start(), count, None,
                callbacks=[(lambda loop, metrics: seen.append(metrics) or (len(seen) == 3 and loop.stop()),
                            Cadence(every_seconds=0.05))], **mode)  # fmt: skip
    loop.run(2**50)
    assert len(seen) == 3
    assert seen[-1] == {"n": loop.step}


@pytest.mark.parametrize(
    ("callback", "said"),
    [(3, "a callback is a function"), ((print, 0), "at least 1"), ((print, 2, 3), "a callback is a function")],
)
def test_what_is_no_callback_is_refused(callback, said):
    with pytest.raises(ArgumentError, match=said):
        Loop(None, start(), count, None, callbacks=[callback])


@EVERY_MODE
@pytest.mark.parametrize("data", ["none", "list", "function"])
def test_a_dry_run_leaves_everything_as_it_was(mode, data, recorder):
    class Silent(Telemetry):
        def log_params(self, params):
            raise AssertionError

        def log_metrics(self, metrics, step):
            raise AssertionError

    provider = {
        "none": None,
        "list": [np.int32(number) for number in range(9)],
        "function": FunctionDataProvider(lambda step: step),
    }[data]

    def add(state, config, batch):
        return state + (1 if batch is None else jnp.asarray(batch)), {"n": state}

    loop = Loop(None, start(), add, provider, Silent(), **mode)
    state = loop.state
    found = loop.dry_run()
    assert (loop.step, loop.state is state, recorder.metrics, recorder.states) == (0, True, [], [])
    assert found.state_bytes == 4
    assert set(found.metrics) == {"n"}
    assert (found.temporary_bytes is None) == (not mode)
    assert "a step" in str(found)
    loop.telemetry = None
    final = loop.run(5)
    assert int(final) == (5 if data == "none" else sum(range(5)))
    loop.dry_run()
    assert loop.state is final
    assert int(loop.run(2)) == (7 if data == "none" else sum(range(7)))


@EVERY_MODE
def test_a_dry_run_says_what_is_wrong(mode):
    with pytest.raises(MetricError, match="metric 'x'"):
        Loop(None, start(), lambda s, c, b: (s, {"x": jnp.zeros(3)}), None, **mode).dry_run()
    with pytest.raises(StepError, match="must return"):
        Loop(None, start(), lambda s, c, b: s, None, **mode).dry_run()


@EVERY_MODE
def test_a_metric_that_is_no_scalar_names_itself_in_every_mode(mode):
    loop = Loop(None, start(), lambda s, c, b: (s + 1, {"a": {"x": jnp.zeros(3)}}), None, **mode)
    with pytest.raises(MetricError, match=r"metric 'a.x' (of step 1 )?is float32 of shape \(3,\)") as caught:
        loop.run(3)
    assert "In step 1 of a researchlab Loop" in caught.value.__notes__[-1]
    assert (loop.step, int(loop.state)) == (0, 0)


def test_a_profile_is_written_for_its_window(tmp_path, recorder):
    files = []
    recorder.record_artifact = lambda path, folder: files.append((path, folder))
    loop = Loop(None, start(), count, None, jit=True)
    loop.run(10, profile=(3, 5), profile_dir=tmp_path / "profile")
    assert loop.step == 10
    assert any(path.name.endswith(".xplane.pb") for path, _ in files)
    assert {folder for _, folder in files} == {"profile"}


@pytest.mark.parametrize("window", [(5, 3), (1,), (1, 2, 3), 5, (-1, 3), ("a", "b"), (1.5, 2)])
def test_what_is_no_window_of_a_profile_is_refused(window):
    with pytest.raises(ArgumentError, match="profile"):
        Loop(None, start(), count, None).run(1, profile=window)


def test_a_window_that_the_run_does_not_come_to_is_warned_about(tmp_path):
    loop = Loop(None, start(), count, None)
    loop.run(5)
    with pytest.warns(ResearchlabWarning, match=r"nothing was profiled: .*\(2, 4\)"):
        loop.run(5, profile=(2, 4), profile_dir=tmp_path)


@EVERY_MODE
def test_without_a_terminal_progress_is_a_line(mode, monkeypatch):
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    Loop(None, start(), count, None, progress=["n"], **mode).run(25)
    (line,) = errors.getvalue().splitlines()
    assert re.search(r"25/25 .*step/s.*n=25", line)


def test_metrics_of_the_progress_are_names():
    with pytest.raises(ArgumentError, match=r"progress='loss'.*\['loss'\]"):
        Loop(None, start(), count, None, progress="loss")


TERMINAL = """
import jax.numpy as jnp, time
from researchlab.design import Loop
loop = Loop(None, jnp.int32(0), lambda s, c, b: (s + 1, {"n": s + 1}), None, jit=True, progress=True)
loop.run(2000)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_in_a_terminal_progress_is_a_bar():
    import fcntl
    import pty
    import struct
    import termios

    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", TERMINAL], stderr=other, stdout=subprocess.PIPE)
    os.close(other)
    said = b""
    while True:
        try:
            part = os.read(own, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        said += part
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 0
    assert b"2000/2000" in said
    assert b"n=2e+03" in said or b"n=2000" in said
    assert b"\r" in said


def test_a_loop_prints_nothing_by_itself(capfd):
    Loop(None, start(), count, None, scan_steps=10).run(100)
    assert capfd.readouterr() == ("", "")
