"""How does one file hold many, so that there is exactly one right sequence of bytes for it?

The file is a zip that any tool opens: members stored without compression, one after the other, every field fixed. A
reader therefore needs to trust nothing: it holds each byte that is not content against the only one that is right.
What hostile zips are made of (compressed bombs, overlapping or hidden members, links, two directories that disagree)
cannot be written in it. Content that compresses is the user's to compress, file as a whole.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, Protocol, TypeAlias

from researchlab.errors import ExchangeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Refuse: TypeAlias = "Callable[[str], NoReturn]"
"""Raises the error of a file, given what is wrong with it in a half sentence."""


class Readable(Protocol):
    """What a file is read through."""

    def read(self, size: int, /) -> bytes:
        """Return that many bytes, or those that are left."""
        ...


_CHUNK = 1 << 20
_LOCAL_START = b"PK\x03\x04"
# Always with the 64 bit fields, whatever the size, so that there is one layout and not two.
_VERSION = 45
_MADE_BY_UNIX = 3 << 8 | _VERSION
_NAMES_ARE_UTF8 = 0x0800
_STORED = 0
_FIRST_OF_1980 = 0x21
_REGULAR_FILE = 0o100644 << 16
_SEE_EXTRA = 0xFFFFFFFF
_SEE_EXTRA_16 = 0xFFFF

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_EXTRA_LOCAL = struct.Struct("<2H2Q")
_EXTRA_CENTRAL = struct.Struct("<2H3Q")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive.

    Attributes:
        name: Its name, with ``/`` between folders.
        size: Number of its bytes.
        sha256: Hex digest of them.
        crc: CRC-32 of them.
    """

    name: str
    size: int
    sha256: str
    crc: int

    @classmethod
    def of(cls, name: str, data: bytes | Path) -> Part:
        """Read bytes, or a file, and say what they are."""
        checksum = Checksum()
        for chunk in _chunks(data):
            checksum.add(chunk)
        return checksum.part(name)


class Checksum:
    """What is known of bytes that went by."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._crc = 0

    def add(self, chunk: bytes) -> None:
        """Take in more bytes."""
        self._sha256.update(chunk)
        self._size += len(chunk)
        self._crc = zlib.crc32(chunk, self._crc)

    def part(self, name: str) -> Part:
        """Return what went by, as the file of that name."""
        return Part(name, self._size, self._sha256.hexdigest(), self._crc)


def archive_size(parts: Iterable[tuple[str, int]]) -> int:
    """Return how many bytes the archive of these names and sizes has."""
    fixed = _LOCAL.size + _EXTRA_LOCAL.size + _CENTRAL.size + _EXTRA_CENTRAL.size
    inside = sum(fixed + 2 * len(name.encode()) + size for name, size in parts)
    return inside + _END_64.size + _LOCATOR.size + _END.size


def write_archive(to: IO[bytes], parts: Sequence[tuple[Part, bytes | Path]]) -> None:
    """Write an archive.

    Args:
        to: Where to.
        parts: Its files in their order, each with its content.

    Raises:
        ExchangeError: A file is not what it was when its ``Part`` was made.
    """
    for part, data in parts:
        to.write(_local_header(part))
        checksum = Checksum()
        for chunk in _chunks(data):
            checksum.add(chunk)
            to.write(chunk)
        if checksum.part(part.name) != part:
            message = f"{data if isinstance(data, Path) else part.name} changed while it was exported. Try again."
            raise ExchangeError(message)
    to.write(_directory([part for part, _ in parts]))


class ArchiveReader:
    """An archive that is read from its first byte to its last, believing nothing.

    Attributes:
        size: Number of its bytes.
    """

    def __init__(self, stream: Readable, size: int, refuse: Refuse) -> None:
        """Begin.

        Args:
            stream: The file, at its start.
            size: Number of its bytes.
            refuse: Raises the error that says what is wrong with it.
        """
        self.size = size
        self._stream = stream
        self._refuse = refuse
        self._seen: list[Part] = []

    def read_first(self, name: str, *, limit: int) -> bytes:
        """Read the first file, whose size is not known yet.

        Args:
            name: The name that it must have.
            limit: Bytes that it may have.

        Raises:
            ExchangeError: It is another one, or damaged.
        """
        if self.size == 0:
            self._refuse("it is empty")
        length = _LOCAL.size + len(name) + _EXTRA_LOCAL.size
        header = self._stream.read(length)
        if not header.startswith(_LOCAL_START[: len(header)]):
            self._refuse("it is no zip")
        if len(header) < length:
            self._refuse("it is cut short")
        if header[_LOCAL.size :][: len(name)] != name.encode():
            self._refuse(f"its first member is not {name}")
        crc = _LOCAL.unpack(header[: _LOCAL.size])[6]
        size = _EXTRA_LOCAL.unpack(header[-_EXTRA_LOCAL.size :])[2]
        if header != _local_header(Part(name, size, "", crc)):
            self._refuse(f"its {name} was packed by another program, and only rlab's own files are believed")
        if size > limit:
            self._refuse(f"its {name} has {size} bytes, and {limit} are the most that one can have")
        data = self._stream.read(size)
        if len(data) < size:
            self._refuse("it is cut short")
        part = Part.of(name, data)
        if header != _local_header(part):
            self._refuse(f"its {name} is damaged")
        self._seen.append(part)
        return data

    def check_size(self, parts: Iterable[tuple[str, int]]) -> None:
        """Check that the file is as long as one of these names and sizes, those of the first one included, has to be.

        Raises:
            ExchangeError: It is shorter or longer.
        """
        expected = archive_size([*((part.name, part.size) for part in self._seen), *parts])
        if self.size < expected:
            self._refuse(f"it is cut short: {self.size} bytes of {expected}")
        if self.size > expected:
            self._refuse(f"it has {self.size} bytes where its manifest says {expected}")

    def read(self, name: str, *, size: int, sha256: str, to: IO[bytes]) -> None:
        """Copy the next file out.

        Args:
            name: The name that it must have.
            size: The number of bytes that it must have.
            sha256: The digest that they must have.
            to: Where they are written.

        Raises:
            ExchangeError: It is another one; what was written is to be thrown away.
        """
        length = _LOCAL.size + len(name.encode()) + _EXTRA_LOCAL.size
        header = self._stream.read(length)
        self._refuse_compressed(header)
        checksum = Checksum()
        left = size
        while left:
            chunk = self._stream.read(min(left, _CHUNK))
            if not chunk:
                self._refuse("it is cut short")
            checksum.add(chunk)
            to.write(chunk)
            left -= len(chunk)
        part = checksum.part(name)
        if part.sha256 != sha256:
            self._refuse(f"the content of {name!r} has sha256 {part.sha256}, and its manifest says {sha256}")
        if header != _local_header(part):
            self._refuse(f"the header of {name!r} is not the one that belongs there")
        self._seen.append(part)

    def finish(self) -> None:
        """Check the directory at the end, and that nothing stands behind it.

        Raises:
            ExchangeError: It lists something else.
        """
        expected = _directory(self._seen)
        if self._stream.read(len(expected) + 1) != expected:
            self._refuse("its directory does not list the members as they are: other names, kinds, or more of it")

    def _refuse_compressed(self, header: bytes) -> None:
        if header[8:10] not in {b"", struct.pack("<H", _STORED)}:
            self._refuse("a member is compressed, and rlab compresses none")


def _chunks(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _described(part: Part) -> tuple[int, ...]:
    """Return the fields that stand before a member and in the directory alike."""
    size = len(part.name.encode())
    return _VERSION, _NAMES_ARE_UTF8, _STORED, 0, _FIRST_OF_1980, part.crc, _SEE_EXTRA, _SEE_EXTRA, size


def _local_header(part: Part) -> bytes:
    name = part.name.encode()
    fixed = _LOCAL.pack(_LOCAL_START, *_described(part), _EXTRA_LOCAL.size)
    return fixed + name + _EXTRA_LOCAL.pack(1, _EXTRA_LOCAL.size - 4, part.size, part.size)


def _directory(parts: Sequence[Part]) -> bytes:
    """Return the directory of all members, with the records that end the file."""
    entries: list[bytes] = []
    start = 0
    for part in parts:
        name = part.name.encode()
        fixed = _CENTRAL.pack(
            b"PK\x01\x02",
            _MADE_BY_UNIX,
            *_described(part),
            _EXTRA_CENTRAL.size,
            0,
            0,
            0,
            _REGULAR_FILE,
            _SEE_EXTRA,
        )
        entries.append(fixed + name + _EXTRA_CENTRAL.pack(1, _EXTRA_CENTRAL.size - 4, part.size, part.size, start))
        start += len(_local_header(part)) + part.size
    directory = b"".join(entries)
    count = len(parts)
    end_64 = _END_64.pack(
        b"PK\x06\x06", _END_64.size - 12, _MADE_BY_UNIX, _VERSION, 0, 0, count, count, len(directory), start
    )
    locator = _LOCATOR.pack(b"PK\x06\x07", 0, start + len(directory), 1)
    end = _END.pack(b"PK\x05\x06", 0, 0, _SEE_EXTRA_16, _SEE_EXTRA_16, _SEE_EXTRA, _SEE_EXTRA, 0)
    return directory + end_64 + locator + end
