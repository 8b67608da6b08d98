"""How does a Loop's checkpoint become a folder that any program can read, and come back bit for bit?

``leaves.safetensors`` holds the arrays by the path of their leaf, ``manifest.json`` all the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import jax

from researchlab.design._checkpoints._background_writer import BackgroundWriter
from researchlab.design._checkpoints._checkpoint_folder import commit, make_folder
from researchlab.design._checkpoints._checkpoint_leaves import held, read_leaves, write_leaves
from researchlab.design._checkpoints._config_json import config_from_json
from researchlab.design._checkpoints._folder_persister import FolderPersister
from researchlab.design._checkpoints._manifest import read_manifest
from researchlab.design._checkpoints._persister import Checkpoint
from researchlab.design._typevars import C, S
from researchlab.errors import CheckpointError, DamagedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from researchlab.design._checkpoints._manifest import Manifest

LEAVES_FILE = "leaves.safetensors"


class CheckpointPersister(FolderPersister[S, C]):
    """Keeps State, config, step and data position in a folder for each step.

    A checkpoint is whole or absent, whenever the process is killed, and every bit of it is checked when it is read. The
    State comes back leaf by leaf as it was: dtypes, weak types, typed keys, numpy arrays and Python numbers. Functions
    and other static leaves come from the State it is loaded into, and must have the same stable text.

    Args:
        keep_last: after each save, keep so many of the newest ``step-<number>`` folders beside it and remove the
            others; None keeps all. The one that was just written, and those that this persister has loaded, stay.
        keep_every: also keep those whose step it divides. Needs ``keep_last``.
        background: write in a thread while the next steps run. One checkpoint is written, one more may wait; a further
            ``save`` waits. What goes wrong is raised by the next ``save`` or ``wait``.
    """

    def __init__(self, *, keep_last: int | None = None, keep_every: int | None = None, background: bool = True) -> None:
        super().__init__(keep_last=keep_last, keep_every=keep_every)
        self._writer = BackgroundWriter() if background else None

    def save_checkpoint(self, checkpoint: Checkpoint[S, C], path: Path | str) -> None:
        """Write a checkpoint; a missing folder for it is made, with a ``.gitignore``.

        With several processes (``jax.distributed``) the first one writes.

        Args:
            checkpoint: its jax arrays must not be donated before they are written (``wait``). numpy arrays are copied.
            path: the folder to write; a checkpoint that is there is replaced.

        Raises:
            CheckpointError: a leaf or the config cannot be stored so that it comes back, or an earlier checkpoint
                could not be written in the background.
        """
        target = Path(path).absolute()  # the current folder may be another one when it is written
        job = self._job(checkpoint, target)
        if jax.process_index() != 0:
            return
        if self._writer is None:
            job()
        else:
            self._writer.submit(job)

    def load_checkpoint(self, path: Path | str, like: Checkpoint[S, C]) -> Checkpoint[S, C]:
        """Read a checkpoint and check every bit of it.

        Args:
            path: the folder.
            like: a State of the same structure (its values are not read; ``eqx.filter_eval_shape`` gives one cheaply)
                and a config of the same class. Where its arrays lie on several devices, those that are read do, too.

        Raises:
            CheckpointNotFoundError: there is no such folder; says what is beside it.
            DamagedCheckpointError: a file is missing, cut off or changed; names the file and leaf.
            CheckpointError: it is of another structure, leaf by leaf, or its config does not fit.
        """
        source, manifest = self._open(path, like)
        try:
            state = read_leaves(source / manifest.leaves_file, manifest.leaves, like.state)
        except DamagedCheckpointError:
            if read_manifest(source).leaves_file == manifest.leaves_file:
                raise
            return self.load_checkpoint(path, like)  # it was replaced in the meantime
        config = config_from_json(manifest.config, like.config, str(source))
        self._loaded.add(source.resolve())
        return Checkpoint(cast("S", state), cast("C", config), manifest.step, manifest.data, manifest.ended)

    def wait(self) -> None:
        """Return when all that was saved is on disk.

        Raises:
            CheckpointError: a checkpoint could not be written in the background.
        """
        if self._writer is not None:
            self._writer.wait()

    def _job(self, checkpoint: Checkpoint[S, C], target: Path) -> Callable[[], None]:
        """Check all that can be checked at once, and return what writes the checkpoint."""
        state = held(checkpoint.state)
        manifest = self._manifest(checkpoint, state)

        def write_values(folder: Path) -> Manifest:
            leaves = write_leaves(folder / LEAVES_FILE, state)
            return manifest.model_copy(update={"leaves": tuple(leaves), "leaves_file": LEAVES_FILE})

        def write() -> None:
            try:
                make_folder(target.parent)
                commit(target, write_values)
                self._remove_old(target)
            except CheckpointError:
                raise
            except Exception as error:
                msg = f"the checkpoint of step {manifest.step} was not written to {target}: {error}"
                raise CheckpointError(msg) from error

        return write
