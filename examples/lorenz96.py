"""Integrate the Lorenz-96 model: 40 coupled variables, so chaotic that one wrong bit is all over the State soon after.

python examples/lorenz96.py
python examples/lorenz96.py --scan 500 --video out.mp4   # 500 steps at a time on the device; needs researchlab[video]
pytest --rlab-reproduce latest --rlab-experiment lorenz96
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import jax.numpy as jnp

from researchlab import ExperimentTracker
from researchlab.design import Config, FieldSelector, Loop, MLFlowTelemetry, State, VideoVisualizer

if TYPE_CHECKING:
    from jax import Array


class Lorenz96(Config):
    """The model and how it is integrated; time is in the model's own unit (about five days of weather)."""

    variables: int = 40
    forcing: float = 8.0
    dt: float = 0.01
    num_steps: int = 10_000


class Atmosphere(State):
    """One value a longitude: float32[variables]."""

    x: Array


def tendency(x: Array, forcing: float) -> Array:
    """Return dx/dt: advection, damping, and a constant forcing."""
    return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + forcing


@FieldSelector(x="state.x", forcing="config.forcing", dt="config.dt")
def runge_kutta(x: Array, forcing: float, dt: float, batch: None = None) -> tuple[Atmosphere, dict[str, Array]]:
    """Take one step of the classical fourth-order method; there is no data, so ``batch`` is None."""
    del batch
    k1 = tendency(x, forcing)
    k2 = tendency(x + dt / 2 * k1, forcing)
    k3 = tendency(x + dt / 2 * k2, forcing)
    k4 = tendency(x + dt * k3, forcing)
    x = x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return Atmosphere(x), {"energy": (x**2).mean() / 2}


def picture(state: Atmosphere) -> Array:
    """Return a frame, float32[240, 320]: the variables around a circle of latitude, from left to right."""
    levels = jnp.linspace(15, -10, 240)[:, None]
    return (levels < jnp.repeat(state.x, 320 // len(state.x))).astype(jnp.float32)


def main() -> None:
    """Integrate from rest with one variable pushed a little, and say which run it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=int, metavar="K", help="take K steps at a time on the device")
    parser.add_argument("--video", metavar="FILE", help="film every 50th step")
    asked = parser.parse_args()
    config = Lorenz96()
    loop = Loop(
        config,
        Atmosphere(jnp.full(config.variables, config.forcing, dtype=jnp.float32).at[0].add(0.01)),
        runge_kutta,
        None,
        MLFlowTelemetry(),
        visualizer=VideoVisualizer(asked.video, fps=25, frame=picture) if asked.video else None,
        render_every=50 if asked.video else None,
        jit=True,
        scan_steps=asked.scan,
    )
    with ExperimentTracker("lorenz96") as tracker:
        tracker.log_config(config)
        loop.run(config.num_steps)
    print(f"{tracker.run_name}: {loop.step} steps, x[0] = {loop.state.x[0]}")


if __name__ == "__main__":
    main()
