"""Programs of a researcher, really run, and told to stop in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Script:
    """A Python program that runs in a process of its own; what it prints goes to files outside of the repository."""

    def __init__(
        self,
        code: str,
        *,
        place: Path,
        folder: Path,
        outputs: Path,
        flags: Sequence[str] = (),
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
    ) -> None:
        """Write the program to ``place`` and start it in ``folder``; a variable that is None is taken away."""
        place.parent.mkdir(parents=True, exist_ok=True)
        text = textwrap.dedent(code)
        if not place.exists() or place.read_text() != text:  # several may run the same file
            place.write_text(text)
        outputs.mkdir(parents=True, exist_ok=True)
        self._stdout, self._stderr = outputs / f"{place.stem}.out", outputs / f"{place.stem}.err"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        for name, value in (env or {}).items():
            environ.pop(name, None)
            if value is not None:
                environ[name] = value
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *flags, os.path.relpath(place, folder), *args],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait_until(self, line: str, *, seconds: float = 120) -> None:
        """Wait until the program has printed a line."""
        end = time.monotonic() + seconds
        while line not in self.stdout.splitlines():
            assert self.process.poll() is None or line in self.stdout.splitlines(), f"ended too early: {self.stderr}"
            assert time.monotonic() < end, f"no line {line!r} within {seconds} s"
            time.sleep(0.05)

    def wait(self, *, seconds: float = 120) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once, if it lives."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has complained about."""
        return self._stderr.read_text(errors="replace")
