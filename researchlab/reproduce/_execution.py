"""How is the recorded command run again, in the restored tree, with a tracker that writes to a scratch store?"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import NotReExecutableError
from researchlab.reproduce._surroundings import place_below
from researchlab.tracking._guard import Touched, read_touched
from researchlab.tracking.command import is_environment
from researchlab.tracking.environment import is_recorded_variable, variables
from researchlab.tracking.request import REQUEST_VARIABLE, Reply, Request
from researchlab.tracking.store import scratch_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from researchlab.tracking.record import Record

#: Seconds that a process may go on after the run that is asked for has ended.
GRACE = 10.0

#: Seconds between SIGTERM and SIGKILL when a process has to be stopped.
_STOP = 5.0

_TAIL_LINES = 30
_TAIL_BYTES = 8000

_WHY_NOT = {
    "interactive": "it was tracked in an interactive session or a notebook, whose cells the record does not hold",
    "stdin": "its program was read from standard input, which the record does not hold",
    "worker": "it was tracked in a worker process of multiprocessing, whose task the record does not hold",
}


@dataclasses.dataclass(frozen=True)
class Access:
    """What a process may do with files that are the user's.

    Attributes:
        checkout: Root of another checkout of the project, which nothing may come from either.
        checked: Files of a checkout that it may read: inputs that have the bytes that the run read.
        absent: Files outside of the repository that it must not read: inputs that the restored tree has elsewhere.
        read_only: Files that it must not open for writing.
        free: Files and folders in a checkout that are not looked after: those of the MLflow store.
    """

    checkout: Path | None = None
    checked: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()
    read_only: tuple[Path, ...] = ()
    free: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Execution:
    """What a child process did.

    Attributes:
        exit_code: Its exit code; negative for a signal, None when it was stopped after the run had ended.
        reply: What the asked tracker answered, or None when it never ended.
        output: The tail of what the process printed.
        seconds: Wall time.
        timed_out: Whether the time limit ended it.
        touched: What it did to files of the original checkout.
    """

    exit_code: int | None
    reply: Reply | None
    output: str
    seconds: float
    timed_out: bool
    touched: Touched


def check_executable(record: Record) -> None:
    """Say at once when a run cannot be started again.

    Args:
        record: The run's record.

    Raises:
        NotReExecutableError: It cannot, with the reason.
    """
    command = record.command
    if record.snapshot is None:
        why = " ".join(record.not_recorded) or "its code was not recorded"
        message = f"The run '{record.run_id}' cannot be executed again: {why}"
        raise NotReExecutableError(message)
    if command.kind in _WHY_NOT:
        message = (
            f"The run '{record.run_id}' cannot be executed again: {_WHY_NOT[command.kind]}. Track it from a script."
        )
        raise NotReExecutableError(message)
    if command.kind == "script" and command.target is not None and Path(command.target).is_absolute():
        _installed_script(Path(command.target), record.run_id)


def execute(
    record: Record,
    *,
    restored: Path,
    scratch: Path,
    timeout: float | None,
    access: Access = Access(),
    root: Path | None = None,
) -> Execution:
    """Run the recorded command in the restored tree and wait for its end.

    Args:
        record: The run's record.
        restored: Root of the restored tree.
        scratch: Folder for the store, the request and the output, made when missing.
        timeout: Limit in seconds, or None.
        access: What the process may do with files that are the user's.
        root: The scratch root that the restored tree stands below; a folder in ``scratch`` when not given.

    Returns:
        What the process did. It is stopped, with all that it started, when the limit is reached or the caller is
        interrupted.

    Raises:
        NotReExecutableError: The record does not say how to start it.
    """
    check_executable(record)
    snapshot = record.snapshot
    original = Path(snapshot.repository) if snapshot is not None else None
    scratch.mkdir(parents=True, exist_ok=True)
    if record.command.cwd is None:
        folder = place_below(scratch / "outside" if root is None else root, record.command.folder)
    else:
        folder = restored / record.command.cwd
    folder.mkdir(parents=True, exist_ok=True)
    request = Request(
        run_id=record.run_id,
        tracking_uri=scratch_store(scratch).tracking_uri,
        asker=os.getpid(),
        test=record.command.target if record.command.kind == "pytest" else None,
        ordinal=record.command.ordinal,
        original=original,
        restored=restored,
        checkout=access.checkout,
        outside=tuple(Path(item.path) for item in record.inputs if item.path.startswith("/")),
        checked=access.checked,
        absent=access.absent,
        read_only=access.read_only,
        free=(*access.free, scratch.parent, Path(os.path.realpath(tempfile.gettempdir()))),
        touched=scratch / "touched.txt",
        reply=scratch / "reply.json",
    )
    (scratch / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
    words = _words(record, restored=restored, folder=folder, original=original)
    environ = _environ(record, request=request, scratch=scratch, folder=folder)
    return _wait(words, folder=folder, environ=environ, reply=request.reply, scratch=scratch, timeout=timeout)


def _words(record: Record, *, restored: Path, folder: Path, original: Path | None) -> list[str]:
    command = record.command
    words = [sys.executable, *command.flags]
    target = command.target or ""
    if command.kind == "script":
        if Path(target).is_absolute():
            words.append(str(_installed_script(Path(target), record.run_id)))
        else:
            words.append(os.path.relpath(restored / target, folder))
    elif command.kind == "module":
        words += ["-m", target]
    elif command.kind == "code":
        words += ["-c", target]
    else:
        words += ["-m", "pytest", target, "-p", "no:cacheprovider"]
        if importlib.util.find_spec("xdist") is not None:
            words.append("-n0")
    return words + [_moved(argument, original, restored) for argument in command.argv]


def _installed_script(script: Path, run_id: str) -> Path:
    """Return the present place of a script outside the repository: one that an installed package brought."""
    if is_environment(script) or script.parent.name in {"bin", "Scripts"}:
        here = Path(sys.executable).parent / script.name
        if here.is_file():
            return here
        found = shutil.which(script.name)
        if found:
            return Path(found)
        reason = f"the command '{script.name}' is not installed here"
    else:
        reason = f"its script {script} lies outside the repository, so that it was not recorded"
    message = f"The run '{run_id}' cannot be executed again: {reason}."
    raise NotReExecutableError(message)


def _moved(argument: str, original: Path | None, restored: Path) -> str:
    """Point an argument that names a place in the original checkout at the same place in the restored tree."""
    if original is None:
        return argument
    head, equals, tail = argument.partition("=")
    for before, name in (("", argument), (head + equals, tail)):
        if not name.startswith(os.sep):
            continue
        for path in (Path(os.path.normpath(name)), Path(os.path.realpath(name))):
            if path.is_relative_to(original):
                return before + str(restored / path.relative_to(original))
    return argument


def _environ(record: Record, *, request: Request, scratch: Path, folder: Path) -> dict[str, str]:
    """Return the present environment with the recorded variables that may change bits, and without our own ones."""
    ours = (
        "MLFLOW_TRACKING_URI",
        "MLFLOW_REGISTRY_URI",
        "MLFLOW_EXPERIMENT_",
        "MLFLOW_RUN_ID",
        "PYTEST_",
        "GIT_",
        "RLAB_",
    )
    environ = {
        name: value
        for name, value in os.environ.items()
        if not is_recorded_variable(name) and not name.startswith(ours)
    }
    environ.update(variables(record.environment.variables))  # and no other: a record may come from somebody else
    roots = [str(request.restored / root) for root in record.command.source_roots]
    roots += [
        _moved(entry, request.original, request.restored)
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if entry
    ]
    if roots:
        # Before site-packages, so that an editable install of the original checkout is not what gets imported.
        environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(roots))
    environ["PWD"] = str(folder)
    environ["MLFLOW_TRACKING_URI"] = request.tracking_uri
    environ[REQUEST_VARIABLE] = str(scratch / "request.json")
    return environ


def _wait(
    words: list[str], *, folder: Path, environ: Mapping[str, str], reply: Path, scratch: Path, timeout: float | None
) -> Execution:
    started = time.monotonic()
    output = scratch / "output.txt"
    timed_out = False
    replied: float | None = None
    with output.open("wb") as stream:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # a process group of its own, which ends as a whole
        )
        try:
            while (code := process.poll()) is None:
                now = time.monotonic()
                if replied is None and reply.exists():
                    replied = now
                if timeout is not None and now - started > timeout and replied is None:
                    timed_out = True
                    break
                if replied is not None and now - replied > GRACE:
                    break
                _sleep(process)
        finally:
            _stop(process)
    return Execution(
        exit_code=code,
        reply=Reply.model_validate_json(reply.read_text(encoding="utf-8")) if reply.exists() else None,
        output=_tail(output),
        seconds=time.monotonic() - started,
        timed_out=timed_out,
        touched=read_touched(scratch / "touched.txt"),
    )


def _sleep(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(0.05)
    except subprocess.TimeoutExpired:
        return


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the child and everything in its process group, politely first."""
    for number, seconds in ((signal.SIGTERM, _STOP), (signal.SIGKILL, _STOP)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - _TAIL_BYTES))
        text = stream.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
