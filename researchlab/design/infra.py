"""What does a Loop need from outside? Data, telemetry, checkpoints and pictures."""

from __future__ import annotations

from researchlab.design._checkpoint_persister import CheckpointPersister
from researchlab.design._data import DataProvider
from researchlab.design._equinox_persister import EquinoxPersister
from researchlab.design._mlflow_telemetry import MLFlowTelemetry
from researchlab.design._orbax_persister import OrbaxPersister
from researchlab.design._persister import Checkpoint, Persister
from researchlab.design._telemetry import MetricEntry, Telemetry
from researchlab.design._visualizer import Visualizer

__all__ = [
    "Checkpoint",
    "CheckpointPersister",
    "DataProvider",
    "EquinoxPersister",
    "MLFlowTelemetry",
    "MetricEntry",
    "OrbaxPersister",
    "Persister",
    "Telemetry",
    "Visualizer",
]
