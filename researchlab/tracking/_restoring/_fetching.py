"""How is a commit fetched from a remote into a scratch store, with the access that the user has and without asking?"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError
from researchlab.tracking import _git
from researchlab.tracking._restoring._parts import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

FETCH_TIMEOUT = 300.0
"""Seconds that one remote may take."""

_REMOTE = "rlab"
_FETCH = (*_git.FETCH, "--update-shallow", _REMOTE)
_OPTIONS = ("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=30", "-c", "protocol.version=2")
_SAID_LINES = 3


def fetch(url: str, commits: Sequence[str], *, git_dir: Path) -> str | None:
    """Fetch commits with their history into a scratch store; return why that fails."""
    env = {
        # The URL may hold a password, which a command line would show to everybody.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"remote.{_REMOTE}.url",
        "GIT_CONFIG_VALUE_0": url,
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_PROTOCOL_FROM_USER": "0",
        "SSH_ASKPASS": "",
        "SSH_ASKPASS_REQUIRE": "never",
        "GCM_INTERACTIVE": "never",
        **_ssh(git_dir),
    }
    answer = ""
    # A server may give out only what its branches and tags lead to.
    for wanted in (commits, [f"+refs/{kind}/*:refs/{_REMOTE}/{kind}/*" for kind in ("heads", "tags")]):
        try:
            result = _git.call_git((*_OPTIONS, *_FETCH, *wanted), git_dir=git_dir, env=env, timeout=FETCH_TIMEOUT)
        except GitError:
            return f"it did not answer within {FETCH_TIMEOUT:g} s"
        finally:
            shutil.rmtree(git_dir / "refs" / _REMOTE, ignore_errors=True)
        if result.returncode == 0:
            return None
        answer = answer or said(result.stderr)
        if not re.search(rb"unadvertised object|remote ref", result.stderr):
            break
    return printable(answer.replace(url, _git.without_credentials(url)))


def _ssh(git_dir: Path) -> dict[str, str]:
    """Keep ssh from asking on the terminal, whatever command of the user starts it."""
    if "GIT_SSH" in os.environ and "GIT_SSH_COMMAND" not in os.environ:
        return {}
    configured = _git.call_git(("config", "core.sshCommand"), git_dir=git_dir).stdout.decode().strip()
    command = os.environ.get("GIT_SSH_COMMAND") or configured or "ssh"
    is_openssh = Path((shlex.split(command) or [""])[0]).name == "ssh"
    return {"GIT_SSH_COMMAND": f"{command} -oBatchMode=yes -oConnectTimeout=20"} if is_openssh else {}


def said(stderr: bytes) -> str:
    """Return what git said, in one line."""
    lines = [line.strip() for line in stderr.decode(errors="backslashreplace").splitlines() if line.strip()]
    return "; ".join(line.removeprefix("fatal: ").removeprefix("error: ") for line in lines[:_SAID_LINES])
