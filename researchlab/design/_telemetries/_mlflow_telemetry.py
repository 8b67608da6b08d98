"""How do metrics and parameters get to the active MLflow run?

mlflow takes seconds to import, so it is imported when something is logged.
"""

from __future__ import annotations

import dataclasses
import itertools
import posixpath
import re
import time
import warnings
from typing import TYPE_CHECKING, Any, TypeVar, cast

from researchlab.design._metrics import flatten_metrics, to_float, to_numbers
from researchlab.design._nested import flatten_names
from researchlab.design._telemetries._telemetry import MetricEntry, Telemetry
from researchlab.design._typevars import C, S
from researchlab.errors import NoActiveRunError, ResearchlabWarning, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

T = TypeVar("T")

# MLflow's limits a request and a value (mlflow/utils/validation.py).
_METRICS_A_REQUEST = 1000
_PARAMS_A_REQUEST = 100
_NAME_LENGTH = 250
_PARAM_LENGTH = 6000
_NAME = re.compile(r"[/\w.\- :]+")


class MLFlowTelemetry(Telemetry[S, C]):
    """Logs to the active MLflow run.

    Needs a run that was opened in the same thread: ``with ExperimentTracker(...):`` or ``with mlflow.start_run():``.
    Nested metrics and parameters get dotted names; JAX and NumPy scalars become Python floats. MLflow is for looking
    at: it stores -0.0 as 0.0 and infinities as 1.8e308.

    A call reaches MLflow at once. A Loop sends its metrics from one background thread instead, to the run that is
    active when its first metrics come, with the time of each step. ``Telemetry.in_background`` says which steps are
    sent when a run gives more than MLflow takes (about 400 values a second in SQLite); a slow run is sent whole.

    What MLflow would refuse or cut (a name with ``@`` in it, a parameter that has another value already, a parameter
    over 6000 characters) is named in a ResearchlabWarning and never stops a run.
    """

    def __init__(self) -> None:
        """Make it; nothing is imported and no run is needed before the first value is logged."""
        self._names = _Names()

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the metrics of one step at once.

        Raises:
            MetricError: a metric is not a scalar number.
            NoActiveRunError: there is no active MLflow run in this thread.
            StoreError: the store failed.
        """
        numbers = to_numbers(flatten_metrics(metrics, step), step)
        self.log_metrics_batch([MetricEntry(numbers, step, time.time_ns() // 1_000_000)])

    def log_metrics_batch(self, entries: Sequence[MetricEntry]) -> None:
        """Log the metrics of several steps in as few requests as MLflow allows.

        It may be repeated after an error: MLflow keeps a point of the same name, step, time and value once.

        Raises:
            MetricError: an integer metric is beyond the largest float.
            NoActiveRunError: there is no active MLflow run in this thread.
            StoreError: the store failed.
        """
        _log_metrics(_active_run("metrics"), entries, self._names, warn=_warn)

    def in_background(self) -> Telemetry[S, C]:
        """Return a telemetry for the active run, for a background thread: the active run of MLflow is by thread.

        Raises:
            NoActiveRunError: there is no active MLflow run in this thread.
        """
        return _RunTelemetry(_active_run("metrics"), self._names)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, nested ones by dotted name. A parameter that the run has with the same value is left alone.

        Raises:
            NoActiveRunError: there is no active MLflow run in this thread.
            StoreError: the store failed.
        """
        from mlflow.entities import Param

        run = _active_run("parameters")
        written = {
            name: _written(value)
            for name, value in flatten_names(params, what="parameter").items()
            if self._names.accepts(name, "parameter", warn=_warn)
        }
        if not written:
            return
        stored = _stored_params(run)
        new: list[Param] = []
        for name, value in written.items():
            if name not in stored:
                new.append(Param(name, value))
            elif not _same_value(stored[name], value[:_PARAM_LENGTH]):
                _warn(
                    f"parameter {name!r} of run {run.run_id} stays {stored[name]!r:.80}"
                    f" and does not become {value!r:.80}: MLflow keeps the first value; use one name for one value"
                )
            if len(value) > _PARAM_LENGTH:
                _warn(
                    f"parameter {name!r} has {len(value)} characters and MLflow keeps the first {_PARAM_LENGTH}:"
                    " log it whole as an artifact with mlflow.log_text or mlflow.log_dict"
                )
        for chunk in _chunks(new, _PARAMS_A_REQUEST):
            _log_batch(run, f"{len(new)} parameters", metrics=(), params=chunk)


class _RunTelemetry(Telemetry[S, C]):
    """Logs metrics to one run, from whichever thread; the parameters stay with the Loop's own thread."""

    def __init__(self, run: _Run, names: _Names) -> None:
        self._run = run
        self._names = names

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        self.log_metrics_batch([MetricEntry(metrics, step, time.time_ns() // 1_000_000)])

    def log_metrics_batch(self, entries: Sequence[MetricEntry]) -> None:
        said: list[str] = []
        _log_metrics(self._run, entries, self._names, warn=said.append)
        if said:
            raise ResearchlabWarning("; ".join(said))

    def log_params(self, params: Mapping[str, Any]) -> None:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run of a store, both named: MLflow's own notion of the active ones is another one in each thread."""

    run_id: str
    tracking_uri: str

    def client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri)


class _Names:
    """Which names does MLflow take? Each one that it would refuse is warned about once."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def accepts(self, name: str, what: str, *, warn: Callable[[str], None]) -> bool:
        known = self._known.get(name)
        if known is None:
            problem = _name_problem(name)
            known = self._known[name] = not problem
            if problem:
                warn(f"{what} {name!r} does not go to MLflow, which refuses the name: {problem}; rename it")
        return known


def _active_run(what: str) -> _Run:
    import mlflow

    run = mlflow.active_run()
    if run is None:
        msg = (
            f"no MLflow run is active in this thread, so the {what} have nowhere to go: put the code into"
            ' `with ExperimentTracker("my-experiment"):` or `with mlflow.start_run():`'
        )
        raise NoActiveRunError(msg)
    return _Run(str(run.info.run_id), mlflow.get_tracking_uri())


def _log_metrics(run: _Run, entries: Sequence[MetricEntry], names: _Names, *, warn: Callable[[str], None]) -> None:
    from mlflow.entities import Metric

    points = [
        Metric(name, to_float(name, value, entry.step), entry.timestamp_ms, entry.step)
        for entry in entries
        for name, value in entry.metrics.items()
        if names.accepts(name, "metric", warn=warn)
    ]
    for chunk in _chunks(points, _METRICS_A_REQUEST):
        _log_batch(run, f"{len(points)} metric values", metrics=chunk, params=())


def _log_batch(run: _Run, what: str, *, metrics: Sequence[Metric], params: Sequence[Param]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        run.client().log_batch(run.run_id, metrics=metrics, params=params)
    except (MlflowException, OSError) as error:
        raise _store_error(run, what, error) from error


def _stored_params(run: _Run) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        return run.client().get_run(run.run_id).data.params
    except (MlflowException, OSError) as error:
        raise _store_error(run, "its parameters", error) from error


def _store_error(run: _Run, what: str, error: Exception) -> StoreError:
    said = " ".join(str(error).split())
    return StoreError(
        f"the MLflow store {run.tracking_uri} did not take {what} of run {run.run_id}:"
        f" {type(error).__name__}: {said:.300}"
    )


def _name_problem(name: str) -> str:
    if not _NAME.fullmatch(name):
        return "it may hold letters, digits, spaces and _ - . : / only"
    if len(name) > _NAME_LENGTH:
        return f"it has {len(name)} characters and {_NAME_LENGTH} are allowed"
    # Names double as paths in MLflow: they must already be in normal form.
    if posixpath.normpath(name) != name or name == "." or name.startswith(("..", "/")):
        return "it is no plain relative path"
    return ""


def _written(value: object) -> str:
    """Write a value as a YAML file's reader would see it, so that a list and a tuple of the same values agree."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return str(list(cast("tuple[Any, ...]", value)))
    return str(value)


def _same_value(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return float(one) == float(other)  # "1" from a YAML file, "1.0" from a Config
    except ValueError:
        return False


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, size)):
        yield chunk


def _warn(message: str) -> None:
    warnings.warn(message, ResearchlabWarning, stacklevel=2)
