"""Calls of `rlab`: in this process, and as a process of its own."""

from __future__ import annotations

import inspect
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from researchlab.cli import app

RLAB = Path(sys.executable).with_name("rlab")
# click < 8.2 mixes stderr into stdout unless it is told not to; click >= 8.2 does not know that option any more.
RUNNER = CliRunner(**({"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}))


def rlab(*args: str) -> Result:
    """Call `rlab` in this process; it must end by itself, and not with an exception."""
    result = RUNNER.invoke(app, list(args))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refusal(*args: str) -> str:
    """Call `rlab`, which must refuse, and return what it says."""
    result = rlab(*args)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("error: ")
    return result.stderr


def on_a_terminal(*args: str, **environ: str) -> tuple[int, bytes]:
    """Start `rlab` on a terminal of its own; return its exit code and what the terminal got."""
    mine, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    variables: dict[str, Any] = {**inherited, "TERM": "xterm", "COLUMNS": "200", **environ}
    process = subprocess.Popen([RLAB, *args], stdout=theirs, env=variables)
    os.close(theirs)
    output = b""
    while True:
        try:
            output += os.read(mine, 4096)
        except OSError:
            break
    os.close(mine)
    return process.wait(), output
