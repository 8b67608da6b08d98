"""How does a folder appear on disk whole or not at all, also where one of that name is replaced?

A new checkpoint is written into a temporary folder beside its place and renamed. One that replaces another is moved
into the folder of that one, under a name of its own, and becomes the checkpoint when ``manifest.json``, which names the
files, is replaced: there is no moment without a whole one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from typing import TYPE_CHECKING

from researchlab.design._checkpoints._manifest import MANIFEST_FILE
from researchlab.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from researchlab.design._checkpoints._manifest import Manifest

_UNFINISHED = ".unfinished-"
_IS_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


def commit(target: Path, write_values: Callable[[Path], Manifest]) -> None:
    """Write a checkpoint, or replace it.

    Args:
        target: the folder of the checkpoint; its parent is there.
        write_values: writes one file or folder with values into a folder, and returns the manifest, which names it.

    Raises:
        CheckpointError: something that is no checkpoint is in the way.
        OSError: the disk is full, and the like.
    """
    _remove_leftovers(target.parent)
    with _temporary_folder(target.parent) as fresh:
        manifest = write_values(fresh)
        _write(fresh / MANIFEST_FILE, manifest.to_json())
        sync_folder(fresh)
        while not _appears(fresh, target) and not _replace(target, fresh, manifest):
            pass  # the one that was there has been removed in the meantime
        sync_folder(target.parent)


def complete(target: Path, write_values: Callable[[Path], Manifest], *, keep: str) -> None:
    """Make a checkpoint of a folder in which another program has written the entry ``keep``.

    Args:
        target: the folder; it may be a checkpoint already, which is replaced.
        write_values: writes a file with more values into the folder, and returns the manifest, which names both.
        keep: the entry's name.
    """
    with _opened(target) as descriptor:
        _lock(descriptor, wait=True)
        manifest = write_values(target)
        fresh = target / f".{MANIFEST_FILE}.tmp"
        _write(fresh, manifest.to_json())
        os.fsync(descriptor)
        fresh.replace(target / MANIFEST_FILE)
        os.fsync(descriptor)
        for entry in target.iterdir():
            if entry.name not in {MANIFEST_FILE, manifest.leaves_file, keep}:
                _delete(entry)
    sync_folder(target.parent)


def remove(target: Path) -> None:
    """Remove a checkpoint, unless somebody is replacing it; half of one never has its name."""
    with contextlib.suppress(OSError), _opened(target) as descriptor:
        _lock(descriptor, wait=False)
        away = target.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
        target.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder for checkpoints where it is missing, and keep git from looking into it, as pytest's cache does."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("# Made by researchlab for its checkpoints.\n*\n", encoding="utf-8")


def sync_folder(folder: Path) -> None:
    """Make what happened in a folder last through a power cut, where the system can."""
    with contextlib.suppress(OSError), _opened(folder) as descriptor:
        os.fsync(descriptor)


def _appears(fresh: Path, target: Path) -> bool:
    """Rename a finished folder, or return False where a checkpoint is in its place."""
    try:
        fresh.rename(target)
    except OSError as error:
        if error.errno not in _IS_TAKEN:
            raise
        if error.errno == errno.ENOTDIR or (target.is_dir() and not (target / MANIFEST_FILE).is_file()):
            msg = (
                f"{target} cannot be written: something that is no checkpoint has that name. Move it away, or save "
                "under another name."
            )
            raise CheckpointError(msg) from error
        return False
    return True


def _replace(target: Path, fresh: Path, manifest: Manifest) -> bool:
    """Put the files of a finished folder in the place of a checkpoint's, or return False where that is gone."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(_opened(target))
            _lock(descriptor, wait=True)  # another process may replace or remove it, too
            if not os.path.samestat(os.fstat(descriptor), target.stat()):
                return False
        except FileNotFoundError:
            return False
        stem, dot, suffix = manifest.leaves_file.partition(".")
        own = f"{stem}-{uuid.uuid4().hex[:8]}{dot}{suffix}"
        (fresh / manifest.leaves_file).rename(target / own)
        _write(fresh / MANIFEST_FILE, manifest.model_copy(update={"leaves_file": own}).to_json())
        os.fsync(descriptor)
        (fresh / MANIFEST_FILE).replace(target / MANIFEST_FILE)
        os.fsync(descriptor)
        for entry in target.iterdir():
            if entry.name.startswith(stem) and entry.name != own:
                _delete(entry)
    return True


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Generator[Path]:
    """Give a folder that is locked while it is in use, and is gone afterwards unless it was renamed."""
    name = uuid.uuid4().hex
    # Until it is locked, it has a name that nobody takes for a leftover.
    unlocked, fresh = parent / f".new-{name}", parent / f"{_UNFINISHED}{name}"
    unlocked.mkdir()
    with _opened(unlocked) as descriptor:
        with contextlib.suppress(OSError):  # a file system without locks
            _lock(descriptor, wait=False)
        unlocked.rename(fresh)
        try:
            yield fresh
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """Remove the temporary folders of writers that were killed."""
    for entry in parent.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError), _opened(entry) as descriptor:
            _lock(descriptor, wait=False)  # fails while its writer lives
            shutil.rmtree(entry, ignore_errors=True)


def _delete(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _opened(folder: Path) -> Generator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
