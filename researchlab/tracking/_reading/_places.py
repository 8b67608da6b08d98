"""Where does a file lie that the program opened: what does the snapshot hold there?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from researchlab.tracking._capture._worktree import SYMLINK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from researchlab.tracking._git import Entry
    from researchlab.tracking.snapshot import Snapshot


class Place(NamedTuple):
    """A file, and what is known of it.

    Attributes:
        path: Absolute path.
        inside: The path relative to the root of the work tree, or None outside of it.
        entry: What the snapshot holds there.
        left_out: Why the snapshot does not hold it as it was, where something was left out there.
    """

    path: str
    inside: str | None
    entry: Entry | None = None
    left_out: str | None = None


class SnapshotTree:
    """What the snapshot holds at a path, the repositories inside of the work tree included."""

    def __init__(self, captured: Snapshot) -> None:
        self.top = os.path.realpath(captured.repository.top)
        parts = [(b"", captured), *((_bytes(inner.path) + b"/", inner.snapshot) for inner in captured.nested)]
        # The innermost root that a path lies below counts.
        self._parts: list[tuple[bytes, Mapping[bytes, Entry], dict[bytes, str]]] = [
            (prefix, part.entries, _left_out(part)) for prefix, part in sorted(parts, key=lambda part: -len(part[0]))
        ]
        self._links = {
            prefix + path
            for prefix, entries, _ in self._parts
            for path, (mode, _) in entries.items()
            if mode == SYMLINK
        }
        self._folders: dict[str, str] = {}

    def place(self, path: str) -> Place:
        """Return where a file lies; a symlink that the snapshot holds is followed, any other stands for its file."""
        for _ in range(40):
            inside = self._inside(path)
            if inside is None:
                return Place(path, None)
            target = self._through_link(inside)
            if target is None:
                return self._describe(inside)
            path = target
        return Place(path, None)

    def without_files(self, folders: Iterable[str]) -> tuple[str, ...]:
        """Return those folders in the work tree that the snapshot holds no file below, relative to its root, sorted."""
        places = [self.place(folder) for folder in folders]
        inside = {os.fsencode(place.inside) for place in places if place.inside is not None and place.entry is None}
        if not inside:
            return ()
        held: set[bytes] = set()
        for prefix, entries, _ in self._parts:
            for path in entries:
                folder = (prefix + path).rpartition(b"/")[0]
                while folder not in held:
                    held.add(folder)
                    folder = folder.rpartition(b"/")[0]
        return tuple(sorted(os.fsdecode(folder) for folder in inside - held))

    def _describe(self, inside: str) -> Place:
        place = f"{self.top}/{inside}"
        name = os.fsencode(inside)
        for prefix, entries, left_out in self._parts:
            if name.startswith(prefix):
                own = name[len(prefix) :]
                reason = next((left_out[part] for part in _self_and_parents(own) if part in left_out), None)
                return Place(place, inside, entries.get(own), reason)
        return Place(place, inside)

    def _through_link(self, inside: str) -> str | None:
        if not self._links:
            return None
        name = os.fsencode(inside)
        for part in reversed(_self_and_parents(name)):
            if part in self._links:
                link = f"{self.top}/{os.fsdecode(part)}"
                try:
                    target = os.readlink(link)  # noqa: PTH115
                except OSError:
                    return None  # it became a file meanwhile
                folder = os.path.dirname(link)  # noqa: PTH120
                rest = os.fsdecode(name[len(part) :])
                return os.path.normpath(os.path.join(folder, target) + rest)  # noqa: PTH118
        return None

    def _inside(self, path: str) -> str | None:
        if path.startswith(self.top + "/"):
            return path[len(self.top) + 1 :]
        folder, _, name = path.rpartition("/")
        real = self._folders.get(folder)
        if real is None:
            real = self._folders[folder] = os.path.realpath(folder)
        return f"{real}/{name}"[len(self.top) + 1 :] if f"{real}/".startswith(self.top + "/") else None


def _self_and_parents(path: bytes) -> list[bytes]:
    """Return a path and the folders around it, innermost first."""
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _left_out(part: Snapshot) -> dict[bytes, str]:
    left_out = {_bytes(item.path.rstrip("/")): item.reason for item in part.left_out}
    return left_out | {_bytes(path): "is kept as its Git LFS pointer" for path in part.pointers}


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
