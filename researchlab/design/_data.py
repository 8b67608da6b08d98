"""Where does the batch of a step come from?"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, Generic

from researchlab.design._typevars import S


class DataProvider(Iterator[Any], abc.ABC, Generic[S]):
    """An iterator over batches. A subclass defines ``__next__``; one that looks at the State also ``get_batch``."""

    @abc.abstractmethod
    def __next__(self) -> Any:
        """Return the next batch; raise StopIteration at the end of the data."""

    def get_batch(self, state: S) -> Any:
        """Return the batch for the step that starts at ``state``; by default the next one, whatever the State.

        A Loop calls this once a step. StopIteration ends the run.
        """
        del state
        return next(self)
