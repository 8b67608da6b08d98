"""Which leaves and static fields does a State have, and where do those of a checkpoint differ?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from researchlab.design._checkpoints._manifest import StoredLeaf
from researchlab.errors import CheckpointError
from researchlab.numerics.dtypes import dtype_name
from researchlab.numerics.leaves import is_key, named_leaves, path_text
from researchlab.numerics.statics import static_text, type_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_FAMILIES = ("bool", "int", "float", "complex")
_SHOWN_AT_MOST = 8


def described(tree: Any) -> list[StoredLeaf]:
    """Return the leaves of a tree without their values, which may be abstract, or donated.

    Raises:
        CheckpointError: two leaves have the same path.
    """
    leaves = [_described(path, value) for path, value in named_leaves(tree)]
    seen: set[str] = set()
    for leaf in leaves:
        if leaf.path in seen:
            msg = (
                f"two leaves of the {type(tree).__name__} have the path {leaf.path!r}: keys must differ when they are "
                "written out"
            )
            raise CheckpointError(msg)
        seen.add(leaf.path)
    return leaves


def check_comes_back(tree: Any) -> None:
    """Check that each leaf is stored, or told again when it is found in the State that a checkpoint is loaded into.

    Raises:
        CheckpointError: two leaves have the same path, or one is an object that nobody could tell from another.
    """
    for leaf in described(tree):
        if leaf.kind == "static" and leaf.static is None:
            msg = (
                f"leaf {leaf.path!r} is a {leaf.dtype}: a checkpoint can neither store it nor tell it from another"
                " one, so that a resumed run might go on with other values. Keep what changes in arrays and numbers (a"
                " key of jax.random instead of a generator), and declare static what does not:"
                " equinox.field(static=True)"
            )
            raise CheckpointError(msg)


def static_fields(tree: Any) -> dict[str, str]:
    """Return path to stable text of every field that is declared static; those without such a text are left out."""
    return dict(_static_fields(tree, ()))


def check_structure(
    where: Path,
    tree: Any,
    stored: Sequence[StoredLeaf],
    stored_fields: Mapping[str, str],
) -> None:
    """Raise CheckpointError, with a line for each difference, where a checkpoint is of another structure than ``tree``.

    A Python number and an array of shape () take each other's place if both are integers, or both floats, and so on:
    the first step of a simulation may turn one into the other.
    """
    wanted = {leaf.path: leaf for leaf in described(tree)}
    found = {leaf.path: leaf for leaf in stored}
    lines = [
        f"{path!r}: {leaf.describe()} stored, nothing expected" for path, leaf in found.items() if path not in wanted
    ]
    lines += [
        f"{path!r}: nothing stored, {leaf.describe()} expected" for path, leaf in wanted.items() if path not in found
    ]
    lines += [
        f"{path!r}: {leaf.describe()} stored, {wanted[path].describe()} expected"
        for path, leaf in found.items()
        if path in wanted and not _fit(leaf, wanted[path])
    ]
    fields = static_fields(tree)
    lines += [
        f"{path!r}: static {text} stored, static {fields[path]} expected"
        for path, text in stored_fields.items()
        if path in fields and not _same_static(text, fields[path])
    ]
    if not lines:
        return
    listed = "\n  ".join(lines[:_SHOWN_AT_MOST])
    more = f"\n  and {len(lines) - _SHOWN_AT_MOST} more" if len(lines) > _SHOWN_AT_MOST else ""
    msg = (
        f"checkpoint {where} does not fit the {type(tree).__name__} it is loaded into:\n  {listed}{more}\n"
        "Load it into a State built with the code and config that saved it, or use another checkpoint."
    )
    raise CheckpointError(msg)


def _described(path: str, value: Any) -> StoredLeaf:
    if isinstance(value, (jax.Array, jax.ShapeDtypeStruct)):
        shape, weak = tuple(value.shape), bool(getattr(value, "weak_type", False))
        if is_key(value):
            # Empty keys of the dtype: an abstract leaf has no implementation to ask for.
            impl = str(jax.random.key_impl(jnp.zeros((), value.dtype)))
            return StoredLeaf(path=path, kind="key", holder="jax", dtype=str(value.dtype), shape=shape, impl=impl)
        return StoredLeaf(path=path, kind="array", holder="jax", dtype=str(value.dtype), shape=shape, weak_type=weak)
    if isinstance(value, (np.ndarray, np.generic)) and not isinstance(value, np.ma.MaskedArray):
        name = dtype_name(value.dtype)
        if name is not None:
            holder = "numpy" if isinstance(value, np.ndarray) else "numpy scalar"
            return StoredLeaf(path=path, kind="array", holder=holder, dtype=name, shape=value.shape)
        return StoredLeaf(path=path, kind="static", dtype=f"numpy.ndarray of {value.dtype}", shape=value.shape)
    if type(value) in {bool, int, float, complex}:
        return StoredLeaf(path=path, kind="scalar", dtype=type(value).__name__)
    return StoredLeaf(path=path, kind="static", dtype=type_text(type(value)), static=static_text(value))


def _fit(stored: StoredLeaf, wanted: StoredLeaf) -> bool:
    if stored.kind == wanted.kind == "static":
        return stored.dtype == wanted.dtype and _same_static(stored.static, wanted.static)
    if stored.shape == wanted.shape == () and {stored.kind, wanted.kind} <= {"scalar", "array"}:
        is_number = "scalar" in {stored.kind, wanted.kind}
        return stored.dtype == wanted.dtype or (is_number and _family(stored.dtype) == _family(wanted.dtype))
    return (stored.kind, stored.dtype, stored.shape) == (wanted.kind, wanted.dtype, wanted.shape)


def _family(dtype: str) -> str | None:
    return next((family for family in _FAMILIES if family in dtype), None)


def _same_static(stored: str | None, wanted: str | None) -> bool:
    if stored is None or wanted is None:
        return True
    # A script is `__main__` when it is started, and has a name when a test imports it.
    if ("__main__." in stored) != ("__main__." in wanted):
        return True
    return stored == wanted


def _static_fields(node: Any, way: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        for field in dataclasses.fields(node):
            text = static_text(getattr(node, field.name, None)) if field.metadata.get("static") else None
            if text is not None:
                yield path_text((*way, jax.tree_util.GetAttrKey(field.name))), text
    children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)[0]
    for key, child in children:
        if key:
            yield from _static_fields(child, (*way, *key))
