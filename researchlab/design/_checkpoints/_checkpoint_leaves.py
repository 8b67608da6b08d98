"""How do the leaves of a State become the bytes of a file, and the same leaves again?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from researchlab.design._checkpoints._structure import described
from researchlab.design._checkpoints._tensor_file import read_tensors, write_tensors
from researchlab.errors import CheckpointError, DamagedCheckpointError, LeafError
from researchlab.numerics.dtypes import bit_width, words
from researchlab.numerics.fingerprint import fingerprint, fingerprint_leaves
from researchlab.numerics.leaves import Leaf, check_usable, int_value, leaf_from_bytes, leaves_of, named_leaves

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from researchlab.design._checkpoints._manifest import StoredLeaf


def held(state: Any) -> Any:
    """Return a State that another thread may read later: arrays of this process, numpy arrays copied.

    Raises:
        CheckpointError: a leaf has no values any more, or lies on the devices of several processes; names it.
    """
    named = named_leaves(state)
    check_holdable(named)
    return with_leaves(state, [held_leaf(path, leaf) for path, leaf in named])


def check_holdable(named: Sequence[tuple[str, Any]]) -> None:
    """Raise CheckpointError where a leaf has no values: it is traced, or was donated."""
    for path, leaf in named:
        if isinstance(leaf, jax.Array):
            try:
                check_usable(path, leaf)
            except LeafError as error:
                raise CheckpointError(str(error)) from error


def held_leaf(path: str, leaf: Any) -> Any:
    """Return one leaf of ``held``."""
    if isinstance(leaf, np.ndarray):
        return leaf.copy()  # the user may change it before it is written
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if not leaf.is_fully_replicated:
        msg = (
            f"leaf {path!r} ({leaf.dtype}{list(leaf.shape)}) is sharded over several processes, and one of them cannot "
            "write it alone: use OrbaxPersister (`pip install 'researchlab[orbax]'`)."
        )
        raise CheckpointError(msg)
    return leaf.addressable_data(0)


def with_leaves(state: Any, leaves: Sequence[Any]) -> Any:
    """Return a State with other leaves, in the order of ``named_leaves``."""
    treedef = jax.tree_util.tree_structure(state, is_leaf=lambda node: node is None)
    return jax.tree_util.tree_unflatten(treedef, leaves)


def write_leaves(file: Path, state: Any) -> list[StoredLeaf]:
    """Write the values of a State to a new file, and return what to put down about them.

    Raises:
        CheckpointError: a leaf has no bits that could be stored; names it.
    """
    prints, leaves = fingerprint(state), leaves_of(state)
    stored: list[StoredLeaf] = []
    arrays: dict[str, NDArray[Any]] = {}
    for entry, leaf in zip(described(state), leaves, strict=True):
        if leaf.array is None:
            if leaf.dtype.startswith("numpy.ndarray of"):
                msg = f"leaf {leaf.path!r} is a {leaf.dtype}, which has no bits to store: make it an array of numbers"
                raise CheckpointError(msg)
            stored.append(entry)
            continue
        arrays[leaf.path] = _without_unused_bits(leaf.array)
        stored.append(entry.model_copy(update={"size": leaf.array.nbytes, "fingerprint": prints[leaf.path]}))
    with file.open("xb") as opened:
        write_tensors(opened, arrays)
        opened.flush()
        os.fsync(opened.fileno())
    return stored


def read_leaves(file: Path, entries: Sequence[StoredLeaf], like: Any) -> Any:
    """Return a State of the structure of ``like``, which is known to fit, with the values in a file.

    Raises:
        DamagedCheckpointError: the file is missing, or has other bits than were written; names the leaf.
        CheckpointError: a leaf cannot be made here; names it.
    """
    stored = [entry for entry in entries if entry.size is not None]
    content = read_tensors(file, {entry.path: entry.size or 0 for entry in stored})
    leaves = [_host_leaf(file, entry, content[entry.path]) for entry in stored]
    for entry, found in zip(stored, fingerprint_leaves(leaves), strict=True):
        if found != entry.fingerprint:
            msg = (
                f"{file} is damaged: leaf {entry.path!r} has the fingerprint {found}, {entry.fingerprint} was written. "
                "Use an older checkpoint."
            )
            raise DamagedCheckpointError(msg)
    named = dict(named_leaves(like))
    values = {entry.path: _value(entry, leaf, named[entry.path]) for entry, leaf in zip(stored, leaves, strict=True)}
    return with_leaves(like, [values.get(path, leaf) for path, leaf in named.items()])


def _without_unused_bits(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in which the unused bits of int4 and the like, which may be anything, are 0."""
    narrow = bit_width(array.dtype) < 8 * array.dtype.itemsize
    return words(array.reshape(-1)).reshape(array.shape).view(array.dtype) if narrow else array


def _host_leaf(file: Path, entry: StoredLeaf, content: NDArray[np.uint8]) -> Leaf:
    try:
        leaf = leaf_from_bytes(
            path=entry.path,
            kind=entry.kind,
            dtype=entry.dtype,
            shape=entry.shape,
            weak_type=entry.weak_type,
            data=content,
            static=None,
        )
    except ValueError as error:
        msg = f"leaf {entry.path!r} of {file} cannot be read: {error}"
        raise CheckpointError(msg) from error
    assert leaf.array is not None
    # A bit that does not count is not in the fingerprint, and a bool of 2 is neither true nor false.
    width = 1 if leaf.array.dtype == np.bool_ else bit_width(leaf.array.dtype)
    if width < 8 and bool((content >> width).any()):  # noqa: PLR2004 - bits of a byte
        msg = f"{file} is damaged: leaf {entry.path!r} has bits that a {entry.dtype} has not. Use an older checkpoint."
        raise DamagedCheckpointError(msg)
    return leaf


def _value(entry: StoredLeaf, leaf: Leaf, like: Any) -> Any:
    assert leaf.array is not None
    if entry.kind == "scalar":
        return int_value(leaf) if entry.dtype == "int" else leaf.array.item()
    if entry.holder == "numpy":
        return leaf.array
    if entry.holder == "numpy scalar":
        return leaf.array[()]
    array = _keys(entry, leaf.array) if entry.kind == "key" else _array(entry, leaf.array)
    sharding = getattr(like, "sharding", None)
    is_spread = sharding is not None and len(sharding.device_set) > 1
    return jax.device_put(array, sharding) if is_spread else array


def _keys(entry: StoredLeaf, data: NDArray[Any]) -> jax.Array:
    if not data.size:  # their bytes do not say how many words a key has
        data = np.zeros((*entry.shape, *jax.random.key_data(jax.random.key(0, impl=entry.impl)).shape), np.uint32)
    return jax.random.wrap_key_data(jnp.array(data), impl=entry.impl)


def _array(entry: StoredLeaf, data: NDArray[Any]) -> jax.Array:
    array = jnp.array(data)
    if str(array.dtype) != entry.dtype:
        msg = f"leaf {entry.path!r} is {entry.dtype}, which jax makes {array.dtype} here: set JAX_ENABLE_X64=1"
        raise CheckpointError(msg)
    return with_weak_type(array) if entry.weak_type else array


def with_weak_type(array: jax.Array) -> jax.Array:
    """Return an array as jax makes one of a Python number; a strong one would promote, and compute, differently."""
    number = {"i": 0, "f": 0.0, "c": 0j}[array.dtype.kind]
    return jnp.broadcast_to(jnp.asarray(number), array.shape).at[...].set(array)
