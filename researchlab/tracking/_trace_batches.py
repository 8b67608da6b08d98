"""How do metric values become the record batches of a trace, a value at a time or many at once?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from researchlab.errors import MetricError
from researchlab.numerics.scalars import encode_column
from researchlab.tracking._trace_format import METRICS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Row = tuple[str, int, str, bytes, float]
    """A point: name, step, dtype, bits, time."""

POINTS_PER_BATCH: Final = 4096
#: A batch of a block takes a few megabytes; its bits stay far below the 2 GiB that their offsets can count.
_POINTS_PER_BLOCK_BATCH: Final = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBlock:
    """Points of several metrics at several steps, encoded: step by step, and within a step in the order of the names.

    Attributes:
        names: of the metrics.
        dtypes: of each metric.
        widths: bytes of a value of each metric.
        steps: shape ``[n]``.
        times: seconds since 1970, of shape ``[n]``.
        bits: shape ``[n, sum(widths)]``.
    """

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    widths: tuple[int, ...]
    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    bits: NDArray[np.uint8]

    @property
    def points(self) -> int:
        """How many points there are."""
        return len(self.names) * len(self.steps)


def encode_block(
    steps: NDArray[np.int64], times: NDArray[np.float64], columns: Mapping[str, NDArray[Any]]
) -> EncodedBlock:
    """Copy the bits of a block of metrics.

    Args:
        steps: shape ``[n]``.
        times: seconds since 1970, of shape ``[n]``.
        columns: name to the values, of shape ``[n]`` and any number dtype.

    Raises:
        MetricError: a column is not of numbers, or not as long as the steps.
    """
    encoded = {name: encode_column(column, name=name) for name, column in columns.items()}
    for name, (_, content) in encoded.items():
        if len(content) != len(steps):
            msg = f"Metric {name!r} has {len(content)} values for {len(steps)} steps: a block holds one for each step."
            raise MetricError(msg)
    return EncodedBlock(
        names=tuple(encoded),
        dtypes=tuple(dtype for dtype, _ in encoded.values()),
        widths=tuple(content.shape[1] for _, content in encoded.values()),
        steps=np.array(steps, np.int64),
        times=np.array(times, np.float64),
        bits=np.concatenate([content for _, content in encoded.values()], axis=1),
    )


class PointBatches:
    """Makes the record batches of one file, whose dictionaries of names and dtypes grow with it."""

    def __init__(self) -> None:
        self._name_codes: dict[str, int] = {}
        self._dtype_codes: dict[str, int] = {}

    def of(self, points: list[Row] | EncodedBlock) -> Iterator[pa.RecordBatch]:
        """Yield the batches of some points, in their order."""
        if isinstance(points, EncodedBlock):
            length = max(_POINTS_PER_BLOCK_BATCH // len(points.names), 1)
            for start in range(0, len(points.steps), length):
                yield self._of_block(points, slice(start, start + length))
        else:
            for start in range(0, len(points), POINTS_PER_BATCH):
                yield self._of_rows(points[start : start + POINTS_PER_BATCH])

    def _of_rows(self, rows: list[Row]) -> pa.RecordBatch:
        names, steps, dtypes, bits, times = zip(*rows, strict=True)
        columns = [
            _dictionary(_codes(names, self._name_codes), self._name_codes),
            pa.array(steps, pa.int64()),
            _dictionary(_codes(dtypes, self._dtype_codes), self._dtype_codes),
            pa.array(bits, pa.binary()),
            pa.array(times, pa.float64()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=METRICS_SCHEMA)

    def _of_block(self, block: EncodedBlock, part: slice) -> pa.RecordBatch:
        steps, times, bits = block.steps[part], block.times[part], block.bits[part]
        metrics = len(block.names)
        ends = np.cumsum(block.widths, dtype=np.int32)
        offsets = np.zeros(len(steps) * metrics + 1, np.int32)
        np.add.outer(np.arange(len(steps), dtype=np.int32) * ends[-1], ends, out=offsets[1:].reshape(-1, metrics))
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(bits)]
        columns = [
            _dictionary(np.tile(_codes(block.names, self._name_codes), len(steps)), self._name_codes),
            pa.array(np.repeat(steps, metrics)),
            _dictionary(np.tile(_codes(block.dtypes, self._dtype_codes), len(steps)), self._dtype_codes),
            pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers),
            pa.array(np.repeat(times, metrics)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=METRICS_SCHEMA)


def _codes(values: Sequence[str], codes: dict[str, int]) -> NDArray[np.int32]:
    # The dictionary only ever grows at its end, so that a code means the same in every batch.
    return np.fromiter((codes.setdefault(value, len(codes)) for value in values), np.int32, len(values))


def _dictionary(indices: NDArray[np.int32], codes: dict[str, int]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(list(codes), pa.string()))
