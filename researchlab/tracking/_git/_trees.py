"""Which tree objects hold these files, and what does an index with them look like?"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from researchlab.tracking._git._repository import ObjectFormat
    from researchlab.tracking._git._stores import Entry

_FOLDER = b"40000"
_LONG_NAME = 0xFFF
_STATUS = struct.Struct(">24xI12x")  # what lstat says, of which only the mode is known


class Trees(NamedTuple):
    """The id of a root, and id -> bytes of all tree objects below and of itself."""

    root: str
    objects: dict[str, bytes]


def make_trees(entries: Mapping[bytes, Entry], object_format: ObjectFormat) -> Trees:
    """Return the tree objects that hold files, symlinks and submodules, as ``git write-tree`` would write them."""
    new = hashlib.sha256 if object_format == "sha256" else hashlib.sha1
    # Folder -> what lies in it: the name to sort by (a folder counts as if it ended with a slash), and its line.
    folders: dict[bytes, list[tuple[bytes, bytes]]] = {b"": []}
    for path, (mode, oid) in entries.items():
        folder, _, name = path.rpartition(b"/")
        lines = folders.get(folder)
        if lines is None:
            lines = folders[folder] = []
            while folder := folder.rpartition(b"/")[0]:
                if folder in folders:
                    break
                folders[folder] = []
        lines.append((name, b"%b %b\0%b" % (mode, name, bytes.fromhex(oid))))
    objects: dict[str, bytes] = {}
    # Deeper folders come first: their ids are part of the ones around them. The root is the last, having no name.
    for folder in sorted(folders, key=lambda folder: (folder.count(b"/"), bool(folder)), reverse=True):
        data = b"".join(line for _, line in sorted(folders[folder]))
        digest = new(b"tree %d\0%b" % (len(data), data))
        objects[digest.hexdigest()] = data
        if folder:
            around, _, name = folder.rpartition(b"/")
            folders[around].append((name + b"/", b"%b %b\0%b" % (_FOLDER, name, digest.digest())))
        else:
            return Trees(digest.hexdigest(), objects)
    raise AssertionError


def make_index(entries: Mapping[bytes, Entry], object_format: ObjectFormat) -> bytes:
    """Return an index file (version 2) with these entries and without a stat cache."""
    parts = [struct.pack(">4sII", b"DIRC", 2, len(entries))]
    for path in sorted(entries):
        mode, oid = entries[path]
        length = len(path)
        name = min(length, _LONG_NAME).to_bytes(2, "big")
        entry = b"%b%b%b%b" % (_STATUS.pack(int(mode, 8)), bytes.fromhex(oid), name, path)
        parts.append(entry + b"\0" * (8 - len(entry) % 8))
    content = b"".join(parts)
    return content + (hashlib.sha256 if object_format == "sha256" else hashlib.sha1)(content).digest()
