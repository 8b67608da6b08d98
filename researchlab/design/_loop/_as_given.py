"""How are steps taken by calling the step function as it is: nothing is compiled or traced that the caller did not?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, cast

from researchlab.design._loop._finite import non_finite_names
from researchlab.design._loop._steps import NonFinite, note_step, state_and_metrics
from researchlab.design._metrics import flatten_metrics
from researchlab.design._typevars import S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from researchlab._recording import MetricBlock
    from researchlab.design._loop._batches import Batches

_ENDLESS = 2**62


class StepsAsGiven(Generic[S]):
    """Takes steps one by one; the metrics of each are handed on at once."""

    def __init__(
        self, step_fn: Callable[..., Any], config: Any, batches: Batches[S], state: S, step: int, *, check_finite: bool
    ) -> None:
        """Take the parts."""
        self.step = step
        self.at_end = False
        self.non_finite: NonFinite | None = None
        self.room = _ENDLESS
        self.chunk = 1
        self._step_fn = step_fn
        self._config = config
        self._batches = batches
        self._state = state
        self._check_finite = check_finite

    def advance(self, count: int, done: Callable[[Mapping[str, Any], int], None], *, seconds: float) -> None:
        """Take up to ``count`` steps."""
        until = time.monotonic() + seconds
        for _ in range(count):
            try:
                batch = self._batches.next(self._state)
            except StopIteration:
                self.at_end = True
                return
            done(self._advance(batch), self.step)
            if self.non_finite is not None or time.monotonic() > until:
                return

    def _advance(self, batch: Any) -> dict[str, Any]:
        number = self.step + 1
        try:
            result: object = self._step_fn(self._state, self._config, batch)
            state, metrics = state_and_metrics(result)
            flat = flatten_metrics(metrics, number)
        except Exception as error:
            note_step(error, number)
            raise
        self._state = cast("S", state)
        self.step = number
        if self._check_finite and (names := non_finite_names(state, flat)):
            self.non_finite = NonFinite(number, names)
        return flat

    def collect(self) -> MetricBlock | None:
        """Return None: metrics were handed on as they came."""
        return None

    def state(self) -> S:
        """Return the State as the step function returned it."""
        return self._state

    def finish(self) -> S:
        """Return the State as the step function returned it."""
        return self._state

    def like(self) -> S:
        """Return the State."""
        return self._state

    def replace(self, state: S) -> None:
        """Go on from another State."""
        self._state = state

    def memory(self) -> None:
        """Return None: nothing is known."""

    def facts(self) -> Mapping[str, str]:
        """Return what of this way of execution may change bits."""
        return {"mode": "as given", "checked for NaN": "yes" if self._check_finite else "no"}
