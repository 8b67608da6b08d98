"""Which values did each metric have, in the order in which they were logged?

Columns instead of objects: a run of a million points is a few arrays for each metric.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from researchlab.numerics.scalars import decode_scalar, encode_scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The points of one metric in logging order.

    Attributes:
        steps: int64, shape ``(n,)``.
        dtypes: the names of the dtypes that occur, as ``encode_scalar`` gives them.
        codes: which of ``dtypes`` each point has; integers, shape ``(n,)``.
        offsets: int64, shape ``(n + 1,)``: the bits of point i are ``data[offsets[i]:offsets[i + 1]]``.
        data: uint8, all bits one after the other.
    """

    steps: NDArray[np.int64]
    dtypes: tuple[str, ...]
    codes: NDArray[np.integer[Any]]
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return how many points there are."""
        return len(self.steps)

    def dtype(self, index: int) -> str:
        """Return the name of the dtype of one point."""
        return self.dtypes[int(self.codes[index])]

    def bits(self, index: int) -> bytes:
        """Return the little-endian bits of one point."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def value(self, index: int) -> Any:
        """Return one point's value, as ``decode_scalar`` gives it."""
        return decode_scalar(self.dtype(index), self.bits(index))

    def all_bits(self) -> list[bytes]:
        """Return the bits of every point."""
        data, offsets = self.data.tobytes(), self.offsets.tolist()
        return [data[start:end] for start, end in itertools.pairwise(offsets)]


@dataclass(frozen=True, slots=True, eq=False)
class MetricHistory:
    """Every metric of a run.

    Attributes:
        metrics: name to points, in the order in which the names were first logged.
    """

    metrics: Mapping[str, Points]

    @property
    def points(self) -> int:
        """How many points there are in all metrics together."""
        return sum(len(points) for points in self.metrics.values())

    @classmethod
    def from_values(cls, values: Iterable[tuple[str, int, Any]]) -> MetricHistory:
        """Build a history from (name, step, value) in logging order; the values as ``encode_scalar`` takes them."""
        return cls.from_encoded((name, step, *encode_scalar(value, name=name)) for name, step, value in values)

    @classmethod
    def from_encoded(cls, points: Iterable[tuple[str, int, str, bytes]]) -> MetricHistory:
        """Build a history from (name, step, dtype, bits) in logging order."""
        names: dict[str, int] = {}
        dtypes: dict[str, int] = {}
        rows = [
            (names.setdefault(name, len(names)), step, dtypes.setdefault(dtype, len(dtypes)), bits)
            for name, step, dtype, bits in points
        ]
        return cls.from_columns(
            names=list(names),
            name_codes=np.array([row[0] for row in rows], np.int64),
            steps=np.array([row[1] for row in rows], np.int64),
            dtypes=list(dtypes),
            dtype_codes=np.array([row[2] for row in rows], np.int64),
            offsets=np.cumsum([0, *(len(row[3]) for row in rows)], dtype=np.int64),
            data=np.frombuffer(b"".join(row[3] for row in rows), np.uint8),
        )

    @classmethod
    def from_columns(
        cls,
        *,
        names: Sequence[str],
        name_codes: NDArray[np.integer[Any]],
        steps: NDArray[np.int64],
        dtypes: Sequence[str],
        dtype_codes: NDArray[np.integer[Any]],
        offsets: NDArray[np.int64],
        data: NDArray[np.uint8],
    ) -> MetricHistory:
        """Build a history from the columns of all metrics together.

        Args:
            names: the metrics in the order in which they were first logged.
            name_codes: which of ``names`` each point belongs to, shape ``(n,)``, in logging order.
            steps: int64, shape ``(n,)``.
            dtypes: the names of the dtypes that occur.
            dtype_codes: which of ``dtypes`` each point has, shape ``(n,)``.
            offsets: shape ``(n + 1,)``: where each point's bits begin and end in ``data``.
            data: uint8.
        """
        order = np.argsort(name_codes, kind="stable")
        lengths = np.diff(offsets)[order]
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        data = data[np.repeat(offsets[:-1][order] - ends[:-1], lengths) + np.arange(ends[-1])]
        steps, dtype_codes = steps[order], dtype_codes[order]
        bounds = np.searchsorted(name_codes[order], np.arange(len(names) + 1))
        return cls(
            {
                name: Points(
                    steps=steps[start:end],
                    dtypes=tuple(dtypes),
                    codes=dtype_codes[start:end],
                    offsets=ends[start : end + 1] - ends[start],
                    data=data[ends[start] : ends[end]],
                )
                for name, (start, end) in zip(names, itertools.pairwise(bounds.tolist()), strict=True)
            }
        )
