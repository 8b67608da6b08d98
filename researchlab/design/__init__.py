"""How is research code written? State, Config, pure kernels, and a Loop that runs them.

Importing it never imports mlflow.
"""

from __future__ import annotations

from researchlab.design._cadence import Cadence
from researchlab.design.core import Config, FieldSelector, Kernel, SelectedKernel, Selector, State
from researchlab.design.infra import (
    ArrayDataProvider,
    Checkpoint,
    CheckpointPersister,
    DataProvider,
    EquinoxPersister,
    FunctionDataProvider,
    GrainDataProvider,
    IterableDataProvider,
    MatplotlibVisualizer,
    MetricEntry,
    MLFlowTelemetry,
    OrbaxPersister,
    Persister,
    StepDataProvider,
    Telemetry,
    VideoVisualizer,
    Visualizer,
)
from researchlab.design.orchestrator import DryRun, Loop
from researchlab.design.utils import flatten_config, flatten_pytree, unflatten_config, unflatten_pytree

__all__ = [
    "ArrayDataProvider",
    "Cadence",
    "Checkpoint",
    "CheckpointPersister",
    "Config",
    "DataProvider",
    "DryRun",
    "EquinoxPersister",
    "FieldSelector",
    "FunctionDataProvider",
    "GrainDataProvider",
    "IterableDataProvider",
    "Kernel",
    "Loop",
    "MLFlowTelemetry",
    "MatplotlibVisualizer",
    "MetricEntry",
    "OrbaxPersister",
    "Persister",
    "SelectedKernel",
    "Selector",
    "State",
    "StepDataProvider",
    "Telemetry",
    "VideoVisualizer",
    "Visualizer",
    "flatten_config",
    "flatten_pytree",
    "unflatten_config",
    "unflatten_pytree",
]
