"""How is research code written? State, Config, pure kernels, and a Loop that runs them.

Importing it never imports mlflow.
"""

from __future__ import annotations

from researchlab.design.core import Config, FieldSelector, Kernel, SelectedKernel, Selector, State
from researchlab.design.infra import (
    ArrayDataProvider,
    DataProvider,
    EquinoxPersister,
    FunctionDataProvider,
    GrainDataProvider,
    IterableDataProvider,
    MatplotlibVisualizer,
    MetricEntry,
    MLFlowTelemetry,
    Persister,
    StepDataProvider,
    Telemetry,
    VideoVisualizer,
    Visualizer,
)
from researchlab.design.orchestrator import Loop
from researchlab.design.utils import flatten_config, flatten_pytree, unflatten_config, unflatten_pytree

__all__ = [
    "ArrayDataProvider",
    "Config",
    "DataProvider",
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
