"""Who is told about metrics and parameters?"""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, Generic

from researchlab.design._typevars import C, S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class MetricEntry:
    """The metrics of one step.

    Attributes:
        metrics: dotted name to Python number.
        step: the number of completed steps; the first step's metrics have 1.
        timestamp_ms: when the step ended, in milliseconds since 1970.
    """

    metrics: Mapping[str, float]
    step: int
    timestamp_ms: int


class Telemetry(abc.ABC, Generic[S, C]):
    """Receives what a Loop wants to show.

    A Loop calls ``log_params`` once, before its first step, with a flat dict of the config, and ``log_metrics`` after
    each step. A subclass for a store that is slow for single values also overrides ``log_metrics_batch``: a Loop then
    collects steps, and sends them about once a second and at the end of the run, whatever ended it. One that also has
    ``in_background`` is sent them from a thread, so that the Loop never waits for it.
    """

    @abc.abstractmethod
    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the metrics of one step.

        Args:
            metrics: name to value. From a Loop: dotted name to Python bool, int or float.
            step: from a Loop, the number of completed steps: 1 for the first.
        """

    @abc.abstractmethod
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, which may be nested dicts."""

    def log_metrics_batch(self, entries: Sequence[MetricEntry]) -> None:
        """Log the metrics of several steps, oldest first.

        Raises:
            StoreError: they could not be delivered now; a Loop keeps them and tries again.
        """
        for entry in entries:
            self.log_metrics(entry.metrics, entry.step)

    def in_background(self) -> Telemetry[S, C] | None:
        """Return the telemetry that may be called from another thread for what is active in this one, or None.

        A Loop then calls ``log_metrics_batch`` of that telemetry from one background thread, and nothing of it from
        elsewhere. The thread spends about a twentieth of the time on it: the pause after a request is 20 times as long
        as the request took, and at least a second. A request has up to 1000 values. When more wait, those of the
        waiting steps are sent whose number is divisible by the smallest power of two that makes them fit, plus the
        newest; a run that gives less than that is sent whole. The trace of a tracked run has every value.

        What its ``log_metrics_batch`` raises is told in the Loop's thread: a StoreError as for any telemetry, a
        ResearchlabWarning (the metrics were taken, and there is something to say) as a warning, any other exception is
        raised at the next step, or at the end.

        A subclass that overrides ``log_metrics`` or ``log_metrics_batch`` below the class that has this method is
        called as if there were none.
        """
        return None
