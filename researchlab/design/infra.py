"""What does a Loop need from outside? Data, telemetry, checkpoints and pictures."""

from __future__ import annotations

from researchlab.design._checkpoint_persister import CheckpointPersister
from researchlab.design._data import (
    ArrayDataProvider,
    DataProvider,
    FunctionDataProvider,
    GrainDataProvider,
    IterableDataProvider,
    StepDataProvider,
)
from researchlab.design._equinox_persister import EquinoxPersister
from researchlab.design._matplotlib_visualizer import MatplotlibVisualizer
from researchlab.design._mlflow_telemetry import MLFlowTelemetry
from researchlab.design._orbax_persister import OrbaxPersister
from researchlab.design._persister import Checkpoint, Persister
from researchlab.design._telemetry import MetricEntry, Telemetry
from researchlab.design._video_visualizer import VideoVisualizer
from researchlab.design._visualizer import Visualizer

__all__ = [
    "ArrayDataProvider",
    "Checkpoint",
    "CheckpointPersister",
    "DataProvider",
    "EquinoxPersister",
    "FunctionDataProvider",
    "GrainDataProvider",
    "IterableDataProvider",
    "MLFlowTelemetry",
    "MatplotlibVisualizer",
    "MetricEntry",
    "OrbaxPersister",
    "Persister",
    "StepDataProvider",
    "Telemetry",
    "VideoVisualizer",
    "Visualizer",
]
