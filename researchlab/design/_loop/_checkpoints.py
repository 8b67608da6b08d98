"""Where are the checkpoints of a Loop, and from which one does it go on?"""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from researchlab.design._typevars import C, S
from researchlab.errors import ArgumentError, CheckpointNotFoundError, DamagedCheckpointError, ResearchlabWarning

if TYPE_CHECKING:
    from researchlab.design._checkpoints._persister import Checkpoint, Persister

_log = logging.getLogger(__name__)
_SHOWN = 8


class Checkpoints(Generic[S, C]):
    """The checkpoints of one Loop in one folder.

    Attributes:
        persister: writes and reads them.
        folder: where they are; None where the Loop has none.
        last_saved: the step of the newest that was written or loaded; None before the first.
    """

    def __init__(self, persister: Persister[S, C], folder: Path | None) -> None:
        """Take both; nothing is read or written."""
        self.persister = persister
        self.folder = folder
        self.last_saved: int | None = None

    def save(self, checkpoint: Checkpoint[S, C]) -> None:
        """Write a checkpoint into the folder, unless that of this step was the last one."""
        if self.folder is None or (self.last_saved == checkpoint.step and checkpoint.ended is None):
            return
        name = f"step-{checkpoint.step:010d}{self.persister.suffix}"
        self.persister.save_checkpoint(checkpoint, self.folder / name)
        self.last_saved = checkpoint.step

    def load(self, path: Path, like: Checkpoint[S, C]) -> Checkpoint[S, C]:
        """Read one checkpoint.

        Raises:
            ArgumentError: the path is that of a folder of checkpoints.
            CheckpointError: as the persister raises it.
        """
        inside = self.persister.checkpoints(path)
        if inside:
            msg = (
                f"{path} is a folder of checkpoints, up to {inside[0][1].name}: give the path of one of them, or"
                " checkpoint_dir= and resume='auto'"
            )
            raise ArgumentError(msg)
        self.last_saved = None
        return self.persister.load_checkpoint(path, like)

    def newest(self, like: Checkpoint[S, C], *, until: int) -> Checkpoint[S, C] | None:
        """Read the newest whole checkpoint of the folder; None where there is none.

        A damaged one is warned about, and the one before is read.

        Args:
            like: gives the structure.
            until: a checkpoint of a later step is passed over.

        Raises:
            ArgumentError: the Loop has no folder.
            CheckpointError: the newest whole one is of another structure; says leaf by leaf how.
        """
        if self.folder is None:
            msg = "resume='auto' needs to know where the checkpoints are: give the Loop checkpoint_dir=..."
            raise ArgumentError(msg)
        damaged = False
        for step, path in self.persister.checkpoints(self.folder):
            if step > until:
                continue
            try:
                found = self.persister.load_checkpoint(path, like)
            except (DamagedCheckpointError, CheckpointNotFoundError) as error:
                _warn(f"checkpoint {path} is passed over: {error}")
                damaged = True
                continue
            self.last_saved = step
            _log.info("goes on from %s", path)
            # The name knows the step also where the persister does not keep it.
            return dataclasses.replace(found, step=step)
        if damaged:
            _warn(f"no whole checkpoint is in {self.folder}: the run starts anew")
        return None

    def warn_of_others(self) -> None:
        """Warn where a run that starts afresh finds checkpoints of an earlier one: a resume would mix the two."""
        there = [] if self.folder is None else self.persister.checkpoints(self.folder)
        if there:
            _warn(
                f"{self.folder} has checkpoints of an earlier run, up to step {there[0][0]}, and this run starts"
                " afresh: a later resume='auto' would go on from the newest, whichever run wrote it. Pass resume='auto'"
                " to go on from there now, or give an empty checkpoint_dir"
            )

    def check_writable(self) -> None:
        """Check that the folder can be written to, or made, before hours of work are to be saved in it.

        Raises:
            ArgumentError: it cannot.
        """
        if self.folder is None:
            return
        there = next((path for path in (self.folder, *self.folder.absolute().parents) if path.exists()), Path("/"))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            what = "cannot be written to" if there.is_dir() else "is not a folder"
            msg = f"checkpoint_dir={str(self.folder)!r}: {there} {what}. Give a folder that can be written to"
            raise ArgumentError(msg)


def warn_of_other_config(stored: Any, own: Any, step: int) -> None:
    """Name what differs between the config of a checkpoint and that of the Loop which goes on from it."""
    if _text(stored) == _text(own):
        return
    before, now = _values(stored), _values(own)
    changed = [f"{name}: {before.get(name, 'absent')!r:.60} -> {now.get(name, 'absent')!r:.60}"
               for name in dict.fromkeys((*before, *now)) if repr(before.get(name)) != repr(now.get(name))]  # fmt: skip
    what = "; ".join(changed[:_SHOWN]) + ("; ..." if len(changed) > _SHOWN else "")
    _warn(f"the run goes on from step {step} with another config than its checkpoint has ({what or 'another class'})")


def _values(config: Any) -> dict[str, Any]:
    from researchlab.design._nested import children
    from researchlab.design.utils import flatten_config

    return flatten_config(config) if children(config) is not None else {"config": config}


def _text(config: Any) -> str:
    return f"{type(config).__qualname__} {config!r}"


def _warn(message: str) -> None:
    warnings.warn(message, ResearchlabWarning, stacklevel=2)
