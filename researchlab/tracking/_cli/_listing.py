"""What does a list say of each tracked run?

All of it stands in the run's tags, so that no artifact is fetched. Runs of an older researchlab lack some tags: the
record tells then, where it lies on this machine.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from researchlab.errors import RecordError
from researchlab.tracking._alive import is_alive
from researchlab.tracking._tags import (
    BASE_COMMIT_TAG,
    DIRTY_TAG,
    SCRIPT_TAG,
    TREE_TAG,
    VERDICT_TAG,
    VERIFIED_AT_TAG,
    Process,
    dirty_files,
    script_of,
)
from researchlab.tracking._wording import age, printable
from researchlab.tracking.store import local_path, quiet_mlflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from researchlab.tracking.record import Record
    from researchlab.tracking.runs import TrackedRun

COLUMNS = ("run", "age", "status", "script", "dirty", "verdict", "experiment")

_UNFINISHED = ("RUNNING", "SCHEDULED")


@dataclasses.dataclass(frozen=True)
class Listed:
    """One tracked run in a list.

    Attributes:
        run_id: Its readable id.
        mlflow_run_id: MLflow's id.
        experiment: Name of its experiment.
        status: What the store says: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        process: Of a run that has not ended: whether its process lives (``alive``), does not (``gone``: it was killed
            outright), or is on another machine (``unknown``); None when the run has ended.
        started_at: When it started, in ISO 8601.
        ended_at: When it ended, or None.
        script: What was started, in a word or two, or None where that is not known.
        dirty: How many files differed from the base commit, captured or left out, or None where that is not known.
        base_commit: Id of the base commit, or None.
        tree: Id of the snapshot's tree, or None.
        verdict: What the last re-execution found that was asked to say so, or None.
        verified_at: When that was, in ISO 8601, or None.
    """

    run_id: str
    mlflow_run_id: str
    experiment: str
    status: str
    process: Literal["alive", "gone", "unknown"] | None
    started_at: str | None
    ended_at: str | None
    script: str | None
    dirty: int | None
    base_commit: str | None
    tree: str | None
    verdict: str | None
    verified_at: str | None

    def row(self) -> tuple[str, ...]:
        """Return what the table shows of it, in the order of ``COLUMNS``."""
        started = None if self.started_at is None else datetime.fromisoformat(self.started_at).timestamp()
        cells = (
            self.run_id,
            "-" if started is None else age(time.time() - started),
            "gone" if self.process == "gone" else self.status,
            self.script or "-",
            "-" if self.dirty is None else str(self.dirty),
            self.verdict or "-",
            self.experiment,
        )
        return tuple(printable(cell) for cell in cells)


def describe_runs(runs: Sequence[TrackedRun]) -> list[Listed]:
    """Return what a list says of runs of one store.

    Args:
        runs: The runs.

    Returns:
        An entry a run, in their order.
    """
    numbers = {str(run.run.info.experiment_id) for run in runs}
    with quiet_mlflow():
        names = {number: str(runs[0].client.get_experiment(number).name) for number in numbers}
    return [_listed(run, names[str(run.run.info.experiment_id)]) for run in runs]


def process_state(run: TrackedRun, record: Record | None = None) -> Literal["alive", "gone", "unknown"] | None:
    """Return whether the process of a run that has not ended lives; None when the run has ended.

    Args:
        run: The run.
        record: Its record, for a run whose tags do not name the process.
    """
    info = run.run.info
    if str(info.status) not in _UNFINISHED:
        return None
    process = Process.of(run.run.data.tags)
    if process is None and record is not None:
        process = Process(record.host, record.pid)
    if process is None or not process.is_here():
        return "unknown"
    started = (info.start_time or 0) / 1000
    return "alive" if is_alive(host=process.host, pid=process.pid, started_at=started) else "gone"


def iso(milliseconds: int | None) -> str | None:
    """Return a time of MLflow in ISO 8601, in the zone of this machine."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).astimezone().isoformat(timespec="seconds")


def _listed(run: TrackedRun, experiment: str) -> Listed:
    info, tags = run.run.info, run.run.data.tags
    record = _local_record(run) if SCRIPT_TAG not in tags else None
    snapshot = record.snapshot if record is not None else None
    return Listed(
        run_id=run.run_id,
        mlflow_run_id=str(info.run_id),
        experiment=experiment,
        status=str(info.status),
        process=process_state(run, record),
        started_at=iso(info.start_time),
        ended_at=iso(info.end_time),
        script=tags.get(SCRIPT_TAG) or (None if record is None else script_of(record.command)),
        dirty=_number(tags) if snapshot is None else dirty_files(snapshot),
        base_commit=tags.get(BASE_COMMIT_TAG),
        tree=tags.get(TREE_TAG),
        verdict=tags.get(VERDICT_TAG),
        verified_at=tags.get(VERIFIED_AT_TAG),
    )


def _number(tags: Mapping[str, str]) -> int | None:
    text = tags.get(DIRTY_TAG, "")
    return int(text) if text.isdecimal() else None


def _local_record(run: TrackedRun) -> Record | None:
    if local_path(str(run.run.info.artifact_uri)) is None:
        return None
    try:
        return run.record()
    except (RecordError, OSError):
        return None
