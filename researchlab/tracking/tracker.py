"""One `with` line that records what ran: code, command, environment, and every number that the run gives."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from researchlab import _recording
from researchlab.errors import ResearchlabError
from researchlab.tracking import _params, command
from researchlab.tracking._code import read_code_state
from researchlab.tracking._reading import _opened
from researchlab.tracking._signals import TerminationWatch, deferred_signals
from researchlab.tracking.request import active_request
from researchlab.tracking.store import Store, quiet_mlflow, resolve_store
from researchlab.tracking.utils import check_run_id, generate_run_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import pydantic
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from researchlab.tracking._live_run import LiveRun

#: Metrics that differ between two runs of the same program by their nature, and are not judged.
VOLATILE = ("system/*",)


class ExperimentTracker:
    """Records a run in MLflow so that it can be executed again and judged bit for bit.

    Inside the ``with`` block MLflow's fluent functions log to this run. The user's repository is only read. What
    cannot be recorded (no repository, a file that cannot be read) is warned about and named in the record; the run
    goes on.

    Attributes:
        run_name: The unique, readable id of this run.
        active_run: MLflow's run inside the block, else None.
        mlflow_run_id: MLflow's own id of the run, also after the block; None before it.
    """

    def __init__(
        self,
        experiment_name: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | os.PathLike[str] | None = None,
        *,
        volatile: Sequence[str] = (),
    ) -> None:
        """Prepare a run; nothing is written before the block is entered.

        Args:
            experiment_name: Name of the MLflow experiment; by default the one that MLflow was told, else the name of
                the repository's folder.
            run_name: Readable id of the run, generated when not given. When a run of that name is in the store already,
                a number is put behind it.
            tracking_uri: The MLflow store; by default what MLflow was told, else ``mlflow.db`` at the root of the
                repository.
            volatile: Globs of metrics that are not judged in a re-execution, such as ``"seconds"`` or
                ``"throughput/*"``.

        Raises:
            InvalidRunIdError: ``run_name`` cannot be a run id.
        """
        self._given_name = check_run_id(run_name) if run_name is not None else None
        self.run_name: str = self._given_name or generate_run_id()
        self.active_run: Run | None = None
        self.mlflow_run_id: str | None = None
        self._experiment_name = experiment_name
        self._tracking_uri = tracking_uri
        self._volatile = (*VOLATILE, *volatile)
        self._live: LiveRun | None = None

    def __enter__(self) -> Self:
        """Capture the code, start the run, and store everything that is known at its start.

        Returns:
            The tracker.

        Raises:
            ResearchlabError: The tracker is active already.
            StoreError: The store cannot be used.
        """
        with _opened.paused():
            return self._start()

    def _start(self) -> Self:
        from researchlab.tracking._live_run import LiveRun

        if self._live is not None:
            message = (
                f"The tracker of run '{self.run_name}' is active already. Make a second ExperimentTracker to nest runs."
            )
            raise ResearchlabError(message)
        if self.mlflow_run_id is not None and self._given_name is None:
            self.run_name = generate_run_id()  # entered a second time: a second run
        request = active_request()
        ordinal = command.next_ordinal()
        asked = request is not None and request.asks(test=command.current_test(), ordinal=ordinal)
        name = request.run_id if request is not None and asked else self._given_name or self.run_name
        code = read_code_state(ordinal=ordinal)
        store = Store(request.tracking_uri) if request is not None else resolve_store(self._tracking_uri, code.root)
        client = store.open()
        code = code.with_snapshot(store, audited=request is None)
        watch = TerminationWatch()
        watch.start()
        try:
            with deferred_signals():
                self._live = LiveRun.start(
                    run_name=name,
                    experiment=self._experiment_name or _default_experiment(store, client, code.root),
                    store=store,
                    client=client,
                    code=code,
                    volatile=self._volatile,
                    request=request if asked else None,
                    watch=watch,
                )
                self.run_name = self._live.record.run_id
                self.active_run = self._live.run
                self.mlflow_run_id = self._live.mlflow_run_id
                _recording.push(self)
        except BaseException as error:
            # Ctrl-C or SIGTERM that came meanwhile ends a run that was just started.
            self.__exit__(type(error), error, error.__traceback__)
            watch.stop()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Flush everything and end the run as FINISHED, FAILED or KILLED; the block's exception goes on."""
        del exc_type, exc_tb
        live, self._live = self._live, None
        if live is None:
            return
        _recording.pop(self)
        try:
            with _opened.paused():
                live.end(exc_val)
        finally:
            self.active_run = None

    def log_config(self, config_path: str | os.PathLike[str] | pydantic.BaseModel | Mapping[str, Any]) -> None:
        """Log a configuration: each entry, flattened, as a parameter, and the whole as an artifact.

        Args:
            config_path: A YAML file, a ``Config`` (any pydantic model), or a mapping.

        Raises:
            ConfigError: The file is missing or no YAML mapping (line and column are named), or a key is one that MLflow
                refuses; nothing was logged then.
        """
        live = self._entered("log_config")
        content, name, data = _params.read_config(config_path)
        live.log_config(_params.flatten(content), name, data)

    def log_input(self, path: str | os.PathLike[str]) -> None:
        """Declare a file, or all files of a folder, as inputs of the run: a re-execution checks that they are the same.

        What Python itself opens or imports is found without this. Declare what a C library reads (HDF5, Parquet, GDAL)
        or another process, and what the run reads and then overwrites. The bytes are hashed at once and not stored; a
        file that the snapshot holds as it is needs nothing more.

        Args:
            path: The file or folder; symlinks are followed.

        Raises:
            InputError: It is not there, or cannot be read.
            ResearchlabError: The block is not entered.
        """
        self._entered("log_input").log_input(path)

    def log_state(self, state: Any, step: int | None = None) -> None:
        """Keep the leaves of a State, or of any pytree, bit for bit, to be compared in a re-execution.

        A Loop does this for its final State by itself.

        Args:
            state: The pytree.
            step: The step it belongs to; None says that it is the final one, and a later final one takes its place.

        Raises:
            ResearchlabError: The block is not entered.
        """
        self.record_state(state, step, source="state")

    def record_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep metrics in the trace with their exact bits, without logging them to MLflow (a Loop calls this)."""
        live = self._entered("record_metrics")
        with live.trace_kept():
            live.trace.add_metrics(metrics, step)

    def record_state(self, state: Any, step: int | None, *, source: str) -> None:
        """Keep the leaves of a State under the name of its source (a Loop calls this)."""
        from researchlab.numerics.leaves import leaves_of

        live = self._entered("record_state")
        with live.trace_kept():
            live.trace.set_state(leaves_of(state), step, source=source)

    def record_metric_block(self, block: _recording.MetricBlock) -> None:
        """Keep the metrics of several steps in the trace with their exact bits (a Loop calls this)."""
        live = self._entered("record_metric_block")
        with live.trace_kept():
            live.trace.add_block(block.steps, block.times, block.columns)

    def record_artifact(self, path: Path, *, folder: str = "") -> None:
        """Make a file an artifact of the run (a Loop calls this for what a Visualizer wrote).

        The file is copied at once; a second call with the same path replaces the artifact. A failure is warned about.

        Args:
            path: The file.
            folder: The folder among the artifacts, with ``/`` between folders; by default their root.
        """
        self._entered("record_artifact").log_artifact(path, folder=folder)

    def record_execution(self, facts: Mapping[str, str], *, source: str) -> None:
        """Keep in the record how a Loop was executed: what differs is named in a re-execution (a Loop calls this).

        Args:
            facts: Name to value. Name every fact each time: only what two runs both name is compared.
            source: The Loop, as its States are called.
        """
        self._entered("record_execution").record_execution(facts, source=source)

    def _entered(self, what: str) -> LiveRun:
        if self._live is None:
            message = (
                f"ExperimentTracker.{what} needs an active run: call it inside the block, "
                "`with ExperimentTracker(...) as tracker:`."
            )
            raise ResearchlabError(message)
        return self._live


def _default_experiment(store: Store, client: MlflowClient, root: Path) -> str:
    """Return the experiment that MLflow was told, else the name of the repository's folder."""
    told = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")  # `mlflow.set_experiment` writes it, too
    if not told and number and resolve_store(None, Path.cwd()) == store:  # the id means nothing in another store
        with contextlib.suppress(Exception), quiet_mlflow():
            told = client.get_experiment(number).name
    return told or root.name or "researchlab"
