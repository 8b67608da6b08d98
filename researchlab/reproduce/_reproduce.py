"""From a run id to a verdict: find the run, restore its code, run it again, compare."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, NotARepositoryError, NotReExecutableError, RecordError, RestoreError
from researchlab.reproduce._environment import environment_differences
from researchlab.reproduce._execution import check_executable, describe, execute
from researchlab.reproduce.judge import Judgement, judge, same_difference
from researchlab.reproduce.verdict import Verdict, VerdictKind
from researchlab.tracking import _git
from researchlab.tracking.record import read_record
from researchlab.tracking.restore import restore
from researchlab.tracking.runs import find_run
from researchlab.tracking.trace import read_trace

if TYPE_CHECKING:
    from researchlab.reproduce._execution import Execution
    from researchlab.tracking.record import Record, SnapshotRecord
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

    Nothing of the user's repository and of the original run changes: the code is restored into a scratch folder, and its
    tracker writes to a scratch store, whatever store the program names. The scratch folder is removed afterwards, also when
    the call is interrupted.

    Args:
        run_id: The run: its readable id, or MLflow's own id.
        tracking_uri: The store that holds it; by default what MLflow was told, else the store of ``repo``.
        repo: A repository that has the base commit.
        timeout: Limit in seconds for each execution of the program.
        keep: Keep the scratch folder; the verdict names it.
        confirm: When other bits come back, run once more to tell a nondeterministic program from changed code, inputs or
            environment.

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
    scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="rlab-reproduce-")))
    try:
        verdict = attempt.run(scratch, confirm=confirm)
        return dataclasses.replace(verdict, kept=scratch) if keep else verdict
    finally:
        if not keep:
            shutil.rmtree(scratch, ignore_errors=True)


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
        if record.result is None and _is_alive(record):
            return self._verdict(VerdictKind.NOT_COMPARABLE, f"the run is still going on (process {record.pid})")
        try:
            check_executable(record)
        except NotReExecutableError as error:
            return self._verdict(VerdictKind.NOT_RE_EXECUTABLE, str(error))
        if snapshot is None:
            return self._verdict(VerdictKind.NOT_RE_EXECUTABLE, "the record holds no code")
        with self.tracked.documents() as documents:
            stored = read_trace(documents)
            try:
                execution = self._execute(scratch / "1", snapshot)
                verdict, judgement = self._judge(execution, stored)
                if judgement is None or verdict.kind is not VerdictKind.DIVERGED or not confirm:
                    return verdict
                second = self._execute(scratch / "2", snapshot)
                again = self._judge(second, stored)[1]
            except (RestoreError, NotARepositoryError, RecordError) as error:
                return self._verdict(VerdictKind.NOT_RESTORED, str(error))
        if again is not None and same_difference(judgement, again):
            return verdict
        reason = f"{judgement.reason}, and a second re-execution differs from the first one"
        return dataclasses.replace(verdict, kind=VerdictKind.NONDETERMINISTIC, reason=reason)

    def _execute(self, scratch: Path, snapshot: SnapshotRecord) -> Execution:
        restored = restore(
            scratch / "tree",
            base_commit=snapshot.base_commit,
            tree=snapshot.tree,
            patch=self.tracked.patch(),
            source=self._source(snapshot),
            object_format="sha256" if snapshot.object_format == "sha256" else "sha1",
            branch=snapshot.branch,
            remotes=snapshot.remotes,
        )
        return execute(self.record, restored=restored, scratch=scratch / "run", timeout=self.timeout)

    def _source(self, snapshot: SnapshotRecord) -> Path:
        """Return a repository that has the base commit: the one named, else the one that the run was made in."""
        places = (self.repo, Path(snapshot.repository))
        for place in places:
            try:
                repository = _git.find_repository(place)
                if snapshot.base_commit is None or _has_commit(repository, snapshot.base_commit):
                    return place
            except (GitError, OSError):
                continue
        return self.repo

    def _judge(self, execution: Execution, stored: Trace) -> tuple[Verdict, Judgement | None]:
        """Turn an execution into a verdict; without a judgement when it gave nothing that could be compared."""
        found = dict(exit_code=execution.exit_code, seconds=execution.seconds, output="")
        reply = execution.reply
        if reply is None:
            if execution.timed_out:
                reason = f"the time limit of {self.timeout:g} s ended it"
            elif execution.exit_code == 0:
                reason = (
                    "the program ended without the run: it opened fewer trackers than the recorded one "
                    f"(run {self.record.command.ordinal + 1} of the process is asked)"
                )
            else:
                reason = f"the program ended with exit code {execution.exit_code} before its run did"
            verdict = self._verdict(VerdictKind.FAILED, reason)
            return dataclasses.replace(verdict, **{**found, "output": execution.output}), None
        if reply.foreign:
            shown = ", ".join(reply.foreign[:5]) + (" ..." if len(reply.foreign) > 5 else "")  # noqa: PLR2004
            reason = (
                f"{shown} came from the original checkout, not from the restored tree. An import hook of an editable "
                "install does that: install the project without -e, or in a mode that puts its folder on sys.path"
            )
            return dataclasses.replace(self._verdict(VerdictKind.NOT_RESTORED, reason), **found), None
        received_record = read_record(reply.record, where="the re-execution")
        judgement = judge(self.record, stored, received_record, read_trace(reply.trace))
        verdict = self._verdict(judgement.kind, judgement.reason)
        return dataclasses.replace(
            verdict,
            first=judgement.first,
            differences=judgement.differences,
            compared=judgement.compared,
            not_compared=judgement.not_compared,
            environment=environment_differences(self.record.environment, received_record.environment),
            exit_code=execution.exit_code,
            seconds=execution.seconds,
            output=execution.output if judgement.kind is VerdictKind.FAILED else "",
        ), judgement

    def _verdict(self, kind: VerdictKind, reason: str) -> Verdict:
        record = self.record
        ended = record.ended_at
        return Verdict(
            kind=kind,
            run_id=record.run_id,
            reason=reason,
            code=_code(record),
            started=describe(record.command),
            recorded_seconds=None if ended is None else ended - record.started_at,
            store=self.tracked.store.tracking_uri,
        )


def _code(record: Record) -> str:
    snapshot = record.snapshot
    if snapshot is None:
        return ""
    base = f"commit {snapshot.base_commit[:10]}" if snapshot.base_commit else "no commit"
    number = len(snapshot.changed)
    patch = f" + patch of {number} file{'s' if number != 1 else ''}" if number else ""
    return f"{base}{patch}, tree {snapshot.tree[:10]}"


def _has_commit(repository: _git.Repository, commit: str) -> bool:
    return _git.call_git(("cat-file", "-e", f"{commit}^{{commit}}"), git_dir=repository.git_dir).returncode == 0


def _is_alive(record: Record) -> bool:
    import socket

    if record.host != socket.gethostname():
        return False
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
