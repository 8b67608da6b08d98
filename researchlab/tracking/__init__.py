"""Which code, command, environment and inputs was this? Answered with git and MLflow, without jax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from researchlab._lazy import lazy_names
from researchlab.tracking._reading import _opened

if TYPE_CHECKING:
    from researchlab.tracking.tracker import ExperimentTracker as ExperimentTracker
    from researchlab.tracking.utils import find_run_by_rlab_id as find_run_by_rlab_id
    from researchlab.tracking.utils import generate_run_id as generate_run_id
    from researchlab.tracking.utils import get_git_state as get_git_state
    from researchlab.tracking.utils import log_flattened_params as log_flattened_params

__all__ = ["ExperimentTracker", "find_run_by_rlab_id", "generate_run_id", "get_git_state", "log_flattened_params"]

_opened.install()  # here, so that data which a program reads before its run starts is seen

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ExperimentTracker": "researchlab.tracking.tracker",
        "find_run_by_rlab_id": "researchlab.tracking.utils",
        "generate_run_id": "researchlab.tracking.utils",
        "get_git_state": "researchlab.tracking.utils",
        "log_flattened_params": "researchlab.tracking.utils",
    },
)
