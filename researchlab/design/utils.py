r"""How is a nested configuration or PyTree written flat, and put together again?

Keys are joined with the separator. A key that holds the separator or a backslash itself is escaped by backslashes:
``{"a": {"b.c": 1}}`` becomes ``{"a.b\\.c": 1}``. Keys without either look as they always did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import jax

from researchlab.design._keys import check_separator, did_you_mean, join, split
from researchlab.design._nested import children
from researchlab.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pydantic

    from researchlab.design._config import Config

ConfigT = TypeVar("ConfigT", bound="Config")
Tree = TypeVar("Tree")


def flatten_config(
    config: pydantic.BaseModel | Mapping[str, Any], prefix: str = "", separator: str = "."
) -> dict[str, Any]:
    """Return the values of a configuration by key, nested models and dicts flattened.

    Lists and tuples are values and stay whole, as are dicts with keys that are not strings. An empty dict or model is
    kept as ``{}``. Fields declared with ``exclude=True`` and computed fields are left out.

    Args:
        config: a Config, another pydantic model, or a mapping.
        prefix: goes before each key, joined by the separator.
        separator: joins the parts of a key; a part that holds it is escaped by backslashes.

    Returns:
        Key to value, in the order of the fields. ``unflatten_config`` gives the same configuration back.

    Raises:
        ArgumentError: the separator is empty or holds a backslash, or ``config`` is neither a model nor a mapping.
    """
    check_separator(separator)
    if children(config) is None:
        msg = f"flatten_config takes a Config or a mapping, not {type(config).__name__}"
        raise ArgumentError(msg)
    flat: dict[str, Any] = {}

    def visit(value: object, parts: tuple[str, ...]) -> None:
        inside = children(value)
        is_container = inside is not None and all(isinstance(key, str) for key in inside)
        if inside is None or not is_container or (not inside and parts):
            flat[join(parts, separator, prefix=prefix)] = {} if is_container else value
            return
        for name, child in inside.items():
            visit(child, (*parts, name))

    visit(config, ())
    return flat


def unflatten_config(flat: Mapping[str, Any], config_cls: type[ConfigT], separator: str = ".") -> ConfigT:
    """Put a configuration together from what ``flatten_config`` gave (without a prefix).

    Args:
        flat: key to value.
        config_cls: the Config class to make; it validates the values.
        separator: the one that ``flatten_config`` was called with.

    Returns:
        A validated ``config_cls``.

    Raises:
        ArgumentError: a key is both a value and a container (``a`` and ``a.b``), or two keys name the same value.
        pydantic.ValidationError: the values do not fit ``config_cls``.
    """
    check_separator(separator)
    nested = _Branch()
    for key, value in flat.items():
        *way, name = split(key, separator)
        node = nested
        for depth, part in enumerate(way):
            child = node.setdefault(part, _Branch())
            if not isinstance(child, _Branch):
                raise _conflict(join(way[: depth + 1], separator), key)
            node = child
        if name in node:
            raise _conflict(key, next((other for other in flat if other.startswith(key + separator)), key))
        node[name] = value
    return config_cls.model_validate(nested.plain())


class _Branch(dict[str, Any]):
    """A container that was built from keys, told apart from a value that happens to be a dict."""

    def plain(self) -> dict[str, Any]:
        return {key: value.plain() if isinstance(value, _Branch) else value for key, value in self.items()}


def _conflict(key: str, other: str) -> ArgumentError:
    return ArgumentError(f"key {key!r} is both a value and, by {other!r}, a container: remove one of the two keys")


def flatten_pytree(tree: object, prefix: str = "", separator: str = ".") -> dict[str, Any]:
    """Return the leaves of a PyTree by dotted path.

    A part of a path is an attribute name, a dict key or a sequence index, whatever kind of container it is. None counts
    as a leaf here, so that an optional field which is absent shows. Leaves are given as they are: nothing is copied or
    moved.

    Args:
        tree: any PyTree (dict, list, tuple, named tuple, eqx.Module, registered node).
        prefix: goes before each path, joined by the separator.
        separator: joins the parts of a path; a part that holds it is escaped by backslashes.

    Returns:
        Path to leaf, in JAX's order of leaves. A tree that is one leaf has the path ``prefix``.

    Raises:
        ArgumentError: two leaves have the same path (the dict keys ``1`` and ``"1"``), or the separator is unusable.
    """
    check_separator(separator)
    return dict(_named_leaves(tree, separator, prefix)[0])


def unflatten_pytree(flat: Mapping[str, Any], structure: Tree, separator: str = ".") -> Tree:
    """Return ``structure`` with the leaves of ``flat`` in their places.

    Args:
        flat: path to leaf, as from ``flatten_pytree`` without a prefix. Leaves that it lacks stay as they are.
        structure: the tree to fill; it is not changed. Shapes and dtypes are not compared.
        separator: the one that ``flatten_pytree`` was called with.

    Returns:
        A tree of the same structure.

    Raises:
        ArgumentError: ``flat`` has a path that ``structure`` has not; the closest paths are named.
    """
    check_separator(separator)
    named, rebuild = _named_leaves(structure, separator, "")
    known = dict(named)
    for path in flat:
        if path not in known:
            msg = (
                f"{type(structure).__name__} has no leaf at {path!r}.{did_you_mean(path, known)}"
                f" Its {len(known)} leaves are {_some(list(known))}."
            )
            raise ArgumentError(msg)
    return cast("Tree", rebuild([flat.get(path, leaf) for path, leaf in named]))


def _named_leaves(
    tree: object, separator: str, prefix: str
) -> tuple[list[tuple[str, Any]], Callable[[Sequence[Any]], object]]:
    with_path, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is None)
    named = [(join(map(_part, path), separator, prefix=prefix), leaf) for path, leaf in with_path]
    seen: set[str] = set()
    for name, _ in named:
        if name in seen:
            kind = type(tree).__name__
            msg = f"two leaves of the {kind} have the path {name!r}: keys must differ when they are written out"
            raise ArgumentError(msg)
        seen.add(name)
    return named, lambda leaves: jax.tree_util.tree_unflatten(treedef, leaves)


def _part(entry: Any) -> str:
    return jax.tree_util.keystr((entry,), simple=True)


def _some(names: list[str], at_most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:at_most])
    return f"{shown}, ..." if len(names) > at_most else shown or "none"
