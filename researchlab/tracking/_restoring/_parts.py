"""What is known of the code of each repository of a run, and may it be written where the record says?"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from researchlab.errors import RestoreError
from researchlab.tracking._capture._worktree import GITLINK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from researchlab.tracking._git import Entry, ObjectFormat

_COMMIT = {"sha1": re.compile(r"[0-9a-f]{40}"), "sha256": re.compile(r"[0-9a-f]{64}")}
# What file systems that fold case, or Windows, take for `.git`.
_GIT_FOLDER = re.compile(r"(\.git|git~\d+)[ .]*(:.*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A bundle or a pack that was kept with a run.

    Attributes:
        name: What a message calls it.
        open: Gives the file for a block, or None where it is not there.
        expected: Whether the record says that it is there.
    """

    name: str
    open: Callable[[], AbstractContextManager[Path | None]]
    expected: bool = True

    @classmethod
    def of(cls, path: Path) -> KeptFile:
        """Return a file of this machine."""
        return cls(str(path), lambda: contextlib.nullcontext(path if path.is_file() else None))


@dataclass(frozen=True, slots=True)
class RepositoryCode:
    """The code of one repository: of the one that ran, or of one inside its work tree.

    Attributes:
        base_commit: Id of its base commit, or None where there was none.
        tree: Id of the tree that base and patch give.
        patch: What turns the base commit's tree into that one.
        object_format: How it names objects.
        branch: The branch that it was on, or None.
        remotes: Its remotes, name to URL.
        kept: Bundles and packs that may hold the base commit.
        path: Its root, relative to the root of the outermost one; empty for that one.
        is_submodule: Whether the repository around it knows it as a submodule.
    """

    base_commit: str | None
    tree: str
    patch: bytes = b""
    object_format: ObjectFormat = "sha1"
    branch: str | None = None
    remotes: Mapping[str, str] = field(default_factory=dict[str, str])
    kept: tuple[KeptFile, ...] = ()
    path: str = ""
    is_submodule: bool = False

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"the repository in {printable(self.path)}" if self.path else "the repository"

    @property
    def base(self) -> str:
        """What a message calls its base commit."""
        where = f" of {printable(self.path)}" if self.path else ""
        return f"the base commit {self.base_commit}{where}" if self.base_commit else f"the empty tree{where}"


def check_parts(parts: Iterable[RepositoryCode]) -> None:
    """Refuse what no honest record says: ids that are none, and places that lead out of the work tree.

    Raises:
        RestoreError: The record is damaged, or was made to do harm.
    """
    seen: set[bytes] = set()
    for part in parts:
        for what, oid in (("base commit", part.base_commit), ("tree", part.tree)):
            if oid is not None and not _COMMIT[part.object_format].fullmatch(oid):
                kind = "commit" if what == "base commit" else "tree"
                message = f"The recorded {what} is not the id of a {kind}: {oid!r}. The record is damaged."
                raise RestoreError(message)
        if not part.path and not seen:
            seen.add(b"")
            continue
        path = _encoded(part.path)
        names = [name.decode(errors="surrogateescape") for name in path.split(b"/")]
        if (
            b"\0" in path
            or any(name in {"", ".", ".."} or _GIT_FOLDER.fullmatch(name) for name in names)
            or path in seen
        ):
            message = (
                f"The record names a repository at {part.path!r}, which is no place inside the work tree: "
                "it is damaged, or was made to do harm. Nothing was written."
            )
            raise RestoreError(message)
        seen.add(path)


def enclosing(part: RepositoryCode, parts: Sequence[RepositoryCode]) -> RepositoryCode:
    """Return the innermost of ``parts`` whose work tree holds ``part``; the first of them is the outermost."""
    found = parts[0]
    for other in parts[1:]:
        if part.path.startswith(other.path + "/") and len(other.path) >= len(found.path):
            found = other
    return found


def relative_path(part: RepositoryCode, outer: RepositoryCode) -> bytes:
    """Return the place of ``part`` in the work tree of ``outer``."""
    path = part.path[len(outer.path) + 1 :] if outer.path else part.path
    return _encoded(path)


def check_place(part: RepositoryCode, outer: RepositoryCode, entries: Mapping[bytes, Entry]) -> None:
    """Refuse a repository where the tree of the one around it has a file or a symlink in its way.

    Args:
        part: The inner repository.
        outer: The one around it.
        entries: What the tree of ``outer`` holds.

    Raises:
        RestoreError: It has.
    """
    path = relative_path(part, outer)
    names = path.split(b"/")
    ways = {b"/".join(names[:count]) for count in range(1, len(names))}
    taken = [way for way in ways if way in entries]
    here = entries.get(path)
    if here is not None and here[0] != GITLINK:
        taken.append(path)
    taken += [name for name in entries if name.startswith(path + b"/")]
    if taken:
        message = (
            f"The record names a repository at {part.path!r}, where the tree of {outer.name} has "
            f"{printable(os.fsdecode(min(taken)))!r}: it is damaged, or was made to do harm. Nothing was written."
        )
        raise RestoreError(message)


def printable(text: str) -> str:
    """Return the text without the lone surrogates that stand for bytes which are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _encoded(path: str) -> bytes:
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b""  # a surrogate that stands for no byte
