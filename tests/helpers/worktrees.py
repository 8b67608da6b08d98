"""Repositories written by hand, in any state, without a single git process; and what must come back of them.

A property test needs hundreds of repositories. Here objects and index are written as git's documentation of its formats
says, which is fast, and reaches states that take git many steps (conflicts, intent-to-add, skip-worktree).
"""

# ruff: noqa: PTH102, PTH108, PTH112, PTH114, PTH115, PTH123, PTH208, PTH211 (bytes, and pathlib knows text only)
from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import tempfile
import traceback
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, TypeAlias

import pytest
from helpers.kept_code import parts_of

from researchlab.tracking.restore import restore
from researchlab.tracking.settings import Settings
from researchlab.tracking.snapshot import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from researchlab.tracking.snapshot import Snapshot

Kind: TypeAlias = Literal["file", "executable", "symlink", "gitlink"]
MODES: dict[Kind, int] = {"file": 0o100644, "executable": 0o100755, "symlink": 0o120000, "gitlink": 0o160000}


_NOBODY = 65534


class Entry(NamedTuple):
    """A file, a symlink (the data is its target), or a submodule (the data is the id of its commit)."""

    kind: Kind
    data: bytes


Tree: TypeAlias = "dict[bytes, Entry]"


class Staged(NamedTuple):
    """One entry of an index."""

    path: bytes
    entry: Entry
    stage: int = 0
    assume_unchanged: bool = False
    skip_worktree: bool = False
    intent_to_add: bool = False


@dataclass
class Handmade:
    """A repository that is written by hand."""

    top: Path
    object_format: Literal["sha1", "sha256"] = "sha1"
    git_dir: Path = field(init=False)

    def __post_init__(self) -> None:
        self.git_dir = self.top / ".git"

    def make(self, *, git_dir: Path | None = None, config: str = "") -> None:
        """Write the folder ``.git``, or a file of that name which leads to ``git_dir``."""
        self.top.mkdir(parents=True, exist_ok=True)
        worktree = ""
        if git_dir is not None:
            self.git_dir = git_dir
            (self.top / ".git").write_bytes(
                b"gitdir: " + os.path.relpath(os.fsencode(git_dir), os.fsencode(self.top)) + b"\n"
            )
            worktree = "\tworktree = " + _quoted(os.path.relpath(self.top, git_dir)) + "\n"
        for folder in ("objects", "refs/heads", "info"):
            (self.git_dir / folder).mkdir(parents=True)
        (self.git_dir / "HEAD").write_text("ref: refs/heads/main\n")
        sha256 = self.object_format == "sha256"
        (self.git_dir / "config").write_bytes(
            os.fsencode(
                f"[core]\n\trepositoryformatversion = {int(sha256)}\n\tbare = false\n\tfilemode = true\n{worktree}"
                + ("[extensions]\n\tobjectFormat = sha256\n" if sha256 else "")
                + config
            )
        )

    def digest(self, data: bytes) -> bytes:
        return hashlib.new(self.object_format, data).digest()

    def write_object(self, kind: str, data: bytes) -> bytes:
        """Write a loose object and return its id."""
        whole = b"%s %d\0%s" % (kind.encode(), len(data), data)
        oid = self.digest(whole)
        place = self.git_dir / "objects" / oid.hex()[:2] / oid.hex()[2:]
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(zlib.compress(whole, 1))
            place.chmod(0o444)
        return oid

    def blob(self, entry: Entry) -> bytes:
        """Return the id that an entry has in a tree or index."""
        return bytes.fromhex(entry.data.decode()) if entry.kind == "gitlink" else self.write_object("blob", entry.data)

    def tree(self, files: Tree) -> bytes:
        """Write a tree and return its id."""
        items: list[tuple[bytes, bytes, bytes]] = []
        folders: dict[bytes, Tree] = {}
        for path, entry in files.items():
            name, slash, rest = path.partition(b"/")
            if slash:
                folders.setdefault(name, {})[rest] = entry
            else:
                items.append((name, b"%o %s" % (MODES[entry.kind], name), self.blob(entry)))
        items += [(name + b"/", b"40000 " + name, self.tree(inner)) for name, inner in folders.items()]
        return self.write_object("tree", b"".join(b"%s\0%s" % (head, oid) for _, head, oid in sorted(items)))

    def commit(self, files: Tree) -> str:
        """Commit files, let the branch point there, and return the id."""
        person = b"A <a@example.org> 1700000000 +0000"
        tree = self.tree(files).hex().encode()
        oid = self.write_object("commit", b"tree %s\nauthor %s\ncommitter %s\n\nc\n" % (tree, person, person)).hex()
        (self.git_dir / "refs" / "heads" / "main").write_text(oid + "\n")
        return oid

    def write_index(self, staged: list[Staged]) -> None:
        """Write the index; no entry has a stat cache that fits a file."""
        extended = any(item.skip_worktree or item.intent_to_add for item in staged)
        parts = [struct.pack(">4sII", b"DIRC", 3 if extended else 2, len(staged))]
        for item in sorted(staged, key=lambda item: (item.path, item.stage)):
            more = item.skip_worktree or item.intent_to_add
            flags = min(len(item.path), 0xFFF) | item.stage << 12 | item.assume_unchanged << 15 | more << 14
            oid = self.write_object("blob", b"") if item.intent_to_add else self.blob(item.entry)
            head = (
                struct.pack(">10I", 1, 0, 1, 0, 1, 1, MODES[item.entry.kind], 0, 0, 1) + oid + struct.pack(">H", flags)
            )
            if more:
                head += struct.pack(">H", item.skip_worktree << 14 | item.intent_to_add << 13)
            whole = head + item.path
            parts.append(whole + b"\0" * (8 - len(whole) % 8))
        data = b"".join(parts)
        (self.git_dir / "index").write_bytes(data + self.digest(data))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


def place(top: Path, path: bytes) -> bytes:
    """Return the absolute path."""
    return os.fsencode(top) + b"/" + path


def remove(top: Path, path: bytes) -> None:
    """Remove whatever is at a path."""
    where = place(top, path)
    if os.path.isdir(where) and not os.path.islink(where):
        shutil.rmtree(where)
    elif os.path.lexists(where):
        os.unlink(where)


def lay(top: Path, path: bytes, entry: Entry) -> None:
    """Write an entry to disk, whatever was in its way."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        parent = b"/".join(parts[:count])
        if os.path.islink(place(top, parent)) or not os.path.isdir(place(top, parent)):
            remove(top, parent)
            os.mkdir(place(top, parent))
    remove(top, path)
    where = place(top, path)
    if entry.kind == "symlink":
        os.symlink(entry.data, where)
    elif entry.kind != "gitlink":
        descriptor = os.open(where, os.O_WRONLY | os.O_CREAT, 0o755 if entry.kind == "executable" else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(entry.data)
    else:
        os.mkdir(where)


def work_files(top: Path) -> dict[bytes, Entry | str]:
    """Return every file and symlink below ``top``, whatever is called ``.git`` apart."""
    found: dict[bytes, Entry | str] = {}
    root = os.fsencode(top)
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(root + b"/" + folder) as entries:
            for item in entries:
                path = folder + item.name
                if item.name == b".git":
                    continue
                if item.is_symlink():
                    found[path] = Entry("symlink", os.readlink(item.path))
                elif item.is_dir():
                    pending.append(path + b"/")
                elif item.is_file():
                    with open(item.path, "rb") as file:
                        executable = item.stat().st_mode & stat.S_IXUSR
                        found[path] = Entry("executable" if executable else "file", file.read())
                else:
                    found[path] = "special"
    return found


def footprint(top: Path, *, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Return everything below ``top``, ``.git`` included: what must not change. Access times may.

    Args:
        top: A folder.
        times: Whether the modification times of loose objects and packs count; git renews them when it writes an
            object that is there already.
    """
    found: dict[bytes, tuple[object, ...]] = {}
    root = os.fsencode(top)
    pending = [b""]
    while pending:
        path = pending.pop()
        where = root + b"/" + path
        status = os.lstat(where)
        data: object = None
        if stat.S_ISDIR(status.st_mode):
            pending += [path + b"/" + name if path else name for name in os.listdir(where)]
        elif stat.S_ISLNK(status.st_mode):
            data = os.readlink(where)
        elif stat.S_ISREG(status.st_mode):
            with open(where, "rb") as file:
                data = file.read()
        renewed = not times and b"/objects/" in path and not stat.S_ISDIR(status.st_mode)
        found[path] = (status.st_mode, status.st_ino, 0 if renewed else status.st_mtime_ns, data)
    return found


def differences(found: Mapping[bytes, object], expected: Mapping[bytes, object]) -> dict[bytes, tuple[object, object]]:
    """Return the paths that differ, for a message that can be read."""
    return {
        path: (found.get(path), expected.get(path))
        for path in sorted(found.keys() | expected.keys())
        if found.get(path) != expected.get(path)
    }


ANYTHING = Settings(allow_secrets=("*",))
"""Settings of tests whose files have random names and contents."""


def come_back(top: Path, into: Path, *, settings: Settings | None = None, repo_path: Path | None = None) -> Snapshot:
    """Capture and restore; whatever happens, the original is as it was."""
    before = footprint(top)
    try:
        snapshot = capture(repo_path or top, settings=settings)
    finally:
        _same(footprint(top), before)
    check_submodules(snapshot)
    before = footprint(top, times=False)
    try:
        restore(
            into,
            base_commit=snapshot.base_commit,
            tree=snapshot.tree,
            patch=snapshot.patch,
            source=repo_path or top,
            object_format=snapshot.repository.object_format,
            branch=snapshot.repository.branch,
            nested=parts_of(snapshot),
        )
    finally:
        _same(footprint(top, times=False), before)
    return snapshot


def check_submodules(snapshot: Snapshot) -> None:
    """The tree around each submodule names the commit that the submodule is at."""
    around = {"": snapshot}
    for inner in snapshot.nested:
        outer = max((path for path in around if not path or inner.path.startswith(path + "/")), key=len)
        path = inner.path[len(outer) + 1 :] if outer else inner.path
        entry = around[outer].entries.get(os.fsencode(path))
        expected = (b"160000", inner.snapshot.base_commit) if inner.is_submodule else None
        assert entry == expected, (inner.path, entry, expected)
        around[inner.path] = inner.snapshot


def _same(found: Mapping[bytes, object], expected: Mapping[bytes, object]) -> None:
    changed = differences(found, expected)
    assert not changed, f"the original was changed: {changed}"


def as_nobody(function: Callable[[Path], None], *, before: Callable[[Path], None] | None = None) -> None:
    """Call a function with an empty folder as a user who may not read everything; root becomes another user for it.

    Args:
        function: What to call; an exception of it is a failure of the test.
        before: What to call first, as the present user.
    """
    folder = Path(tempfile.mkdtemp(prefix="rlab-nobody-"))
    root = os.geteuid() == 0
    if before is not None and not root:
        shutil.rmtree(folder)
        pytest.skip("only root can be two users")
    try:
        if before is not None:
            before(folder)
        if root:
            os.chown(folder, _NOBODY, _NOBODY)
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which jax has where another test loaded it
            child = os.fork()
        if child == 0:
            _in_child(function, folder, writer, root=root)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, said
    finally:
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _in_child(function: Callable[[Path], None], folder: Path, writer: int, *, root: bool) -> NoReturn:
    try:
        if root:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        os.chdir(folder)
        os.environ["GIT_CONFIG_GLOBAL"] = os.devnull
        os.environ["HOME"] = str(folder)
        function(folder)
    except BaseException:  # noqa: BLE001 - the parent raises
        os.write(writer, traceback.format_exc().encode()[-60_000:])
        os._exit(1)
    os._exit(0)
