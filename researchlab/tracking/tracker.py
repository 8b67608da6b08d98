"""One `with` line that records what ran: code, command, environment, and every number that the run gives."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import socket
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from researchlab import _recording
from researchlab.errors import ResearchlabError, ResearchlabWarning, StoreError
from researchlab.tracking import _interception, _params, command
from researchlab.tracking._code import CodeState, read_code_state
from researchlab.tracking._files import RunFiles
from researchlab.tracking._fluent import FluentRun
from researchlab.tracking._signals import Terminated, TerminationWatch
from researchlab.tracking.environment import describe_environment
from researchlab.tracking.record import BASE_COMMIT_TAG, RUN_ID_TAG, TREE_TAG, Record, ResultRecord
from researchlab.tracking.request import Reply, Request, active_request
from researchlab.tracking.store import Store, quiet_mlflow, resolve_store
from researchlab.tracking.utils import check_run_id, generate_run_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Literal

    import pydantic
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from researchlab.tracking.trace import TraceWriter

    Status = Literal["FINISHED", "FAILED", "KILLED"]

#: Metrics that differ between two runs of the same program by their nature, and are not judged.
VOLATILE = ("system/*",)


class ExperimentTracker:
    """Records a run in MLflow so that it can be executed again and judged bit for bit.

    Inside the ``with`` block MLflow's fluent functions log to this run. The user's repository is only read. What cannot be
    recorded (no repository, a file that cannot be read) is warned about and named in the record; the run goes on.

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
            experiment_name: Name of the MLflow experiment; by default the one that MLflow was told, else the name of the
                repository's folder.
            run_name: Readable id of the run, generated when not given. When a run of that name is in the store already,
                a number is put behind it.
            tracking_uri: The MLflow store; by default what MLflow was told, else ``mlflow.db`` at the root of the repository.
            volatile: Globs of metrics that are not judged in a re-execution, such as ``"seconds"`` or ``"throughput/*"``.

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
        self._live: _LiveRun | None = None

    def __enter__(self) -> Self:
        """Capture the code, start the run, and store everything that is known at its start.

        Returns:
            The tracker.

        Raises:
            ResearchlabError: The tracker is active already.
            StoreError: The store cannot be used.
        """
        if self._live is not None:
            message = f"The tracker of run '{self.run_name}' is active already. Make a second ExperimentTracker to nest runs."
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
        code = code.with_snapshot(store)
        self.run_name = name if asked else _unused_name(client, name)
        self._live = _LiveRun.start(
            run_name=self.run_name,
            experiment=self._experiment_name or _default_experiment(code.root),
            store=store,
            client=client,
            code=code,
            volatile=self._volatile,
            request=request if asked else None,
        )
        self.active_run = self._live.run
        self.mlflow_run_id = str(self._live.run.info.run_id)
        _recording.push(self)
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
        dump = getattr(config_path, "model_dump", None)
        data: Mapping[str, Any]
        if dump is not None:
            data, source = dump(mode="json"), None
        elif isinstance(config_path, (str, os.PathLike)):
            source = Path(config_path)
            data = _params.read_yaml(source)
        else:
            data, source = config_path, None
        flat = _params.flatten(data)
        with quiet_mlflow():
            if source is not None:
                live.client.log_artifact(str(live.run.info.run_id), str(source))
            else:
                import json

                live.client.log_text(str(live.run.info.run_id), json.dumps(data, indent=2, default=str), "config.json")
        _params.log_params(flat, mlflow_run_id=str(live.run.info.run_id))

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
        self._entered("record_metrics").trace.add_metrics(metrics, step)

    def record_state(self, state: Any, step: int | None, *, source: str) -> None:
        """Keep the leaves of a State under the name of its source (a Loop calls this)."""
        from researchlab.numerics.leaves import leaves_of

        self._entered("record_state").trace.set_state(leaves_of(state), step, source=source)

    def _entered(self, what: str) -> _LiveRun:
        if self._live is None:
            message = (
                f"ExperimentTracker.{what} needs an active run: call it inside the block, "
                "`with ExperimentTracker(...) as tracker:`."
            )
            raise ResearchlabError(message)
        return self._live


class _LiveRun:
    """Everything that lives from the start of a run to its end."""

    def __init__(self, *, fluent: FluentRun, store: Store, client: MlflowClient, files: RunFiles, record: Record) -> None:
        from researchlab.tracking.trace import TraceWriter

        self.run: Run = fluent.run
        self.client = client
        self.record = record
        self.request: Request | None = None
        self.trace: TraceWriter = TraceWriter(files.folder)
        self._fluent = fluent
        self._store = store
        self._files = files
        self._watch = TerminationWatch()

    @classmethod
    def start(
        cls,
        *,
        run_name: str,
        experiment: str,
        store: Store,
        client: MlflowClient,
        code: CodeState,
        volatile: tuple[str, ...],
        request: Request | None,
    ) -> _LiveRun:
        record = Record(
            run_id=run_name,
            experiment=experiment,
            researchlab=importlib.metadata.version("researchlab"),
            started_at=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            snapshot=code.snapshot,
            command=code.command,
            environment=describe_environment(),
            volatile=volatile,
            not_recorded=code.problems,
        )
        tags = {RUN_ID_TAG: run_name}
        if code.snapshot is not None:
            tags[TREE_TAG] = code.snapshot.tree
            if code.snapshot.base_commit is not None:
                tags[BASE_COMMIT_TAG] = code.snapshot.base_commit
        try:
            fluent = FluentRun.start(
                tracking_uri=store.tracking_uri,
                experiment_id=store.experiment_id(client, experiment),
                run_name=run_name,
                tags=tags,
            )
        except StoreError:
            raise
        except Exception as error:
            first = str(error).partition("\n")[0]
            message = f"MLflow could not start the run in {store.tracking_uri}: {first}."
            raise StoreError(message) from error
        try:
            files = RunFiles(client, fluent.run)
            if code.snapshot is not None:
                files.write_patch(code.patch)
            files.write_record(record.to_json())
            live = cls(fluent=fluent, store=store, client=client, files=files, record=record)
        except BaseException as error:
            with contextlib.suppress(Exception):
                fluent.end("FAILED")
            if not isinstance(error, Exception):
                raise
            first = str(error).partition("\n")[0]
            message = f"The record of the run could not be stored in {store.tracking_uri}: {first}. Check the artifact store."
            raise StoreError(message) from error
        live.request = request
        _interception.listen(str(fluent.run.info.run_id), live.on_metric)
        live._watch.start()
        return live

    def on_metric(self, name: str, value: Any, step: int) -> None:
        self.trace.add_metric(name, value, step)

    def end(self, error: BaseException | None) -> None:
        """Store what the run gave and end it. A failure to do so becomes a warning: the user's results come first."""
        self._watch.stop()
        status = _status(error, told_to_stop=self._watch.received)
        _interception.forget(str(self.run.info.run_id))
        ended = False
        try:
            self.trace.close()
            self.record = self._with_result(status, error)
            if self._store.database is None:
                self._store.open()  # answers within seconds whether the server is still there
            self._files.write_record(self.record.to_json())
            self._files.send_trace()
            ended = True
            self._fluent.end(status)
            self._files.discard()
        except Exception as failure:  # noqa: BLE001 (whatever the store raises: the user's run must not be lost with it)
            if not ended:
                self._fluent.abandon()
            first = str(failure).partition("\n")[0]
            warnings.warn(
                f"The run '{self.record.run_id}' ended as {status}, but its record could not be stored in "
                f"{self._store.tracking_uri}: {first} Nothing is lost: everything is kept in {self._files.unsent}.",
                ResearchlabWarning,
                stacklevel=3,
            )
        if self.request is not None:
            self._reply(self.request)

    def _with_result(self, status: Status, error: BaseException | None) -> Record:
        snapshot = self.record.snapshot
        roots = command.source_roots(Path(snapshot.repository)) if snapshot is not None else ()
        result = ResultRecord(
            status=status,
            error=None if error is None else f"{type(error).__name__}: {error}",
            metrics=self.trace.names,
            points=self.trace.points,
            states=self.trace.states,
        )
        return self.record.model_copy(
            update={
                "ended_at": time.time(),
                "result": result,
                "environment": describe_environment(),
                "command": self.record.command.model_copy(update={"source_roots": roots}),
            }
        )

    def _reply(self, request: Request) -> None:
        foreign: tuple[str, ...] = ()
        if request.original is not None:
            foreign = command.modules_under(request.original, but=(request.restored,))
        reply = Reply(trace=self._files.folder, record=self.record.to_json(), foreign=foreign)
        fresh = request.reply.with_suffix(".tmp")
        fresh.write_text(reply.model_dump_json(), encoding="utf-8")
        fresh.replace(request.reply)


def _status(error: BaseException | None, *, told_to_stop: bool) -> Status:
    if told_to_stop or isinstance(error, (KeyboardInterrupt, Terminated)):
        return "KILLED"
    if error is None or (isinstance(error, SystemExit) and error.code in {None, 0}):
        return "FINISHED"
    return "FAILED"


def _default_experiment(root: Path) -> str:
    """Return the experiment that MLflow was told, else the name of the repository's folder."""
    with quiet_mlflow():
        import mlflow

        told = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        number = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if not told and number:
            with contextlib.suppress(Exception):  # an id of another store: not what was meant
                told = mlflow.get_experiment(number).name
    return told or root.name or "researchlab"


def _unused_name(client: MlflowClient, name: str) -> str:
    """Return ``name``, with a number behind it when a run of the store has it already."""
    from researchlab.tracking.runs import ids_that_start_with

    taken = ids_that_start_with(client, name)
    number = 2
    unused = name
    while unused in taken:
        unused = f"{name}-{number}"
        number += 1
    return unused
