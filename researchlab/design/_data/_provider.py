"""What must everything that gives batches to a Loop be able to do?"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, Generic

from researchlab.design._data._skip import skip
from researchlab.design._numbers import whole
from researchlab.design._typevars import S
from researchlab.errors import DataError


class DataProvider(Iterator[Any], abc.ABC, Generic[S]):
    """An iterator over batches. A subclass defines ``__next__``; one that looks at the State also ``get_batch``.

    A Loop that continues from a checkpoint brings the data to where they were: with ``set_position`` where the
    checkpoint has a position, with ``seek`` where it has none. A subclass whose batches are costly to draw, or depend
    on more than how many came before, defines ``get_position`` and ``set_position``.
    """

    @abc.abstractmethod
    def __next__(self) -> Any:
        """Return the next batch; raise StopIteration at the end of the data."""

    def get_batch(self, state: S) -> Any:
        """Return the batch for the step that starts at ``state``; by default the next one, whatever the State.

        A Loop calls this once a step. StopIteration ends the run.
        """
        del state
        return next(self)

    def get_position(self) -> Any:
        """Return where the data are, as ``json`` can write it; None where that cannot be told.

        It is asked for between two batches. A provider of the same data that is given it by ``set_position`` goes on
        with the batch that this one gives next.
        """
        return None

    def set_position(self, position: Any) -> None:
        """Go to where ``get_position`` was asked for, be it in another process.

        Raises:
            DataError: the provider has no positions, or the position is none of its own.
        """
        del position
        name = type(self).__name__
        msg = f"{name} keeps no position in its data: define get_position(self) and set_position(self, position)"
        raise DataError(msg)

    def seek(self, step: int) -> None:
        """Go to the batch of the step that follows ``step`` completed steps.

        By default, for a provider that gave no batch yet, ``step`` batches are drawn and dropped; a progress bar is
        shown when that takes longer than about a second.

        Args:
            step: a number of completed steps, 0 or more; one batch a step.

        Raises:
            DataError: ``step`` is negative, the data end before it, or the batches depend on the State.
        """
        count = whole_step(step)
        if count and type(self).get_batch is not DataProvider.get_batch:
            name = type(self).__name__
            msg = (
                f"{name} cannot be brought to the batch after step {count}: its get_batch(state) depends on States that"
                " are gone. Define get_position(self) and set_position(self, position), or seek(self, step)"
            )
            raise DataError(msg)
        skip(self, count, name=type(self).__name__)

    def close(self) -> None:
        """Let go of files and threads; by default there are none. A second call does no harm."""


def whole_step(step: object, *, what: str = "a number of completed steps") -> int:
    """Return ``step`` as an int.

    Raises:
        DataError: it is no whole number, or negative.
    """
    number = whole(step)
    if number is None or number < 0:
        msg = f"{what} must be a whole number, 0 or more; it is {step!r}"
        raise DataError(msg)
    return number
