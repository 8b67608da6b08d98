"""Coupled oscillators (the Kuramoto model) spread over two processes that work on one State, as on a cluster.

python examples/sharded.py
pytest --rlab-reproduce latest --rlab-experiment sharded

The first process starts the second one, shares each step's sums with it, and alone records the run.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from researchlab import ExperimentTracker
from researchlab.design import Config, Loop, MLFlowTelemetry, State

PROCESSES = 2


class Kuramoto(Config):
    """The model; time is in seconds, frequencies in radians a second."""

    oscillators: int = 4096
    coupling: float = 2.5
    spread: float = 1.0
    dt: float = 0.01
    seed: int = 0
    num_steps: int = 500


class Oscillators(State):
    """Phases and natural frequencies, float32[oscillators], a part of them on each device."""

    phase: Array
    frequency: Array


def step(state: Oscillators, config: Kuramoto, batch: None) -> tuple[Oscillators, dict[str, Array]]:
    """Take one Euler step; the mean field is a sum over all devices."""
    del batch
    real, imaginary = jnp.cos(state.phase).mean(), jnp.sin(state.phase).mean()
    pull = imaginary * jnp.cos(state.phase) - real * jnp.sin(state.phase)
    phase = state.phase + config.dt * (state.frequency + config.coupling * pull)
    return Oscillators(phase, state.frequency), {"order": jnp.hypot(real, imaginary)}


def initial_state(config: Kuramoto) -> Oscillators:
    """Spread random phases over all devices of all processes."""
    mesh = jax.make_mesh((jax.device_count(),), ("oscillator",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("oscillator"))
    rng = np.random.default_rng(config.seed)
    phase = rng.uniform(-np.pi, np.pi, config.oscillators).astype(np.float32)
    frequency = rng.normal(0, config.spread, config.oscillators).astype(np.float32)

    def spread(values: np.ndarray) -> Array:
        return jax.make_array_from_callback(values.shape, sharding, lambda part: values[part])

    return Oscillators(spread(phase), spread(frequency))


def simulate(config: Kuramoto) -> Loop[Oscillators, Kuramoto]:
    """Run the Loop, which every process has to do."""
    loop = Loop(config, initial_state(config), step, None, MLFlowTelemetry(), jit=True)
    loop.run(config.num_steps)
    return loop


def main() -> None:
    """Start the other process, join it, and track the run in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--join", metavar="ADDRESS", help="be the second process of the one that waits at ADDRESS")
    address = parser.parse_args().join
    if address is not None:
        jax.distributed.initialize(address, num_processes=PROCESSES, process_id=1)
        simulate(Kuramoto())
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with ExperimentTracker("sharded") as tracker:
        config = Kuramoto()
        tracker.log_config(config)
        with subprocess.Popen([sys.executable, __file__, "--join", address]) as other:
            jax.distributed.initialize(address, num_processes=PROCESSES, process_id=0)
            loop = simulate(config)
            jax.distributed.shutdown()
    print(f"{tracker.run_name}: {loop.step} steps on {PROCESSES} processes; the other one returned {other.returncode}")


if __name__ == "__main__":
    main()
