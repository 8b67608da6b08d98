"""How does a Grain pipeline become a provider, with its own state as the position?"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from researchlab.design._data._prefetch import Prefetcher, ahead, checked_prefetch
from researchlab.design._data._provider import DataProvider, whole_step
from researchlab.design._data._skip import skip
from researchlab.design._data._to_device import to_device as put_on_device
from researchlab.design._typevars import S
from researchlab.errors import ArgumentError, DataError, MissingPackageError

if TYPE_CHECKING:
    import jax


class GrainDataProvider(DataProvider[S]):
    """Gives the batches of a Grain ``MapDataset``, ``IterDataset`` or ``DataLoader``, or of an iterator of one.

    Its position is the state of the Grain iterator after the last batch that was handed out, so that a place is found
    again at once. Grain writes the data source and the sampler of a ``DataLoader`` into that state by their ``repr``,
    and takes it back only where they are the same: a source of your own needs a ``__repr__`` without an address.

    Example:
        >>> dataset = grain.MapDataset.source(records).seed(0).shuffle().repeat().batch(64)
        >>> batches = GrainDataProvider(dataset, prefetch=2, to_device=True)
    """

    def __init__(
        self,
        dataset_or_iterator: Any,
        *,
        prefetch: int = 0,
        to_device: bool = False,
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """Take the dataset, and make its iterator.

        Args:
            dataset_or_iterator: a dataset, a data loader, or an iterator of one, which begins where it stands and is
                from now on the provider's own.
            prefetch: draw so many batches ahead, in one background thread, beside what Grain itself reads ahead.
            to_device: put the arrays of a batch on the device; in that thread, where there is one.
            sharding: where to put them, if not on the default device; implies ``to_device``.

        Raises:
            MissingPackageError: Grain is not installed.
            ArgumentError: it is nothing of Grain's, or ``prefetch`` is no whole number.
        """
        if importlib.util.find_spec("grain") is None:
            msg = "GrainDataProvider needs the package grain: `pip install 'researchlab[grain]'`"
            raise MissingPackageError(msg)
        self._prefetch = checked_prefetch(prefetch)
        self._is_put = to_device or sharding is not None
        self._sharding = sharding
        self._dataset = dataset_or_iterator
        self._iterator: Any = _iterator(dataset_or_iterator)
        self._source: Iterator[Any] | None = None
        self._start = self._state = _as_text(self._iterator)

    def __next__(self) -> Any:
        """Return the next batch; raise StopIteration at the end of the data."""
        if self._source is None:
            self._open()
        try:
            batch, self._state = next(cast("Iterator[Any]", self._source))
        except StopIteration:
            raise
        except BaseException:
            self._end_source()
            raise
        return batch

    def get_position(self) -> Any:
        """Return the state of the Grain iterator after the last batch that was handed out: a dict or a text."""
        return json.loads(self._state)

    def set_position(self, position: Any) -> None:
        """Go to where ``get_position`` was asked for.

        Raises:
            DataError: Grain does not take the state; says why.
        """
        if not isinstance(position, dict | str):
            msg = f"the position of a GrainDataProvider is a Grain iterator's state, a dict or a text, not {position!r}"
            raise DataError(msg)
        self._end_source()
        before, self._state = self._state, json.dumps(position)
        try:
            self._open()
        except Exception as error:
            self._state = before
            msg = (
                f"Grain does not take the position {position!r:.200}: {error!r:.500}. Are these the data, and the same"
                " pipeline, that the checkpoint was written with?"
            )
            raise DataError(msg) from error

    def seek(self, step: int) -> None:
        """Go to the batch of the step that follows ``step`` completed steps, from the beginning, by dropping batches.

        Raises:
            DataError: ``step`` is no whole number, negative, or beyond the end of the data.
        """
        count = whole_step(step)
        self.set_position(json.loads(self._start))
        skip(self, count, name=type(self).__name__)

    def close(self) -> None:
        """End the thread, and the iterator if this object made it. A batch that is asked for later makes a new one."""
        self._end_source()
        iterator = self._iterator
        if iterator is not self._dataset and hasattr(iterator, "close"):
            self._iterator = None
            iterator.close()

    def _open(self) -> None:
        if self._iterator is None:
            self._iterator = _iterator(self._dataset)
        _restore(self._iterator, self._state)
        self._source = ahead(_with_states(self._iterator, is_put=self._is_put, sharding=self._sharding), self._prefetch)

    def _end_source(self) -> None:
        """Make sure that nobody draws from the iterator, of which there is only one."""
        source, self._source = self._source, None
        if isinstance(source, Prefetcher) and not source.close():
            if self._iterator is self._dataset:
                msg = "a batch is still being drawn from the Grain iterator, so it cannot be set to another place"
                raise DataError(msg)
            self._iterator = None  # the thread keeps the old one


def _with_states(iterator: Any, *, is_put: bool, sharding: Any) -> Iterator[tuple[Any, str]]:
    for batch in iterator:
        yield (put_on_device(batch, sharding) if is_put else batch), _as_text(iterator)


def _iterator(dataset_or_iterator: Any) -> Any:
    iterator = iter(cast("Iterable[Any]", dataset_or_iterator)) if isinstance(dataset_or_iterator, Iterable) else None
    if not (hasattr(iterator, "get_state") and hasattr(iterator, "set_state")):
        kind = type(dataset_or_iterator).__name__
        msg = (
            f"GrainDataProvider needs a grain.MapDataset, IterDataset or DataLoader, or an iterator of one, not a"
            f" {kind}: take IterableDataProvider for other iterables, ArrayDataProvider for arrays"
        )
        raise ArgumentError(msg)
    return iterator


def _as_text(iterator: Any) -> str:
    """Return the state of the iterator as JSON: of a dataset's a dict, of a data loader's (bytes) a text."""
    state = iterator.get_state()
    return json.dumps(state.decode() if isinstance(state, bytes) else state)


def _restore(iterator: Any, text: str) -> None:
    state: object = json.loads(text)
    iterator.set_state(state.encode() if isinstance(state, str) else state)
