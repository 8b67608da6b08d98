"""Which of the changes are too many or too large to be captured?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from researchlab.tracking._capture._survey import Omission, parents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from researchlab.tracking._capture._survey import Survey


def leave_out_many(surveys: Sequence[Survey], most: int) -> list[set[bytes]]:
    """Leave out the untracked files of the folders with the most of them, until no more than ``most`` are left.

    Args:
        surveys: All repositories of one snapshot, none of them read.
        most: Number of untracked files in all of them together.

    Returns:
        The files that each survey has to leave out; their folders are named in it.
    """
    dropped: list[set[bytes]] = [set() for _ in surveys]
    left = [set(survey.untracked) for survey in surveys]
    while (excess := sum(map(len, left)) - most) > 0:
        number = max(range(len(left)), key=lambda index: len(left[index]))
        folder, files = _heaviest(left[number], excess)
        reason = f"holds {len(files)} untracked files, and no more than {most} are captured"
        surveys[number].left_out[folder + b"/"] = Omission(reason)
        left[number] -= files
        dropped[number] |= files
    return dropped


def leave_out_large(surveys: Sequence[Survey], *, largest_file: int, largest_snapshot: int) -> None:
    """Leave out files that are too large, and then the largest until the rest fits.

    Args:
        surveys: All repositories of one snapshot, read.
        largest_file: Bytes of one file.
        largest_snapshot: Bytes of all changes in all of them together.
    """
    sizes = [
        (content.size, path, survey)
        for survey in surveys
        for path, content in survey.changes.items()
        if content is not None
    ]
    total = sum(size for size, _, _ in sizes)
    if total <= largest_snapshot and all(size <= largest_file for size, _, _ in sizes):
        return
    for size, path, survey in sorted(sizes, key=lambda item: (-item[0], item[1])):
        if size > largest_file:
            survey.leave_out_large(path, largest_file)
        elif total > largest_snapshot:
            survey.leave_out_large(path, largest_snapshot, where=" in all changes together")
        else:
            break
        total -= size


def _heaviest(files: Iterable[bytes], excess: int) -> tuple[bytes, set[bytes]]:
    """Return the folder to leave out so that at least ``excess`` files go, if one can do that, and its files.

    The way goes down from the root into the heaviest folder for as long as that is enough: a single name for a data set
    in a thousand folders, and nothing of the code beside it.
    """
    files = set(files)
    below = Counter(folder for path in files for folder in parents(path))
    own = Counter(path.rpartition(b"/")[0] for path in files)
    children: dict[bytes, list[bytes]] = {}
    for folder in below:
        children.setdefault(folder.rpartition(b"/")[0], []).append(folder)
    here = b""
    while True:
        inside = children.get(here, [])
        child = max(inside, key=lambda folder: (below[folder], folder), default=None)
        weight = below[child] if child is not None else 0
        if own[here] >= weight and (own[here] >= excess or not here):
            return here or b".", {path for path in files if path.rpartition(b"/")[0] == here}
        if child is None or (weight < excess and here):
            return here, {path for path in files if path.startswith(here + b"/")}
        if weight < excess:
            return child, {path for path in files if path.startswith(child + b"/")}
        here = child


__all__ = ["leave_out_large", "leave_out_many"]
