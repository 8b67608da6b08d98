"""Is there a whole checkpoint at whatever moment a run is killed, and does the run go on from it bit for bit?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# One process that has imported all there is to import, and forks: a hundred starts of an interpreter take minutes.
KILLER = """
import os, pathlib, random, signal, sys, time, warnings
warnings.filterwarnings("error", module="researchlab")
warnings.filterwarnings("ignore", message="os.fork")
import jax, numpy as np
from researchlab.design import CheckpointPersister, Loop
from researchlab.errors import ResearchlabWarning
warnings.simplefilter("error", ResearchlabWarning)
folder = pathlib.Path(sys.argv[1])

def data():
    number = 1
    while True:
        yield np.uint32(number)
        number = number * 1103515245 % 2**31

def step(state, config, batch):
    words = state["words"] * np.uint32(1664525) + batch
    return {"words": np.roll(words, 1), "steps": state["steps"] + 1}, {}

def run(folder, steps, begun=None):
    state = {"words": np.arange(2**14, dtype=np.uint32), "steps": 0}
    loop = Loop(None, state, step, data(), persister=CheckpointPersister(keep_last=2), save_every=1,
                checkpoint_dir=folder, callbacks=[] if begun is None else [(lambda loop, metrics: begun(), 1)])
    return loop.run(steps, resume="auto")

def in_child(work):
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, os.fdopen(read, "rb")
    try:
        os.close(read)
        work(write)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def killed(write):
    calls = []
    def begun():
        calls.append(None)
        if len(calls) == 4:  # the third checkpoint waits until the first one is written
            os.write(write, b".")
    run(folder / "killed", 10**9, begun=begun)

random.seed(int(sys.argv[2]))
kills = reached = 0
while kills < int(sys.argv[3]):
    child, pipe = in_child(killed)
    assert pipe.read(1) == b".", "the run did not go on"
    time.sleep(random.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    pipe.close()
    kills += 1
    newest = CheckpointPersister().checkpoints(folder / "killed")
    if newest:
        assert newest[0][0] >= reached
        reached = newest[0][0]

def report(where, steps):
    def work(write):
        state = run(where, steps)
        assert state["steps"] == steps
        (where / "words").write_bytes(state["words"].tobytes())
    return work

for where in ("killed", "straight"):
    child, pipe = in_child(report(folder / where, reached + 5))
    assert os.waitpid(child, 0)[1] == 0
assert (folder / "killed" / "words").read_bytes() == (folder / "straight" / "words").read_bytes()
print(reached)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_there_is_a_whole_checkpoint_at_whatever_moment_a_run_is_killed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), "1", "100"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100  # it went on, kill by kill
