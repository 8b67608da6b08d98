"""Which 128 bits stand for the bits of a leaf, wherever and however it is laid out?

The words of a leaf (uint32, row-major, the low half of 64 bits first) are mixed with their position and summed, four
times with other constants. A sum knows no order, so that layout, sharding and parallel reduction do not change it, and
the position makes up for that: word ``i`` adds ``mix(word ^ (i * C + K))``. Only uint32 is used, so that x64 does not
matter. Dtype and shape are folded in on the host: bfloat16 and int16 of equal bits differ.

The function is compiled apart from any step: an extra output in a step's own program changes the bits of that step.
"""

from __future__ import annotations

import functools as ft
import hashlib
import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from researchlab.numerics.dtypes import bit_width, words
from researchlab.numerics.leaves import Leaf, check_usable, is_key, leaf_of, named_leaves

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jax
    from numpy.typing import NDArray

    # The row-major number of each word, its low and its high half; None where every high half is 0.
    Position = tuple[jax.Array, jax.Array | None]

LANES = 4
_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)  # the odd primes of xxHash
_OFFSETS = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)  # the first digits of pi
_VERSION = b"researchlab fingerprint 1\0"
_WORD = 4  # bytes
_HALF = 16
_LOW_HALF = 0xFFFF
_LOW_WORD = 0xFFFFFFFF


def fingerprint(tree: Any, *, prefix: str = "", separator: str = ".") -> dict[str, str]:
    """Return the fingerprint of every leaf.

    Two leaves have the same fingerprint if their kind, dtype, shape and bits are the same: -0.0 and 0.0 differ, and so
    do the payloads of NaNs. numpy and jax arrays, weak and strong types, and all layouts and shardings are alike. It is
    no protection against somebody who wants two leaves to look the same.

    Arrays of jax are read where they are, also when they lie on the devices of several processes: then all of them have
    to call this. The functions that do it are compiled once for each dtype, shape and sharding.

    Args:
        tree: any PyTree.
        prefix: the path of ``tree`` itself.
        separator: what stands between the parts of a path.

    Returns:
        Path of the leaf to 32 hexadecimal digits, in the order of ``leaves_of``. Static leaves have the fingerprint of
        their stable text; one without such a text is left out.

    Raises:
        LeafError: a leaf is traced, or was donated; names it.
    """
    import jax

    found: dict[str, _Parts] = {}
    for path, value in named_leaves(tree, prefix=prefix, separator=separator):
        if isinstance(value, jax.Array):
            check_usable(path, value)
            kind = "key" if is_key(value) else "array"
            # All are started before the first is waited for.
            found[path] = (kind, str(value.dtype), value.shape, _compiled()(value))
        elif (parts := _parts_of(leaf_of(path, value))) is not None:
            found[path] = parts
    return dict(zip(found, _folded(list(found.values())), strict=True))


def fingerprint_leaves(leaves: Sequence[Leaf]) -> list[str | None]:
    """Return the fingerprints of leaves that are on the host, None for those that have no bits and no text."""
    parts = [_parts_of(leaf) for leaf in leaves]
    texts = iter(_folded([part for part in parts if part is not None]))
    return [None if part is None else next(texts) for part in parts]


def lanes(array: Any) -> jax.Array:
    """Return the four sums of an array or a key array, uint32 of shape ``(4,)``; can be traced."""
    import jax.numpy as jnp
    from jax import lax

    parts = _words(array)
    shape = parts[0].shape
    if not math.prod(shape):
        return jnp.zeros(LANES, jnp.uint32)
    position = _positions(shape, len(parts))
    places = [_add(position, number) for number in range(len(parts))]
    sums = tuple(
        ft.reduce(operator.add, (_mixed(word, place, lane) for word, place in zip(parts, places, strict=True)))
        for lane in range(LANES)
    )
    # XLA:CPU computes the operands of one variadic reduction on the way (20x); those of four reductions it stores.
    return jnp.stack(lax.reduce(sums, (jnp.uint32(0),) * LANES, _sum, tuple(range(len(shape)))))


_Parts = tuple[str, str, tuple[int, ...], Any]  # kind, dtype, shape, and lanes or bytes


@ft.cache
def _compiled() -> Any:
    import jax

    return jax.jit(lanes)


def _parts_of(leaf: Leaf) -> _Parts | None:
    if leaf.array is None:
        return None if leaf.static is None else (leaf.kind, leaf.dtype, leaf.shape, leaf.static.encode())
    if leaf.kind == "scalar":
        return leaf.kind, leaf.dtype, leaf.shape, leaf.array.tobytes()
    return leaf.kind, leaf.dtype, leaf.shape, _compiled()(_host_words(leaf.array))


def _host_words(array: NDArray[Any]) -> NDArray[Any]:
    """Return the words of an array as a flat array of uint8, uint16 or uint32: nothing that needs x64."""
    bits = words(array.reshape(-1))
    if bits.dtype.itemsize == 2 * _WORD:
        return bits.reshape(-1).view("<u4")
    if bits.shape[1] > 1:  # text, long double: bytes
        bits = np.pad(bits, [(0, 0), (0, -bits.shape[1] % _WORD)])
        return np.ascontiguousarray(bits).reshape(-1).view("<u4")
    return bits.reshape(-1)


def _folded(leaves: list[_Parts]) -> list[str]:
    import jax

    content = jax.device_get([bits for *_, bits in leaves])
    texts: list[str] = []
    for (kind, dtype, shape, _), bits in zip(leaves, content, strict=True):
        head = f"{kind}\0{dtype}\0{','.join(map(str, shape))}\0".encode()
        tail = bits if isinstance(bits, bytes) else np.asarray(bits).astype("<u4").tobytes()
        texts.append(hashlib.blake2b(_VERSION + head + tail, digest_size=16).hexdigest())
    return texts


def _words(array: Any) -> list[jax.Array]:
    """Return the words of each element: one array for each of the words that an element has, shaped like the array."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    if is_key(array):
        array = jax.random.key_data(array)
    array = jnp.asarray(array)
    dtype = array.dtype
    if dtype == jnp.bool_:
        return [array.astype(jnp.uint32)]
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return [*_words(lax.real(array)), *_words(lax.imag(array))]
    width = bit_width(dtype)
    if width == 8 * 2 * _WORD:
        pairs = lax.bitcast_convert_type(array, jnp.uint32)
        return [pairs[..., 0], pairs[..., 1]]
    return [lax.bitcast_convert_type(array, f"uint{width}").astype(jnp.uint32)]


def _positions(shape: tuple[int, ...], words_each: int) -> Position:
    """Return the row-major number of each element's first word."""
    import jax.numpy as jnp
    from jax import lax

    is_long = math.prod(shape) * words_each > _LOW_WORD + 1
    position: Position = (jnp.zeros(shape, jnp.uint32), jnp.zeros(shape, jnp.uint32) if is_long else None)
    stride = words_each
    for axis in reversed(range(len(shape))):
        along: Position = (lax.broadcasted_iota(jnp.uint32, shape, axis), None)
        if shape[axis] > _LOW_WORD + 1:
            along = (along[0], _high_iota(shape, axis))
        position = _add(position, _times(along, stride) if is_long else (along[0] * jnp.uint32(stride), None))
        stride *= shape[axis]
    return position


def _high_iota(shape: tuple[int, ...], axis: int) -> jax.Array:
    import jax.numpy as jnp
    from jax import lax

    block = 2 ** (8 * _WORD)
    high = lax.broadcasted_iota(jnp.uint32, (-(-shape[axis] // block), block), 0).reshape(-1)[: shape[axis]]
    return lax.broadcast_in_dim(high, shape, (axis,))


def _add(position: Position, other: Position | int) -> Position:
    """Add to a position; the high half is carried along where there is one."""
    import jax.numpy as jnp

    low, high = (jnp.uint32(other), None) if isinstance(other, int) else other
    total = position[0] + low
    if position[1] is None:
        return total, None
    carry = (total < position[0]).astype(jnp.uint32)
    return total, position[1] + carry + (jnp.uint32(0) if high is None else high)


def _times(position: Position, factor: int) -> Position:
    """Multiply a position by a number below 2^64, in halves of 16 bits."""
    import jax.numpy as jnp

    low, high = position
    factor_low, factor_high = jnp.uint32(factor & _LOW_WORD), jnp.uint32(factor >> (8 * _WORD) & _LOW_WORD)
    half, mask = jnp.uint32(_HALF), jnp.uint32(_LOW_HALF)
    middle = (low & mask) * (factor_low >> half) + ((low & mask) * (factor_low & mask) >> half)
    cross = (low >> half) * (factor_low & mask) + (middle & mask)
    over = (low >> half) * (factor_low >> half) + (middle >> half) + (cross >> half)
    over = over + low * factor_high
    return low * factor_low, over if high is None else over + high * factor_low


def _mixed(word: jax.Array, position: Position, lane: int) -> jax.Array:
    import jax.numpy as jnp

    low, high = position
    seed = low * jnp.uint32(_MULTIPLIERS[lane]) + jnp.uint32(_OFFSETS[lane])
    if high is not None:
        seed = seed ^ _mix(high * jnp.uint32(_MULTIPLIERS[lane]))  # nothing for a high half of 0
    return _mix(word ^ seed)


def _mix(word: jax.Array) -> jax.Array:
    """Return the finaliser of MurmurHash3: each bit of the input turns half of the output's."""
    import jax.numpy as jnp

    word = (word ^ (word >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> jnp.uint32(16))


def _sum(left: Any, right: Any) -> tuple[jax.Array, ...]:
    return tuple(one + other for one, other in zip(left, right, strict=True))
