"""Where do the tests of ``design`` log to?"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory):
    """An empty, migrated MLflow database: making one takes over a second, copying it nothing."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "template.db"
    with warnings.catch_warnings():
        # SQLAlchemy 2.1 deprecates what MLflow's mappers use; the first store of a process configures them.
        warnings.simplefilter("ignore")
        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_run(migrated_database, tmp_path, monkeypatch):
    """An active MLflow run in a store of its own; gives its id."""
    import mlflow

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    database = Path(shutil.copy(migrated_database, tmp_path / "mlflow.db"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    try:
        artifacts = (tmp_path / "artifacts").as_uri()
        experiment_id = mlflow.MlflowClient().create_experiment("design", artifact_location=artifacts)
        with mlflow.start_run(experiment_id=experiment_id) as run:
            yield run.info.run_id
    finally:
        mlflow.set_tracking_uri(before)


@pytest.fixture
def recorder():
    """A recorder that is current during the test, as that of an active run would be."""
    from researchlab import _recording

    class ListRecorder:
        def __init__(self):
            self.metrics = []
            self.states = []

        def record_metrics(self, metrics, step):
            self.metrics.append((dict(metrics), step))

        def record_state(self, state, step, *, source):
            self.states.append((state, step, source))

    current = ListRecorder()
    _recording.push(current)
    yield current
    _recording.pop(current)
