"""What does a Loop cost, against what one would write by hand?

python benchmarks/loop.py            # all rows
python benchmarks/loop.py jit scan   # some of them

Each row runs ours and its peer in turn, many times, and prints the ratio of the fastest times and of the medians.
"""

from __future__ import annotations

import functools as ft
import random
import re
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from researchlab.design import Config, Loop, MLFlowTelemetry, State

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 12


class Nothing(Config):
    """No hyperparameters."""


class Ten(State):
    """Ten numbers: float32[10]."""

    x: jax.Array


class Network(State):
    """An MLP and its optimiser."""

    model: eqx.nn.MLP
    opt_state: optax.OptState


OPTIMISER = optax.adam(1e-3)
IMAGES = jr.normal(jr.key(1), (64, 32))
TARGETS = jr.normal(jr.key(2), (64, 10))


def ten_step(state: Ten, config: Nothing, batch: None) -> tuple[Ten, dict[str, jax.Array]]:
    """Update ten numbers."""
    del config, batch
    x = state.x * 0.99 + 0.01
    return Ten(x), {"mean": x.mean()}


def network_step(state: Network, config: Nothing, batch: None) -> tuple[Network, dict[str, jax.Array]]:
    """Take a step of Adam on 64 rows; gives ten metrics."""
    del config, batch

    def loss(model: eqx.nn.MLP) -> jax.Array:
        return ((jax.vmap(model)(IMAGES) - TARGETS) ** 2).mean()

    value, gradient = eqx.filter_value_and_grad(loss)(state.model)
    updates, opt_state = OPTIMISER.update(gradient, state.opt_state)
    metrics = {f"loss/{index}": value * (index + 1) for index in range(10)}
    return Network(eqx.apply_updates(state.model, updates), opt_state), metrics


def network() -> Network:
    """Return the initial State."""
    model = eqx.nn.MLP(32, 10, 64, 2, key=jr.key(0))
    return Network(model, OPTIMISER.init(eqx.filter(model, eqx.is_inexact_array)))


def ten() -> Ten:
    """Return the initial State."""
    return Ten(jnp.arange(10, dtype=jnp.float32))


def race(name: str, steps: int, runs: dict[str, Callable[[int], object]], *, rounds: int = ROUNDS) -> None:
    """Run each in turn, and print the ratios against the first one.

    Args:
        name: of the row.
        steps: how many each run takes.
        runs: name to a function that takes so many steps and returns when they are done.
        rounds: how often each runs.
    """
    times: dict[str, list[float]] = {key: [] for key in runs}
    for run in runs.values():
        run(steps)
    for _ in range(rounds):
        for key in random.sample(list(runs), len(runs)):
            began = time.perf_counter()
            runs[key](steps)
            times[key].append((time.perf_counter() - began) / steps * 1e6)
    peer = times[next(iter(runs))]
    print(name)
    for key, own in times.items():
        ratios = f"{min(own) / min(peer):8.2f}x {statistics.median(own) / statistics.median(peer):8.2f}x"
        print(f"    {key:44} {min(own):10.3f} {statistics.median(own):10.3f} us a step {ratios}")


def looped(state: Any, step: Callable[..., Any], **options: Any) -> Callable[[int], object]:
    """Return a function that runs one Loop on."""
    loop: Loop[Any, Nothing] = Loop(Nothing(), state, step, None, **options)

    def run(steps: int) -> object:
        return jax.block_until_ready(jax.tree.leaves(eqx.filter(loop.run(steps), eqx.is_array)))

    return run


def by_hand(state: Any, step: Callable[..., Any]) -> Callable[[int], object]:
    """Return a hand-written loop over a jitted step whose State is donated."""
    arrays, static = eqx.partition(state, eqx.is_array)

    @ft.partial(jax.jit, donate_argnums=0)
    def jitted(arrays: Any) -> Any:
        after, metrics = step(eqx.combine(arrays, static), None, None)
        return eqx.filter(after, eqx.is_array), metrics

    def run(steps: int) -> object:
        current = jax.tree.map(jnp.copy, arrays)
        for _ in range(steps):
            current, _metrics = jitted(current)
        return jax.block_until_ready(current)

    return run


def scan_by_hand(state: Any, step: Callable[..., Any], length: int) -> Callable[[int], object]:
    """Return a hand-written loop over compiled scans."""
    arrays, static = eqx.partition(state, eqx.is_array)

    @ft.partial(jax.jit, donate_argnums=0)
    def chunk(arrays: Any) -> Any:
        def one(arrays: Any, _: None) -> Any:
            after, metrics = step(eqx.combine(arrays, static), None, None)
            return eqx.filter(after, eqx.is_array), metrics

        return jax.lax.scan(one, arrays, None, length=length)

    def run(steps: int) -> object:
        current = jax.tree.map(jnp.copy, arrays)
        for _ in range(steps // length):
            current, _metrics = chunk(current)
        return jax.block_until_ready(current)

    return run


def filtered(state: Any, step: Callable[..., Any]) -> Callable[[int], object]:
    """Return a hand-written loop over ``eqx.filter_jit``."""
    jitted = eqx.filter_jit(step)

    def run(steps: int) -> object:
        current = state
        for _ in range(steps):
            current, _metrics = jitted(current, None, None)
        return jax.block_until_ready(jax.tree.leaves(eqx.filter(current, eqx.is_array)))

    return run


def jit() -> None:
    """Loop(jit=True) against a hand-written jitted loop: budget 1.15x."""
    race(
        "Loop(jit=True), ten floats (budget 1.15x)",
        100_000,
        {
            "hand-written jitted loop": by_hand(ten(), ten_step),
            "Loop(jit=True)": looped(ten(), ten_step, jit=True),
            "eqx.filter_jit": filtered(ten(), ten_step),
        },
    )
    race(
        "Loop(jit=True), MLP and Adam, batch 64",
        5_000,
        {
            "hand-written jitted loop": by_hand(network(), network_step),
            "Loop(jit=True)": looped(network(), network_step, jit=True),
            "eqx.filter_jit": filtered(network(), network_step),
        },
    )


def scan() -> None:
    """Loop(scan_steps=100) against hand-written scans in chunks of 100: budget 1.05x."""
    race(
        "Loop(scan_steps=100), ten floats (budget 1.05x)",
        1_000_000,
        {
            "hand-written lax.scan, chunks of 100": scan_by_hand(ten(), ten_step, 100),
            "Loop(scan_steps=100)": looped(ten(), ten_step, scan_steps=100),
        },
    )
    race(
        "Loop(scan_steps=100), MLP and Adam, batch 64",
        10_000,
        {
            "hand-written lax.scan, chunks of 100": scan_by_hand(network(), network_step, 100),
            "Loop(scan_steps=100)": looped(network(), network_step, scan_steps=100),
        },
    )


def telemetry() -> None:
    """MLFlowTelemetry with ten metrics a step against the same Loop without: budget 1.10x."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{Path(folder) / 'mlflow.db'}")
        mlflow.create_experiment("loop", artifact_location=(Path(folder) / "artifacts").as_uri())
        mlflow.set_experiment("loop")
        steps = 40_000

        def tracked(options: dict[str, Any]) -> Callable[[int], object]:
            run = looped(network(), network_step, telemetry=MLFlowTelemetry(), **options)

            def within(count: int) -> object:
                with mlflow.start_run():
                    return run(count)

            return within

        def by_mlflow(count: int) -> object:
            run = filtered(network(), network_step)
            with mlflow.start_run():
                for step in range(count):
                    run(1)
                    mlflow.log_metrics({f"loss/{index}": float(index) for index in range(10)}, step=step)
            return None

        race(
            "MLFlowTelemetry, sqlite, ten metrics a step (budget 1.10x)",
            steps,
            {
                "Loop(jit=True) without telemetry": looped(network(), network_step, jit=True),
                "Loop(jit=True) with MLFlowTelemetry": tracked({"jit": True}),
            },
            rounds=5,
        )
        race(
            "MLflow's own mlflow.log_metrics in each step",
            100,
            {"eqx.filter_jit, mlflow.log_metrics": by_mlflow},
            rounds=2,
        )


def readme() -> None:
    """The example of the README, as it stands there, against its step in a hand-written loop: budget 1.15x."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Loop(" in block)
    names: dict[str, Any] = {}
    exec(code.partition("with ExperimentTracker")[0], names)  # noqa: S102 - our own page
    state, config = names["start"], names["config"]

    def step(state: Any, config_: Any, batch: None) -> Any:
        del config_
        return names["step"](state, config, batch)

    race(
        "The README's example, Loop(jit=True) (budget 1.15x)",
        100_000,
        {
            "hand-written jitted loop": by_hand(state, step),
            "Loop(jit=True)": looped(state, step, jit=True),
        },
    )


def memory() -> None:
    """A run of a million steps with ten metrics a step in its trace: its memory stays flat."""
    from researchlab import ExperimentTracker

    def step(state: Ten, config: Nothing, batch: None) -> tuple[Ten, dict[str, jax.Array]]:
        after, metrics = ten_step(state, config, batch)
        return after, {f"mean/{index}": metrics["mean"] for index in range(10)}

    print("A tracked run of a million steps with ten metrics a step, Loop(scan_steps=100): resident memory")
    with tempfile.TemporaryDirectory() as folder:
        with ExperimentTracker("loop", tracking_uri=f"sqlite:///{Path(folder) / 'mlflow.db'}"):
            loop: Loop[Ten, Nothing] = Loop(Nothing(), ten(), step, None, scan_steps=100)
            began = time.perf_counter()
            for done in range(100_000, 1_000_001, 100_000):
                loop.run(100_000)
                if done in {100_000, 200_000, 500_000, 1_000_000}:
                    print(f"    after {done:>9,} steps  {resident() / 2**20:8.1f} MiB")
            seconds = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).rglob("metrics*"))
        rates = f"{1e6 / seconds:,.0f} steps a second, {1e7 / seconds:,.0f} values"
        print(f"    {rates}; the trace has {size / 2**20:.0f} MiB")


def resident() -> int:
    """Return how many bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


ROWS: dict[str, Callable[[], None]] = {
    "jit": jit,
    "scan": scan,
    "readme": readme,
    "telemetry": telemetry,
    "memory": memory,
}


def main() -> None:
    """Run the rows that were asked for."""
    for name in sys.argv[1:] or ROWS:
        ROWS[name]()


if __name__ == "__main__":
    main()
