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
    collects steps, and sends them about once a second and at the end of the run, whatever ended it.
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
