"""How is git called?

The only module that starts git. Everything is bytes in and bytes out; no ``GIT_*`` variable of the caller decides what
is read, because a git hook exports ``GIT_DIR`` and ``GIT_INDEX_FILE``, and these beat the working directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, NamedTuple, Self, TypeAlias

from researchlab.errors import GitError, NotARepositoryError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

Argument: TypeAlias = "str | bytes | os.PathLike[str]"

TIMEOUT = 900.0
"""Seconds after which a git process counts as hung."""

FETCH = (
    "fetch",
    "--quiet",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-recurse-submodules",
    "--no-auto-maintenance",
)
"""How a fetch begins that brings objects and leaves everything else alone."""

# A scratch store is not kept: it need not survive a power loss.
_SCRATCH_OPTIONS = ("-c", "core.fsync=none")

# Where the user's configuration lies, where the search for a repository ends, and how to reach a server. Nothing that
# says which repository, index or object store it is.
_KEPT = frozenset(
    {
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CEILING_DIRECTORIES",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM",
        "GIT_EXEC_PATH",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_SSH_VARIANT",
        "GIT_ASKPASS",
        "GIT_PROXY_COMMAND",
    }
)
_FIXED = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    # The configuration of the user or the system may name files for these, the work tree not excepted.
    "GIT_TRACE2": "0",
    "GIT_TRACE2_EVENT": "0",
    "GIT_TRACE2_PERF": "0",
    "LC_ALL": "C",
    "LANGUAGE": "",
    "GIT_AUTHOR_NAME": "researchlab",
    "GIT_AUTHOR_EMAIL": "researchlab@localhost",
    "GIT_AUTHOR_DATE": "@0 +0000",
    "GIT_COMMITTER_NAME": "researchlab",
    "GIT_COMMITTER_EMAIL": "researchlab@localhost",
    "GIT_COMMITTER_DATE": "@0 +0000",
}
_ISOLATED = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
}
_OPTIONS = tuple(
    word
    for setting in (
        f"core.hooksPath={os.devnull}",
        f"core.attributesFile={os.devnull}",
        "core.fsmonitor=false",
        "core.untrackedCache=false",
        "core.splitIndex=false",
        "core.safecrlf=false",
        # Names that are dangerous on other systems only.
        "core.protectNTFS=false",
        "core.protectHFS=false",
        "core.quotePath=false",
        "core.pager=cat",
        "core.bigFileThreshold=512m",
        "core.compression=1",
        "fastimport.unpackLimit=0",
        "diff.suppressBlankEmpty=false",
        "diff.autoRefreshIndex=false",
        "color.ui=never",
        "submodule.recurse=false",
        "commit.gpgSign=false",
        "gc.auto=0",
        "maintenance.auto=false",
    )
    for word in ("-c", setting)
)


class SlowGitError(GitError):
    """git did not end in time; it may be waited for again while its block lasts."""


class GitResult(NamedTuple):
    """What a git process left behind."""

    returncode: int
    stdout: bytes
    stderr: bytes


def call_git(
    args: Sequence[Argument],
    *,
    cwd: Path | None = None,
    git_dir: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    isolated: bool = False,
    timeout: float = TIMEOUT,
) -> GitResult:
    """Run git and return what it said, whether it succeeded or not.

    Args:
        args: Arguments after ``git``.
        cwd: Where git runs and looks for its repository; the current folder, or ``git_dir`` where that is given.
        git_dir: The repository, where it is not to be looked for.
        stdin: Bytes for its standard input.
        env: Variables on top of the fixed environment.
        isolated: Read no configuration and no attributes of the user or the system. For our own scratch repositories.
        timeout: Seconds to wait.

    Raises:
        GitError: git is not installed, or did not end in time.
        NotARepositoryError: ``cwd`` does not exist.
    """
    with start_git(args, cwd=cwd, git_dir=git_dir, stdin=stdin, env=env, isolated=isolated) as process:
        return process.wait(timeout)


def start_git(
    args: Sequence[Argument],
    *,
    cwd: Path | None = None,
    git_dir: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    isolated: bool = False,
) -> GitProcess:
    """Start git and go on, so that two can work at a time; the arguments are those of ``call_git``.

    Returns:
        The process, to be used in a ``with`` block, which ends it.
    """
    with _starting(cwd):
        process = subprocess.Popen(
            _command(args, git_dir, isolated=isolated),
            cwd=cwd or git_dir,
            env=_environment(env, isolated=isolated),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    return GitProcess(process, tuple(args), cwd or git_dir, stdin)


class GitProcess:
    """A git process that was started."""

    def __init__(
        self, process: subprocess.Popen[bytes], args: tuple[Argument, ...], where: Path | None, stdin: bytes | None
    ) -> None:
        self._process = process
        self._args = args
        self._where = where
        self._stdin = stdin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._process as process:
            if process.returncode is None:
                process.kill()

    def wait(self, timeout: float = TIMEOUT, *, stdin: bytes | None = None) -> GitResult:
        """Return what git said, whether it succeeded or not.

        Args:
            timeout: Seconds to wait.
            stdin: Bytes for a process that was started with empty ones, in their place.

        Raises:
            SlowGitError: git did not end in time.
        """
        try:
            stdout, stderr = self._process.communicate(self._stdin if stdin is None else stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            message = f"git did not finish within {timeout:g} s and was stopped: {_shown(self._args)}"
            raise SlowGitError(message) from None
        return GitResult(self._process.returncode, stdout, stderr)

    def result(self, timeout: float = TIMEOUT, *, stdin: bytes | None = None) -> GitResult:
        """Return what a successful git said; the arguments are those of ``wait``.

        Raises:
            GitError: git failed; the message holds what it said.
        """
        result = self.wait(timeout, stdin=stdin)
        if result.returncode != 0:
            raise git_error(result, self._args, self._where)
        return result


def run_git(
    args: Sequence[Argument],
    *,
    cwd: Path | None = None,
    git_dir: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    isolated: bool = False,
    timeout: float = TIMEOUT,
) -> bytes:
    """Run git and return its standard output; the arguments are those of ``call_git``.

    Raises:
        GitError: git failed; the message holds what it said.
        NotARepositoryError: there is no repository here.
    """
    with start_git(args, cwd=cwd, git_dir=git_dir, stdin=stdin, env=env, isolated=isolated) as process:
        return process.result(timeout).stdout


@contextlib.contextmanager
def stream_git(
    args: Sequence[Argument], *, git_dir: Path, env: Mapping[str, str] | None = None, isolated: bool = True
) -> Generator[GitStream]:
    """Run git with pipes to write to and read from while it runs; wait for it at the end of the block.

    Raises:
        GitError: git failed, also when it stopped reading half-way.
    """
    with tempfile.TemporaryFile() as errors:
        with _starting(None):
            process = subprocess.Popen(
                _command(args, git_dir, isolated=isolated),
                cwd=git_dir,
                env=_environment(env, isolated=isolated),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        broken = False
        try:
            yield GitStream(process.stdin, process.stdout)
            process.stdin.close()
        except BrokenPipeError:
            broken = True
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            returncode = process.wait()
        if broken or returncode != 0:
            errors.seek(0)
            raise git_error(GitResult(returncode, b"", errors.read()), args, git_dir)


class GitStream(NamedTuple):
    """The two pipes of a running git process."""

    stdin: IO[bytes]
    stdout: IO[bytes]


def git_error(result: GitResult, args: Sequence[Argument], where: Path | None) -> GitError:
    """Say what a failed git process means for the reader, with the command that helps."""
    said = result.stderr.decode(errors="backslashreplace").strip()
    place = f"{where}" if where is not None else "."
    if "dubious ownership" in said or "unsafe repository" in said:
        found = re.search(r"safe\.directory (.+)", said)
        folder = found.group(1).strip() if found else shlex.quote(place)
        return GitError(
            f"git does not read {place}, because it belongs to another user. "
            f"If you trust it: git config --global --add safe.directory {folder}"
        )
    if "must be run in a work tree" in said:
        return NotARepositoryError(f"{place} is in a bare repository or a .git folder: there are no files to record.")
    if "not a git repository" in said:
        return NotARepositoryError(
            f"{place} is not inside a git repository ({said}). "
            f"To record the code of your runs: git init {shlex.quote(place)}"
        )
    return GitError(f"git failed with exit code {result.returncode} in {place}: {_shown(args)}\n{said}")


def _command(args: Sequence[Argument], git_dir: Path | None, *, isolated: bool) -> list[Argument]:
    place: tuple[Argument, ...] = () if git_dir is None else (b"--git-dir=" + os.fsencode(git_dir),)
    return ["git", *_OPTIONS, *(_SCRATCH_OPTIONS if isolated else ()), *place, *args]


def _environment(extra: Mapping[str, str] | None, *, isolated: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return kept | _FIXED | (_ISOLATED if isolated else {}) | dict(extra or {})


@contextlib.contextmanager
def _starting(cwd: Path | None) -> Generator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        if cwd is not None and not cwd.is_dir():
            message = f"There is no folder {cwd}."
            raise NotARepositoryError(message) from None
        message = "git is not installed, or not on PATH: no code can be recorded. See https://git-scm.com/downloads"
        raise GitError(message) from None
    except PermissionError as error:
        message = f"git could not be started in {cwd or '.'}: {error}"
        raise GitError(message) from error


def _shown(args: Sequence[Argument]) -> str:
    return shlex.join(["git", *(os.fsencode(arg).decode(errors="backslashreplace") for arg in args)])
