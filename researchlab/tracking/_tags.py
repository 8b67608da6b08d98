"""Which tags does a run carry in MLflow, so that it can be found and listed without one of its artifacts?"""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from researchlab.tracking.record import CommandRecord, SnapshotRecord

RUN_ID_TAG = "rlab.run_id"
BASE_COMMIT_TAG = "rlab.base_commit"
TREE_TAG = "rlab.tree"

#: What was started, in a word or two, and how many of its files differed from the base commit, captured or left out.
SCRIPT_TAG = "rlab.script"
DIRTY_TAG = "rlab.dirty"

#: Host and process id, to tell a run that goes on from one that was killed outright.
PROCESS_TAG = "rlab.process"

#: What the last re-execution that was asked to say so found, and when (ISO 8601, UTC).
VERDICT_TAG = "rlab.verdict"
VERIFIED_AT_TAG = "rlab.verified_at"

_LONGEST = 500  # MLflow takes 8 000 characters, and older servers 5 000


@dataclasses.dataclass(frozen=True)
class Process:
    """The process that tracked a run.

    Attributes:
        host: Name of the machine.
        pid: Its number there.
    """

    host: str
    pid: int

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Process | None:
        """Return the process that the tags of a run name, or None."""
        host, _, pid = tags.get(PROCESS_TAG, "").rpartition(" ")
        return cls(host, int(pid)) if host and pid.isdecimal() else None

    def is_here(self) -> bool:
        """Return whether it ran on this machine."""
        return self.host == socket.gethostname()


def start_tags(
    run_id: str,
    command: CommandRecord,
    snapshot: SnapshotRecord | None,
    *,
    process: tuple[str, int] | None = None,
) -> dict[str, str]:
    """Return the tags that a run gets when it starts.

    Args:
        run_id: Its readable id.
        command: How the process was started.
        snapshot: The working tree, or None when none could be recorded.
        process: Host and process id, where the run lives in a process of this machine.

    Returns:
        Tag to value. A name that is not UTF-8 is escaped, as no database takes it.
    """
    from researchlab.tracking._wording import printable

    tags = {RUN_ID_TAG: run_id, SCRIPT_TAG: printable(script_of(command))[:_LONGEST]}
    if snapshot is not None:
        tags[TREE_TAG] = snapshot.tree
        tags[DIRTY_TAG] = str(dirty_files(snapshot))
        if snapshot.base_commit is not None:
            tags[BASE_COMMIT_TAG] = snapshot.base_commit
    if process is not None:
        host, pid = process
        tags[PROCESS_TAG] = f"{printable(host)} {pid}"
    return tags


def script_of(command: CommandRecord) -> str:
    """Return what was started in a word or two: ``train.py``, ``-m package``, ``tests/test_a.py::test_b``."""
    target = command.target or "?"
    if command.kind == "script":
        # An installed command is known by its name, not by its place.
        return Path(target).name if Path(target).is_absolute() else target
    if command.kind == "module":
        return f"-m {target}"
    if command.kind == "code":
        return "-c ..."
    return target if command.kind == "pytest" else f"({command.kind})"


def dirty_files(snapshot: SnapshotRecord) -> int:
    """Return how many paths differed from the base commit, captured or left out, repositories inside included."""
    changed = len(snapshot.changed) + sum(len(nested.changed) for nested in snapshot.nested)
    return changed + len(snapshot.missing_everywhere)
