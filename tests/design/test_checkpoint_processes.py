"""Checkpoints of processes that are killed, end early, or fork."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from researchlab.design import CheckpointPersister

KILLS = int(os.environ.get("RLAB_KILLS", "3"))
SAVING = """
import itertools, sys
import numpy as np
from researchlab.design import CheckpointPersister

folder, background = sys.argv[1], sys.argv[2] == "background"
persister = CheckpointPersister(keep_last=2, background=background)
first = max([step for step, _ in persister.checkpoints(folder)], default=0)
for step in itertools.count(first + 1):
    state = {"x": np.full(5000, step), "step": step}
    persister.save(state, None, step, f"{folder}/step-{step:010d}")
    persister.save(state, None, step, f"{folder}/best")
    if step == first + 2:
        print("started", flush=True)
"""


def started(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["background", "foreground"])
def test_a_killed_process_leaves_a_whole_newest_checkpoint(tmp_path, mode):
    like = {"x": np.zeros(5000, np.int64), "step": 0}
    reader = CheckpointPersister()
    newest = 0
    for _ in range(KILLS):
        with started(SAVING, tmp_path, mode) as process:
            assert process.stdout.readline() == "started\n", process.stderr.read()
            time.sleep(random.uniform(0, 0.1))
            process.kill()
        found = reader.checkpoints(tmp_path)
        assert found[0][0] > newest
        newest = found[0][0]
        for step, path in found:
            state, _, stored = reader.load(path, like, None)
            assert stored == state["step"] == step
            assert (state["x"] == step).all()
        best = reader.load(tmp_path / "best", like, None)
        assert newest - 1 <= best[2] == best[0]["step"] <= newest + 1
        assert len(found) <= 3
        # The leftovers of one kill, at most: those of the one before are gone.
        assert len([entry for entry in tmp_path.iterdir() if entry.name.startswith(".unfinished")]) <= 2


ENDING = """
import sys
import numpy as np
from researchlab.design import CheckpointPersister
from researchlab.design._checkpoints import _checkpoint_persister

real = _checkpoint_persister.commit
def slow(*arguments):
    import time
    time.sleep(0.5)
    real(*arguments)
_checkpoint_persister.commit = slow
persister = CheckpointPersister()
for step in (1, 2):
    persister.save({"x": np.arange(3)}, None, step, f"{sys.argv[1]}/step-{step}")
del persister
raise SystemExit(3)
"""


def test_what_is_queued_is_written_before_the_process_ends(tmp_path):
    with started(ENDING, tmp_path) as process:
        assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 3
    assert [step for step, _ in CheckpointPersister().checkpoints(tmp_path)] == [2, 1]


def test_an_error_that_nobody_asked_for_is_told_at_the_end(tmp_path):
    (tmp_path / "step-2").touch()
    with started(ENDING, tmp_path) as process:
        errors = process.communicate(timeout=120)[1]
    assert "ResearchlabWarning: a checkpoint was not written" in errors
    assert str(tmp_path / "step-2") in errors


FORKING = """
import os, signal, sys, threading, warnings
import numpy as np
from researchlab.design import CheckpointPersister
from researchlab.design._checkpoints import _checkpoint_persister

warnings.simplefilter("ignore")
go, real = threading.Event(), _checkpoint_persister.commit
def held(*arguments):
    go.wait(60)
    real(*arguments)
_checkpoint_persister.commit = held
persister = CheckpointPersister()
for step in (1, 2):
    persister.save({"x": np.arange(3)}, None, step, f"{sys.argv[1]}/step-{step}")
child = os.fork()
if not child:
    signal.alarm(20)
    persister.wait()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go.set()
"""


def test_a_forked_child_does_not_wait_for_the_thread_of_its_parent(tmp_path):
    with started(FORKING, tmp_path) as process:
        assert process.communicate(timeout=120)[0] == "7\n"
    assert [step for step, _ in CheckpointPersister().checkpoints(tmp_path)] == [2, 1]


def test_two_persisters_write_the_same_checkpoint(tmp_path):
    one, two = CheckpointPersister(keep_last=5), CheckpointPersister(keep_last=5)
    for step in range(1, 9):
        for persister in (one, two):
            persister.save({"x": jnp.full(100, step)}, None, step, tmp_path / f"step-{step}")
    one.wait()
    two.wait()
    found = one.checkpoints(tmp_path)
    assert [step for step, _ in found] == [8, 7, 6, 5, 4]
    for step, path in found:
        assert one.load(path, {"x": jnp.zeros(100, int)}, None)[0]["x"].tolist() == [step] * 100
    assert len(list(tmp_path.iterdir())) == 5
