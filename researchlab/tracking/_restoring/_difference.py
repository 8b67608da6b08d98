"""How does the code of one run differ from that of another, as git shows it?"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from researchlab.errors import GitError
from researchlab.tracking import _git

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from researchlab.tracking._restoring._recorded_code import RecordedCode

# What says which repository git works on, and what a file is compared with: nothing of that may come from the caller.
_REPOSITORY_VARIABLES = frozenset(
    {
        "GIT_DIR",
        "GIT_COMMON_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_NAMESPACE",
        "GIT_PREFIX",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_DIFF_OPTS",
        "GIT_EXTERNAL_DIFF",
    }
)


def show_difference(
    one: RecordedCode, other: RecordedCode, *, repo: Path, to: BinaryIO | None, paths: Sequence[str] = ()
) -> bool:
    """Show what changes from the code of one run to that of another; nested repositories stand under their paths.

    Args:
        one: The first code.
        other: The second code.
        repo: A folder in the work tree of the repository that has both base commits. It is only read.
        to: Where the plain text goes; None lets git write to the terminal with the user's colours and pager.
        paths: Show only these: git's pathspecs, relative to ``repo``.

    Returns:
        Whether they differ.

    Raises:
        RestoreError: One of them cannot be brought back from this repository.
        NotARepositoryError: ``repo`` is in no work tree.
        GitError: git failed.
    """
    repository = _git.find_repository(repo)
    with tempfile.TemporaryDirectory(prefix="rlab-diff-") as scratch:
        git_dir = one.build(repository, Path(scratch))
        other.build(repository, Path(scratch))
        trees = (one.whole_tree(git_dir), other.whole_tree(git_dir))
        if trees[0] == trees[1]:
            return False
        # Two trees are compared; the work tree only says what the pathspecs are relative to, and its attributes.
        place = {"GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(repository.top)}
        words = ("diff", *trees, "--", *paths)
        if to is None:
            _show_on_terminal(words, folder=repo, place=place)
        else:
            plain = (words[0], "--no-ext-diff", "--no-textconv", *words[1:])
            to.write(_git.run_git(plain, cwd=repo, env=place, isolated=True))
            to.flush()
    return True


def _show_on_terminal(words: Sequence[str], *, folder: Path, place: Mapping[str, str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}
    command = ["git", *words]
    with subprocess.Popen(command, cwd=folder, env=environ | dict(place)) as process, _interrupts_left_to_the_pager():
        code = process.wait()
    # Who leaves the pager before the end closes the pipe.
    if code not in {0, -signal.SIGPIPE, 128 + signal.SIGPIPE}:
        message = f"git failed with exit code {code}: it said why above."
        raise GitError(message)


@contextlib.contextmanager
def _interrupts_left_to_the_pager() -> Generator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
