"""What is in a tree and in a work tree, and how is a scratch store made that borrows a repository's objects?"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from researchlab.tracking._git._calls import run_git

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from researchlab.tracking._git._repository import ObjectFormat

Entry: TypeAlias = "tuple[bytes, str]"
"""Mode and id of a file, symlink or submodule."""

LIST_TREE = ("ls-tree", "-r", "-z", "--full-tree")
"""Arguments, before the tree's id, whose output ``parse_tree`` reads."""
# -t marks what a sparse checkout skips. assume-unchanged, which would hide an edit, plays no part in a listing.
LIST_FILES = ("ls-files", "-z", "-t", "-s", "-c", "-o", "--exclude-standard")
"""Arguments whose output ``parse_files`` reads."""
LIST_IGNORED = ("ls-files", "-z", "-o", "-i", "--exclude-standard", "--directory")
"""Arguments whose output ``parse_ignored`` reads."""
_MANY = 100  # ignored files in a folder that stand under one name

# Bytes on disk are the bytes of the blob: no line ending, keyword or filter comes between.
_RAW_ATTRIBUTES = "* -text -eol -crlf -filter -ident -working-tree-encoding -merge !diff\n"
_RAW_CONFIG = """\
\tautocrlf = false
\teol = lf
\tsafecrlf = false
\tfileMode = true
\tsymlinks = true
\tfsmonitor = false
\tuntrackedCache = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""


def make_git_dir(git_dir: Path, *, object_format: ObjectFormat, borrow: Path | None, bare: bool = True) -> None:
    """Make an empty git folder that reads the objects of ``borrow`` (a folder ``objects``) and runs no filter or hook.

    Written by hand: it takes no process, and no template of the user gets in. Without ``borrow`` it has its own objects
    only, so that git cannot renew the time stamps of those that it finds elsewhere.
    """
    (git_dir / "objects" / "info").mkdir(parents=True)
    (git_dir / "refs").mkdir()
    sha256 = object_format == "sha256"
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    (git_dir / "config").write_text(
        f"[core]\n\trepositoryformatversion = {int(sha256)}\n\tbare = {str(bare).lower()}\n\tlogAllRefUpdates = false\n"
        + _RAW_CONFIG
        + ("[extensions]\n\tobjectFormat = sha256\n" if sha256 else "")
    )
    if not bare:  # no other looks for attributes
        (git_dir / "info").mkdir()
        (git_dir / "info" / "attributes").write_text(_RAW_ATTRIBUTES)
    if borrow is not None:
        (git_dir / "objects" / "info" / "alternates").write_bytes(quote_path(os.fsencode(borrow)) + b"\n")


def quote_path(path: bytes) -> bytes:
    """Quote a path the way git reads it, whatever bytes it holds."""
    return b'"' + re.sub(rb'[\x00-\x1f\x7f"\\]', lambda found: b"\\%03o" % found.group()[0], path) + b'"'


def quote_config(text: str) -> str:
    """Quote a value, or the name of a subsection, for a git configuration file."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def empty_tree(object_format: ObjectFormat) -> str:
    """Return the id of the tree without entries, which every repository knows."""
    return {
        "sha1": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "sha256": "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
    }[object_format]


def list_tree(tree: str, *, git_dir: Path) -> dict[bytes, Entry]:
    """Return path -> (mode, id) of every file, symlink and submodule of a tree."""
    return parse_tree(run_git((*LIST_TREE, tree), git_dir=git_dir, isolated=True))


def parse_tree(listing: bytes) -> dict[bytes, Entry]:
    """Read what ``LIST_TREE`` printed."""
    entries: dict[bytes, Entry] = {}
    for line in listing.split(b"\0")[:-1]:
        meta, _, path = line.partition(b"\t")
        mode, _, oid = meta.split(b" ")
        entries[path] = (mode, oid.decode())
    return entries


@dataclass(frozen=True, slots=True)
class Listing:
    """The paths that git knows on disk.

    Attributes:
        files: Tracked files, whether they are there or not, and untracked ones that are not ignored.
        untracked: Those of them that are not in the index.
        skipped: Those of them that the index says to skip, as it does with what a sparse checkout leaves out.
        submodules: Path -> commit of the submodules in the index.
        nested: Folders that are git repositories of their own and not in the index.
    """

    files: frozenset[bytes]
    untracked: frozenset[bytes]
    skipped: frozenset[bytes]
    submodules: Mapping[bytes, str]
    nested: frozenset[bytes]


def list_files(top: Path) -> Listing:
    """List the work tree at ``top``; its index is only read."""
    return parse_files(run_git(LIST_FILES, cwd=top))


def parse_files(listing: bytes) -> Listing:
    """Read what ``LIST_FILES`` printed."""
    tracked: set[bytes] = set()
    untracked: set[bytes] = set()
    skipped: set[bytes] = set()
    submodules: dict[bytes, str] = {}
    nested: set[bytes] = set()
    for entry in listing.split(b"\0")[:-1]:
        if entry.startswith(b"? "):
            path = entry[2:]
            if path.endswith(b"/"):
                nested.add(path[:-1])
            else:
                untracked.add(path)
            continue
        meta, _, path = entry.partition(b"\t")
        tracked.add(path)
        if meta.startswith(b"S"):
            skipped.add(path)
        if b" 160000 " in meta:
            submodules.setdefault(path, meta.split(b" ")[2].decode())
    return Listing(
        files=frozenset(tracked | untracked),
        untracked=frozenset(untracked),
        skipped=frozenset(skipped),
        submodules=submodules,
        nested=frozenset(nested),
    )


def parse_ignored(listing: bytes) -> frozenset[bytes]:
    """Read what ``LIST_IGNORED`` printed.

    Returns:
        Files, folders of which all is ignored with a slash at their end, and ``folder/*`` for many files in a folder.
    """
    names = listing.split(b"\0")[:-1]
    whole = {name for name in names if name.endswith(b"/")}
    # git names a folder whose files are all ignored, and then each of the files.
    outermost = [name for name in names if whole.isdisjoint(_folders(name))]
    count = Counter(map(_folder, outermost))
    return frozenset(_folder(name) + b"*" if count[_folder(name)] > _MANY else name for name in outermost)


def _folder(name: bytes) -> bytes:
    """Return the folder that a name stands in, with a slash at its end; nothing for the root."""
    return b"".join(name.rstrip(b"/").rpartition(b"/")[:2])


def _folders(name: bytes) -> Iterator[bytes]:
    while name := _folder(name):
        yield name
