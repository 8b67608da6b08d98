"""How does a tracker make its run the active one of MLflow's fluent functions, and leave everything as it found it?"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from researchlab.tracking.store import quiet_mlflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")


@dataclasses.dataclass(frozen=True)
class _GlobalState:
    """MLflow's process-wide settings. Its public getters cannot tell "set to the default" from "not set"."""

    tracking_uri: Any
    experiment_id: Any
    environ: Mapping[str, str | None]

    @classmethod
    def read(cls) -> _GlobalState:
        from mlflow.tracking import fluent
        from mlflow.tracking._tracking_service import utils

        return cls(
            tracking_uri=getattr(utils, "_tracking_uri", None),
            experiment_id=getattr(fluent, "_active_experiment_id", None),
            environ={name: os.environ.get(name) for name in _VARIABLES},
        )

    def write(self) -> None:
        import mlflow
        from mlflow.tracking import fluent

        mlflow.set_tracking_uri(self.tracking_uri)
        fluent._active_experiment_id = self.experiment_id  # noqa: SLF001 (MLflow has no public way to unset it)
        for name, value in self.environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class FluentRun:
    """A run that is active for MLflow's fluent functions between ``start`` and ``end``.

    Attributes:
        run: The run.
    """

    def __init__(self, run: mlflow.ActiveRun, *, tracking_uri: str, before: _GlobalState) -> None:
        self.run = run
        self._tracking_uri = tracking_uri
        self._before = before

    @classmethod
    def start(cls, *, tracking_uri: str, experiment_id: str, run_name: str, tags: Mapping[str, str]) -> FluentRun:
        """Start a run, nested when another one is active.

        Args:
            tracking_uri: The store.
            experiment_id: The experiment in it.
            run_name: Name of the run.
            tags: Tags of the run.

        Returns:
            The active run.

        Raises:
            MlflowException: MLflow refused; its settings are as they were.
        """
        with quiet_mlflow():
            import mlflow

            before = _GlobalState.read()
            try:
                os.environ.pop("MLFLOW_RUN_ID", None)  # MLflow would go on with that run instead of starting ours
                mlflow.set_tracking_uri(tracking_uri)
                mlflow.set_experiment(experiment_id=experiment_id)
                nested = mlflow.active_run() is not None
                run = mlflow.start_run(run_name=run_name, nested=nested, tags=dict(tags))
            except BaseException:
                before.write()
                raise
        return cls(run, tracking_uri=tracking_uri, before=before)

    def end(self, status: str) -> None:
        """End the run, and what was started inside it and left open; MLflow's settings are then as they were.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        with quiet_mlflow():
            import mlflow

            own = self.run.info.run_id
            try:
                mlflow.set_tracking_uri(self._tracking_uri)  # the block may have set another one
                while self._is_open():
                    ended = mlflow.active_run()
                    mlflow.end_run(status)
                    if ended is None or ended.info.run_id == own:
                        return
                mlflow.MlflowClient().set_terminated(own, status)  # the block ended it, perhaps with another status
            finally:
                self._before.write()

    def abandon(self) -> None:
        """Let go of the run without a word to a server that no longer answers."""
        stack = _active_runs()
        while self._is_open():
            stack.pop()
        self._before.write()

    def _is_open(self) -> bool:
        return any(run.info.run_id == self.run.info.run_id for run in _active_runs())


def _active_runs() -> list[mlflow.ActiveRun]:
    from mlflow.tracking import fluent

    return fluent._active_run_stack.get()  # noqa: SLF001 (mlflow.active_run() shows the innermost one only)
