"""Where in a State or Config does a dotted path lead?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import pydantic

from researchlab.design._keys import did_you_mean, split
from researchlab.errors import FieldPathError

_INDEX = re.compile(r"-?[0-9]+")
_SHOWN_AT_MOST = 12


@dataclasses.dataclass(frozen=True)
class FieldPath:
    """A path such as ``state.layers.0.weight``, checked and taken apart.

    Attributes:
        argument: the kernel's argument that takes what the path leads to.
        text: the path as it was written.
        root: what the path starts at.
        parts: the attribute names, keys and indices after the root; never empty.
    """

    argument: str
    text: str
    root: Literal["state", "config"]
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, argument: str, text: object) -> FieldPath:
        """Take a path apart; a dict key that holds a dot is written with a backslash before the dot.

        Raises:
            FieldPathError: the text is not ``state.`` or ``config.`` followed by dot-separated parts.
        """
        wanted = "write it as in 'state.position' or 'config.optimiser.learning_rate'"
        if not isinstance(text, str):
            msg = f"the path of argument {argument!r} is {text!r}, a {type(text).__name__}, not a string: {wanted}"
            raise FieldPathError(msg)
        root, *parts = split(text, ".")
        if root not in ("state", "config") or not parts:
            msg = f"the path {text!r} of argument {argument!r} does not start with 'state.' or 'config.': {wanted}"
            raise FieldPathError(msg)
        if not all(parts):
            msg = f"the path {text!r} of argument {argument!r} has an empty part: {wanted}"
            raise FieldPathError(msg)
        return cls(argument, text, root, tuple(parts))

    def follow(self, state: object, config: object) -> Any:
        """Return what the path leads to.

        Raises:
            FieldPathError: a part is missing; the message names the part and what is there instead.
        """
        node: Any = state if self.root == "state" else config
        for depth, part in enumerate(self.parts):
            try:
                node = _enter(node, part)
            except _MissingPartError as missing:
                raise self._missing(node, depth) from missing.__cause__
        return node

    def _missing(self, node: object, depth: int) -> FieldPathError:
        part = self.parts[depth]
        where = ".".join((self.root, *self.parts[:depth]))
        names = _names(node)
        return FieldPathError(
            f"the path {self.text!r} of argument {self.argument!r} stops at {part!r}:"
            f" {where} is {_describe(node, names)}.{did_you_mean(part, names)}"
        )


class _MissingPartError(Exception):
    """A part of a path is not there."""


def _enter(node: Any, part: str) -> Any:
    index = int(part) if _INDEX.fullmatch(part) else None
    if isinstance(node, Mapping):
        mapping = cast("Mapping[Any, Any]", node)
        for key in (part, index):
            if key is not None and key in mapping:
                return mapping[key]
        raise _MissingPartError
    if index is not None:
        # JAX clamps an index that is out of bounds instead of raising.
        length = _length(node)
        if length is None or not -length <= index < length:
            raise _MissingPartError
        return node[index]
    try:
        return getattr(node, part)
    except AttributeError as error:
        if hasattr(type(node), part):
            raise  # a property that failed has more to say than that it is missing
        raise _MissingPartError from error


def _length(node: Any) -> int | None:
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):
        return len(cast("Sequence[Any]", node))
    shape = getattr(node, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(node, "__getitem__"):
        return cast("int", shape[0])
    return None


def _names(node: object) -> list[str]:
    if isinstance(node, Mapping):
        return [str(key) for key in cast("Mapping[Any, Any]", node)]
    if isinstance(node, pydantic.BaseModel):
        return list(type(node).model_fields)
    if dataclasses.is_dataclass(node):
        return [field.name for field in dataclasses.fields(node)]
    fields = getattr(node, "_fields", None)
    if fields is not None:
        return list(fields)
    return [name for name in getattr(node, "__dict__", {}) if not name.startswith("_")]


def _describe(node: Any, names: list[str]) -> str:
    kind = type(node).__name__
    if node is None:
        return "None"
    shape = getattr(node, "shape", None)
    if isinstance(shape, tuple):
        return f"an array of shape {shape}"
    if isinstance(node, Sequence) and not isinstance(node, str) and not hasattr(node, "_fields"):
        return f"a {kind} of length {len(cast('Sequence[Any]', node))}"
    shown = ", ".join(names[:_SHOWN_AT_MOST]) + (", ..." if len(names) > _SHOWN_AT_MOST else "")
    what = "keys" if isinstance(node, Mapping) else "fields"
    return f"a {kind} with {what} {shown}" if names else f"a {kind} without {what}"
