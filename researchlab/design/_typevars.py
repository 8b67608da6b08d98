"""Which type parameters do the generic classes of ``design`` share?

They default to Any, so that ``MLFlowTelemetry()`` fits the Loop of any State and Config without being told.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import ParamSpec, TypeVar

from researchlab.design._config import Config
from researchlab.design._state import State

S = TypeVar("S", bound=State, default=Any)
C = TypeVar("C", bound=Config, default=Any)
R = TypeVar("R", default=Any)
R_co = TypeVar("R_co", covariant=True, default=Any)
P = ParamSpec("P", default=...)
