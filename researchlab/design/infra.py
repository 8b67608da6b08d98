"""What does a Loop need from outside? Data, telemetry, checkpoints and pictures."""

from __future__ import annotations

from researchlab.design._checkpoints._checkpoint_persister import CheckpointPersister
from researchlab.design._checkpoints._equinox_persister import EquinoxPersister
from researchlab.design._checkpoints._orbax_persister import OrbaxPersister
from researchlab.design._checkpoints._persister import Checkpoint, Persister
from researchlab.design._data import (
    ArrayDataProvider,
    DataProvider,
    FunctionDataProvider,
    GrainDataProvider,
    IterableDataProvider,
    StepDataProvider,
)
from researchlab.design._telemetries._mlflow_telemetry import MLFlowTelemetry
from researchlab.design._telemetries._telemetry import MetricEntry, Telemetry
from researchlab.design._visualizers._matplotlib_visualizer import MatplotlibVisualizer
from researchlab.design._visualizers._video_visualizer import VideoVisualizer
from researchlab.design._visualizers._visualizer import Visualizer

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
