"""Record what ran and what it computed, bit for bit; run it again and know whether the same bits came back.

Importing this package loads neither jax nor mlflow; the names below are loaded when they are first used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from researchlab import _start as _start
from researchlab._lazy import lazy_names

if TYPE_CHECKING:
    from researchlab.errors import ResearchlabError as ResearchlabError
    from researchlab.errors import ResearchlabWarning as ResearchlabWarning
    from researchlab.tracking.tracker import ExperimentTracker as ExperimentTracker

__all__ = ["ExperimentTracker", "ResearchlabError", "ResearchlabWarning"]

if "RLAB_REQUEST" in os.environ:  # this process is a re-execution
    from researchlab.tracking._redirection import redirect_stores

    redirect_stores(os.environ["RLAB_REQUEST"])

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ExperimentTracker": "researchlab.tracking.tracker",
        "ResearchlabError": "researchlab.errors",
        "ResearchlabWarning": "researchlab.errors",
    },
)
