"""How are batches that were used before a checkpoint drawn again and dropped?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from researchlab.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN_AFTER_SECONDS = 1.0
_SECONDS_BETWEEN_LINES = 60.0  # where each update is a line of a log file


def skip(batches: Iterator[Any], count: int, *, name: str) -> None:
    """Draw and drop ``count`` batches, with a progress bar when that takes longer than about a second.

    Args:
        batches: drawn from with ``next``.
        count: how many; 0 draws none.
        name: whose batches they are, for the bar and for errors.

    Raises:
        DataError: there are fewer batches.
    """
    if not count:
        return
    from tqdm.auto import tqdm

    between = 0.1 if sys.stderr.isatty() or "ipykernel" in sys.modules else _SECONDS_BETWEEN_LINES
    bar = tqdm(
        range(count),
        desc=f"{name}: to the batch after step {count}",
        unit="batch",
        delay=_SHOWN_AFTER_SECONDS,
        mininterval=between,
        leave=False,
    )
    with bar:
        for number in bar:
            try:
                next(batches)
            except StopIteration:
                msg = (
                    f"the data of {name} end after {number} batches, so there is none to follow step {count}: are these"
                    " the data that the checkpoint was written with?"
                )
                raise DataError(msg) from None
