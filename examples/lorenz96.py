"""Integrate the Lorenz-96 model: 40 coupled variables, so chaotic that one wrong bit is all over the State soon after.

python examples/lorenz96.py
pytest --rlab-reproduce latest --rlab-experiment lorenz96
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp

from researchlab import ExperimentTracker
from researchlab.design import Config, FieldSelector, Loop, MLFlowTelemetry, State

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


def main() -> None:
    """Integrate from rest with one variable pushed a little, and say which run it was."""
    config = Lorenz96()
    rest = jnp.full(config.variables, config.forcing, dtype=jnp.float32)
    loop = Loop(config, Atmosphere(rest.at[0].add(0.01)), eqx.filter_jit(runge_kutta), None, MLFlowTelemetry())
    with ExperimentTracker("lorenz96") as tracker:
        tracker.log_config(config)
        loop.run(config.num_steps)
    print(f"{tracker.run_name}: {loop.step} steps, x[0] = {loop.state.x[0]}")


if __name__ == "__main__":
    main()
