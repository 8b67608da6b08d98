"""Train a small network on handwritten digits, tracked so that it can be run again and compared bit for bit.

python examples/digits.py
python examples/digits.py --resume   # with checkpoints: stop it (Ctrl-C) and start it again, it comes to the same bits
pytest --rlab-reproduce latest --rlab-experiment digits
"""

from __future__ import annotations

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from sklearn.datasets import load_digits

from researchlab import ExperimentTracker
from researchlab.design import ArrayDataProvider, CheckpointPersister, Config, Loop, MLFlowTelemetry, State


class Digits(Config):
    """The hyperparameters: immutable, and validated when they are made."""

    seed: int = 0
    width: int = 64
    depth: int = 2
    learning_rate: float = 1e-3
    batch_size: int = 64
    num_steps: int = 300


class Training(State):
    """All that a step changes."""

    model: eqx.nn.MLP
    opt_state: optax.OptState


def batches(config: Digits) -> ArrayDataProvider[Training]:
    """Endless batches of images (float32[batch, 64], 0 to 1) and labels (int32[batch]), shuffled anew each epoch."""
    images, labels = load_digits(return_X_y=True)
    arrays = ((images / 16.0).astype("float32"), labels.astype("int32"))
    return ArrayDataProvider(arrays, config.batch_size, key=jr.key(config.seed))


def loss_and_accuracy(model: eqx.nn.MLP, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean cross-entropy and the share of images that the model names rightly."""
    logits = jax.vmap(model)(images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(axis=1) == labels).mean(dtype=jnp.float32)


def step(state: Training, config: Digits, batch: tuple[jax.Array, jax.Array]) -> tuple[Training, dict[str, jax.Array]]:
    """Take one step of Adam."""
    (loss, accuracy), gradient = eqx.filter_value_and_grad(loss_and_accuracy, has_aux=True)(state.model, *batch)
    updates, opt_state = optax.adam(config.learning_rate).update(gradient, state.opt_state)
    return Training(eqx.apply_updates(state.model, updates), opt_state), {"loss": loss, "accuracy": accuracy}


def main() -> None:
    """Train, and say which run it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resume", action="store_true", help="write checkpoints, and go on from the newest one")
    resume = parser.parse_args().resume
    config = Digits()
    model = eqx.nn.MLP(64, 10, config.width, config.depth, key=jr.key(config.seed))
    loop = Loop(
        config,
        Training(model, optax.adam(config.learning_rate).init(eqx.filter(model, eqx.is_inexact_array))),
        step,
        batches(config),
        MLFlowTelemetry(),
        CheckpointPersister(keep_last=2),
        jit=True,
        save_every=100 if resume else None,
        checkpoint_dir=Path(__file__).parent / "checkpoints" if resume else None,
    )
    with ExperimentTracker("digits") as tracker:
        tracker.log_config(config)
        loop.run(config.num_steps, resume="auto" if resume else None)
    print(f"{tracker.run_name}: {loop.step} steps")


if __name__ == "__main__":
    main()
