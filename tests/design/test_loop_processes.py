"""Two processes on one State: they agree on where to stop, write one checkpoint, and come to one process's bits."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, signal, sys, time
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from researchlab.design import Cadence, Config, Loop, OrbaxPersister, State

rank, count, port, folder = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5]
steps, mode = int(sys.argv[5]), json.loads(sys.argv[6])
jax.config.update("jax_num_cpu_devices", 2 // count)
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=count, process_id=rank)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

class Field(State):
    x: jax.Array

def step(state, config, batch):
    mean = state.x.mean()
    x = state.x + jnp.float32(0.1) * (jnp.sin(state.x) - mean)
    return Field(x), {"mean": mean}

mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec("x"))
start = np.linspace(0, 1, 64, dtype=np.float32)
state = Field(jax.make_array_from_callback(start.shape, sharding, lambda part: start[part]))
seen = []

def look(loop, metrics):
    seen.append([loop.step, float(metrics["mean"]).hex()])
    if loop.step == 20:
        print("at 20", flush=True)

loop = Loop(
    None, state, step, None, persister=OrbaxPersister(), checkpoint_dir=folder,
    save_every=Cadence(every=1000, every_seconds=3600), callbacks=[(look, 10)], **mode,
)
try:
    loop.run(steps, resume="auto")
finally:
    shards = {str(shard.index): np.asarray(shard.data).tobytes().hex() for shard in loop.state.x.addressable_shards}
    spec = str(loop.state.x.sharding.spec)
    print(json.dumps({"step": loop.step, "shards": shards, "spec": spec, "seen": seen}), flush=True)
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def started(count, folder, steps, mode):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_NUM_CPU")}
    shared = [str(free_port()), str(folder), str(steps), json.dumps(mode)]
    # SIGTERM alone does not end a process that waits for another one.
    command = ["timeout", "--foreground", "-k", "5", "150", sys.executable, "-c", PROGRAM]
    return [
        subprocess.Popen(
            [*command, str(rank), str(count), *shared],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(count)
    ]


def results(processes):
    outputs = [process.communicate(timeout=160) for process in processes]
    lines = [[line for line in output.splitlines() if line.startswith("{")] for output, _ in outputs]
    assert all(lines), [error[-2000:] for _, error in outputs]
    found = [json.loads(own[-1]) for own in lines]
    for one in found:
        assert one["step"] == found[0]["step"]
        assert one["seen"] == found[0]["seen"]
        assert "x" in one["spec"]
    return found[0]["step"], {index: bits for one in found for index, bits in one["shards"].items()}, found[0]["seen"]


def test_two_processes_come_to_the_bits_of_one_with_two_devices(tmp_path):
    mode = {"scan_steps": 7}
    one = results(started(1, tmp_path / "one", 60, mode))
    two = results(started(2, tmp_path / "two", 60, mode))
    assert one == two
    assert one[0] == 60


def test_all_stop_when_one_is_told_to_and_go_on_together(tmp_path):
    straight = results(started(2, tmp_path / "straight", 300, {"jit": True}))
    folder = tmp_path / "stopped"
    processes = started(2, folder, 1_000_000, {"jit": True})
    for process in processes:
        while "at 20" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
    python = int(subprocess.check_output(["pgrep", "-P", str(processes[1].pid)]).split()[0])
    os.kill(python, signal.SIGTERM)
    began = time.monotonic()
    step, _, _ = results(processes)
    assert [process.returncode for process in processes] == [143, 143]  # all end as told
    assert time.monotonic() - began < 60
    assert 20 <= step < 1_000_000
    saved = [path.name for path in folder.iterdir() if path.name.startswith("step-")]
    assert f"step-{step:010d}" in saved
    if step < 300:
        resumed = results(started(2, folder, 300, {"jit": True}))
        assert resumed[:2] == straight[:2]
