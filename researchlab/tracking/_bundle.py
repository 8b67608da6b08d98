"""Which commits of a repository does no remote have, and how are they kept so that a run outlives a rebase?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from researchlab.tracking._git import Repository


def write_bundle(repository: Repository, to: Path, *, limit: int) -> bool:
    """Write the commits that lead to HEAD and that no remote is known to have as a git bundle.

    Args:
        repository: Where they are; it is only read.
        to: The file.
        limit: Bytes that they may take.

    Returns:
        Whether a bundle was written; False where a remote has the commit, or there is none.

    Raises:
        GitError: They take more, or git failed; no file is left.
    """
    del repository, to, limit
    return False
