"""What do all ways of taking steps have in common?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from researchlab.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Callable

    from researchlab._recording import MetricBlock

S_co = TypeVar("S_co", covariant=True)

_PAIR = 2


@dataclasses.dataclass(frozen=True)
class NonFinite:
    """Where a NaN or an infinity first appeared.

    Attributes:
        step: the step that gave it.
        names: the leaves (``leaf model.weight``) and metrics (``metric 'loss'``) that have one.
    """

    step: int
    names: tuple[str, ...]


class Steps(Protocol[S_co]):
    """A way of taking steps.

    Attributes:
        step: the number of completed steps.
        at_end: the data have ended.
        non_finite: what was found, where it was looked for; no step is taken after it.
        room: how many steps' metrics can still be kept until ``collect``.
        chunk: how many steps go by without a look at the host.
    """

    step: int
    at_end: bool
    non_finite: NonFinite | None

    @property
    def room(self) -> int: ...

    @property
    def chunk(self) -> int: ...

    def advance(self, count: int, done: Callable[[Mapping[str, Any], int], None], *, seconds: float) -> None:
        """Take up to ``count`` steps; fewer at the end of the data, or when time is up.

        Args:
            count: 1 or more.
            done: is called with the metrics of each step and its number where they are on the host already.
            seconds: no step is begun after so many: steps, or the data, may have become slower all of a sudden.
        """
        ...

    def collect(self) -> MetricBlock | None:
        """Fetch the metrics of the steps since the last time; None where there are none."""
        ...

    def state(self) -> S_co:
        """Return the State after ``step``; no later step takes its arrays away."""
        ...

    def finish(self) -> S_co:
        """Return the State after ``step``; nothing more is asked.

        Raises:
            StepError: it is lost.
        """
        ...

    def like(self) -> S_co:
        """Return a State of the same structure, shapes and dtypes, be it without values."""
        ...

    def replace(self, state: Any) -> None:
        """Go on from another State."""
        ...

    def memory(self) -> Any:
        """Return what XLA says of the memory of a compiled step; None where it says nothing."""
        ...

    def facts(self) -> Mapping[str, str]:
        """Return what of this way of execution may change bits."""
        ...


def state_and_metrics(result: object) -> tuple[object, Mapping[str, Any]]:
    """Take apart what a step function returned.

    Raises:
        StepError: it is something else than ``(new_state, metrics)``.
    """
    wanted = "step_fn must return (new_state, metrics)"
    if not isinstance(result, tuple | list) or len(cast("tuple[object, ...]", result)) != _PAIR:
        size = f" of {len(cast('tuple[object, ...]', result))}" if isinstance(result, tuple | list) else ""
        msg = f"{wanted}; it returned a {type(result).__name__}{size}: {result!r:.200}"
        raise StepError(msg)
    state, metrics = cast("tuple[object, object]", result)
    if metrics is None:
        return state, {}
    if not isinstance(metrics, Mapping):
        kind = type(metrics).__name__
        msg = f"{wanted} with metrics as a dict of name to number, {{}} for none; they are a {kind}: {metrics!r:.200}"
        raise StepError(msg)
    return state, cast("Mapping[str, Any]", metrics)


def note_step(error: BaseException, number: int) -> None:
    """Say on an exception in which step of the Loop it was raised."""
    error.add_note(f"In step {number} of a researchlab Loop; loop.state is the State after step {number - 1}.")
