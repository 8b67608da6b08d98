"""How do metrics that a script logs through plain MLflow become part of the trace?

While a tracker is active, `MlflowClient.log_metric` and `log_batch`, through which MLflow's fluent functions and
autologging go, also hand the values over before MLflow changes them (it stores -0.0 as 0.0 and infinities as 1.8e308).
"""

from __future__ import annotations

import functools as ft
import threading
from typing import TYPE_CHECKING, Any

from researchlab import _recording
from researchlab.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_lock = threading.Lock()
_listeners: dict[str, Callable[[str, Any, int], None]] = {}
_replaced: dict[str, tuple[Any, Any]] = {}


def listen(mlflow_run_id: str, listener: Callable[[str, Any, int], None]) -> None:
    """Hand every metric that is logged to the run to ``listener(name, value, step)``."""
    import mlflow

    with _lock:
        _listeners[mlflow_run_id] = listener
        client: Any = mlflow.MlflowClient
        for name, wrap in (("log_metric", _log_metric), ("log_batch", _log_batch)):
            if name not in _replaced:
                original = getattr(client, name)
                _replaced[name] = (original, wrap(original))
                setattr(client, name, _replaced[name][1])


def forget(mlflow_run_id: str) -> None:
    """Stop listening; MLflow is as it was when the last listener has gone."""
    import mlflow

    with _lock:
        _listeners.pop(mlflow_run_id, None)
        if _listeners:
            return
        client: Any = mlflow.MlflowClient
        for name, (original, ours) in list(_replaced.items()):
            if getattr(client, name) is ours:  # else someone put something over it, and ours stays, without effect
                setattr(client, name, original)
                del _replaced[name]


def _log_metric(original: Callable[..., Any]) -> Callable[..., Any]:
    @ft.wraps(original)
    def log_metric(
        self: Any,
        run_id: str,
        key: str,
        value: Any,
        timestamp: int | None = None,
        step: int | None = None,
        *args: Any,
        **kw: Any,
    ) -> Any:
        _hand_over(run_id, [(key, value, step or 0)])
        return original(self, run_id, key, value, timestamp, step, *args, **kw)

    return log_metric


def _log_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    @ft.wraps(original)
    def log_batch(self: Any, run_id: str, metrics: Sequence[Any] = (), *args: Any, **kw: Any) -> Any:
        _hand_over(run_id, [(metric.key, metric.value, metric.step or 0) for metric in metrics])
        return original(self, run_id, metrics, *args, **kw)

    return log_batch


def _hand_over(mlflow_run_id: str, points: list[tuple[str, Any, int]]) -> None:
    listener = _listeners.get(mlflow_run_id)
    if listener is None:
        return
    for name, value, step in points:
        if _recording.is_recorded(name, step):
            continue
        try:
            listener(name, value, step)
        except MetricError:
            # MLflow refuses such a value too, and its error is the one that the caller of MLflow expects.
            continue
