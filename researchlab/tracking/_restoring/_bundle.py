"""Which commits of a repository does no remote have, and how are they kept so that a run outlives a rebase?

Two forms are written and read: a git bundle, with the history that no remote has, and a plain pack, with one commit and
its files and nothing before it.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git

if TYPE_CHECKING:
    from collections.abc import Iterable

    from researchlab.tracking._git import ObjectFormat, Repository

PACK_FILE = "base.pack"
"""Name of the artifact that holds a base commit without its history; a record does not name it."""

_PACK = b"PACK"
_V2 = b"# v2 git bundle\n"
_V3 = b"# v3 git bundle\n"
_CHUNK = 1 << 20
_LONGEST_LINE = 4096
# A delta may make a pack this much smaller than the loose objects that it is made from; beyond, none is tried.
_HOPE = 8
# A partial clone must not be completed from its server behind the user's back: an attempt to fetch fails at once.
_NO_FETCH = tuple(
    word for name in ("", "file.", "git.", "http.", "https.", "ssh.") for word in ("-c", f"protocol.{name}allow=never")
)
_PACKING = (*_NO_FETCH, "pack-objects", "--stdout", "--quiet", "--delta-base-offset", "--no-use-bitmap-index")
_LIST = (*_NO_FETCH, "rev-list")


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
    head = repository.head
    if head is None:
        return False
    git_dir = repository.git_dir
    missing = (head, "--not", "--remotes")
    # The one question of the usual case: the answer is nothing.
    if not _git.run_git((*_LIST, "--max-count=1", *missing), git_dir=git_dir):
        return False
    sizes = _git.run_git((*_LIST, "--disk-usage", "--objects", *missing), git_dir=git_dir)
    if int(sizes) > limit * _HOPE:
        raise _too_large(repository, int(sizes), limit)
    commits = _git.run_git((*_LIST, "--boundary", *missing), git_dir=git_dir).decode().split()
    kept = [commit for commit in commits if not commit.startswith("-")]
    before = [commit[1:] for commit in commits if commit.startswith("-")]
    asked = "".join(f"{line}\n" for line in (head, *(f"^{commit}" for commit in before)))
    cut = _behind_the_cut(repository, kept)
    header = _header(head, [*before, *cut], repository.object_format)
    args = (*_PACKING, "--revs", "--thin")
    _write(args, asked.encode(), git_dir=git_dir, to=to, header=header, limit=limit, what=repository)
    return True


def write_pack(source: Repository | Path, commit: str, to: Path, *, limit: int | None = None) -> None:
    """Write a commit with all its files, and no commit before it, as a pack.

    Args:
        source: A repository, or a git folder, that has them; it is only read.
        commit: Id of the commit.
        to: The file.
        limit: Bytes that they may take, or None for any number.

    Raises:
        GitError: They take more, or some are missing; no file is left.
    """
    git_dir = source if isinstance(source, Path) else source.git_dir
    objects = _git.run_git((*_LIST, "--objects", "--no-walk", "--no-object-names", commit), git_dir=git_dir)
    # With one thread the same objects give the same bytes.
    _write((*_PACKING, "--threads=1"), objects, git_dir=git_dir, to=to, header=b"", limit=limit, what=commit)


class Kept(NamedTuple):
    """What a bundle or a pack says of itself.

    Attributes:
        offset: Where its pack begins.
        before: Commits that it builds on and does not hold.
    """

    offset: int
    before: tuple[str, ...]


def read_header(file: IO[bytes]) -> Kept:
    """Read what stands before the pack of a bundle; a plain pack has nothing there.

    Raises:
        RestoreError: It is neither.
    """
    first = file.readline(_LONGEST_LINE)
    if first.startswith(_PACK):
        return Kept(0, ())
    before: list[str] = []
    if first in {_V2, _V3}:
        while line := file.readline(_LONGEST_LINE):
            if line == b"\n":
                return Kept(file.tell(), tuple(before))
            found = re.match(rb"-([0-9a-f]{40}(?:[0-9a-f]{24})?)\b", line)
            if found is not None:
                before.append(found[1].decode())
    message = "is neither a git bundle nor a pack: it is damaged"
    raise RestoreError(message)


def unpack(path: Path, *, git_dir: Path) -> None:
    """Add the objects of a bundle or pack to a scratch store, each with its id proven.

    What a bundle builds on is looked for where the store borrows; it is not an error that a commit before is missing.

    Raises:
        RestoreError: The file is damaged, or an object that it builds on is missing.
    """
    with path.open("rb") as file:
        offset = read_header(file).offset
        file.seek(offset)
        try:
            with _git.stream_git(("index-pack", "--stdin", "--fix-thin"), git_dir=git_dir) as pipes:
                while chunk := file.read(_CHUNK):
                    pipes.stdin.write(chunk)
                pipes.stdin.close()
                pipes.stdout.read()
        except GitError as error:
            message = f"cannot be unpacked: {str(error).rpartition('fatal: ')[2]}"
            raise RestoreError(message) from error


def _header(head: str, before: Iterable[str], object_format: ObjectFormat) -> bytes:
    signature = _V3 + b"@object-format=sha256\n" if object_format == "sha256" else _V2
    return signature + "".join(f"-{commit} \n" for commit in before).encode() + f"{head} HEAD\n\n".encode()


def _write(
    args: tuple[str, ...],
    asked: bytes,
    *,
    git_dir: Path,
    to: Path,
    header: bytes,
    limit: int | None,
    what: Repository | str,
) -> None:
    """Write what pack-objects gives, and stop it when that is more than the limit."""
    try:
        with to.open("wb") as file, _git.stream_git(args, git_dir=git_dir, isolated=False) as pipes:
            size = file.write(header)
            pipes.stdin.write(asked)
            pipes.stdin.close()
            while chunk := pipes.stdout.read(_CHUNK):
                size += file.write(chunk)
                if limit is not None and size > limit:
                    raise _too_large(what, size, limit)  # noqa: TRY301 (so that git is stopped)
    except BaseException:
        with contextlib.suppress(OSError):
            to.unlink(missing_ok=True)
        raise


def _too_large(what: Repository | str, size: int, limit: int) -> GitError:
    amount = f"{-(-size >> 20)} MiB or more, and no more than {limit >> 20} MiB are kept"
    if isinstance(what, str):
        return GitError(f"Commit {what[:12]} and its files take {amount}.")
    push = "git push" if what.remotes else "git remote add origin <url> && git push origin HEAD"
    return GitError(
        f"The commits of {what.top} that no remote has were not kept with the run: they take {amount}. Without them "
        f"its code comes back only as long as {what.head} is in the repository. Either push it ({push}), or raise "
        '`largest-bundle = "..."` below [tool.researchlab] in pyproject.toml.'
    )


def _behind_the_cut(repository: Repository, kept: list[str]) -> list[str]:
    """Return the commits that a shallow clone lacks: a bundle must not look like the whole history."""
    shallow = repository.common_dir / "shallow"
    try:
        ends = set(shallow.read_text().split()).intersection(kept)
    except FileNotFoundError:
        return []
    if not ends:
        return []
    parents: dict[bytes, None] = {}
    for commit in sorted(ends):
        # `rev-list --parents` shows the cut; the commit itself has its parents.
        text = _git.run_git((*_NO_FETCH, "cat-file", "commit", commit), git_dir=repository.git_dir)
        parents.update(dict.fromkeys(re.findall(rb"^parent ([0-9a-f]+)$", text.partition(b"\n\n")[0], re.MULTILINE)))
    return [parent.decode() for parent in parents]
