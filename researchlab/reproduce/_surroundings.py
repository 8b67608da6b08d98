"""Where does the restored tree stand, so that ``..`` leads where it led in the run?

The scratch folder has a root of its own. The restored tree stands below it at the absolute path of the original work
tree, and inputs from outside of the repository are linked at theirs: a path that goes up and out of it finds them.
A path that is absolute does not pass by here; such an input is checked at its place.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from researchlab.reproduce._findings import ChangedInputsError
from researchlab.tracking._wording import printable

if TYPE_CHECKING:
    from pathlib import Path

    from researchlab.reproduce._inputs import FoundInputs

_DATABASE = b"SQLite format 3\0"


def place_below(root: Path, absolute: str) -> Path:
    """Return where an absolute path is below another root; ``..`` does not lead out of it.

    Args:
        root: The other root.
        absolute: The path.
    """
    return root / os.path.normpath("/" + absolute).lstrip("/")


def link_outside(found: FoundInputs, root: Path, *, restored: Path) -> tuple[Path, ...]:
    """Link the inputs from outside of the repository at their places below the scratch root, or copy them.

    Args:
        found: The inputs of a run.
        root: The scratch root.
        restored: The restored tree, below it.

    Returns:
        The files that links lead to.

    Raises:
        ChangedInputsError: A place cannot be had.
    """
    linked: list[Path] = []
    for item in found.inputs:
        name = item.record.path.lstrip("/")
        if item.is_inside or place_below(root, name).is_relative_to(restored):
            continue
        try:
            target = free_place(root, name)
            # Code finds its neighbours by its own place; the others may be written to, and not by Python.
            if item.record.role == "code" or not item.record.required or is_database(item.place):
                shutil.copyfile(item.place, target)
            else:
                target.symlink_to(item.place)
                linked.append(item.place)
        except OSError as error:
            problem = f"cannot be linked beside the restored tree: {error.strerror}"
            raise ChangedInputsError({item.record.path: problem}) from error
    return tuple(linked)


def free_place(root: Path, path: str) -> Path:
    """Return where an input belongs, its folders made; no symlink is followed on the way.

    Args:
        root: The folder that ``path`` is relative to.
        path: The input.

    Raises:
        OSError: Something is in the way.
    """
    *folders, name = os.fsdecode(path.encode("utf-8", "surrogateescape")).split("/")
    place = root
    for folder in folders:
        place /= folder
        if not os.path.lexists(place):
            place.mkdir()
        elif not stat.S_ISDIR(place.lstat().st_mode):
            message = f"{printable(str(place.relative_to(root)))} is no folder there"
            raise NotADirectoryError(0, message)
    place /= name
    if os.path.lexists(place) and stat.S_ISDIR(place.lstat().st_mode):
        raise IsADirectoryError(0, "a folder is there")
    return place


def is_database(place: Path) -> bool:
    """Return whether SQLite will open the file: for writing, and by itself, so that no link to the original may do."""
    with place.open("rb") as file:
        return file.read(len(_DATABASE)) == _DATABASE
