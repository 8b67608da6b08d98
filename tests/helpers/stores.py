"""Real stores of a test's own, and what MLflow's settings are at a moment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from researchlab.tracking.runs import TrackedRun, find_run
from researchlab.tracking.store import Store, quiet_mlflow, scratch_store
from researchlab.tracking.trace import read_trace

if TYPE_CHECKING:
    from pathlib import Path

    from researchlab.tracking.tracker import ExperimentTracker


def new_store(folder: Path) -> Store:
    """Make a store in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return scratch_store(folder)


def run_of(tracker: ExperimentTracker, store: Store) -> TrackedRun:
    """Return the run that a tracker made."""
    return find_run(tracker.run_name, tracking_uri=store.tracking_uri)


def status_of(tracker: ExperimentTracker, store: Store) -> str:
    """Return the status of the run that a tracker made."""
    return run_of(tracker, store).run.info.status


def points_of(run: TrackedRun) -> list[tuple[str, int, str, bytes]]:
    """Return (name, step, dtype, bits) of every point in the run's trace, in the order of logging within a metric."""
    with run.documents() as folder:
        history = read_trace(folder).metrics
        return [
            (name, int(points.steps[index]), points.dtype(index), points.bits(index))
            for name, points in history.metrics.items()
            for index in range(len(points))
        ]


def mlflow_settings() -> dict[str, Any]:
    """Return everything of MLflow that a tracker has to leave as it was."""
    import mlflow
    from mlflow.tracking import fluent
    from mlflow.tracking._tracking_service import utils

    with quiet_mlflow():
        names = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
        names += ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
        return {
            "uri": utils._tracking_uri,
            "effective uri": mlflow.get_tracking_uri(),
            "registry": mlflow.get_registry_uri(),
            "experiment": fluent._active_experiment_id,
            "environ": {name: os.environ.get(name) for name in names},
            "runs": [run.info.run_id for run in fluent._active_run_stack.get()],
            "client": (mlflow.MlflowClient.log_metric, mlflow.MlflowClient.log_batch),
        }
