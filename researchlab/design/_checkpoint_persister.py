"""How does a Loop's checkpoint become a folder that any program can read, and come back bit for bit?

``leaves.safetensors`` holds the arrays by the path of their leaf, ``manifest.json`` all the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax

from researchlab.design._background_writer import BackgroundWriter
from researchlab.design._checkpoint_folder import commit, make_folder, remove
from researchlab.design._checkpoint_leaves import held, read_leaves, write_leaves
from researchlab.design._config_json import config_from_json, config_to_json
from researchlab.design._manifest import MANIFEST_FILE, Manifest, read_manifest
from researchlab.design._persister import Checkpoint, Persister
from researchlab.design._structure import check_structure, described, static_fields
from researchlab.design._typevars import C, S
from researchlab.errors import ArgumentError, CheckpointError, CheckpointNotFoundError, DamagedCheckpointError
from researchlab.numerics.leaves import structure_text as text_of_structure
from researchlab.numerics.statics import type_text

if TYPE_CHECKING:
    from collections.abc import Callable

LEAVES_FILE = "leaves.safetensors"
_SHOWN_AT_MOST = 8


class CheckpointPersister(Persister[S, C]):
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
        for name, value in (("keep_last", keep_last), ("keep_every", keep_every)):
            if value is not None and (isinstance(value, bool) or value != int(value) or value < 1):
                msg = f"{name} must be a whole number of at least 1, or None; it is {value!r}"
                raise ArgumentError(msg)
        if keep_every is not None and keep_last is None:
            msg = f"keep_every={keep_every} removes nothing without keep_last: add, say, `keep_last=3`"
            raise ArgumentError(msg)
        self.keep_last = keep_last
        self.keep_every = keep_every
        self._writer = BackgroundWriter() if background else None
        self._loaded: set[Path] = set()

    def save(self, state: S, config: C, step: int, path: Path | str) -> None:
        """Write a checkpoint without a position in the data; see ``save_checkpoint``."""
        self.save_checkpoint(Checkpoint(state, config, step), path)

    def load(self, path: Path | str, state_structure: S, config_structure: C) -> tuple[S, C, int]:
        """Read a checkpoint; see ``load_checkpoint``."""
        found = self.load_checkpoint(path, Checkpoint(state_structure, config_structure, 0))
        return found.state, found.config, found.step

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
        self.wait()
        source = Path(path).absolute()
        if not source.is_dir():
            raise self._not_found(source)
        manifest = read_manifest(source)
        check_structure(source, like.state, manifest.leaves, manifest.static_fields)
        try:
            state = read_leaves(source / manifest.leaves_file, manifest.leaves, like.state)
        except DamagedCheckpointError:
            if read_manifest(source).leaves_file == manifest.leaves_file:
                raise
            return self.load_checkpoint(path, like)  # it was replaced in the meantime
        config = config_from_json(manifest.config, like.config, str(source))
        self._loaded.add(source.resolve())
        return Checkpoint(cast("S", state), cast("C", config), manifest.step, manifest.data)

    def wait(self) -> None:
        """Return when all that was saved is on disk.

        Raises:
            CheckpointError: a checkpoint could not be written in the background.
        """
        if self._writer is not None:
            self._writer.wait()

    def checkpoints(self, folder: Path | str) -> list[tuple[int, Path]]:
        """Return step and path of the checkpoints in a folder, the newest first; they may be damaged."""
        return [(step, path) for step, path in super().checkpoints(folder) if (path / MANIFEST_FILE).is_file()]

    def _job(self, checkpoint: Checkpoint[S, C], target: Path) -> Callable[[], None]:
        """Check all that can be checked at once, and return what writes the checkpoint."""
        state, step = held(checkpoint.state), checkpoint.step
        described(state)  # raises where two leaves have one name
        manifest = Manifest(
            step=step,
            config=config_to_json(checkpoint.config),
            config_class=type_text(type(checkpoint.config)),
            data=_json_value(checkpoint.data),
            leaves=(),
            static_fields=static_fields(state),
            structure=text_of_structure(state),
        )

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
                msg = f"the checkpoint of step {step} was not written to {target}: {error}"
                raise CheckpointError(msg) from error

        return write

    def _remove_old(self, written: Path) -> None:
        if self.keep_last is None:
            return
        found = self.checkpoints(written.parent)
        for step, path in found[self.keep_last :]:
            is_kept = path == written or path.resolve() in self._loaded
            if not is_kept and (self.keep_every is None or step % self.keep_every):
                remove(path)

    def _not_found(self, path: Path) -> CheckpointNotFoundError:
        folder = path.parent
        if not folder.is_dir():
            return CheckpointNotFoundError(f"no checkpoint {path}: there is no folder {folder}")
        names = sorted(entry.parent.name for entry in folder.glob(f"*/{MANIFEST_FILE}"))
        found = ", ".join(names[-_SHOWN_AT_MOST:]) or "no checkpoint"
        before = f"{len(names) - _SHOWN_AT_MOST} others and " if len(names) > _SHOWN_AT_MOST else ""
        return CheckpointNotFoundError(f"no checkpoint {path}: {folder} has {before}{found}")


def _json_value(data: Any) -> Any:
    try:
        return json.loads(json.dumps(data))
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"the position of the data provider cannot be written as JSON ({error}): {data!r:.200}"
        raise CheckpointError(msg) from error
