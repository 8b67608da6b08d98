"""What did a run compute: every metric by step, and the leaves of its States, with their exact bits?

``TraceWriter`` appends to the files of a folder while the run lives, ``read_trace`` reads them, also those of a killed
run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from researchlab.errors import RecordError
from researchlab.numerics.dtypes import dtype_named
from researchlab.numerics.history import MetricHistory
from researchlab.numerics.leaves import Leaf, leaf_from_bytes
from researchlab.tracking._trace_format import (
    END_MARK,
    METRICS_FILE,
    METRICS_SCHEMA,
    STATE_FILE,
    STATE_SCHEMA,
    VERSION,
    VERSION_KEY,
)
from researchlab.tracking._trace_writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["METRICS_FILE", "STATE_FILE", "Trace", "TraceWriter", "read_trace"]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What a run computed.

    Attributes:
        metrics: every point of every metric.
        states: (source, step) to the leaves of that State, in the order in which they were recorded; step None is the
            final State. Where a source recorded several States at one step, the last one. Arrays are read-only views of
            the file.
        truncated: a file lacks its end: the run was killed, and what it computed last may be missing.
    """

    metrics: MetricHistory
    states: Mapping[tuple[str, int | None], tuple[Leaf, ...]]
    truncated: bool


def read_trace(folder: Path) -> Trace:
    """Read the trace files of a folder; a file that is not there means that nothing of its kind was recorded.

    Args:
        folder: the folder that a ``TraceWriter`` wrote to, or a copy of it. Keep it while States are in use: their
            arrays are views of the mapped file.

    Returns:
        The trace, up to the last whole batch and the last whole State where the files are truncated.

    Raises:
        RecordError: a file is damaged, is something else, or was written by a researchlab or numpy that is newer.
    """
    metrics = _Reading(folder / METRICS_FILE, METRICS_SCHEMA)
    states = _Reading(folder / STATE_FILE, STATE_SCHEMA)
    history = _history(metrics)
    leaves = _states(states)
    return Trace(history, leaves, truncated=metrics.truncated or states.truncated)


def _broken(path: Path, what: str) -> RecordError:
    return RecordError(
        f"Trace file {path} cannot be read: {what}. Fetch the run's artifacts again; if they are damaged in the store "
        "too, the run can be run again but not compared."
    )


class _Reading:
    """One stream file, read batch by batch; ``truncated`` is known when the batches are through."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.truncated = False
        self._schema = schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the whole batches; their buffers are views of the mapped file."""
        if not self.path.exists():
            return
        try:
            size = self.path.stat().st_size
            source = pa.memory_map(str(self.path)) if size else pa.BufferReader(b"")
            start, end = source.read_at(4, 0), source.read_at(8, max(size - 8, 0))
        except OSError as error:
            raise _broken(self.path, str(error)) from error
        if not END_MARK.startswith(start):
            raise _broken(self.path, "it is not an Arrow stream")
        self.truncated = end != END_MARK
        try:
            reader = pa.ipc.open_stream(source)
            self._check_schema(reader.schema)
            while True:
                batch = reader.read_next_batch()
                batch.validate(full=True)
                yield batch
        except StopIteration:
            if source.tell() != size:
                raise _broken(self.path, f"its end mark is at byte {source.tell()} of {size}") from None
        except UnicodeDecodeError as error:
            raise _broken(self.path, str(error)) from error
        except (pa.ArrowException, OSError) as error:
            # A batch that the kill cut off reaches beyond the end of the file; everything else is damage.
            if not self.truncated or source.tell() != size:
                raise _broken(self.path, str(error)) from error

    def _check_schema(self, schema: pa.Schema) -> None:
        version = (schema.metadata or {}).get(VERSION_KEY)
        if version is not None and version != VERSION:
            raise _broken(
                self.path,
                f"it has version {version.decode(errors='replace')} and this researchlab reads version "
                f"{VERSION.decode()} (`pip install -U researchlab`)",
            )
        if version is None or not schema.equals(self._schema):
            raise _broken(
                self.path, f"it is an Arrow stream of something else, with the columns {', '.join(schema.names)}"
            )


def _history(reading: _Reading) -> MetricHistory:
    names: dict[str, int] = {}
    dtypes: dict[str, int] = {}
    name_codes = [np.zeros(0, np.int64)]
    dtype_codes = [np.zeros(0, np.int64)]
    steps = [np.zeros(0, np.int64)]
    lengths = [np.zeros(0, np.int64)]
    data = [np.zeros(0, np.uint8)]
    for batch in reading.batches():
        if any(column.null_count for column in batch.columns):
            raise _broken(reading.path, "a point is not complete")
        name, step, dtype, bits, _ = batch.columns
        name_codes.append(_codes(name, names))
        dtype_codes.append(_codes(dtype, dtypes))
        steps.append(step.to_numpy())
        _, offset_buffer, data_buffer = bits.buffers()
        # Not more than the offsets: pyarrow accepts a damaged length that is no multiple of theirs.
        all_offsets = np.frombuffer(offset_buffer, np.int32, count=bits.offset + len(bits) + 1)
        offsets = all_offsets[bits.offset :].astype(np.int64)
        lengths.append(np.diff(offsets))
        data.append(np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]])
    codes, widths = np.concatenate(dtype_codes), np.concatenate(lengths)
    for dtype, code in dtypes.items():
        _check_widths(reading, dtype, widths[codes == code])
    return MetricHistory.from_columns(
        names=list(names),
        name_codes=np.concatenate(name_codes),
        steps=np.concatenate(steps),
        dtypes=list(dtypes),
        dtype_codes=codes,
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(widths)]),
        data=np.concatenate(data),
    )


def _codes(column: Any, known: dict[str, int]) -> NDArray[np.int64]:
    codes = [known.setdefault(text, len(known)) for text in column.dictionary.to_pylist()]
    return np.array(codes, np.int64)[column.indices.to_numpy()]


def _check_widths(reading: _Reading, dtype: str, widths: NDArray[np.int64]) -> None:
    try:
        expected = None if dtype == "int" else dtype_named(dtype).itemsize
    except ValueError as error:
        raise _broken(reading.path, str(error)) from error
    if expected is not None and (widths != expected).any():
        raise _broken(reading.path, f"a {dtype} has {int(widths[widths != expected][0])} bytes instead of {expected}")


def _states(reading: _Reading) -> dict[tuple[str, int | None], tuple[Leaf, ...]]:
    states: dict[tuple[str, int | None], tuple[Leaf, ...]] = {}
    leaves: list[Leaf] = []
    for batch in reading.batches():
        row = {name: batch.column(name)[0].as_py() for name in batch.schema.names if name != "data"}
        if row["index"] == 0:
            leaves = []  # also when the State before was cut short
        leaves.append(_read_leaf(reading, row, batch.column("data")))
        if len(leaves) == row["leaves"]:
            states.pop(key := (row["source"], row["step"]), None)
            states[key] = tuple(leaves)
    return states


def _read_leaf(reading: _Reading, row: dict[str, Any], data: Any) -> Leaf:
    try:
        return leaf_from_bytes(
            path=row["path"],
            kind=row["kind"],
            dtype=row["dtype"],
            shape=tuple(row["shape"]),
            weak_type=row["weak_type"],
            data=data[0].as_buffer() if data.null_count == 0 else None,
            static=row["static"],
        )
    except ValueError as error:
        raise _broken(reading.path, f"leaf {row['path']!r}: {error}") from error
