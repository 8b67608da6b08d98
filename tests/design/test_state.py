from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from researchlab.design import State


class Particles(State):
    position: jax.Array
    mass: float = eqx.field(static=True, default=1.0)


def test_state_itself_cannot_be_made():
    with pytest.raises(TypeError, match="subclass it"):
        State()


def test_a_state_is_a_pytree_for_jit_grad_and_vmap():
    state = Particles(jnp.arange(3.0))
    doubled = jax.jit(lambda s: dataclasses.replace(s, position=2.0 * s.position))(state)
    assert isinstance(doubled, Particles)
    assert doubled.position.tolist() == [0.0, 2.0, 4.0]
    gradient = jax.grad(lambda s: jnp.sum(s.position**2.0))(state)
    assert gradient.position.tolist() == [0.0, 2.0, 4.0]
    assert jax.vmap(lambda s: s.position + 1.0)(state).tolist() == [1.0, 2.0, 3.0]


def test_a_state_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Particles(jnp.zeros(1)).mass = 2.0
