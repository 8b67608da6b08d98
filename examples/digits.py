"""Train a small network on handwritten digits, tracked so that it can be run again and compared bit for bit.

python examples/digits.py
pytest --rlab-reproduce latest --rlab-experiment digits
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from sklearn.datasets import load_digits

from researchlab import ExperimentTracker
from researchlab.design import Config, DataProvider, Loop, MLFlowTelemetry, State


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


class Batches(DataProvider[Training]):
    """Endless batches of images (float32[batch, 64], 0 to 1) and labels (int32[batch]), drawn by a seeded generator."""

    def __init__(self, config: Digits) -> None:
        images, labels = load_digits(return_X_y=True)
        self.images, self.labels = (images / 16.0).astype(np.float32), labels.astype(np.int32)
        self.rng, self.size = np.random.default_rng(config.seed), config.batch_size

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.rng.integers(len(self.labels), size=self.size)
        return self.images[chosen], self.labels[chosen]


def loss_and_accuracy(model: eqx.nn.MLP, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean cross-entropy and the share of images that the model names rightly."""
    logits = jax.vmap(model)(images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(axis=1) == labels).mean(dtype=jnp.float32)


@eqx.filter_jit
def step(state: Training, config: Digits, batch: tuple[jax.Array, jax.Array]) -> tuple[Training, dict[str, jax.Array]]:
    """Take one step of Adam."""
    (loss, accuracy), gradient = eqx.filter_value_and_grad(loss_and_accuracy, has_aux=True)(state.model, *batch)
    updates, opt_state = optax.adam(config.learning_rate).update(gradient, state.opt_state)
    return Training(eqx.apply_updates(state.model, updates), opt_state), {"loss": loss, "accuracy": accuracy}


def main() -> None:
    """Train, and say which run it was."""
    config = Digits()
    model = eqx.nn.MLP(64, 10, config.width, config.depth, key=jr.key(config.seed))
    opt_state = optax.adam(config.learning_rate).init(eqx.filter(model, eqx.is_inexact_array))
    loop = Loop(config, Training(model, opt_state), step, Batches(config), MLFlowTelemetry())
    with ExperimentTracker("digits") as tracker:
        tracker.log_config(config)
        loop.run(config.num_steps)
    print(f"{tracker.run_name}: {loop.step} steps")


if __name__ == "__main__":
    main()
