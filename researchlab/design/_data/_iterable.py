"""How does any Python iterable become a provider whose place can be found again?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from researchlab.design._data._prefetch import Prefetcher, ahead, checked_prefetch
from researchlab.design._data._provider import DataProvider, whole_step
from researchlab.design._data._skip import skip
from researchlab.design._data._to_device import to_device as put_on_device
from researchlab.design._typevars import S
from researchlab.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import jax


class IterableDataProvider(DataProvider[S]):
    """Gives what an iterable gives.

    Its position is the number of batches that were handed out. A place is found again by iterating anew and dropping
    that many, so the iterable must give the same batches each time: its shuffling needs a seed of its own, and with
    ``prefetch`` its random generator must be its own, too, since it is drawn from in another thread.

    An exception of the iterable comes out at its batch, also with ``prefetch``. Asked again after it, the provider
    iterates anew, up to the batch that failed.

    Example:
        >>> batches = IterableDataProvider(lambda: read_shards("data/*.npz", seed=0), prefetch=2, to_device=True)
    """

    def __init__(
        self,
        iterable: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        prefetch: int = 0,
        to_device: bool = False,
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """Take the iterable; nothing is drawn yet.

        Args:
            iterable: what can be iterated anew (a list, a data loader), or a function that returns a new iterator each
                time. A generator will do as well, but can only go forward.
            prefetch: draw so many batches ahead, in one background thread; each must then be an object of its own.
            to_device: put the arrays of a batch on the device; in that thread, where there is one.
            sharding: where to put them, if not on the default device; implies ``to_device``.

        Raises:
            ArgumentError: it is no iterable, or ``prefetch`` is no whole number.
        """
        if not isinstance(iterable, Iterable) and not callable(iterable):
            kind = type(iterable).__name__
            msg = f"iterable must be an iterable of batches, or a function that returns one, not a {kind}"
            raise ArgumentError(msg)
        self._iterable = iterable
        self._prefetch = checked_prefetch(prefetch)
        self._is_put = to_device or sharding is not None
        self._sharding = sharding
        self._source: Iterator[Any] | None = None
        self._has_started = False
        self._position = 0

    def __next__(self) -> Any:
        """Return the next batch; raise StopIteration at the end of the data.

        Raises:
            DataError: a generator was closed, or has raised, and cannot be iterated anew.
        """
        if self._source is None:
            self._open(self._position)
        try:
            batch = next(cast("Iterator[Any]", self._source))
            self._position += 1
        except StopIteration:
            raise
        except BaseException:
            # Ctrl-C as well: a generator that was interrupted would claim to be at its end when it is asked again.
            self._source = None
            raise
        return batch

    def get_position(self) -> int:
        """Return how many batches were handed out; those that were only drawn ahead do not count."""
        return self._position

    def set_position(self, position: Any) -> None:
        """Go to where so many batches have been handed out; the same as ``seek``."""
        self.seek(whole_step(position, what="the position of an IterableDataProvider"))

    def seek(self, step: int) -> None:
        """Go to the batch of the step that follows ``step`` completed steps; back by iterating anew.

        Raises:
            DataError: ``step`` is negative, the data end before it, or lies behind and the iterable is a generator.
        """
        count = whole_step(step)
        if count < self._position:
            self.close()
        if self._source is None:
            self._open(count)
        else:
            skip(self, count - self._position, name=type(self).__name__)

    def close(self) -> None:
        """End the thread and drop the iterator. A batch that is asked for later iterates anew up to it."""
        source, self._source = self._source, None
        if isinstance(source, Prefetcher):
            source.close()

    def _open(self, count: int) -> None:
        """Iterate anew, from the batch after the first ``count``."""
        made = cast("object", self._iterable if isinstance(self._iterable, Iterable) else self._iterable())
        if not isinstance(made, Iterable):
            msg = f"the function that IterableDataProvider was given must return an iterable, not {made!r:.60}"
            raise DataError(msg)
        iterator = iter(cast("Iterable[Any]", made))
        if iterator is self._iterable and self._has_started:
            msg = (
                f"the batch after step {count} needs the data from their beginning, and a {type(iterator).__name__} can"
                " be iterated only once: pass a function that makes it, as in IterableDataProvider(lambda: batches())"
            )
            raise DataError(msg)
        self._has_started = True
        skip(iterator, count, name=type(self).__name__)
        if self._is_put:
            iterator = (put_on_device(batch, self._sharding) for batch in iterator)
        self._source = ahead(iterator, self._prefetch)
        self._position = count
