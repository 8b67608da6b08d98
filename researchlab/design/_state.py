"""What does a simulation carry from one step to the next?"""

from __future__ import annotations

import equinox as eqx


class State(eqx.Module):
    """Abstract base of simulation states.

    A subclass lists its fields like a dataclass. It is a JAX PyTree, so that jit, grad and vmap take it, and it is
    immutable: a step makes a new one (``dataclasses.replace`` or ``eqx.tree_at``).

    Example:
        >>> class Particles(State):
        ...     position: jax.Array  # (n, 3), float32, metres
        ...     key: jax.Array  # typed PRNG key
    """

    def __check_init__(self) -> None:
        if type(self) is State:
            msg = "State is abstract: subclass it and list fields, as in `class Particles(State): position: jax.Array`"
            raise TypeError(msg)
