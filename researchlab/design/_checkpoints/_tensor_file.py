"""How are named arrays written as a safetensors file, and found in one?

The format is eight bytes for the length of a header, the header (JSON: name to dtype, shape and place), and the bytes
of the arrays. It is written and read here, through Python's ``open``: ``safetensors`` opens files in Rust, where a
tracked run's list of inputs does not see it, and wrote arrays that are not contiguous wrongly (safetensors#825). What
the format has no name for (complex128, int4 and the like) is written as unsigned integers.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from researchlab.errors import DamagedCheckpointError
from researchlab.numerics.dtypes import raw_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_NAMES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
_LENGTH_BYTES = 8
_ALIGNED_TO = 8
_LONGEST_HEADER = 100_000_000  # that of safetensors
_METADATA = "__metadata__"


def write_tensors(file: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name.

    Args:
        file: where to.
        arrays: C-contiguous and little-endian, of any dtype with exact bits.
    """
    header: dict[str, object] = {}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        dtype, shape = _stored(array)
        header[_escaped(name)] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED_TO)
    file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
    for array in arrays.values():
        file.write(raw_bytes(array).data)


def read_tensors(path: Path, sizes: Mapping[str, int]) -> dict[str, NDArray[np.uint8]]:
    """Read the bytes of arrays.

    Args:
        path: the file.
        sizes: name to number of bytes, for each array that the file must have.

    Returns:
        Name to bytes, each in memory of its own.

    Raises:
        DamagedCheckpointError: the file is missing, cut off, or is not one of these arrays; names what is wrong.
    """
    try:
        with path.open("rb") as file:
            places, start = _header(file, path)
            if set(places) != {_escaped(name) for name in sizes}:
                raise _damaged(path, "its header does not have the names that the manifest has")
            found: dict[str, NDArray[np.uint8]] = {}
            for name, size in sizes.items():
                first, last = places[_escaped(name)]
                content = np.empty(size, np.uint8)
                file.seek(start + first)
                if last - first != size or file.readinto(content.data) != size:
                    raise _damaged(path, f"leaf {name!r} is not whole")
                found[name] = content
            return found
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error})") from error


def _header(file: BinaryIO, path: Path) -> tuple[dict[str, tuple[int, int]], int]:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    try:
        header = json.loads(file.read(min(length, _LONGEST_HEADER)))
        places = {
            name: (int(entry["data_offsets"][0]), int(entry["data_offsets"][1]))
            for name, entry in header.items()
            if name != _METADATA
        }
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header cannot be read ({error})") from error
    if any(first < 0 for first, _ in places.values()):
        raise _damaged(path, "its header has a place before its beginning")
    return places, _LENGTH_BYTES + length


def _damaged(path: Path, reason: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"{path} is damaged: {reason}. Use an older checkpoint.")


def _escaped(name: str) -> str:
    # The one name that the format keeps for itself.
    return f"\\{name}" if name.lstrip("\\") == _METADATA else name


def _stored(array: NDArray[Any]) -> tuple[str, list[int]]:
    name = _NAMES.get(array.dtype.name)
    if name is not None:
        return name, list(array.shape)
    size = array.dtype.itemsize
    if size in {1, 2, 4, 8}:
        return f"U{8 * size}", list(array.shape)
    return "U8", [*array.shape, array.nbytes // math.prod(array.shape) if array.size else size]
