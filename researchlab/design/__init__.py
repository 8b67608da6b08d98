"""How is research code written? State, Config, pure kernels, and a Loop that runs them.

Importing it never imports mlflow.
"""

from __future__ import annotations

from researchlab.design.core import Config, FieldSelector, Kernel, SelectedKernel, Selector, State
from researchlab.design.infra import (
    Checkpoint,
    CheckpointPersister,
    DataProvider,
    EquinoxPersister,
    MetricEntry,
    MLFlowTelemetry,
    OrbaxPersister,
    Persister,
    Telemetry,
    Visualizer,
)
from researchlab.design.orchestrator import Loop
from researchlab.design.utils import flatten_config, flatten_pytree, unflatten_config, unflatten_pytree

__all__ = [
    "Checkpoint",
    "CheckpointPersister",
    "Config",
    "DataProvider",
    "EquinoxPersister",
    "FieldSelector",
    "Kernel",
    "Loop",
    "MLFlowTelemetry",
    "MetricEntry",
    "OrbaxPersister",
    "Persister",
    "SelectedKernel",
    "Selector",
    "State",
    "Telemetry",
    "Visualizer",
    "flatten_config",
    "flatten_pytree",
    "unflatten_config",
    "unflatten_pytree",
]
