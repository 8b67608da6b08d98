"""Which files does a declared input consist of?"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from researchlab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


def declared_files(path: str) -> list[str]:
    """Return the regular files that a declared input consists of.

    Args:
        path: A file or a folder; symlinks are followed, each folder once.

    Raises:
        InputError: It is not there, is no regular file, or cannot be listed.
    """
    try:
        status = os.stat(path)  # noqa: PTH116
        if stat.S_ISREG(status.st_mode):
            return [path]
        if stat.S_ISDIR(status.st_mode):
            return sorted(_files_below(path))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        message = f"The input '{path}' cannot be read: {said}. Name a file or a folder that is there."
        raise InputError(message) from error
    message = f"The input '{path}' is neither a file nor a folder."
    raise InputError(message)


def _files_below(top: str) -> Iterator[str]:
    seen: set[str] = set()
    pending = [top]
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == ".git":
                    continue
                if entry.is_dir():
                    pending.append(entry.path)
                elif entry.is_file():
                    yield entry.path
