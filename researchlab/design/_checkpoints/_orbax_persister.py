"""How does a State that is sharded over many devices and processes become a checkpoint, and come back to them?

Orbax writes the arrays of jax, each process its own shards; the other leaves and the manifest are written by the first
process when Orbax is done. A folder without a manifest is no checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np
from jax.random import key_data

from researchlab.design._checkpoints._background_writer import BackgroundWriter
from researchlab.design._checkpoints._checkpoint_folder import complete, make_folder
from researchlab.design._checkpoints._checkpoint_leaves import (
    check_holdable,
    held_leaf,
    read_leaves,
    with_leaves,
    with_weak_type,
    write_leaves,
)
from researchlab.design._checkpoints._config_json import config_from_json
from researchlab.design._checkpoints._folder_persister import FolderPersister
from researchlab.design._checkpoints._persister import Checkpoint
from researchlab.design._checkpoints._structure import described
from researchlab.design._typevars import C, S
from researchlab.errors import CheckpointError, DamagedCheckpointError
from researchlab.numerics.dtypes import dtype_named
from researchlab.numerics.fingerprint import fingerprint
from researchlab.numerics.leaves import is_key, named_leaves

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from researchlab.design._checkpoints._manifest import Manifest, StoredLeaf

_PIP = "pip install 'researchlab[orbax]'"


class OrbaxPersister(FolderPersister[S, C]):
    """Keeps State, config, step and data position in a folder for each step, the arrays as Orbax writes them.

    For States whose arrays are sharded over several processes (``jax.distributed``), or too large for one host: all
    processes save and load together, and the folder must be one that they share. Writing goes on in the background. A
    checkpoint is whole or absent, and every bit of it is checked when it is read. Needs ``pip install
    'researchlab[orbax]'``.

    Args:
        keep_last: after each save, keep so many of the newest ``step-<number>`` folders beside it and remove the
            others; None keeps all. The one that was just written, and those that this persister has loaded, stay.
        keep_every: also keep those whose step it divides. Needs ``keep_last``.

    Raises:
        CheckpointError: Orbax is not installed.
    """

    def __init__(self, *, keep_last: int | None = None, keep_every: int | None = None) -> None:
        super().__init__(keep_last=keep_last, keep_every=keep_every)
        ocp = _orbax()
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._args = ocp.args
        self._writer = BackgroundWriter()
        self._is_saving = False

    def save_checkpoint(self, checkpoint: Checkpoint[S, C], path: Path | str) -> None:
        """Write a checkpoint, once an earlier one is written; a missing folder for it is made, with a ``.gitignore``.

        Args:
            checkpoint: its jax arrays must not be donated before they are written (``wait``). numpy arrays are copied.
            path: the folder to write; a checkpoint that is there is replaced.

        Raises:
            CheckpointError: a leaf or the config cannot be stored so that it comes back, something that is no
                checkpoint is in the way, or an earlier checkpoint could not be written.
        """
        self.wait()
        target = Path(path).absolute()
        leaves = named_leaves(checkpoint.state)
        check_holdable(leaves)
        # Orbax refuses arrays that are empty.
        arrays = {number: leaf for number, (_, leaf) in enumerate(leaves) if isinstance(leaf, jax.Array) and leaf.size}
        others = [None if number in arrays else held_leaf(*leaf) for number, leaf in enumerate(leaves)]
        rest = with_leaves(checkpoint.state, others)
        prints = fingerprint({f"{number}": array for number, array in arrays.items()})
        stored = [
            entry.model_copy(update={"fingerprint": prints.get(str(number))})
            for number, entry in enumerate(described(checkpoint.state))
        ]
        manifest, name = self._manifest(checkpoint, checkpoint.state, stored), _common_name()
        # Older versions of Orbax read no typed keys.
        tree = {f"{number:06d}": key_data(array) if is_key(array) else array for number, array in arrays.items()}
        where = f"the checkpoint of step {checkpoint.step} was not written to {target}"
        with _named(where):
            if jax.process_index() == 0:
                make_folder(target.parent)
                target.mkdir(exist_ok=True)
            if tree:
                self._checkpointer.save(target / f"arrays-{name}", args=self._args.StandardSave(tree))
        self._is_saving = True

        def finish() -> None:
            with _named(where):
                self._checkpointer.wait_until_finished()
                if jax.process_index() == 0:
                    complete(target, lambda folder: _write_rest(folder, rest, manifest, name), keep=f"arrays-{name}")
                    self._remove_old(target)

        self._writer.submit(finish)

    def load_checkpoint(self, path: Path | str, like: Checkpoint[S, C]) -> Checkpoint[S, C]:
        """Read a checkpoint and check every bit of it.

        Args:
            path: the folder.
            like: a State of the same structure, whose arrays (or ``jax.ShapeDtypeStruct``) say on which devices those
                that are read shall lie, and a config of the same class.

        Raises:
            CheckpointNotFoundError: there is no such folder; says what is beside it.
            DamagedCheckpointError: a file is missing, cut off or changed; names the file and leaf.
            CheckpointError: it is of another structure, leaf by leaf, or its config does not fit.
        """
        source, manifest = self._open(path, like)
        state = read_leaves(source / manifest.leaves_file, manifest.leaves, like.state)
        config = config_from_json(manifest.config, like.config, str(source))
        arrays = self._restored(source / manifest.arrays_folder, manifest.leaves, like.state)
        leaves = [arrays.get(number, leaf) for number, (_, leaf) in enumerate(named_leaves(state))]
        self._loaded.add(source.resolve())
        state = cast("S", with_leaves(state, leaves))
        return Checkpoint(state, cast("C", config), manifest.step, manifest.data, manifest.ended)

    def wait(self) -> None:
        """Return when all that was saved is on disk.

        Raises:
            CheckpointError: a checkpoint could not be written.
        """
        try:
            self._writer.wait()
        finally:
            if self._is_saving and jax.process_count() > 1:
                from jax.experimental import multihost_utils

                # The first process writes the manifest, and the others may look for it.
                multihost_utils.sync_global_devices("researchlab: a checkpoint is written")
            self._is_saving = False

    def _restored(self, folder: Path, entries: Sequence[StoredLeaf], like: Any) -> dict[int, jax.Array]:
        wanted = dict(named_leaves(like))
        numbered = {number: entry for number, entry in enumerate(entries) if _is_orbaxs(entry)}
        if not numbered:
            return {}
        abstract = {f"{number:06d}": _abstract(entry, wanted[entry.path]) for number, entry in numbered.items()}
        try:
            tree = self._checkpointer.restore(folder, args=self._args.StandardRestore(abstract))
        except Exception as error:
            msg = f"{folder} is damaged: Orbax cannot read it ({error}). Use an older checkpoint."
            raise DamagedCheckpointError(msg) from error
        arrays = {
            number: _typed(tree[f"{number:06d}"], entry, wanted[entry.path]) for number, entry in numbered.items()
        }
        prints = fingerprint({str(number): array for number, array in arrays.items()})
        for number, entry in numbered.items():
            if prints[str(number)] != entry.fingerprint:
                msg = (
                    f"{folder} is damaged: leaf {entry.path!r} has the fingerprint {prints[str(number)]}, "
                    f"{entry.fingerprint} was written. Use an older checkpoint."
                )
                raise DamagedCheckpointError(msg)
        return arrays


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        msg = f"OrbaxPersister needs Orbax, which cannot be imported ({error}): {_PIP}"
        raise CheckpointError(msg) from error
    return ocp


@contextlib.contextmanager
def _named(what: str) -> Generator[None]:
    """Turn whatever Orbax and the disk raise into an error that says what was not done."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        msg = f"{what}: {error}"
        raise CheckpointError(msg) from error


def _common_name() -> str:
    """Return a new name that all processes agree on."""
    number = np.uint32(uuid.uuid4().int & 0xFFFFFFFF)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        number = multihost_utils.broadcast_one_to_all(number)
    return f"{int(number):08x}"


def _is_orbaxs(entry: StoredLeaf) -> bool:
    return entry.holder == "jax" and math.prod(entry.shape) > 0


def _write_rest(folder: Path, rest: Any, manifest: Manifest, name: str) -> Manifest:
    file = f"leaves-{name}.safetensors"
    written = write_leaves(folder / file, rest)
    leaves = [entry if _is_orbaxs(entry) else new for entry, new in zip(manifest.leaves, written, strict=True)]
    update = {"leaves": tuple(leaves), "leaves_file": file, "arrays_folder": f"arrays-{name}"}
    return manifest.model_copy(update=update)


def _abstract(entry: StoredLeaf, like: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(like, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if entry.kind != "key":
        return jax.ShapeDtypeStruct(entry.shape, dtype_named(entry.dtype), sharding=sharding)
    words = key_data(jax.random.key(0, impl=entry.impl)).shape
    return jax.ShapeDtypeStruct((*entry.shape, *words), np.uint32, sharding=sharding)


def _typed(array: jax.Array, entry: StoredLeaf, like: Any) -> jax.Array:
    if entry.kind == "key":
        array = jax.random.wrap_key_data(array, impl=entry.impl)
        sharding = getattr(like, "sharding", None)
        return array if sharding is None else jax.device_put(array, sharding)
    return with_weak_type(array) if entry.weak_type else array
