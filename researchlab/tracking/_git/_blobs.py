"""What do the blobs of a repository hold, and where do those come from that a partial clone has not?"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from researchlab.errors import GitError
from researchlab.tracking._git._calls import FETCH, call_git, run_git, stream_git

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from pathlib import Path

    from researchlab.tracking._git._calls import GitStream
    from researchlab.tracking._git._repository import Repository

_CHUNK = 1 << 20


class Blobs:
    """Reads blobs one after the other."""

    def __init__(self, pipes: GitStream) -> None:
        self._pipes = pipes

    def read(self, oid: str) -> tuple[int, Iterator[bytes]] | None:
        """Return the size of a blob and its bytes in parts, all of which have to be taken; None where it is missing."""
        self._pipes.stdin.write(oid.encode() + b"\n")
        self._pipes.stdin.flush()
        answer = self._pipes.stdout.readline()
        if answer.endswith(b" missing\n"):
            return None
        size = int(answer.split()[2])
        return size, self._chunks(size)

    def _chunks(self, size: int) -> Iterator[bytes]:
        while size:
            chunk = self._pipes.stdout.read(min(size, _CHUNK))
            if not chunk:
                message = "git ended in the middle of a file."
                raise GitError(message)
            size -= len(chunk)
            yield chunk
        self._pipes.stdout.read(1)


class Source(NamedTuple):
    """Where git reads objects, without ever writing there: a git folder, and variables.

    A partial clone is read through a store of our own, because git would fetch into the clone what that lacks.
    """

    git_dir: Path
    env: Mapping[str, str]


def source_of(repository: Repository, store: Callable[[], Path]) -> Source:
    """Return where to read the objects of a repository.

    Args:
        repository: Whose objects.
        store: Makes a git folder of our own, for a partial clone.
    """
    if repository.promisor is None:
        return Source(repository.git_dir, {})
    return Source(store(), {"GIT_ALTERNATE_OBJECT_DIRECTORIES": os.fspath(repository.objects)})


@contextlib.contextmanager
def open_blobs(source: Source) -> Generator[Blobs]:
    """Read blobs in the block."""
    with stream_git(("cat-file", "--batch"), git_dir=source.git_dir, env=source.env) as pipes:
        yield Blobs(pipes)


def blob_sizes(oids: Iterable[str], source: Source) -> dict[str, int]:
    """Return the sizes of blobs, those that are missing apart."""
    asked = "".join(f"{oid}\n" for oid in oids).encode()
    answer = run_git(("cat-file", "--batch-check"), git_dir=source.git_dir, stdin=asked, env=source.env, isolated=True)
    return {words[0]: int(words[2]) for words in map(str.split, answer.decode().splitlines()) if words[1] == "blob"}


def fetching_into(repository: Repository, store: Path) -> dict[str, str]:
    """Return the variables that make git put into ``store`` what it fetches because a partial clone lacks it."""
    return {
        "GIT_OBJECT_DIRECTORY": os.fspath(store / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.fspath(repository.objects),
    }


def fetch_blobs(oids: Iterable[str], repository: Repository, store: Path) -> None:
    """Fetch blobs that a partial clone lacks into a git folder of our own; what cannot be had stays missing."""
    if repository.promisor is None:
        return
    call_git(
        (
            *("-c", "fetch.negotiationAlgorithm=noop", "-c", "protocol.ext.allow=never"),
            *FETCH,
            *("--refmap=", "--no-write-commit-graph", "--filter=blob:none", "--stdin"),
            repository.promisor,
        ),
        cwd=repository.top,
        git_dir=repository.git_dir,
        stdin="".join(f"{oid}\n" for oid in oids).encode(),
        env=fetching_into(repository, store),
    )
