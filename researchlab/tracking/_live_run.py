"""What happens between the start of a run and its end, and how does the run end whatever fails?"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.metadata
import itertools
import os
import socket
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from researchlab.errors import RecordError, StoreError
from researchlab.tracking import _interception, _params, command
from researchlab.tracking._files import RunFiles
from researchlab.tracking._fluent import FluentRun
from researchlab.tracking._reading import _opened
from researchlab.tracking._reading._declared import declared_files
from researchlab.tracking._reading._inputs import HASHED_AT_MOST, HASHED_WHEN_KILLED
from researchlab.tracking._signals import Terminated, deferred_signals
from researchlab.tracking._tags import RUN_ID_TAG, start_tags
from researchlab.tracking._warning import warn
from researchlab.tracking.environment import describe_environment, with_jax_facts
from researchlab.tracking.record import ExecutionRecord, Record, ResultRecord
from researchlab.tracking.request import Reply
from researchlab.tracking.runs import names_that_start_with
from researchlab.tracking.store import first_line, impatient, quiet_mlflow
from researchlab.tracking.trace import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Literal

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from researchlab.tracking._code import CodeState
    from researchlab.tracking._reading._inputs import Inputs
    from researchlab.tracking._signals import TerminationWatch
    from researchlab.tracking.request import Request
    from researchlab.tracking.store import Store

    Status = Literal["FINISHED", "FAILED", "KILLED"]

_LONGEST_ERROR = 2000
#: Exit codes of programs that catch Ctrl-C or SIGTERM themselves.
_KILLED_CODES = (130, 143)


class LiveRun:
    """A run that was started and has not ended.

    Attributes:
        run: MLflow's run.
        mlflow_run_id: MLflow's id of it.
        record: The record, as it is known so far.
        trace: Where metrics and States go.
    """

    def __init__(
        self,
        *,
        fluent: FluentRun,
        store: Store,
        client: MlflowClient,
        files: RunFiles,
        record: Record,
        inputs: Inputs | None,
        request: Request | None,
        watch: TerminationWatch,
    ) -> None:
        self.run: Run = fluent.run
        self.mlflow_run_id = str(fluent.run.info.run_id)
        self.record = record
        self.trace = TraceWriter(files.folder)
        self._fluent = fluent
        self._store = store
        self._client = client
        self._files = files
        self._inputs = inputs
        self._request = request
        self._watch = watch
        self._process = os.getpid()
        self._lost: list[str] = []
        self._warnings: list[str] = []

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
        watch: TerminationWatch,
    ) -> Self:
        """Start a run and store what is known of it.

        Args:
            run_name: Its readable id; a number is put behind it where another run has it.
            experiment: Name of the experiment.
            store: Where it goes.
            client: A client of that store.
            code: What runs.
            volatile: Globs of metrics that are not judged.
            request: What a re-execution asks of this run, else None.
            watch: Says whether the process was told to stop.

        Returns:
            The run.

        Raises:
            StoreError: The store failed; no run is left open.
        """
        name = run_name
        if request is None:
            name = _unused_names(run_name, names_that_start_with(client, run_name), 1)[0]
        tags = start_tags(name, code.command, code.snapshot, process=(socket.gethostname(), os.getpid()))
        with impatient(), contextlib.ExitStack() as undo:
            try:
                fluent = FluentRun.start(
                    tracking_uri=store.tracking_uri,
                    experiment_id=store.experiment_id(client, experiment),
                    run_name=name,
                    tags=tags,
                )
                undo.callback(_give_up, fluent)
                files = RunFiles(client, fluent.run)
                undo.callback(files.discard)
                code = code.keep(files)
                record = Record(
                    run_id=name if request is not None else _claim_name(client, fluent.run, name, wanted=run_name),
                    experiment=experiment,
                    researchlab=_own_version(),
                    started_at=time.time(),
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    snapshot=code.snapshot,
                    command=code.command,
                    environment=describe_environment(),
                    inputs=() if code.inputs is None else code.inputs.collect_ignored_code(files.keep),
                    volatile=volatile,
                    not_recorded=code.problems,
                )
                files.keep_record(record.to_json())
                files.send()
                live = cls(
                    fluent=fluent,
                    store=store,
                    client=client,
                    files=files,
                    record=record,
                    inputs=code.inputs,
                    request=request,
                    watch=watch,
                )
            except StoreError:
                raise
            except Exception as error:
                message = (
                    f"The run could not be started in {store.name}: {first_line(error)}. "
                    "Check that the store and the folder of its artifacts can be written to."
                )
                raise StoreError(message) from error
            undo.pop_all()
        _interception.listen(live.mlflow_run_id, live.on_metric)
        atexit.register(live.end_at_exit)
        return live

    def on_metric(self, name: str, value: Any, step: int) -> None:
        """Keep a metric that was logged through plain MLflow."""
        with self.trace_kept():
            self.trace.add_metric(name, value, step)

    @contextlib.contextmanager
    def trace_kept(self) -> Generator[None]:
        """Let a trace that cannot be written (a full disk) cost the comparison, and not the user's run."""
        try:
            yield
        except RecordError as error:
            if not self._lost:
                self._lost.append(str(error))
                warn(str(error))

    def log_config(self, flat: Mapping[str, str], name: str, data: bytes) -> None:
        """Log a configuration; a store that fails meanwhile costs a warning.

        Args:
            flat: Its parameters.
            name: Name of the artifact.
            data: The artifact.

        Raises:
            ConfigError: A parameter has another value already; nothing was logged.
        """
        from mlflow.exceptions import MlflowException

        _params.warn_of_long(flat)
        kept = False
        try:
            with quiet_mlflow(), impatient():
                _params.check_unchanged(flat, self._client.get_run(self.mlflow_run_id).data.params)
                self._files.keep_config(name, data)
                kept = True
                self._files.send()
                _params.log_params_of(self._client, self.mlflow_run_id, flat)
        except (MlflowException, OSError) as error:
            if not kept:
                self._files.keep_config(name, data)  # sent when the run ends, if the store answers then
            problem = f"The configuration {name} was not logged to {self._store.name}: {first_line(error)}."
            self.record = self.record.model_copy(update={"not_recorded": (*self.record.not_recorded, problem)})
            warn(problem)

    def log_input(self, path: str | os.PathLike[str]) -> None:
        """Declare a file or a folder as input; a re-execution, whose inputs were checked, only looks for it.

        Args:
            path: The file or folder.

        Raises:
            InputError: It is not there, or cannot be read.
        """
        if self._inputs is None:
            declared_files(_opened.absolute(os.fspath(path)))
        else:
            self._inputs.declare(path)

    def log_artifact(self, path: Path, *, folder: str) -> None:
        """Keep a copy of a file as an artifact; a failure costs a warning.

        Args:
            path: The file.
            folder: The folder among the artifacts, or "".
        """
        try:
            with _opened.paused():
                self._files.keep_artifact(path, folder=folder)
        except (OSError, ValueError) as error:
            problem = f"The file {path} did not become an artifact: {first_line(error)}."
            self.record = self.record.model_copy(update={"not_recorded": (*self.record.not_recorded, problem)})
            warn(problem)

    def record_execution(self, facts: Mapping[str, str], *, source: str) -> None:
        """Add how a Loop was executed to the record, once for each way.

        Args:
            facts: Name to value.
            source: The Loop.
        """
        execution = ExecutionRecord(source=source, facts=dict(facts))
        if execution in self.record.executions:
            return
        self.record = self.record.model_copy(update={"executions": (*self.record.executions, execution)})
        # For a run that is killed outright; where it cannot be written now, the end of the run tries again.
        with _opened.paused(), contextlib.suppress(OSError):
            self._files.keep_record(self.record.to_json())

    def end_at_exit(self) -> None:
        """End a run whose block was never left: the process ends inside it, or on another thread."""
        self.end(None, left=False)

    def end(self, error: BaseException | None, *, left: bool = True) -> None:
        """Store what the run gave and end it. A failure to do so becomes a warning: the user's results come first.

        Args:
            error: The exception that ended the block.
            left: Whether the block was left at all.
        """
        if os.getpid() != self._process:
            return  # a forked child left the block; the run is its parent's
        atexit.unregister(self.end_at_exit)
        failures: list[str] = []
        try:
            with deferred_signals():
                status: Status = _status(error) if left and not self._watch.received else "KILLED"
                try:
                    self._finish(status, error, failures)
                finally:
                    _interception.forget(self.mlflow_run_id)
                    self._fluent.leave()
        finally:
            self._watch.stop()
        for message in self._warnings:
            warn(message)
        if failures:
            warn(
                f"The run '{self.record.run_id}' ended as {status}, but not everything could be stored in "
                f"{self._store.name}: {'; '.join(failures)}. Everything is kept in {self._files.root}"
            )

    def _finish(self, status: Status, error: BaseException | None, failures: list[str]) -> None:
        def attempt(action: Callable[[], Any]) -> bool:
            try:
                action()
            except Exception as failure:  # noqa: BLE001 (whatever the store raises: the run must not be lost with it)
                failures.append(first_line(failure))
                return False
            return True

        attempt(self.trace.close)
        attempt(lambda: self._complete_record(status, error))
        attempt(lambda: self._add_inputs(status))
        with impatient():
            answers = not self._files.is_remote or attempt(lambda: self._client.get_run(self.mlflow_run_id))
            if answers:
                attempt(self._files.send)
                attempt(self._files.send_artifacts)
                attempt(lambda: self._fluent.end(status))
        if not failures:
            self._files.discard()
        request = self._request
        if request is not None:
            attempt(lambda: self._reply(request))

    def _complete_record(self, status: Status, error: BaseException | None) -> None:
        snapshot = self.record.snapshot
        roots = command.source_roots(Path(snapshot.repository)) if snapshot is not None else ()
        result = ResultRecord(
            status=status,
            # str() of a foreign exception may itself raise
            error="".join(traceback.format_exception_only(error)).strip()[:_LONGEST_ERROR]
            if error is not None
            else None,
            metrics=self.trace.names,
            points=self.trace.points,
            states=self.trace.states,
        )
        self.record = self.record.model_copy(
            update={
                "ended_at": time.time(),
                "result": result,
                "environment": with_jax_facts(self.record.environment),
                "command": self.record.command.model_copy(
                    update={"source_roots": roots, "stdin": command.standard_input()}
                ),
                "not_recorded": (*self.record.not_recorded, *self._lost),
            }
        )
        self._files.keep_record(self.record.to_json())
        self._files.keep_trace()

    def _add_inputs(self, status: Status) -> None:
        """Complete the record with what was imported and read; it is whole without that, should this take too long."""
        if self._inputs is None:
            return
        limit = HASHED_WHEN_KILLED if status == "KILLED" else HASHED_AT_MOST
        problems: tuple[str, ...]
        try:
            found = self._inputs.collect(self._files.keep, limit=limit)
        except Exception as error:  # noqa: BLE001 (whatever the disk has: the run goes first)
            inputs, problems = self.record.inputs, (f"The inputs were not recorded: {first_line(error)}.",)
            messages = problems
        else:
            inputs, problems, messages = found.records, found.problems, (*found.warnings, *found.problems)
            self.record = self.record.model_copy(update={"folders": found.folders})
        self.record = self.record.model_copy(
            update={"inputs": inputs, "not_recorded": (*self.record.not_recorded, *problems)}
        )
        self._files.keep_record(self.record.to_json())
        self._warnings.extend(messages)

    def _reply(self, request: Request) -> None:
        checkouts = filter(None, (request.original, request.checkout))
        but = (request.restored, *request.outside)
        foreign = tuple(sorted({name for root in checkouts for name in command.modules_under(root, but=but)}))
        reply = Reply(trace=self._files.folder, record=self.record.to_json(), foreign=foreign)
        fresh = request.reply.with_suffix(".tmp")
        fresh.write_text(reply.model_dump_json(), encoding="utf-8")
        fresh.replace(request.reply)


def _status(error: BaseException | None) -> Status:
    if isinstance(error, (KeyboardInterrupt, Terminated, asyncio.CancelledError)):  # asyncio turns Ctrl-C into the last
        return "KILLED"
    if isinstance(error, SystemExit):
        if error.code in _KILLED_CODES:
            return "KILLED"
        return "FINISHED" if error.code in (None, 0) else "FAILED"
    return "FINISHED" if error is None else "FAILED"


def _own_version() -> str:
    try:
        return importlib.metadata.version("researchlab")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # on the search path, but not installed


def _give_up(fluent: FluentRun) -> None:
    with contextlib.suppress(Exception):
        fluent.end("FAILED")


def _claim_name(client: MlflowClient, run: Run, name: str, *, wanted: str) -> str:
    """Rename the run when another one took its name at the same time; return the name.

    Args:
        client: A client of the store.
        run: The run.
        name: The name it has, which was unused a moment ago.
        wanted: The name without a number.
    """
    own = str(run.info.run_id)
    while True:
        names = names_that_start_with(client, wanted)
        rivals = sorted({own, *(other for other, taken in names.items() if taken == name)})
        if rivals == [own]:
            return name
        # Each of the rivals goes as far on as it stands in their order, so that they do not meet again.
        name = _unused_names(wanted, names, len(rivals))[rivals.index(own)]
        with quiet_mlflow():
            client.set_tag(own, RUN_ID_TAG, name)
            client.update_run(own, name=name)


def _unused_names(wanted: str, names: Mapping[str, str], count: int) -> list[str]:
    taken = set(names.values())
    numbered = (f"{wanted}-{number}" for number in itertools.count(2))
    unused = (name for name in itertools.chain([wanted], numbered) if name not in taken)
    return list(itertools.islice(unused, count))
