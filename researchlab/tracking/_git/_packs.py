"""How do many objects get into a scratch store at once?

A pack and its index are written here, because git's own ways take a process more (``unpack-objects``), a file an object
(``hash-object``), or several times as long (``fast-import``). Nothing is compressed: the store lives for seconds.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from researchlab.tracking._git._repository import ObjectFormat

TREE, BLOB = 2, 3
"""Numbers of the types of objects in a pack."""

_STORED = 0xFFFF  # bytes of one block of zlib that is not compressed
_NEAR = 1 << 31  # offsets beyond are in a table of their own


class _Place(NamedTuple):
    oid: bytes
    crc32: int
    offset: int


class PackWriter:
    """Writes one pack into a git folder, in a ``with`` block; git sees its objects after the block.

    The caller says under which id each object goes; git finds it out when one is wrong.
    """

    def __init__(self, git_dir: Path, object_format: ObjectFormat) -> None:
        self._folder = git_dir / "objects" / "pack"
        self._hash = hashlib.sha256 if object_format == "sha256" else hashlib.sha1
        self._written: dict[str, _Place] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._draft = self._folder / "draft"
        self._file = self._draft.open("w+b")
        self._file.write(struct.pack(">4sII", b"PACK", 2, 0))
        self._offset = 12
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self._file:
            if kind is None and self._written:
                self._finish()

    def add(self, oid: str, kind: int, data: bytes) -> None:
        """Write an object that is in memory."""
        if oid in self._written:
            return
        size = len(data)
        if size > _STORED:
            self.add_chunks(oid, kind, size, (data,))
            return
        # The zlib stream of one stored block, which compressobj(0) takes ten times as long for.
        block = struct.pack("<HH", size, size ^ _STORED)
        tail = zlib.adler32(data).to_bytes(4, "big")
        self._write(oid, (b"%b\x78\x01\x01%b%b%b" % (_header(kind, size), block, data, tail),))

    def add_chunks(self, oid: str, kind: int, size: int, chunks: Iterable[bytes]) -> None:
        """Write an object of ``size`` bytes that comes in parts.

        Whatever the iterator raises leaves a pack that must not be finished.
        """
        if oid in self._written:
            return
        stream = zlib.compressobj(0)

        def packed() -> Iterable[bytes]:
            yield _header(kind, size)
            for chunk in chunks:
                yield stream.compress(chunk)
            yield stream.flush()

        self._write(oid, packed())

    def _write(self, oid: str, parts: Iterable[bytes]) -> None:
        start, crc32 = self._offset, 0
        for part in parts:
            crc32 = zlib.crc32(part, crc32)
            self._offset += self._file.write(part)
        self._written[oid] = _Place(bytes.fromhex(oid), crc32, start)

    def _finish(self) -> None:
        self._file.seek(8)
        self._file.write(struct.pack(">I", len(self._written)))
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, self._hash).digest()
        self._file.seek(0, 2)
        self._file.write(digest)
        self._file.close()
        name = self._folder / f"pack-{digest.hex()}"
        self._draft.rename(name.with_suffix(".pack"))
        name.with_suffix(".idx").write_bytes(self._index(digest))

    def _index(self, digest: bytes) -> bytes:
        places = sorted(self._written.values())
        fanout, count = [0] * 256, len(places)
        for place in places:
            fanout[place.oid[0]] += 1
        for byte in range(1, 256):
            fanout[byte] += fanout[byte - 1]
        far = [place.offset for place in places if place.offset >= _NEAR]
        numbers = iter(range(_NEAR, _NEAR + len(far)))
        content = b"".join(
            (
                b"\xfftOc",
                struct.pack(">I256I", 2, *fanout),
                *(place.oid for place in places),
                struct.pack(f">{count}I", *(place.crc32 for place in places)),
                struct.pack(
                    f">{count}I", *(place.offset if place.offset < _NEAR else next(numbers) for place in places)
                ),
                struct.pack(f">{len(far)}Q", *far),
                digest,
            )
        )
        return content + self._hash(content).digest()


def _header(kind: int, size: int) -> bytes:
    """Return type and size of an object as a pack has them."""
    byte, size = kind << 4 | size & 15, size >> 4
    header = bytearray()
    while size:
        header.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    header.append(byte)
    return bytes(header)
