"""How does a tracker make its run the active one of MLflow's fluent functions, and leave everything as it found it?"""

from __future__ import annotations

import dataclasses
import os
import threading
from typing import TYPE_CHECKING, Any

from researchlab.tracking.store import quiet_mlflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")


@dataclasses.dataclass(frozen=True)
class _Settings:
    """MLflow's process-wide settings. Its public getters cannot tell "set to the default" from "not set"."""

    tracking_uri: Any
    experiment_id: Any
    environ: Mapping[str, str | None]

    @classmethod
    def read(cls) -> _Settings:
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


# The settings are the process's, so that runs of several threads, or runs that end in an odd order, share them.
_lock = threading.Lock()
_turns: list[_Turn] = []


class _Turn:
    """What the settings were before a run changed them, in the order in which the runs found them."""

    def __init__(self) -> None:
        with _lock:
            self._before = _Settings.read()
            _turns.append(self)

    def end(self) -> None:
        """Put the settings back, or leave that to the run that found what this one had set."""
        with _lock:
            if self not in _turns:
                return
            position = _turns.index(self)
            _turns.remove(self)
            if position < len(_turns):
                _turns[position]._before = self._before  # noqa: SLF001 (it outlives this one and puts things back)
            else:
                self._before.write()


class FluentRun:
    """A run that is active for MLflow's fluent functions between ``start`` and ``end``.

    Attributes:
        run: The run.
    """

    def __init__(self, run: mlflow.ActiveRun, *, tracking_uri: str, turn: _Turn, outer: frozenset[str]) -> None:
        self.run = run
        self._tracking_uri = tracking_uri
        self._turn = turn
        self._outer = outer
        self._thread = threading.get_ident()

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

            outer = frozenset(_id(run) for run in _active_runs())
            turn = _Turn()
            try:
                os.environ.pop("MLFLOW_RUN_ID", None)  # MLflow would go on with that run instead of starting ours
                mlflow.set_tracking_uri(tracking_uri)
                mlflow.set_experiment(experiment_id=experiment_id)
                run = mlflow.start_run(run_name=run_name, nested=bool(outer), tags=dict(tags))
            except BaseException:
                turn.end()
                raise
        return cls(run, tracking_uri=tracking_uri, turn=turn, outer=outer)

    def end(self, status: str) -> None:
        """End the run, and what was started inside it and left open; MLflow's settings are then as they were.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.

        Raises:
            MlflowException: The store refused.
        """
        with quiet_mlflow():
            import mlflow

            own = _id(self.run)
            ended = False
            try:
                while self._is_inner(run := mlflow.active_run()):
                    is_own = _id(run) == own
                    if is_own:
                        mlflow.set_tracking_uri(self._tracking_uri)  # the block may have set another one
                        ended = True
                    try:
                        mlflow.end_run(status)
                    except Exception:
                        if is_own:
                            raise  # a run of another store that the block left open is not worth an error
                if not ended:  # the block ended it, perhaps with another status
                    mlflow.MlflowClient(tracking_uri=self._tracking_uri).set_terminated(own, status)
            finally:
                self.leave()

    def leave(self) -> None:
        """Let go of the run without a word to the store; does nothing after ``end``."""
        stack = _active_runs()
        while stack and self._is_inner(stack[-1]):
            stack.pop()
        self._turn.end()

    def _is_inner(self, run: mlflow.ActiveRun | None) -> bool:
        return run is not None and threading.get_ident() == self._thread and _id(run) not in self._outer


def _id(run: Any) -> str:
    return str(run.info.run_id)


def _active_runs() -> list[mlflow.ActiveRun]:
    from mlflow.tracking import fluent

    return fluent._active_run_stack.get()  # noqa: SLF001 (mlflow.active_run() shows the innermost one only)
