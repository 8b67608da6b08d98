"""Does the process that tracked a run still live, or was it killed outright?"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

#: Seconds by which the clock may have been set back since the process of a run began.
_CLOCK_SLACK = 60.0


def is_alive(*, host: str, pid: int, started_at: float) -> bool:
    """Return whether the process is still there; another one may have got its number since.

    Args:
        host: Name of its machine. What happens on another machine is not known, and counts as gone.
        pid: Its number.
        started_at: Start of the run in seconds since the epoch: the process began before.
    """
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        now, up = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return True  # no Linux
    began = now - up + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] != "Z" and began < started_at + _CLOCK_SLACK
