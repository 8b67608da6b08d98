"""A tree of numbers as a flat list of leaves whose bits can be stored and compared.

jax is imported when a tree is flattened, never before: whoever holds a State has loaded it already.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from researchlab.errors import LeafError
from researchlab.numerics.dtypes import array_from, dtype_name, exact
from researchlab.numerics.scalars import decode_scalar, encode_int, scalar_text
from researchlab.numerics.statics import static_text, type_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Kind = Literal["array", "key", "scalar", "static"]

_SCALARS = {"bool": "bool", "int": "int64", "float": "float64", "complex": "complex128"}
_INT64_BYTES = 8
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """One leaf of a tree, on the host.

    Attributes:
        path: where it is in the tree (``model.layers.0.weight``).
        kind: "array" (jax or numpy), "key" (typed PRNG keys), "scalar" (a Python number), "static" (anything else).
        dtype: the name of the dtype (``float32``, ``bfloat16``, ``int4``); of a key as jax prints it (``key<fry>``); of
            a Python number ``bool``, ``int``, ``float`` or ``complex``; of a static leaf its type.
        shape: the logical shape; of keys the shape of the key array.
        weak_type: whether jax holds the dtype for weak.
        array: the exact bits, C-contiguous and little-endian; may share memory with the leaf. Of keys their key data,
            uint32 of shape ``(*shape, words)``. Of a Python number shape ``()``; an int beyond 64 bits is the uint8
            bytes of its shortest two's complement. None for a static leaf.
        static: a text that is the same in every process where the leaf is; None for the other kinds, and for a static
            leaf that has no such text and so cannot be compared.
    """

    path: str
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    weak_type: bool
    array: NDArray[Any] | None
    static: str | None

    @property
    def comparable(self) -> bool:
        """Whether the leaf can be told from another at all."""
        return self.array is not None or self.static is not None

    def describe(self) -> str:
        """Return what the leaf is, without its values: ``float32[3,2]``, ``static mlp.relu``."""
        if self.kind == "static":
            return f"static {self.static if self.static is not None else f'{self.dtype} (no stable text)'}"
        if self.kind == "scalar":
            return f"Python {self.dtype}"
        return f"{self.dtype}[{','.join(map(str, self.shape))}]{' weak' if self.weak_type else ''}"


def leaves_of(tree: Any, *, prefix: str = "", separator: str = ".") -> list[Leaf]:
    """Flatten ``tree`` as jax does, and bring every leaf to the host with its exact bits.

    Arrays on the CPU are shared, not copied, wherever their layout allows: copy what you keep while the tree is changed
    in place. Arrays on other devices are fetched together.

    Args:
        tree: any PyTree.
        prefix: the path of ``tree`` itself, put before every leaf's.
        separator: what stands between the parts of a path; a part that holds it is escaped by backslashes.

    Returns:
        The leaves in jax's order, None among them (an optional field that is absent). Equinox's static fields are part
        of the structure, not leaves: see ``structure_text``.

    Raises:
        LeafError: a leaf is traced, was donated, or lies partly on another process's devices.
    """
    import jax

    found = named_leaves(tree, prefix=prefix, separator=separator)
    for path, leaf in found:
        if isinstance(leaf, jax.Array):
            _check_readable(path, leaf)
            if not is_key(leaf):
                leaf.copy_to_host_async()
    return [leaf_of(path, leaf) for path, leaf in found]


def named_leaves(tree: Any, *, prefix: str = "", separator: str = ".") -> list[tuple[str, Any]]:
    """Return path and leaf as they are, in the order of ``leaves_of``."""
    import jax

    return [
        (separator.join(filter(None, (prefix, path_text(keys, separator=separator)))), leaf)
        for keys, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is None)[0]
    ]


def leaf_from_bytes(
    *, path: str, kind: str, dtype: str, shape: tuple[int, ...], weak_type: bool, data: Any, static: str | None
) -> Leaf:
    """Return the leaf whose array has the bytes ``data`` (anything with a buffer, shared; None for a static leaf).

    Raises:
        ValueError: the bytes do not fit the kind, dtype and shape, or the dtype is unknown here.
    """
    if kind not in get_args(Kind) or (data is None) != (kind == "static"):
        msg = f"leaf {path!r} has the unknown kind {kind!r}, or data where there is none"
        raise ValueError(msg)
    array: NDArray[Any] | None = None
    if data is not None:
        length = memoryview(data).nbytes
        if kind == "key":
            keys = math.prod(shape)
            array = array_from("uint32", data, (*shape, length // 4 // keys if keys else 0))
        elif kind == "scalar" and dtype == "int" and length != _INT64_BYTES:
            array = array_from("uint8", data, (length,))
        else:
            array = array_from(_SCALARS.get(dtype, dtype) if kind == "scalar" else dtype, data, shape)
    return Leaf(path, cast("Kind", kind), dtype, shape, weak_type, array, static)


def path_text(keys: Iterable[Any], *, separator: str = ".") -> str:
    """Return a jax key path as text, as ``flatten_pytree`` spells it.

    Attribute names, dict keys and sequence indices, joined by ``separator``; a part that holds the separator or a
    backslash is escaped by backslashes.
    """
    import jax

    return separator.join(_escaped(jax.tree_util.keystr((key,), simple=True), separator) for key in keys)


def structure_text(tree: Any) -> str:
    """Return the structure of ``tree`` as jax prints it (static fields included), without the addresses of objects."""
    import jax

    return _ADDRESS.sub("", str(jax.tree_util.tree_structure(tree)))


def leaf_text(leaf: Leaf, index: tuple[int, ...] = ()) -> str:
    """Return the value of a leaf (of an array: its element at ``index``) in decimal and in bits."""
    if leaf.array is None:
        return leaf.static if leaf.static is not None else f"{leaf.dtype} (no stable text)"
    if leaf.kind == "scalar" and leaf.dtype == "int":
        value = int_value(leaf)
        return f"{value} ({value:#x})" if leaf.array.ndim == 0 else f"{value:#x}"
    element = np.asarray(leaf.array[index])
    return scalar_text(dtype_name(element.dtype) or "", element.tobytes())


def int_value(leaf: Leaf) -> int:
    """Return the value of a Python int's leaf."""
    assert leaf.array is not None
    return int(decode_scalar("int", leaf.array.tobytes()))


def _escaped(part: str, separator: str) -> str:
    if part.isalnum() and not separator.isalnum():
        return part
    return "".join(
        f"\\{char}" if char == "\\" or part.startswith(separator, at) or separator.startswith(part[at:]) else char
        for at, char in enumerate(part)
    )


def check_usable(path: str, leaf: Any) -> None:
    """Raise LeafError where a jax array has no values: it is traced, or was donated."""
    from jax.core import Tracer

    if isinstance(leaf, Tracer):
        msg = f"Leaf {path!r} is traced ({leaf.aval}): record the State outside of jit, grad, vmap and scan."
        raise LeafError(msg)
    if leaf.is_deleted():
        msg = (
            f"Leaf {path!r} was deleted (its buffer was donated to a jitted function): record the State that the "
            "function returned."
        )
        raise LeafError(msg)


def _check_readable(path: str, leaf: Any) -> None:
    check_usable(path, leaf)
    if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        msg = (
            f"Leaf {path!r} ({leaf.dtype}{list(leaf.shape)}) lies partly on devices of other processes. Gather it "
            "first: `jax.experimental.multihost_utils.process_allgather(state, tiled=True)`."
        )
        raise LeafError(msg)


def is_key(array: Any) -> bool:
    """Return whether an array (or a shape and dtype) is one of typed PRNG keys."""
    import jax

    # A dtype like `key<fry>` is none of numpy's, and only jax knows what it is.
    return jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key)


def leaf_of(path: str, value: Any) -> Leaf:
    """Return one leaf, fetched from its device."""
    import jax

    if isinstance(value, jax.Array):
        if is_key(value):
            data = exact(np.asarray(jax.random.key_data(value)))
            return Leaf(path, "key", str(value.dtype), value.shape, weak_type=False, array=data, static=None)
        return _array_leaf(path, np.asarray(value), weak_type=bool(value.weak_type))
    if isinstance(value, (np.ndarray, np.generic)) and not isinstance(value, np.ma.MaskedArray):
        return _array_leaf(path, np.asarray(value), weak_type=False)
    kind = type(value)
    if kind in {bool, int, float, complex}:
        if kind is int:
            dtype, bits = encode_int(cast("int", value))
            array = np.frombuffer(bits, np.uint8) if dtype == "int" else np.array(value, "<i8")
        else:
            array = exact(np.array(value))
        return Leaf(path, "scalar", kind.__name__, (), weak_type=False, array=array, static=None)
    return Leaf(path, "static", type_text(kind), (), weak_type=False, array=None, static=static_text(value))


def _array_leaf(path: str, array: NDArray[Any], *, weak_type: bool) -> Leaf:
    dtype = dtype_name(array.dtype)
    if dtype is None:  # objects, records, variable-width strings: no bits to compare
        return Leaf(
            path, "static", f"numpy.ndarray of {array.dtype}", array.shape, weak_type=False, array=None, static=None
        )
    return Leaf(path, "array", dtype, array.shape, weak_type=weak_type, array=exact(array), static=None)
