"""Does a Loop that is told to stop finish its step, and leave all that it has computed?"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")]

MODES = {"as given": {}, "jit": {"jit": True}, "scan": {"scan_steps": 10_000_000}}
EVERY_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
PROGRAM = """
import json, sys, time, pathlib
import jax, jax.numpy as jnp
from researchlab import _recording
from researchlab.design import Loop
folder = pathlib.Path(sys.argv[1])
class Recorder:
    def __init__(self):
        self.steps, self.states = [], []
    def record_metrics(self, metrics, step):
        self.steps.append((step, int(metrics["n"])))
    def record_state(self, state, step, *, source):
        self.states.append(int(state["n"]))
recorder = Recorder()
_recording.push(recorder)
def step(state, config, batch):
    x = state["x"]
    return {{"n": state["n"] + 1, "x": jnp.sin(x)}}, {{"n": state["n"] + 1}}
loop = Loop(None, {{"n": jnp.int32(0), "x": jnp.ones(10)}}, step if {mode} else jax.jit(step), {data},
            checkpoint_dir=folder / "c", callbacks=[(lambda loop, metrics: (folder / "begun").touch(), 1000)], **{mode})
def tell(how):
    found = [how, loop.step, int(loop.state["n"]), recorder.steps[-1:], len(recorder.steps), recorder.states]
    (folder / "end.json").write_text(json.dumps(found))
try:
    loop.run(2**60)
except KeyboardInterrupt:
    tell("KeyboardInterrupt")
    sys.exit(130)
except SystemExit:
    tell("SystemExit")
    raise
"""


def started(tmp_path, program, *, begun="begun"):
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / begun).exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def newest(folder):
    return max(folder.glob("step-*/manifest.json")).parent.name


@EVERY_MODE
@pytest.mark.parametrize("data", ["None", "iter(lambda: 1.0, None)"], ids=["no data", "data"])
def test_ctrl_c_ends_the_step_and_leaves_a_checkpoint(mode, data, tmp_path):
    if mode.get("scan_steps") and data != "None":
        mode = {"scan_steps": 1000}
    process = started(tmp_path, PROGRAM.format(mode=mode, data=data))
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130, errors
    how, step, counted, last, recorded, states = json.loads((tmp_path / "end.json").read_text())
    assert how == "KeyboardInterrupt"
    assert counted == step == recorded
    assert last == [[step, step]]
    assert states == [step]
    assert newest(tmp_path / "c") == f"step-{step:010d}"


@EVERY_MODE
def test_sigterm_ends_the_process_as_it_would_have_behind_a_checkpoint(mode, tmp_path):
    process = started(tmp_path, PROGRAM.format(mode=mode, data=None))
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGTERM, errors
    assert int(newest(tmp_path / "c")[5:]) >= 1000


TRACKED = """
import sys, pathlib
import jax.numpy as jnp
from researchlab.design import Loop, MLFlowTelemetry
from researchlab.tracking import ExperimentTracker
folder = pathlib.Path(sys.argv[1])
uri = f"sqlite:///{{folder / 'mlflow.db'}}"
def step(state, config, batch):
    return state + 1, {{"n": state}}
loop = Loop(None, jnp.int32(0), step, None, MLFlowTelemetry(), checkpoint_dir=folder / "c", log_every=1000,
            callbacks=[(lambda loop, metrics: (folder / "begun").touch(), 2000)], scan_steps=1000)
with ExperimentTracker("signals", tracking_uri=uri):
    loop.run(2**60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_tracked_run_ends_killed_with_its_metrics_and_a_checkpoint(number, tmp_path, monkeypatch, migrated_database):
    from mlflow import MlflowClient

    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("*\n")
    subprocess.run(["git", "-C", str(tmp_path), "add", "-f", ".gitignore"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "commit", "-qm", "start"], check=True)
    monkeypatch.chdir(tmp_path)
    process = started(tmp_path, TRACKED.format())
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode in (-number, 128 + number), errors
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("signals")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"
    step = int(newest(tmp_path / "c")[5:])
    history = client.get_metric_history(run.info.run_id, "n")
    assert max(point.step for point in history) == step // 1000 * 1000


STUCK = """
import pathlib, sys, time
import jax.numpy as jnp
from researchlab.design import Loop
folder = pathlib.Path(sys.argv[1])
def data():
    for _ in range(5):
        yield 1.0
    (folder / "begun").touch()
    time.sleep(1000)
loop = Loop(None, jnp.zeros(()), lambda s, c, b: (s + b, {{}}), data(), checkpoint_dir=folder / "c", **{mode})
try:
    loop.run(100)
except KeyboardInterrupt:
    (folder / "end").write_text(f"{{loop.step}} {{float(loop.state)}}")
"""


@pytest.mark.parametrize("mode", [{}, {"jit": True}, {"scan_steps": 7}], ids=["as given", "jit", "scan 7"])
def test_a_second_ctrl_c_stops_at_once(mode, tmp_path):
    process = started(tmp_path, STUCK.format(mode=mode))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=20)[1]
    step, state = (tmp_path / "end").read_text().split()
    assert float(step) == float(state), errors
    assert process.returncode == 0


SLOWER = """
import pathlib, sys, time
import jax.numpy as jnp
from researchlab.design import Loop
folder = pathlib.Path(sys.argv[1])
def data():
    for number in range(10**6):
        if number == 3000:
            (folder / "begun").touch()
        if number >= 3000:
            time.sleep(0.2)
        yield 1.0
loop = Loop(None, jnp.zeros(()), lambda s, c, b: (s + b, {{}}), data(), **{mode})
try:
    loop.run(10**6)
except KeyboardInterrupt:
    (folder / "end").write_text(f"{{loop.step}} {{float(loop.state)}}")
"""


@pytest.mark.parametrize("mode", [{}, {"jit": True}, {"scan_steps": 7}], ids=["as given", "jit", "scan 7"])
def test_a_loop_that_has_become_slow_looks_up_too(mode, tmp_path):
    """Its data were fast at first, so that thousands of steps seemed to fit between two looks at the signals."""
    process = started(tmp_path, SLOWER.format(mode=mode))
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=10)[1]
    step, state = (tmp_path / "end").read_text().split()
    assert float(step) == float(state), errors
