"""From a run id to a verdict: find the run, restore its code, run it again, compare."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, MissingPatchError, NotReExecutableError, RecordError
from researchlab.reproduce._environment import environment_differences
from researchlab.reproduce._execution import Access, check_executable, execute
from researchlab.reproduce._findings import ChangedInputsError, why_escaped
from researchlab.reproduce._inputs import find_inputs, other_checkout, put_inputs
from researchlab.reproduce._loops import execution_differences
from researchlab.reproduce._surroundings import link_outside, place_below
from researchlab.reproduce.judge import NOTHING_RECORDED, judge
from researchlab.reproduce.verdict import Verdict, VerdictKind
from researchlab.tracking._alive import is_alive
from researchlab.tracking._restoring._recorded_code import RecordedCode
from researchlab.tracking._signals import TerminationWatch
from researchlab.tracking._tags import TREE_TAG
from researchlab.tracking._wording import changed_files, typed_command
from researchlab.tracking.record import UNRECORDED_STDIN, read_record
from researchlab.tracking.runs import find_run
from researchlab.tracking.store import default_files
from researchlab.tracking.trace import read_trace

if TYPE_CHECKING:
    from researchlab.reproduce._execution import Execution
    from researchlab.reproduce._inputs import FoundInputs, PutInputs
    from researchlab.tracking.record import Record
    from researchlab.tracking.request import Reply
    from researchlab.tracking.runs import TrackedRun
    from researchlab.tracking.trace import Trace


def reproduce(
    run_id: str,
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    repo: str | os.PathLike[str] = ".",
    timeout: float | None = None,
    keep: bool = False,
    confirm: bool = True,
) -> Verdict:
    """Run a tracked run again from its base commit and patch, and say whether the same bits came back.

    Nothing of the user's repository and of the original run changes: the code is restored into a scratch folder, and
    its tracker writes to a scratch store, whatever store the program names. The scratch folder is removed afterwards,
    also when the call is interrupted or the process is told to stop (SIGTERM).

    Args:
        run_id: The run: its readable id, or MLflow's own id.
        tracking_uri: The store that holds it; by default what MLflow was told, else the store of ``repo``.
        repo: A repository that has the base commit.
        timeout: Limit in seconds for each execution of the program.
        keep: Keep the scratch folder; the verdict names it.
        confirm: When other bits come back, run once more to tell a nondeterministic program from changed code, inputs
            or environment.

    Returns:
        The verdict with its evidence.

    Raises:
        RunNotFoundError: There is no such run.
        RecordError: The run has no record, or one that cannot be read.
        StoreError: The store does not answer.
    """
    tracked = find_run(run_id, tracking_uri=tracking_uri, repo=repo)
    record = tracked.record()
    attempt = _Attempt(tracked, record, Path(repo).absolute(), timeout)
    watch = TerminationWatch()
    watch.start()  # SIGTERM, too, has to end the child and remove the scratch folder
    scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="rlab-reproduce-")))
    try:
        verdict = attempt.run(scratch, confirm=confirm)
        return dataclasses.replace(verdict, kept=scratch) if keep else verdict
    finally:
        if not keep:
            shutil.rmtree(scratch, ignore_errors=True)
        watch.stop()


@dataclasses.dataclass(frozen=True)
class _Attempt:
    """One call of ``reproduce``."""

    tracked: TrackedRun
    record: Record
    repo: Path
    timeout: float | None

    def run(self, scratch: Path, *, confirm: bool) -> Verdict:
        record = self.record
        snapshot = record.snapshot
        if record.result is None and is_alive(host=record.host, pid=record.pid, started_at=record.started_at):
            return self._verdict(VerdictKind.NOT_COMPARABLE, f"the run is still going on (process {record.pid})")
        try:
            check_executable(record)
        except NotReExecutableError as error:
            return self._verdict(VerdictKind.NOT_RE_EXECUTABLE, str(error))
        if snapshot is None:
            return self._verdict(VerdictKind.NOT_RE_EXECUTABLE, "the record holds no code")
        try:
            with self.tracked.documents() as documents:
                stored = _whole_trace(record, documents)
                if not stored.metrics.points and not stored.states:
                    return self._verdict(VerdictKind.NOT_COMPARABLE, NOTHING_RECORDED)
                inputs = find_inputs(self.tracked, record, repo=self.repo, scratch=scratch / "inputs")
                first, put = self._execute(scratch / "1", inputs)
                verdict = self._judge(first, stored)
                if verdict.kind is VerdictKind.DIVERGED and confirm:
                    second, _ = self._execute(scratch / "2", inputs)
                    verdict = _confirmed(verdict, first, second)
                return dataclasses.replace(
                    verdict,
                    code=", ".join(filter(None, (verdict.code, inputs.describe(put)))),
                    not_compared=(
                        *verdict.not_compared,
                        *inputs.unchecked,
                        *(() if verdict.ok else (*inputs.doubtful, *self._unknown_stdin())),
                    ),
                )
        except ChangedInputsError as error:
            verdict = self._verdict(VerdictKind.NOT_RESTORED, error.reason())
            return dataclasses.replace(verdict, differences=error.findings)
        except (GitError, MissingPatchError) as error:
            return self._verdict(VerdictKind.NOT_RESTORED, str(error))

    def _execute(self, scratch: Path, inputs: FoundInputs) -> tuple[Execution, PutInputs]:
        root = scratch / "tree"
        restored = RecordedCode.of(self.tracked).restore(place_below(root, self._original()), repo=self.repo)
        put = put_inputs(inputs, restored)
        outside = link_outside(inputs, root, restored=restored)
        access = Access(
            checkout=other_checkout(self.record, self.repo),
            checked=inputs.checked,
            absent=inputs.absent,
            read_only=(*put.linked, *outside),
            free=(*default_files(Path(self._original())), *self.tracked.store.files()),
        )
        execution = execute(
            self.record, restored=restored, scratch=scratch / "run", timeout=self.timeout, access=access, root=root
        )
        return execution, put

    def _original(self) -> str:
        return "" if self.record.snapshot is None else self.record.snapshot.repository

    def _judge(self, execution: Execution, stored: Trace) -> Verdict:
        reply = execution.reply
        escaped = why_escaped(
            () if reply is None else reply.foreign,
            execution.touched,
            tracked=self.tracked,
            record=self.record,
            checkouts=self._checkouts(),
        )
        if escaped is not None:
            return self._verdict(VerdictKind.NOT_RESTORED, escaped, execution)
        if reply is None:
            return self._verdict(VerdictKind.FAILED, self._why_no_reply(execution), execution)
        received_record, received = _received(reply)
        judgement = judge(self.record, stored, received_record, received)
        return dataclasses.replace(
            self._verdict(judgement.kind, judgement.reason, execution),
            first=judgement.first,
            differences=judgement.differences,
            compared=judgement.compared,
            not_compared=judgement.not_compared,
            environment=environment_differences(self.record.environment, received_record.environment),
            execution=execution_differences(self.record, received_record),
        )

    def _why_no_reply(self, execution: Execution) -> str:
        code = execution.exit_code
        if execution.timed_out:
            return f"the time limit of {self.timeout:g} s ended it"
        if code == 0:
            number = self.record.command.ordinal + 1
            return f"the program ended without opening its tracker number {number}, which is the one of this run"
        if code is not None and code < 0:
            return f"the program was ended by {signal.Signals(-code).name} before its run had ended"
        return f"the program ended with exit code {code} before its run had ended"

    def _unknown_stdin(self) -> tuple[str, ...]:
        stdin = self.record.command.stdin
        if stdin not in UNRECORDED_STDIN:
            return ()
        return (f"standard input: it was a {stdin}, whose content is not recorded; the re-execution has an empty one",)

    def _checkouts(self) -> str:
        other = other_checkout(self.record, self.repo)
        return f"the original checkout {self._original()}" + (f" or from {other}" if other is not None else "")

    def _verdict(self, kind: VerdictKind, reason: str, execution: Execution | None = None) -> Verdict:
        record = self.record
        ended = record.ended_at
        return Verdict(
            kind=kind,
            run_id=record.run_id,
            reason=reason,
            code=_code(record, self.tracked.run.data.tags.get(TREE_TAG)),
            started=typed_command(record.command),
            exit_code=None if execution is None else execution.exit_code,
            output=execution.output if execution is not None and kind is VerdictKind.FAILED else "",
            executions=0 if execution is None else 1,
            seconds=None if execution is None else execution.seconds,
            timed_out=execution is not None and execution.timed_out,
            recorded_seconds=None if ended is None else ended - record.started_at,
            store=self.tracked.store.name,
        )


def _whole_trace(record: Record, documents: Path) -> Trace:
    """Read the trace, and hold it against the record's numbers: a lost file must not look like an empty one."""
    trace = read_trace(documents)
    result = record.result
    if result is None:
        return trace  # killed outright: what there is, is what there is
    recorded = (result.metrics, result.points, result.states)
    found = (len(trace.metrics.metrics), trace.metrics.points, len(trace.states))
    if recorded != found or trace.truncated:
        say = "{} metrics with {} values, and {} States".format
        message = (
            f"The trace of run '{record.run_id}' is damaged: {say(*recorded)} were recorded, and {say(*found)} are in "
            f"{documents}. Restore the run's artifacts from a backup."
        )
        raise RecordError(message)
    return trace


def _received(reply: Reply) -> tuple[Record, Trace]:
    return read_record(reply.record, where="the re-execution"), read_trace(reply.trace)


def _confirmed(verdict: Verdict, first: Execution, second: Execution) -> Verdict:
    """Hold two re-executions against each other: where they differ too, the program is nondeterministic here."""
    if second.timed_out:
        open_question = "a second re-execution, to tell a nondeterministic program: the time limit ended it"
        return dataclasses.replace(verdict, not_compared=(*verdict.not_compared, open_question))
    if first.reply is None or second.reply is None:
        how = "ended before its run had"
    else:
        again = judge(*_received(first.reply), *_received(second.reply))
        if again.kind in {VerdictKind.REPRODUCED, VerdictKind.NOT_COMPARABLE}:
            return dataclasses.replace(verdict, executions=2)
        where = "" if again.first is None else f", first at {again.first.where()}"
        how = f"differs from the first one{where}"
    reason = f"{verdict.reason}, and a second re-execution {how}"
    return dataclasses.replace(verdict, kind=VerdictKind.NONDETERMINISTIC, reason=reason, executions=2)


def _code(record: Record, tag: str | None) -> str:
    snapshot = record.snapshot
    if snapshot is None:
        return ""
    base = f"commit {snapshot.base_commit[:10]}" if snapshot.base_commit else "no commit"
    is_changed = snapshot.changed or any(nested.changed for nested in snapshot.nested)
    patch = f" + patch of {changed_files(snapshot)}" if is_changed else ""
    altered = f" (the tag {TREE_TAG} says {tag[:10]}: the record was altered)" if tag and tag != snapshot.tree else ""
    return f"{base}{patch}, tree {snapshot.tree[:10]}{altered}"
