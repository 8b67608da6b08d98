"""Which FIFOs, sockets and devices lie among the files, and which folders cannot be listed? git tells of neither."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from researchlab.tracking._capture._worktree import Unreadable, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from researchlab.tracking._capture._reader import Reader
    from researchlab.tracking._capture._worktree import WorkTree
    from researchlab.tracking._git import GitProcess


class SpecialFiles:
    """Looks into the folders that git found files in, and into those that hold nothing that git would list.

    Ignored folders are not entered: git is asked about a folder without listed files before it is looked into. That
    takes its time while the ``with`` block runs; ``found`` is there after it.

    Attributes:
        found: Path -> what it is.
        unreadable: Folders that cannot be listed.
    """

    def __init__(
        self, reader: Reader, disk: WorkTree, folders: Iterable[bytes], *, skip: Callable[[bytes], bool]
    ) -> None:
        self.found: dict[bytes, str] = {}
        self.unreadable: set[bytes] = set()
        self._reader = reader
        self._disk = disk
        self._skip = skip
        self._open: list[bytes] = []
        known = set(folders)
        for folder in known:
            try:
                if disk.is_folder(folder):
                    self._look_into(folder, known)
            except Unreadable:
                self.unreadable.add(folder)
        self._process: GitProcess | None = None

    def __enter__(self) -> Self:
        if self._candidates:
            self._process = self._ask(self._candidates)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        while process is not None:
            with process:
                if kind is not None:
                    return
                ignored = self._ignored(process)
            pending = [folder for folder in self._open if folder not in ignored]
            self.found = {path: what for path, what in self.found.items() if path not in ignored}
            self._open = []
            for folder in pending:
                self._look_into(folder, ())
            process = self._ask(self._candidates) if self._open else None

    @property
    def _candidates(self) -> Sequence[bytes]:
        return [*self.found, *self._open]

    def _look_into(self, folder: bytes, known: Iterable[bytes]) -> None:
        prefix = folder + b"/" if folder else b""
        try:
            with os.scandir(self._disk.place(folder)) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False) or entry.is_symlink():
                        continue
                    path = prefix + entry.name
                    if entry.name == b".git" or self._skip(path):
                        continue
                    if not entry.is_dir(follow_symlinks=False):
                        self.found[path] = kind_of(entry.stat(follow_symlinks=False).st_mode)
                    elif path not in known:
                        self._open.append(path)
        except (FileNotFoundError, NotADirectoryError):
            return  # it is gone, and what was in it is found to be absent
        except OSError:  # no permission, or a path that is longer than the system takes
            self.unreadable.add(folder)

    def _ask(self, paths: Sequence[bytes]) -> GitProcess:
        # The dot keeps git from reading magic into a name that starts with a colon.
        asked = b"".join(b"./%b\0" % path for path in paths)
        return self._reader.start(("check-ignore", "-z", "--stdin"), stdin=asked)

    def _ignored(self, process: GitProcess) -> set[bytes]:
        result = process.wait()
        if result.returncode not in {0, 1}:
            return set(self._open)  # rather name a FIFO too many than walk through ignored folders
        return {path[2:] for path in result.stdout.split(b"\0")[:-1]}


__all__ = ["SpecialFiles"]
