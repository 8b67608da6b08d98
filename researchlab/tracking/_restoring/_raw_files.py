"""How do the files of a tree get over those of a checkout, each whole or not at all, and none lost?"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING

from researchlab.errors import RestoreError
from researchlab.tracking import _git
from researchlab.tracking._capture._worktree import EXECUTABLE, SYMLINK, WorkTree, files_below
from researchlab.tracking._restoring._parts import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from researchlab.tracking._git import Entry

DRAFT = ".rlab-draft-"
"""How the names of files begin that are being written."""

_NAMED = 5
_CHUNK = 1 << 20


def check_free(
    disk: WorkTree, top: Path, wrong: AbstractSet[bytes], known: AbstractSet[bytes], gone: AbstractSet[bytes]
) -> None:
    """Refuse to write over anything that the base commit does not hold."""
    obstacles: set[bytes] = set()
    for path in wrong:
        parent = path.rpartition(b"/")[0]
        while parent:
            if is_file(disk.status(parent)) and parent not in gone:
                obstacles.add(parent)
            parent = parent.rpartition(b"/")[0]
        status = disk.status(path)
        if is_file(status):
            if path not in known:
                obstacles.add(path)
        elif status is not None:
            below = (path + b"/" + name for name in files_below(os.fsdecode(disk.place(path))))
            obstacles.update(name for name in below if name not in gone)
    if obstacles:
        names = sorted(os.fsdecode(path) for path in obstacles)
        message = (
            f"{len(names)} files in {top} are in the way of the snapshot and not of its base commit: {some(names)}. "
            "Nothing was written. Move them away and try again."
        )
        raise RestoreError(message)


def remove_file(disk: WorkTree, top: Path, path: bytes) -> None:
    """Delete a file, and the folders that it leaves empty."""
    status = disk.status(path)
    if status is None:
        return
    place = Path(os.fsdecode(disk.place(path)))
    if is_file(status):
        place.unlink()
        place = place.parent
    with contextlib.suppress(OSError):
        while place != top:
            place.rmdir()
            place = place.parent


def write_files(top: Path, entries: Mapping[bytes, Entry], git_dir: Path) -> None:
    """Write blobs raw, each whole or not at all."""
    with _git.stream_git(("cat-file", "--batch"), git_dir=git_dir) as pipes:
        for path, (mode, oid) in entries.items():
            pipes.stdin.write(oid.encode() + b"\n")
            pipes.stdin.flush()
            header = pipes.stdout.readline().split()
            if len(header) != 3:  # noqa: PLR2004 - id, type and size, or that it is missing
                message = f"The content {oid} of {some([os.fsdecode(path)])} is missing."
                raise RestoreError(message)
            place = top / os.fsdecode(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            draft = place.with_name(DRAFT + oid)
            if os.path.lexists(draft):
                message = f"{draft} is in the way. Move it away and try again."
                raise RestoreError(message)
            try:
                _write_draft(draft, mode, pipes.stdout, int(header[2]))
                pipes.stdout.read(1)
                _remove_empty_folders(place)
                draft.replace(place)
            finally:
                draft.unlink(missing_ok=True)


def _write_draft(draft: Path, mode: bytes, content: IO[bytes], size: int) -> None:
    if mode == SYMLINK:
        draft.symlink_to(os.fsdecode(content.read(size)))
        return
    permissions = 0o777 if mode == EXECUTABLE else 0o666
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, permissions), "wb") as file:
        while size:
            chunk = content.read(min(size, _CHUNK))
            if not chunk:
                message = "git ended in the middle of a file."
                raise RestoreError(message)
            size -= file.write(chunk)


def _remove_empty_folders(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        for folder, _, _ in os.walk(place, topdown=False):
            Path(folder).rmdir()


def is_file(status: os.stat_result | None) -> bool:
    """Return whether something is there that is no folder."""
    return status is not None and not stat.S_ISDIR(status.st_mode)


def some(names: list[str]) -> str:
    """Name a few."""
    shown = ", ".join(printable(name) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
