"""Which facts of the environment differ between the recorded run and its re-execution?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from researchlab.reproduce.verdict import EnvironmentDifference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from researchlab.tracking.record import EnvironmentRecord

#: Facts that say where something is, not what it is, and those that the packages say too.
_IGNORED = frozenset({"python.executable", "jax.jax", "jax.jaxlib"})

#: Packages whose version is known to change bits come first.
_FIRST = ("packages.jaxlib", "packages.jax", "packages.numpy", "packages.equinox", "packages.optax", "packages.scipy")

_ABSENT = "(none)"


def environment_differences(
    recorded: EnvironmentRecord, present: EnvironmentRecord
) -> tuple[EnvironmentDifference, ...]:
    """Compare two environments fact by fact.

    Args:
        recorded: The run's.
        present: The re-execution's.

    Returns:
        The differences: JAX first, then packages that compute, variables, interpreter, machine, and other packages.
    """
    before, now = _facts(recorded), _facts(present)
    names = sorted(set(before) | set(now), key=_rank)
    return tuple(
        EnvironmentDifference(name, before.get(name, _ABSENT), now.get(name, _ABSENT))
        for name in names
        if name not in _IGNORED and before.get(name, _ABSENT) != now.get(name, _ABSENT)
    )


def _facts(environment: EnvironmentRecord) -> dict[str, str]:
    parts: dict[str, Mapping[str, str]] = {
        "jax": environment.jax,
        "packages": environment.packages,
        "variables": environment.variables,
        "python": environment.python,
        "platform": environment.platform,
    }
    return {f"{part}.{name}": value for part, facts in parts.items() for name, value in facts.items()}


def _rank(name: str) -> tuple[int, int, str]:
    order = ("jax", "variables", "python", "platform", "packages")
    if name in _FIRST:
        return (1, _FIRST.index(name), name)
    part = order.index(name.partition(".")[0])
    return (0 if part == 0 else part + 1, 0, name)
