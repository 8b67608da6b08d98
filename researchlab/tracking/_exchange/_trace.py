"""What does the trace of an exported run hold, read without trusting it?"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from researchlab.errors import RecordError
from researchlab.numerics.scalars import decode_scalar
from researchlab.tracking.trace import METRICS_FILE, STATE_FILE, read_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from researchlab.tracking._exchange._archive import Refuse
    from researchlab.tracking.record import Record

_LATEST = 2**62

# Where the format of Arrow's messages (Message.fbs) puts what is looked for.
_BATCHES = {2: 1, 3: None}  # kind of message -> the field of its header that is the batch: DictionaryBatch, RecordBatch
_HEADER_TYPE, _HEADER, _COMPRESSION = 1, 2, 3


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """A metric value as MLflow keeps it.

    Attributes:
        name: Name of the metric.
        value: The value, rounded to a double.
        step: Its step.
        time: When it was logged, in milliseconds since the epoch.
    """

    name: str
    value: float
    step: int
    time: int


def check_trace(folder: Path, record: Record, refuse: Refuse) -> None:
    """Check that the trace can be read, and that it is what the record says of it.

    Args:
        folder: The run's documents.
        record: The record of the run.
        refuse: Raises the error that says what is wrong.

    Raises:
        ExchangeError: It is damaged, or another run's.
    """
    for name in (METRICS_FILE, STATE_FILE):
        if _is_compressed(folder / name):
            # A few bytes may stand for more than the memory holds, and our traces are never compressed.
            refuse(f"its trace file {name} is compressed, or no trace")
    try:
        trace = read_trace(folder)
    except RecordError as error:
        refuse(f"its trace cannot be read. {str(error).replace(f'{folder}/', '')}")
    result = record.result
    if result is None:
        return
    recorded = (result.metrics, result.points, result.states)
    found = (len(trace.metrics.metrics), trace.metrics.points, len(trace.states))
    if recorded != found or trace.truncated:
        say = "{} metrics with {} values, and {} States".format
        refuse(f"its trace is damaged: {say(*recorded)} were recorded, and {say(*found)} are there")


def metric_points(folder: Path) -> Iterator[MetricPoint]:
    """Yield the points of a checked trace in the order of logging, those left out that are no number to MLflow."""
    path = folder / METRICS_FILE
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        for batch in pa.ipc.open_stream(pa.memory_map(str(path))):
            yield from _points(batch)
    except (pa.ArrowException, OSError):
        return  # the run was killed while it wrote the last batch, which `read_trace` leaves out as well


def _points(batch: pa.RecordBatch) -> Iterator[MetricPoint]:
    columns = (batch.column(name).to_pylist() for name in ("name", "step", "dtype", "bits", "time"))
    for name, step, dtype, bits, time in zip(*columns, strict=True):
        value = _double(decode_scalar(dtype, bits))
        if value is not None:
            yield MetricPoint(name, value, step, _milliseconds(time))


def _double(value: Any) -> float | None:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        return None  # an integer beyond all doubles; a complex number


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000) if math.isfinite(seconds) and 0 <= seconds * 1000 < _LATEST else 0


def _is_compressed(path: Path) -> bool:
    """Return whether a batch of an Arrow stream is compressed; what cannot be told counts as it.

    Arrow inflates a batch as soon as it is asked for it, so that only the messages around the batches are read here.
    """
    if not path.exists() or path.stat().st_size == 0:
        return False
    try:
        for message in pa.ipc.MessageReader.open_stream(pa.memory_map(str(path))):
            if _announces_compression(message.metadata.to_pybytes()):
                return True
    except (pa.ArrowException, OSError, EOFError, StopIteration):
        return False  # cut short, or no stream: `read_trace` judges that, and inflates nothing behind it
    except (struct.error, IndexError):
        return True
    return False


def _announces_compression(metadata: bytes) -> bool:
    """Look into the flatbuffer of a message."""
    (root,) = struct.unpack_from("<I", metadata, 0)
    kind = _field(metadata, root, _HEADER_TYPE)
    if kind is None or metadata[kind] not in _BATCHES:
        return False
    table = _table(metadata, root, _HEADER)
    inner = _BATCHES[metadata[kind]]
    if table is not None and inner is not None:
        table = _table(metadata, table, inner)
    return table is None or _field(metadata, table, _COMPRESSION) is not None


def _field(data: bytes, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffer's table is, or None where the table has none."""
    (back,) = struct.unpack_from("<i", data, table)
    (size,) = struct.unpack_from("<H", data, table - back)
    entry = 4 + 2 * number
    if entry >= size:
        return None
    (offset,) = struct.unpack_from("<H", data, table - back + entry)
    return table + offset if offset else None


def _table(data: bytes, table: int, number: int) -> int | None:
    field = _field(data, table, number)
    return None if field is None else field + struct.unpack_from("<I", data, field)[0]
