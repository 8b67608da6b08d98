"""Are two lists of leaves the same, bit for bit, and if not, where do they first differ and by how much?"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from researchlab.numerics.dtypes import is_extension, is_float, is_number, part_dtype, words
from researchlab.numerics.leaves import Leaf, int_value, leaf_text
from researchlab.numerics.ulp import MANY_ULPS, NAN_DISTANCE, has_ulps, ulp_distance, ulps_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CHUNK = 2**18
"""Elements that are looked at together, so that a difference in a huge array costs little memory."""

LeafReason = Literal["added", "removed", "kind", "dtype", "shape", "weak_type", "value", "static"]


@dataclass(frozen=True, slots=True)
class LeafDifference:
    """How one leaf differs.

    Attributes:
        path: the leaf.
        reason: what differs: the leaf is only in the received tree ("added") or only in the stored one ("removed"), it
            is another kind of leaf, has another dtype, shape, weak type, value, or (static leaves) another text.
        stored: the stored side: of a value the element at ``first_index`` in decimal and in bits, else what differs.
        received: the received side, likewise.
        differing: how many elements differ; all of them where no element can be held against another.
        size: how many elements the leaf has.
        first_index: the first element that differs in row-major order; of keys an index into their key data.
        ulp: the distance at ``first_index`` in ULPs; None for other types than floats, and for a NaN against a number.
        max_ulp: the largest distance of all pairs that have one.
        max_abs: the largest absolute difference of all pairs that have one.
        nans: how many pairs are a NaN against a number.
    """

    path: str
    reason: LeafReason
    stored: str
    received: str
    differing: int
    size: int
    first_index: tuple[int, ...] | None = None
    ulp: int | None = None
    max_ulp: int | None = None
    max_abs: float | None = None
    nans: int = 0

    def describe(self) -> str:
        """Return the difference in one line."""
        where = self.path or "(the tree itself)"
        if self.reason == "added":
            return f"{where}: added, {self.received}"
        if self.reason == "removed":
            return f"{where}: removed, was {self.stored}"
        if self.reason != "value":
            what = {"weak_type": "weak type", "static": "static value"}.get(self.reason, self.reason)
            return f"{where}: {what} differs: stored {self.stored}, received {self.received}"
        if self.first_index is None or self.first_index == ():
            parts = [f"{where}: differs: stored {self.stored}, received {self.received}"]
        else:
            index = ", ".join(map(str, self.first_index))
            parts = [
                f"{where}: {self.differing}/{self.size} differ",
                f"first at [{index}]: stored {self.stored}, received {self.received}",
            ]
        return "; ".join([*parts, *self._sizes()])

    def _sizes(self) -> list[str]:
        sizes: list[str] = []
        if self.ulp is not None:
            sizes.append(f"{ulps_text(self.ulp)} apart")
        if self.differing > 1 and self.max_ulp is not None and not (self.ulp or 0) > MANY_ULPS:
            sizes.append(("at most " if self.max_ulp <= MANY_ULPS else "") + ulps_text(self.max_ulp))
        if self.max_abs is not None:
            sizes.append(f"{'at most ' if self.differing > 1 else ''}{self.max_abs:.3g} in value")
        if self.nans:
            sizes.append(f"{self.nans} NaN against a number")
        return sizes


def compare_leaves(stored: Sequence[Leaf], received: Sequence[Leaf]) -> tuple[LeafDifference, ...]:
    """Return how ``received`` differs from ``stored``, at most one difference a leaf: none means the same bits.

    Leaves are matched by path (where several share one, in their order). A leaf that has no stable text on either side
    cannot be compared and is no difference: ask ``incomparable`` for those.

    Args:
        stored: the leaves as they were.
        received: the leaves as they are now.

    Returns:
        The differences in stored order, then the leaves that were added.
    """
    others = dict(_numbered(received))
    differences: list[LeafDifference] = []
    for key, leaf in _numbered(stored):
        other = others.pop(key, None)
        if other is None:
            size = _size(leaf)
            differences.append(LeafDifference(leaf.path, "removed", leaf.describe(), "nothing", size, size))
        elif (difference := compare_leaf(leaf, other)) is not None:
            differences.append(difference)
    for leaf in others.values():
        size = _size(leaf)
        differences.append(LeafDifference(leaf.path, "added", "nothing", leaf.describe(), size, size))
    return tuple(differences)


def incomparable(stored: Sequence[Leaf], received: Sequence[Leaf]) -> tuple[str, ...]:
    """Return the paths of the leaves without a stable text on either side: "no difference" says nothing about them."""
    return tuple(dict.fromkeys(leaf.path for leaf in (*stored, *received) if not leaf.comparable))


def compare_leaf(stored: Leaf, received: Leaf) -> LeafDifference | None:
    """Return how one leaf differs, or None if its bits are the same.

    Kind, dtype and shape come first, then the value, then the weak type.
    """
    if stored.kind != received.kind:
        return _whole(stored, "kind", f"{stored.kind} {stored.dtype}", f"{received.kind} {received.dtype}")
    if stored.dtype != received.dtype:
        return _whole(stored, "dtype", stored.dtype, received.dtype)
    if stored.shape != received.shape:
        return _whole(stored, "shape", str(stored.shape), str(received.shape))
    if stored.array is None or received.array is None:
        if stored.static == received.static:
            return None
        return _whole(stored, "static", leaf_text(stored), leaf_text(received))
    difference = _value_difference(stored, received, stored.array, received.array)
    if difference is None and stored.weak_type != received.weak_type:
        return _whole(stored, "weak_type", stored.describe(), received.describe())
    return difference


def _value_difference(stored: Leaf, received: Leaf, left: NDArray[Any], right: NDArray[Any]) -> LeafDifference | None:
    if stored.kind == "scalar" and stored.dtype == "int":
        return _int_difference(stored, received)
    if left.size == right.size == 0:
        return None
    if left.dtype != right.dtype or left.shape != right.shape:
        # Keys of one name and shape whose key data is laid out in another way.
        return _whole(stored, "dtype", f"{left.dtype}{list(left.shape)}", f"{right.dtype}{list(right.shape)}")
    return _array_difference(stored, received, left, right)


def _whole(leaf: Leaf, reason: LeafReason, stored: str, received: str) -> LeafDifference:
    """Return a difference in which no element can be held against another."""
    return LeafDifference(leaf.path, reason, stored, received, _size(leaf), _size(leaf))


def _numbered(leaves: Sequence[Leaf]) -> list[tuple[tuple[str, int], Leaf]]:
    seen: Counter[str] = Counter()
    numbered: list[tuple[tuple[str, int], Leaf]] = []
    for leaf in leaves:
        numbered.append(((leaf.path, seen[leaf.path]), leaf))
        seen[leaf.path] += 1
    return numbered


def _size(leaf: Leaf) -> int:
    return math.prod(leaf.shape) if leaf.array is None or leaf.kind == "scalar" else leaf.array.size


def _int_difference(stored: Leaf, received: Leaf) -> LeafDifference | None:
    left, right = int_value(stored), int_value(received)
    if left == right:
        return None
    try:
        distance = float(abs(left - right))
    except OverflowError:
        distance = math.inf
    return LeafDifference(stored.path, "value", leaf_text(stored), leaf_text(received), 1, 1, (), max_abs=distance)


def _array_difference(stored: Leaf, received: Leaf, left: NDArray[Any], right: NDArray[Any]) -> LeafDifference | None:
    flat_left, flat_right = left.reshape(-1), right.reshape(-1)
    sizes = _Sizes()
    first: int | None = None
    for start in range(0, left.size, CHUNK):
        chunk_left, chunk_right = flat_left[start : start + CHUNK], flat_right[start : start + CHUNK]
        where = np.flatnonzero((words(chunk_left) != words(chunk_right)).any(axis=1))
        if where.size:
            first = start + int(where[0]) if first is None else first
            sizes.add(chunk_left[where], chunk_right[where])
    if first is None:
        return None
    index = tuple(int(i) for i in np.unravel_index(first, left.shape))
    return LeafDifference(
        path=stored.path,
        reason="value",
        stored=leaf_text(stored, index),
        received=leaf_text(received, index),
        differing=sizes.differing,
        size=left.size,
        first_index=index,
        ulp=sizes.first_ulp,
        max_ulp=sizes.max_ulp,
        max_abs=None if stored.kind == "key" else sizes.max_abs,
        nans=sizes.nans,
    )


class _Sizes:
    """How large the differences are, gathered chunk by chunk."""

    def __init__(self) -> None:
        self.differing = 0
        self.nans = 0
        self.first_ulp: int | None = None
        self.max_ulp: int | None = None
        self.max_abs: float | None = None

    def add(self, left: NDArray[Any], right: NDArray[Any]) -> None:
        if has_ulps(left.dtype):
            ulps = ulp_distance(left, right)
            known = ulps[ulps != np.uint64(NAN_DISTANCE)]
            self.nans += ulps.size - known.size
            if self.differing == 0 and int(ulps[0]) != NAN_DISTANCE:
                self.first_ulp = int(ulps[0])
            if known.size:
                self.max_ulp = max(self.max_ulp or 0, int(known.max()))
        self.differing += left.size
        largest = _largest_distance(left, right)
        if largest is not None:
            self.max_abs = largest if self.max_abs is None else max(self.max_abs, largest)


def _largest_distance(left: NDArray[Any], right: NDArray[Any]) -> float | None:
    """Return the largest absolute difference of two flat arrays; None if no pair has one."""
    dtype = left.dtype
    if not is_number(dtype):
        return None
    if dtype.kind in "biu" or (is_extension(dtype) and not is_float(dtype) and part_dtype(dtype) is None):
        whole = np.uint64 if dtype.kind == "u" else np.int64
        left, right = left.astype(whole), right.astype(whole)
        # Two's complement: the difference of the larger and the smaller is right modulo 2^64, also across the sign.
        return float((np.maximum(left, right).view(np.uint64) - np.minimum(left, right).view(np.uint64)).max())
    wide: Any = dtype
    if part_dtype(dtype) is not None:
        wide = np.complex128
    elif is_float(dtype):
        wide = np.float64
    with np.errstate(all="ignore"):
        distances = np.abs(left.astype(wide) - right.astype(wide)).astype(np.float64)
    distances = distances[~np.isnan(distances)]
    return float(distances.max()) if distances.size else None
