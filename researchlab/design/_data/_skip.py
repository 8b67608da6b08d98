"""How are batches that were used before a checkpoint drawn again and dropped?"""

from __future__ import annotations

import sys
import time
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
    started = time.monotonic()
    bar: Any = None
    try:
        for number in range(count):
            try:
                next(batches)
            except StopIteration:
                msg = (
                    f"the data of {name} end after {number} batches, so there is none to follow step {count}: are these"
                    " the data that the checkpoint was written with?"
                )
                raise DataError(msg) from None
            if bar is not None:
                bar.update()
            elif time.monotonic() - started > _SHOWN_AFTER_SECONDS:
                bar = _bar(number + 1, count, name)
    finally:
        if bar is not None:
            bar.close()


def _bar(done: int, count: int, name: str) -> Any:
    from tqdm.auto import tqdm  # not before it is needed: a bar starts a thread that stays

    return tqdm(
        desc=f"{name}: to the batch after step {count}",
        initial=done,
        total=count,
        unit="batch",
        mininterval=0.1 if sys.stderr.isatty() or "ipykernel" in sys.modules else _SECONDS_BETWEEN_LINES,
        leave=False,
    )
