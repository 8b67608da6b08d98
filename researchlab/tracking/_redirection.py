"""How does a re-execution leave the user's stores alone?

In the child of a re-execution, MLflow's two registries of stores (tracking and models) give the scratch store for every
URI: `mlflow.set_tracking_uri`, `MlflowClient(tracking_uri=...)` and the environment all end there. It takes effect when
MLflow is imported, not before: importing it early could change the bits of a program that sets variables first.
"""

from __future__ import annotations

import functools as ft
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from researchlab.tracking._guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_REGISTRIES = {
    "mlflow.tracking._tracking_service.registry": "TrackingStoreRegistry",
    "mlflow.tracking._model_registry.registry": "ModelRegistryStoreRegistry",
}


def redirect_stores(request: str) -> None:
    """Send everything that this process does with MLflow stores to the scratch store, and guard the original checkout.

    Args:
        request: The request file; where it cannot be read, the tracker will say so.
    """
    try:
        asked = json.loads(Path(request).read_text(encoding="utf-8"))
        scratch = str(asked["tracking_uri"])
    except (OSError, ValueError, LookupError, TypeError):
        return
    guard(asked)
    sys.meta_path.insert(0, _Finder(scratch))
    for name in _REGISTRIES:
        if name in sys.modules:
            _redirect(sys.modules[name], scratch)


def _redirect(module: ModuleType, scratch: str) -> None:
    registry: Any = getattr(module, _REGISTRIES[module.__name__], None)
    original: Callable[..., Any] | None = getattr(registry, "get_store", None)
    if original is None:
        message = (
            f"This MLflow has no store registry in {module.__name__}, so that the run's own store would not be safe."
        )
        raise ImportError(message)

    @ft.wraps(original)
    def get_store(self: Any, store_uri: str | None = None, *args: Any, **kw: Any) -> Any:
        del store_uri
        return original(self, scratch, *args, **kw)

    registry.get_store = get_store


class _Finder:
    """Finds the modules of the registries as Python would, and has them changed once they are executed."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._busy = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a registry's module, None for all others."""
        del path, target
        if name not in _REGISTRIES or self._busy:
            return None
        self._busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy = False
        loader: Any = spec.loader if spec is not None else None
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _redirect(module, self._scratch)

            loader.exec_module = exec_module  # of this one loader: each module has its own
        return spec
