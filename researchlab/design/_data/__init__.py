"""Where does the batch of a step come from? One module a provider; this one only lists them."""

from __future__ import annotations

from researchlab.design._data._array import ArrayDataProvider
from researchlab.design._data._function import FunctionDataProvider
from researchlab.design._data._grain import GrainDataProvider
from researchlab.design._data._iterable import IterableDataProvider
from researchlab.design._data._provider import DataProvider
from researchlab.design._data._step import StepDataProvider

__all__ = [
    "ArrayDataProvider",
    "DataProvider",
    "FunctionDataProvider",
    "GrainDataProvider",
    "IterableDataProvider",
    "StepDataProvider",
]
