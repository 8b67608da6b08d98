"""What do persisters that keep a folder for each step have in common? Names, retention, and what is in a folder."""

from __future__ import annotations

import abc
import json
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from researchlab.design._checkpoints._checkpoint_folder import remove
from researchlab.design._checkpoints._config_json import config_to_json
from researchlab.design._checkpoints._manifest import MANIFEST_FILE, Manifest, read_manifest
from researchlab.design._checkpoints._persister import Checkpoint, Persister
from researchlab.design._checkpoints._structure import check_comes_back, check_structure, static_fields
from researchlab.design._typevars import C, S
from researchlab.errors import ArgumentError, CheckpointError, CheckpointNotFoundError
from researchlab.numerics.leaves import structure_text
from researchlab.numerics.statics import type_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.design._checkpoints._manifest import StoredLeaf

_SHOWN_AT_MOST = 8


class FolderPersister(Persister[S, C]):
    """Keeps a folder with a manifest for each checkpoint; a subclass writes and reads it."""

    def __init__(self, *, keep_last: int | None, keep_every: int | None) -> None:
        self.keep_last = _count("keep_last", keep_last)
        self.keep_every = _count("keep_every", keep_every)
        if keep_every is not None and keep_last is None:
            msg = f"keep_every={keep_every} removes nothing without keep_last: add, say, `keep_last=3`"
            raise ArgumentError(msg)
        self._loaded: set[Path] = set()

    @abc.abstractmethod
    def save_checkpoint(self, checkpoint: Checkpoint[S, C], path: Path | str) -> None:
        """Write a checkpoint with all that it holds."""

    @abc.abstractmethod
    def load_checkpoint(self, path: Path | str, like: Checkpoint[S, C]) -> Checkpoint[S, C]:
        """Read a checkpoint and check every bit of it."""

    def save(self, state: S, config: C, step: int, path: Path | str) -> None:
        """Write a checkpoint without a position in the data; see ``save_checkpoint``."""
        self.save_checkpoint(Checkpoint(state, config, step), path)

    def load(self, path: Path | str, state_structure: S, config_structure: C) -> tuple[S, C, int]:
        """Read a checkpoint; see ``load_checkpoint``."""
        found = self.load_checkpoint(path, Checkpoint(state_structure, config_structure, 0))
        return found.state, found.config, found.step

    def checkpoints(self, folder: Path | str) -> list[tuple[int, Path]]:
        """Return step and path of the checkpoints in a folder, the newest first; they may be damaged."""
        return [(step, path) for step, path in super().checkpoints(folder) if (path / MANIFEST_FILE).is_file()]

    def _manifest(self, checkpoint: Checkpoint[S, C], state: Any, leaves: Sequence[StoredLeaf] = ()) -> Manifest:
        """Return the manifest of a checkpoint; raises where something of it cannot be written down."""
        check_comes_back(state)
        return Manifest(
            step=checkpoint.step,
            config=config_to_json(checkpoint.config),
            config_class=type_text(type(checkpoint.config)),
            data=_json_value(checkpoint.data),
            ended=checkpoint.ended,
            leaves=tuple(leaves),
            static_fields=static_fields(state),
            structure=structure_text(state),
        )

    def _open(self, path: Path | str, like: Checkpoint[S, C]) -> tuple[Path, Manifest]:
        """Return the folder of a checkpoint and its manifest, checked to be of the structure of ``like``."""
        self.wait()
        source = Path(path).absolute()
        if not source.is_dir():
            raise _not_found(source)
        manifest = read_manifest(source)
        check_structure(source, like.state, manifest.leaves, manifest.static_fields)
        return source, manifest

    def _remove_old(self, written: Path) -> None:
        if self.keep_last is None:
            return
        for step, path in self.checkpoints(written.parent)[self.keep_last :]:
            is_kept = path == written or path.resolve() in self._loaded
            if not is_kept and (self.keep_every is None or step % self.keep_every):
                remove(path)


def _count(name: str, value: object) -> int | None:
    if value is None:
        return None
    try:
        number = operator.index(value)  # pyright: ignore[reportArgumentType] - that is what it finds out
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        msg = f"{name} must be a whole number of at least 1, or None; it is {value!r}"
        raise ArgumentError(msg)
    return number


def _json_value(data: Any) -> Any:
    try:
        return json.loads(json.dumps(data))
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"the position of the data provider cannot be written as JSON ({error}): {data!r:.200}"
        raise CheckpointError(msg) from error


def _not_found(path: Path) -> CheckpointNotFoundError:
    folder = path.parent
    if not folder.is_dir():
        return CheckpointNotFoundError(f"no checkpoint {path}: there is no folder {folder}")
    names = sorted(entry.parent.name for entry in folder.glob(f"*/{MANIFEST_FILE}"))
    found = ", ".join(names[-_SHOWN_AT_MOST:]) or "no checkpoint"
    before = f"{len(names) - _SHOWN_AT_MOST} others and " if len(names) > _SHOWN_AT_MOST else ""
    return CheckpointNotFoundError(f"no checkpoint {path}: {folder} has {before}{found}")
