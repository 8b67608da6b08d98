"""Where do stores of our own go for as long as a capture takes?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Self


class Scratch:
    """A temporary folder that is made when the first place in it is asked for: a clean work tree takes none."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def new_place(self) -> Path:
        """Return a path in the folder at which nothing is yet."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="rlab-snapshot-")
        self._number += 1
        return Path(self._folder.name, str(self._number))


__all__ = ["Scratch"]
