"""Who writes checkpoints?"""

from __future__ import annotations

import abc
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic

from researchlab.design._typevars import C, S


@dataclass(frozen=True)
class Checkpoint(Generic[S, C]):
    """What a Loop needs to go on as if it had never stopped.

    Attributes:
        state: the State after ``step``.
        config: the configuration.
        step: the number of completed steps.
        data: where the data provider stands, as JSON has it; None where it cannot tell.
        ended: why the run was over, where a callback had ended it by ``loop.stop``; else None.
    """

    state: S
    config: C
    step: int
    data: Any = None
    ended: str | None = None


class Persister(abc.ABC, Generic[S, C]):
    """Writes a State with its config and step to a file or folder, and reads it back.

    A subclass defines ``save`` and ``load``. One that keeps the position in the data defines ``save_checkpoint`` and
    ``load_checkpoint``, too; one that writes in the background, ``wait``.

    Attributes:
        suffix: what a Loop puts behind the name of a checkpoint, as in ``step-0000000100.eqx``.
    """

    suffix: ClassVar[str] = ""

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

    def save_checkpoint(self, checkpoint: Checkpoint[S, C], path: Path | str) -> None:
        """Write a checkpoint with all that it holds; by default ``save``, which knows no position in the data."""
        self.save(checkpoint.state, checkpoint.config, checkpoint.step, path)

    def load_checkpoint(self, path: Path | str, like: Checkpoint[S, C]) -> Checkpoint[S, C]:
        """Read a checkpoint; by default with ``load``, so that ``data`` is None.

        Args:
            path: what ``save_checkpoint`` was given.
            like: its state and config are as those of ``load``; its step and data are not looked at.
        """
        return Checkpoint(*self.load(path, like.state, like.config))

    def wait(self) -> None:
        """Return when all that was saved is on disk, and raise what went wrong in the background."""
        # Nothing to wait for, unless a subclass writes in the background.

    def checkpoints(self, folder: Path | str) -> list[tuple[int, Path]]:
        """Return step and path of the checkpoints ``step-<number>`` in a folder, the newest first.

        What is not finished is not listed. A folder that is not there has none.
        """
        name = re.compile(rf"step-(\d+){re.escape(self.suffix)}")
        there = Path(folder)
        entries = list(there.iterdir()) if there.is_dir() else []
        matches = [(name.fullmatch(entry.name), entry) for entry in entries]
        return sorted(((int(match[1]), entry) for match, entry in matches if match), reverse=True)
