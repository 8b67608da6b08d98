"""How does a re-execution keep its hands off the checkout that the run was made in?

In the child, an audit hook looks at what Python opens and changes below the original work tree. Writing is refused,
because the user's files are not touched. Reading is noted: what lies there today is not what the run read. Left out are
environments, git's own files, states of tools, the MLflow store, and, to be read, inputs whose hash was checked there.
What was seen goes to a file, line by line, so that it is known however the process ends.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from researchlab.tracking._reading import _opened, _origins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_TRUNC | os.O_CREAT
#: Events that change what lies at the paths among their first arguments, and how many paths these are.
_CHANGING = {
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.symlink": 2,
    "os.link": 2,
    "shutil.rmtree": 1,
}
#: Events that change nothing where nothing is.
_OF_WHAT_IS_THERE = frozenset({"os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree"})
_EVENTS = frozenset({"open", "sqlite3.connect", *_CHANGING})


@dataclasses.dataclass(frozen=True)
class Touched:
    """What a re-execution did to files that are not its own; absolute paths.

    Attributes:
        read: Files of the original checkout that it opened for reading.
        written: Files of the original checkout that it was kept from writing to.
        absent: Inputs that it opened by an absolute path, at which they are not.
    """

    read: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def read_touched(report: Path) -> Touched:
    """Return what the process of a re-execution, and those that it started, reported.

    Args:
        report: The file that its request named.
    """
    found: dict[str, dict[str, None]] = {"read": {}, "written": {}, "absent": {}}
    if report.exists():
        for line in report.read_text(encoding="utf-8").splitlines():
            what, path = json.loads(line)
            found[what][path] = None
    return Touched(**{what: tuple(paths) for what, paths in found.items()})


def guard(asked: Mapping[str, Any]) -> None:
    """Begin to look, as the request of this process asks.

    Args:
        asked: The fields of a ``Request``.
    """
    _opened.stop()
    watch = _Guard(asked)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # Called for every audited event of the process, of which few are these: nothing may stand before this line.
        if event not in _EVENTS:
            return
        try:
            path = watch.refused(event, args)
        except Exception:  # noqa: BLE001 (the program must not fail because of its observer)
            return
        if path is not None:
            message = "A re-execution does not write to the checkout and to the inputs of the run"
            raise PermissionError(errno.EPERM, message, path)

    sys.addaudithook(hook)


class _Guard:
    """What the hook knows."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        def real(*names: str) -> frozenset[str]:
            return frozenset(os.path.realpath(name) for field in names for name in asked.get(field, ()))

        roots = [str(asked[name]) for name in ("original", "checkout") if asked.get(name)]
        self._roots = tuple(dict.fromkeys([*roots, *(os.path.realpath(root) for root in roots)]))
        free = [str(path) for path in asked.get("free", ())]
        free += [sys.pycache_prefix] if sys.pycache_prefix else []
        self._free = (*free, *(os.path.realpath(path) for path in free))
        self._read_only = real("read_only")
        self._readable = real("read_only", "outside", "checked")
        self._absent = frozenset(str(path) for path in asked.get("absent", ()))
        self._report = str(asked.get("touched") or os.devnull)
        self._skipped = _opened.skipped_places()
        self._fine: set[str] = set()
        self._reported: set[tuple[str, str]] = set()

    def refused(self, event: str, args: tuple[Any, ...]) -> str | None:
        """Note what a program does; return the path when it must not do so."""
        if event == "open":
            path, mode, flags = args
            if isinstance(path, int):
                return None
            writes = bool(flags & _WRITING) or (mode is not None and mode[:1] in {"w", "a", "x"})
            return self._write([path]) if writes else self._read(path)
        if event == "sqlite3.connect":
            return self._connect(os.fsdecode(args[0]))
        paths = args[: _CHANGING[event]]
        if event in {"os.symlink", "os.link"}:
            paths = paths[1:]  # the other one is only pointed at
        elif event == "os.mkdir":
            paths = [path for path in paths if not os.path.lexists(path)]
        if event in _OF_WHAT_IS_THERE and not os.path.lexists(args[0]):
            return None
        return self._write(paths, opened=False)

    def _connect(self, database: str) -> str | None:
        is_uri = database.startswith("file:")
        path, _, options = database.removeprefix("file:").partition("?") if is_uri else (database, "", "")
        if not path or path == ":memory:":
            return None
        if "mode=ro" in options or "immutable=1" in options:
            return self._read(path)
        return self._write([path], opened=False)

    def _read(self, opened: str | bytes) -> None:
        path = opened if type(opened) is str else os.fsdecode(opened)
        if path in self._fine or path.startswith(self._skipped) or "/site-packages/" in path:
            return
        if _opened.is_paused():
            return
        name, real = _opened.absolute(path), os.path.realpath(path)
        if name in self._absent or real in self._absent:
            self._tell("absent", name)
        elif real not in self._readable and self._is_guarded(name, real):
            self._tell("read", name)
        elif path.startswith("/") and len(self._fine) < _opened.MOST_PATHS:
            self._fine.add(path)

    def _write(self, paths: Iterable[Any], *, opened: bool = True) -> str | None:
        for given in paths:
            path = os.fsdecode(given)
            if path.startswith(("/dev/", "/proc/")) or _opened.is_paused():
                continue
            name = _opened.absolute(path)
            folder, _, last = name.rpartition("/")
            # What is removed or renamed is a link itself; what is opened is where it leads.
            real = os.path.realpath(name) if opened else f"{os.path.realpath(folder)}/{last}"
            is_input = opened and real in self._read_only
            if self._is_guarded(name) or (not is_input and self._is_guarded(real)):
                self._tell("written", name)
                return path
            if is_input:  # linked to by us: the program did nothing wrong, and hears why it must not write
                return path
        return None

    def _is_guarded(self, *names: str) -> bool:
        if not any(name.startswith(root + "/") for name in names for root in self._roots):
            return False
        free = (*self._free, *_origins.jax_caches())
        for name in names:
            for root in self._roots:
                if not name.startswith(root + "/") or _origins.is_of_tools(name, root):
                    continue
                # The folder of temporary files may be around a checkout, too.
                if not any(_is_at(name, place) for place in free if place.startswith(root + "/")):
                    return True
        return False

    def _tell(self, what: str, path: str) -> None:
        if (what, path) in self._reported:
            return
        self._reported.add((what, path))
        line = json.dumps([what, path]) + "\n"
        descriptor = os.open(self._report, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def _is_at(path: str, place: str) -> bool:
    return path == place or path.startswith(place + "/")
