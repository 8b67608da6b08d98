# ruff: noqa: ARG002 - the parts of a Loop take what it passes
"""What type checkers see of ``researchlab.design``. Checked by pyright (strict), never run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import equinox as eqx
import jax

from researchlab.design import (
    ArrayDataProvider,
    Cadence,
    Checkpoint,
    CheckpointPersister,
    Config,
    DataProvider,
    DryRun,
    EquinoxPersister,
    FieldSelector,
    FunctionDataProvider,
    GrainDataProvider,
    IterableDataProvider,
    Kernel,
    Loop,
    MatplotlibVisualizer,
    MLFlowTelemetry,
    OrbaxPersister,
    Persister,
    SelectedKernel,
    Selector,
    State,
    StepDataProvider,
    Telemetry,
    VideoVisualizer,
    Visualizer,
    flatten_config,
    flatten_pytree,
    unflatten_config,
    unflatten_pytree,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Walker(State):
    x: jax.Array
    name: str = eqx.field(static=True, default="walker")


class Settings(Config):
    lr: float = 0.1


class Numbers(DataProvider[Walker]):
    def __next__(self) -> float:
        return 1.0

    def get_batch(self, state: Walker) -> float:
        return float(state.x)


class Printing(Telemetry[Walker, Settings]):
    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None: ...

    def log_params(self, params: Mapping[str, Any]) -> None: ...


class Keeping(Persister[Walker, Settings]):
    def save(self, state: Walker, config: Settings, step: int, path: Path | str) -> None: ...

    def load(
        self, path: Path | str, state_structure: Walker, config_structure: Settings
    ) -> tuple[Walker, Settings, int]:
        return state_structure, config_structure, 0


class Drawing(Visualizer[Walker]):
    def _render_frame(self, state: Walker) -> str:
        return str(state.x)


class Stepwise(StepDataProvider[Walker]):
    def traced_batch(self, constants: Any, row: Any, state: Walker, step: jax.Array) -> jax.Array:
        return state.x + step


def draw(axes: Any, state: Walker) -> None:
    axes.plot(state.x)


def image(state: Walker) -> jax.Array:
    return state.x


def step(state: Walker, config: Settings, batch: float) -> tuple[Walker, dict[str, jax.Array]]:
    x = state.x + config.lr * batch
    return Walker(x), {"x": x}


def move(x: jax.Array, lr: float, batch: float) -> tuple[Walker, dict[str, jax.Array]]:
    return Walker(x + lr * batch), {}


def extract(state: Walker, config: Settings) -> tuple[tuple[jax.Array, float], dict[str, Any]]:
    return (state.x, config.lr), {}


state = Walker(jax.numpy.zeros(()))
config = Settings(lr=0.5)

kernel: Kernel[[jax.Array, float, float], tuple[Walker, dict[str, jax.Array]]] = move
by_path: FieldSelector[Walker, Settings] = FieldSelector(x="state.x", lr="config.lr")
selected = by_path(move)
assert_type(selected, SelectedKernel[Walker, Settings, tuple[Walker, dict[str, jax.Array]]])
assert_type(selected(state, config, 1.0), tuple[Walker, dict[str, jax.Array]])
assert_type(Selector(extract)(move)(state, config, 1.0), tuple[Walker, dict[str, jax.Array]])

loop = Loop(
    config,
    state,
    step,
    Numbers(),
    MLFlowTelemetry(),
    EquinoxPersister(),
    Drawing(),
    save_every=10,
    checkpoint_dir="checkpoints",
    render_every=10,
)
assert_type(loop, Loop[Walker, Settings])
assert_type(loop.run(3), Walker)
assert_type(loop.state, Walker)
assert_type(loop.config, Settings)
assert_type(loop.step, int)
Loop(config, state, selected, [1.0, 2.0], Printing(), Keeping())


def look(loop: Loop[Walker, Settings], metrics: Mapping[str, float]) -> None:
    loop.stop(f"{loop.step}: {metrics['x']}")


compiled = Loop(
    config,
    state,
    step,
    None,
    jit=True,
    scan_steps=100,
    replicas=4,
    replica_metrics="mean_std",
    on_nonfinite="stop",
    callbacks=[look, (look, 10), (look, Cadence(every_seconds=60, at=[1, 10], per_decade=3))],
    log_every=Cadence(every=10),
    progress=["x"],
)
assert_type(compiled.run(3, resume="auto", profile=(1, 2), profile_dir="profile"), Walker)
assert_type(compiled.dry_run(), DryRun)
assert_type(compiled.dry_run().step_seconds, float)
compiled.config = config
Loop(config, state, step, None, on_nonfinite="warn")  # pyright: ignore[reportArgumentType]
Loop(config, state, step, None)

arrays: DataProvider[Walker] = ArrayDataProvider(
    {"x": jax.numpy.zeros(8)}, 4, key=jax.random.key(0), shuffle=True, epochs=2
)
Loop(config, state, step, arrays, visualizer=VideoVisualizer("out.mp4", 30, frame=image))
Loop(config, state, step, FunctionDataProvider(image), visualizer=MatplotlibVisualizer(draw, record=True, path="a.gif"))
Loop(config, state, step, IterableDataProvider([1.0], prefetch=2, to_device=True))
Loop(config, state, step, GrainDataProvider(object(), prefetch=2))
Loop(config, state, step, Stepwise())
assert_type(Stepwise().step, int)
assert_type(Stepwise().num_batches, int | None)
arrays.seek(3)
arrays.set_position(arrays.get_position())
arrays.close()
finished: Sequence[Path] = Drawing().finish_recording()

telemetry = MLFlowTelemetry()
persister = EquinoxPersister()
Loop(config, state, step, None, telemetry, persister)
typed: Telemetry[Walker, Settings] = MLFlowTelemetry[Walker, Settings]()
background: Telemetry[Walker, Settings] | None = typed.in_background()
assert_type(persister.load("a.eqx", state, config), tuple[Any, Any, int])
assert_type(EquinoxPersister[Walker, Settings]().load("a.eqx", state, config), tuple[Walker, Settings, int])

checkpoint = Checkpoint(state, config, 3, {"at": 1})
assert_type(checkpoint, Checkpoint[Walker, Settings])
own: Persister[Walker, Settings] = CheckpointPersister[Walker, Settings](keep_last=3, keep_every=10, background=False)
own.save_checkpoint(checkpoint, "step-0000000003")
assert_type(own.load_checkpoint("step-0000000003", checkpoint), Checkpoint[Walker, Settings])
assert_type(own.checkpoints("."), list[tuple[int, Path]])
assert_type(own.suffix, str)
Keeping().wait()
Loop(config, state, step, None, None, OrbaxPersister(keep_last=2))

assert_type(flatten_config(config), dict[str, Any])
assert_type(unflatten_config({"lr": 0.5}, Settings), Settings)
assert_type(flatten_pytree(state), dict[str, Any])
assert_type(unflatten_pytree({}, state), Walker)
assert_type(config.model_copy(update={"lr": 1.0}), Settings)

State()  # refused when it runs; a type checker cannot know
Walker(x=3)  # pyright: ignore[reportArgumentType]
Loop(config, state, move, None)  # pyright: ignore[reportArgumentType]
Loop(3, state, step, None)  # pyright: ignore[reportArgumentType]
DataProvider()  # pyright: ignore[reportAbstractUsage]
