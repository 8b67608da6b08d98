"""What lies on disk at a path, as git would store it without any filter?

Raw bytes are read and hashed here: no clean filter, line ending conversion or stale stat cache of git has a say.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import FileIO
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from researchlab.tracking._git import Entry, ObjectFormat

REGULAR = b"100644"
EXECUTABLE = b"100755"
SYMLINK = b"120000"
GITLINK = b"160000"

IN_MEMORY = 1 << 20
"""Files up to this many bytes are kept after hashing; larger ones are read a second time when they are needed."""

_CHUNK = 1 << 20
_ATTEMPTS = 3
_UNITS = (("GiB", 30), ("MiB", 20), ("KiB", 10), ("bytes", 0))
# What the system says when the file became something else between lstat and open.
_REPLACED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EAGAIN, errno.EISDIR})
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC


class Content(NamedTuple):
    """One file or symlink on disk: its mode, its blob id, its size, and its bytes where they are few."""

    mode: bytes
    oid: str
    size: int
    data: bytes | None


class Unreadable(Exception):  # noqa: N818 - a finding that is handled, not an error that is shown
    """Something is there that cannot be captured; the message says why."""


class TooLarge(Unreadable):
    """It has more bytes than were asked for."""


class Changing(Unreadable):
    """The file was written while it was read."""


class Absent(Exception):  # noqa: N818
    """There is nothing at this path (any more), or a folder."""


class WorkTree:
    """Reads paths (bytes, relative, separated by ``/``) below one folder and never follows a symlink on the way."""

    def __init__(self, top: str | os.PathLike[str], object_format: ObjectFormat) -> None:
        self._top = os.fsencode(top)
        self._hash = hashlib.sha256 if object_format == "sha256" else hashlib.sha1
        self._is_folder: dict[bytes, bool] = {b"": True}

    def place(self, path: bytes) -> bytes:
        """Return the absolute path."""
        return self._top + b"/" + path

    def status(self, path: bytes) -> os.stat_result | None:
        """Return what ``lstat`` says, or None where nothing is, or where a parent is not a folder but a symlink, say.

        Raises:
            Unreadable: the folder may not be entered.
        """
        if not self.is_folder(path.rpartition(b"/")[0]):
            return None
        try:
            return os.lstat(self.place(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            raise Unreadable(message) from error

    def read(self, path: bytes, *, limit: int | None = None) -> Content:
        """Return mode, id and size of a file or symlink, read whole and unchanged meanwhile.

        Raises:
            Absent: nothing is there, or a folder.
            Unreadable: a FIFO, socket or device, or no permission.
            TooLarge: it has more bytes than ``limit``.
            Changing: it does not hold still.
        """
        for _ in range(_ATTEMPTS):
            status = self.status(path)
            if status is None or stat.S_ISDIR(status.st_mode):
                raise Absent
            if limit is not None and status.st_size > limit:
                raise TooLarge(too_large(status.st_size, limit))
            try:
                content = self._read(path, status)
            except OSError as error:
                if error.errno in _REPLACED:
                    continue
                message = f"cannot be read: {error.strerror}"
                raise Unreadable(message) from error
            if content is not None:
                return content
        message = "was written while it was read"
        raise Changing(message)

    def head(self, path: bytes) -> bytes | None:
        """Return the first bytes of a large file, or None where it cannot be read."""
        try:
            with self._open(path) as file:
                return file.read(IN_MEMORY)
        except OSError:
            return None

    def sha256(self, path: bytes) -> tuple[str, int]:
        """Return the hex digest of a file's bytes, and their number; the file may be of any size.

        Raises:
            Absent: nothing is there, or a folder.
            Unreadable: no regular file, or no permission.
            Changing: it does not hold still.
        """
        for _ in range(_ATTEMPTS):
            status = self.status(path)
            if status is None or stat.S_ISDIR(status.st_mode):
                raise Absent
            if not stat.S_ISREG(status.st_mode):
                message = f"is a {kind_of(status.st_mode)}"
                raise Unreadable(message)
            try:
                with self._open(path) as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    if _same(status, os.fstat(file.fileno())):
                        return digest, status.st_size
            except OSError as error:
                if error.errno not in _REPLACED:
                    message = f"cannot be read: {error.strerror}"
                    raise Unreadable(message) from error
        message = "was written while it was read"
        raise Changing(message)

    def chunks(self, path: bytes, content: Content) -> Iterator[bytes]:
        """Yield the bytes of a large file again.

        Raises:
            Changing: they are not those of ``content`` any more, in number or in value.
        """
        digest = self._hash(b"blob %d\0" % content.size)
        left = content.size
        try:
            file = self._open(path)
        except OSError as error:
            message = "was written while it was read"
            raise Changing(message) from error
        with file:
            while left and (chunk := file.read(min(_CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
                yield chunk
        if left or digest.hexdigest() != content.oid:
            message = "was written while it was read"
            raise Changing(message)

    def differences(self, entries: Mapping[bytes, Entry]) -> Iterator[bytes]:
        """Yield the paths of a tree whose mode or bytes on disk are others than the tree says."""
        for path, (mode, oid) in entries.items():
            if mode == GITLINK:
                continue
            try:
                content = self.read(path)
            except (Absent, Unreadable):
                yield path
                continue
            if (content.mode, content.oid) != (mode, oid):
                yield path

    def blob_id(self, data: bytes) -> str:
        """Return the id under which git stores these bytes."""
        digest = self._hash(b"blob %d\0" % len(data))
        digest.update(data)
        return digest.hexdigest()

    def is_folder(self, path: bytes) -> bool:
        """Whether a folder, and no symlink to one, was there when this was asked first."""
        known = self._is_folder.get(path)
        if known is None:
            status = self.status(path)
            known = self._is_folder[path] = status is not None and stat.S_ISDIR(status.st_mode)
        return known

    def _open(self, path: bytes) -> FileIO:
        """Open a regular file; whatever else took its place is not there."""
        descriptor = os.open(self.place(path), _OPEN)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return FileIO(descriptor)

    def _read(self, path: bytes, status: os.stat_result) -> Content | None:
        """Read once; None when the file changed meanwhile."""
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(self.place(path))  # noqa: PTH115 - bytes
            return Content(SYMLINK, self.blob_id(target), len(target), target)
        if not stat.S_ISREG(status.st_mode):
            message = f"is a {kind_of(status.st_mode)}"
            raise Unreadable(message)
        mode = EXECUTABLE if status.st_mode & stat.S_IXUSR else REGULAR
        descriptor = os.open(self.place(path), _OPEN)
        try:
            # What was put in its place since lstat gives another status after.
            size = status.st_size
            data = None
            if size <= IN_MEMORY:
                # One byte more than there should be, so that a file that grew is seen.
                data = os.read(descriptor, size + 1)
                seen = len(data)
                oid = self.blob_id(data)
            else:
                digest = self._hash(b"blob %d\0" % size)
                seen = 0
                while seen <= size and (chunk := os.read(descriptor, _CHUNK)):
                    digest.update(chunk)
                    seen += len(chunk)
                oid = digest.hexdigest()
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return Content(mode, oid, size, data) if seen == size and _same(status, after) else None


def cannot_hold(path: bytes, mode: bytes) -> bool:
    """Whether git refuses a path for its name: a part ``.git`` in any case, or a symlink ``.gitmodules``."""
    if b".git" not in (lower := path.lower()):
        return False
    parts = lower.split(b"/")
    return b".git" in parts or (mode == SYMLINK and parts[-1] == b".gitmodules")


def files_below(top: str | os.PathLike[str], *, skip: Iterable[bytes] = ()) -> Iterator[bytes]:
    """Yield the path of everything below ``top`` that is no folder; ``skip`` names entries of ``top`` to leave out."""
    skipped = frozenset(skip)
    root = os.fsencode(top)
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(root + b"/" + folder) as entries:
            for entry in entries:
                path = folder + entry.name
                if not folder and entry.name in skipped:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path + b"/")
                else:
                    yield path


def too_large(size: int, limit: int) -> str:
    """Say that a file has more bytes than are taken in."""
    unit, shift = next((unit, shift) for unit, shift in _UNITS if min(size, limit) >> shift or not shift)
    amount = -(-size * 100 >> shift) / 100  # rounded up, so that it is never the limit
    return f"has {amount:.12g} {unit}, and no more than {round(limit / 2**shift, 2):.12g} {unit} are captured"


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns, one.st_mode) == (
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
        other.st_mode,
    )


def kind_of(mode: int) -> str:
    """Say what is neither a file nor a folder nor a symlink."""
    if stat.S_ISFIFO(mode):
        return "FIFO"
    return "socket" if stat.S_ISSOCK(mode) else "device"
