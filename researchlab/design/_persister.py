"""Who writes checkpoints?"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Generic

from researchlab.design._typevars import C, S

if TYPE_CHECKING:
    from pathlib import Path


class Persister(abc.ABC, Generic[S, C]):
    """Writes a State with its config and step to a file, and reads it back."""

    @abc.abstractmethod
    def save(self, state: S, config: C, step: int, path: Path | str) -> None:
        """Write a checkpoint. The file is whole or absent, also when the process dies half-way."""

    @abc.abstractmethod
    def load(self, path: Path | str, state_structure: S, config_structure: C) -> tuple[S, C, int]:
        """Read a checkpoint.

        Args:
            path: what ``save`` was given.
            state_structure: a State of the same structure; its leaves give shapes and dtypes only.
            config_structure: a config of the same class.

        Returns:
            The state, the config and the number of completed steps.
        """
