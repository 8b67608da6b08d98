"""Which files did this process open, and which of them to read?

One audit hook of the interpreter notes each path at its first opening, from the first import of `researchlab.tracking`
on, so that data which is loaded before a run starts counts as well. What C libraries open by themselves (SQLite apart),
and what other processes open, is not seen.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib.util
import os
import stat
import struct
import sys
import sysconfig
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

MOST_PATHS = 100_000
"""Paths that are noted; beyond, they are only counted. Each takes about 300 bytes."""

_WRITING = os.O_WRONLY | os.O_APPEND | os.O_TRUNC | os.O_CREAT
_OUTPUT = b""
_pack = struct.Struct("<qqqQ").pack
_unpack = struct.Struct("<qqqQ").unpack


class Signature(NamedTuple):
    """What tells that a file was not written since: it follows symlinks."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class _Watch:
    """What the hook knows; there is one in a process, because a hook cannot be taken away again."""

    def __init__(self) -> None:
        self.since = 0
        self.noted: dict[str, bytes] = {}
        self.both: set[str] = set()
        self.made: set[str] = set()
        self.folders: set[str] = set()
        self.unnoted = 0
        self.paused: dict[int, int] = {}
        self.relative: set[str] = set()
        paths = sysconfig.get_paths()
        interpreter = {os.path.join(paths[name], "") for name in ("stdlib", "platstdlib")}  # noqa: PTH118
        self.skipped = ("/proc/", "/sys/", "/dev/", *interpreter)


_watch = _Watch()


def install() -> None:
    """Begin to note; a second call does nothing."""
    if _watch.since:
        return
    _watch.since = time.time_ns()
    os.register_at_fork(after_in_child=_watch.paused.clear)
    notes = _NOTES

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # Called for every audited event of the process, of which few are openings: nothing may stand before this line.
        if (note := notes.get(event)) is None:
            return
        try:  # noqa: SIM105 (faster)
            note(*args)
        except Exception:  # noqa: BLE001, S110 (the program must not fail because of its observer)
            pass

    sys.addaudithook(hook)
    note_modules()


def stop() -> None:
    """Note nothing more: nobody asks a re-execution what it opened, since its inputs were given to it."""
    _NOTES.clear()


def note_modules() -> None:
    """Note the files of the modules that are loaded and were not seen when they were opened.

    The first modules are loaded before anything is noted, the main one among them, and the system opens compiled
    extensions by itself: their files are taken to be as they are now.
    """
    for file in module_files():
        with contextlib.suppress(Exception):
            _note(file, "r", 0)


def module_files() -> list[str]:
    """Return the files of the modules that are loaded, as they name them."""
    # Not with getattr: a module that loads its parts lazily may do so then, and some make up a name.
    named = [getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())]
    return [file for file in named if isinstance(file, str) and file]


def since() -> int:
    """Return the time, in nanoseconds since the epoch, from which on openings were noted; 0 where they are not."""
    return _watch.since


def reads() -> dict[str, Signature]:
    """Return the absolute paths of the regular files whose first opening was for reading, as they were then.

    A compiled module stands for its source, which the interpreter does not open.
    """
    return {path: Signature(*_unpack(data)) for path, data in list(_watch.noted.items()) if data}


def outputs() -> frozenset[str]:
    """Return the absolute paths whose first opening was for writing, and what lies below folders that were made."""
    return frozenset(path for path, data in list(_watch.noted.items()) if not data)


def reads_and_writes() -> frozenset[str]:
    """Return those of ``reads`` that were opened in a way that makes them when they are missing, as ``a+`` does.

    Nothing tells whether what was in them was read.
    """
    return frozenset(_watch.both)


def folders() -> frozenset[str]:
    """Return the folders, not made by this process, that files were opened in for writing, or that were listed."""
    return frozenset(_watch.folders)


def unnoted() -> int:
    """Return how many openings came after ``MOST_PATHS`` paths were noted."""
    return _watch.unnoted


def signature(path: str) -> Signature | None:
    """Return what tells that a regular file was not written since, or None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Signature(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@contextlib.contextmanager
def paused() -> Generator[None]:
    """Let what this thread opens inside of the block not count: it is read for the record, and not by the program."""
    thread = _thread.get_ident()
    pauses = _watch.paused
    pauses[thread] = pauses.get(thread, 0) + 1
    try:
        yield
    finally:
        left = pauses.pop(thread, 1) - 1
        if left:
            pauses[thread] = left


def is_paused() -> bool:
    """Return whether this thread is inside of ``paused``."""
    return bool(_watch.paused) and _thread.get_ident() in _watch.paused


def is_relative(path: str) -> bool:
    """Return whether a file was first opened by a relative path, or through ``..``; else by a plain absolute one.

    Args:
        path: Its absolute path.
    """
    return path in _watch.relative


def skipped_places() -> tuple[str, ...]:
    """Return where files begin that are never noted: those of the system and of the interpreter."""
    return _watch.skipped


def absolute(path: str) -> str:
    """Return an absolute path in normal form; a folder before ``..`` is resolved, since it may be a symlink."""
    if not path.startswith("/"):
        path = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
    if path.endswith("/.."):
        return os.path.realpath(path)
    before, way_up, rest = path.rpartition("/../")
    if way_up:
        path = f"{os.path.realpath(before + '/..')}/{rest}"
    return os.path.normpath(path) if "//" in path or "/./" in path else path


def has_way_up(path: str) -> bool:
    """Return whether a path says where a file is from another place: a relative one, or one with ``..``."""
    return not path.startswith("/") or "/../" in path


def _note(path: Any, mode: Any, flags: Any) -> None:
    watch = _watch
    if type(path) is not str:
        if isinstance(path, int):
            return
        path = os.fsdecode(path)
    writes = bool(flags & _WRITING) or (mode is not None and mode[:1] in {"w", "a", "x"})
    if path in watch.noted or path.startswith(watch.skipped) or is_paused():
        return
    # Without a mode it is os.open, whose dir_fd the event does not tell.
    is_whole = mode is not None or path.startswith("/")
    name = _name_of(path if is_whole else os.path.join(_folder_of_opening(path), path))  # noqa: PTH118
    if name is None or name in watch.noted:
        return
    if writes and not (flags & os.O_EXCL and os.path.lexists(name)):
        _note_folder(os.path.dirname(name))  # noqa: PTH120
        data = _before_writing(name, flags)
    else:
        data = _packed(name)
        data = _OUTPUT if data is not None and _is_made(name) else data
    if data is None:
        return
    if len(watch.noted) >= MOST_PATHS:
        watch.unnoted += 1
        return
    if has_way_up(path):
        watch.relative.add(name)
    watch.noted.setdefault(name, data)


def _before_writing(name: str, flags: int) -> bytes | None:
    """Return the state of a file that is opened for writing, where what it holds can be read as well."""
    if os.path.isdir(name):  # noqa: PTH112 (tempfile.NamedTemporaryFile says so of the folder)
        return None
    if flags & os.O_RDWR and not flags & (os.O_TRUNC | os.O_EXCL) and not _is_made(name):
        data = _packed(name)
        if data is not None and Signature(*_unpack(data)).size:
            _watch.both.add(name)
            return data
    return _OUTPUT


def _note_database(database: Any) -> None:
    name = os.fsdecode(database)
    if name.startswith("file:"):
        import urllib.parse

        name, _, options = name.removeprefix("file:").partition("#")[0].partition("?")
        if "mode=memory" in options:
            return
        name = urllib.parse.unquote(name)
        if name.startswith("//"):  # file://host/path
            name = "/" + name[2:].partition("/")[2]
    if name not in {"", ":memory:"}:
        _note(name, "a+", os.O_RDWR | os.O_CREAT)


def _note_renaming(source: Any, target: Any, source_descriptor: int, target_descriptor: int) -> None:
    if (source_descriptor, target_descriptor) != (-1, -1) or is_paused():
        return
    source, target = absolute(os.fsdecode(source)), absolute(os.fsdecode(target))
    if _is_made(source):  # a target that was read before stays noted as read
        _add_made(target)
        _note_folder(os.path.dirname(target))  # noqa: PTH120


def _note_making(path: Any, mode: int, descriptor: int) -> None:
    del mode
    if descriptor != -1 or is_paused():
        return
    name = absolute(os.fsdecode(path))
    if not os.path.lexists(name):  # the event comes before the system says that it is there
        _add_made(name)
        _note_folder(os.path.dirname(name))  # noqa: PTH120


def _note_folder(path: Any) -> None:
    if isinstance(path, int):
        return
    watch = _watch
    name = os.path.normpath(absolute(os.fsdecode(path or ".")))
    if name in watch.folders or f"{name}/".startswith(watch.skipped) or is_paused():
        return
    if len(watch.folders) < MOST_PATHS and not _is_made(name) and os.path.isdir(name):  # noqa: PTH112
        watch.folders.add(name)


def _add_made(name: str) -> None:
    if len(_watch.made) < MOST_PATHS:
        _watch.made.update({name, os.path.realpath(name)})


def _is_made(path: str) -> bool:
    """Return whether this process was seen making a file, or a folder around it."""
    watch = _watch
    if watch.noted.get(path) == _OUTPUT or path in watch.made:
        return True
    if not watch.made:
        return False
    end = path.rfind("/")
    while end > 0:
        if path[:end] in watch.made:
            return True
        end = path.rfind("/", 0, end)
    return False


def _folder_of_opening(path: str) -> str:
    """Return the folder that a relative path given to ``os.open`` is relative to.

    It is the working directory, unless the caller named a descriptor of another folder: that is one of those open now.

    Raises:
        LookupError: It cannot be told, and nothing is noted.
    """
    here = os.getcwd()  # noqa: PTH109
    is_only_here = True
    found: set[str] = set()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.stat(int(name)).st_mode):  # noqa: PTH116
                is_only_here = False
                os.stat(path, dir_fd=int(name))
                found.add(f"/proc/self/fd/{name}")
    if is_only_here:
        return here
    if os.path.lexists(path):
        found.add(here)
    folders = {os.path.realpath(folder) for folder in found}
    if len(folders) != 1 or not os.path.isdir(*folders):  # without /proc, a descriptor has no name
        raise LookupError(path)
    return folders.pop()


_NOTES: dict[str, Callable[..., None]] = {
    "open": _note,
    "os.chdir": _note_folder,
    "os.listdir": _note_folder,
    "os.mkdir": _note_making,
    "os.rename": _note_renaming,
    "os.scandir": _note_folder,
    "sqlite3.connect": _note_database,
}


def _packed(path: str) -> bytes | None:
    found = signature(path)
    return None if found is None else _pack(*found)


def _name_of(path: str) -> str | None:
    """Return the absolute path to note for an opened one, or None."""
    if "/site-packages/" in path or "/dist-packages/" in path:
        return None
    folder, cache, name = path.rpartition("__pycache__/")
    if cache and not name.endswith(".pyc"):
        return None  # being written
    # The source is not opened where compiled code is at hand; without a source, that is the code.
    if cache:
        path = f"{folder}{name.partition('.')[0]}.py"  # pytest's own names have more to them than importlib knows
    elif path.endswith(".pyc") and sys.pycache_prefix is not None:
        with contextlib.suppress(ValueError):
            path = importlib.util.source_from_cache(path)
    return absolute(path)
