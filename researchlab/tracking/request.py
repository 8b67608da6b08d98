"""Is this process a re-execution, and what is asked of it?

The child of a re-execution finds one environment variable that names a request file. Its trackers then write to a
scratch store, and the tracker that is asked for leaves a reply: where its trace is, and which modules came from the
original checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

import pydantic

from researchlab.errors import RecordError

#: The one variable that makes a process a re-execution.
REQUEST_VARIABLE = "RLAB_REQUEST"


class Request(pydantic.BaseModel):
    """What the parent asks of the child.

    Attributes:
        version: Version of this document.
        run_id: The run that is executed again; the asked tracker takes its name.
        tracking_uri: The scratch store.
        asker: Process id of the parent: its own child answers, and not what that child starts.
        test: Node id of the pytest test whose trackers count, or None for those of the whole process.
        ordinal: Which of these trackers is asked.
        original: Root of the checkout that the run was made in.
        restored: Root of the restored tree.
        checkout: Root of another checkout of the same project, which no module may come from either.
        outside: Files outside of the repository that the run imported or read too.
        checked: Files of the original checkout that are inputs, and have the bytes that the run read.
        absent: Files outside of the repository that are inputs, and have not: the run's artifacts have.
        read_only: Files that must not be opened for writing.
        free: Files and folders in a checkout that are not guarded.
        touched: File that reading and writing in a checkout is reported to.
        reply: File that the asked tracker writes its reply to.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    version: int = 1
    run_id: str
    tracking_uri: str
    asker: int
    test: str | None
    ordinal: int
    original: Path | None
    restored: Path
    checkout: Path | None = None
    outside: tuple[Path, ...] = ()
    checked: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()
    read_only: tuple[Path, ...] = ()
    free: tuple[Path, ...] = ()
    touched: Path | None = None
    reply: Path

    def asks(self, *, test: str | None, ordinal: int) -> bool:
        """Return whether the tracker that opens now in this process is the one that is asked."""
        return os.getppid() == self.asker and (self.test, self.ordinal) == (test, ordinal)


class Reply(pydantic.BaseModel):
    """What the asked tracker of the child answers.

    Attributes:
        trace: Folder of the trace files.
        record: The child's own record as JSON.
        foreign: Modules that were imported from the original checkout instead of the restored tree.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    trace: Path
    record: str
    foreign: tuple[str, ...] = ()


def active_request() -> Request | None:
    """Return the request of this process, or None when it is no re-execution.

    Raises:
        RecordError: The variable names a file that is no request.
    """
    name = os.environ.get(REQUEST_VARIABLE)
    if not name:
        return None
    try:
        return Request.model_validate_json(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = (
            f"{REQUEST_VARIABLE} names '{name}', which is no request of a re-execution ({error}). Unset the variable."
        )
        raise RecordError(message) from error
