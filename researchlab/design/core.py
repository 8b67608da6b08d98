"""What is research code made of? Config, State, pure kernels, and selectors that feed one from the others."""

from __future__ import annotations

from researchlab.design._config import Config
from researchlab.design._selection import FieldSelector, Kernel, SelectedKernel, Selector
from researchlab.design._state import State

__all__ = ["Config", "FieldSelector", "Kernel", "SelectedKernel", "Selector", "State"]
