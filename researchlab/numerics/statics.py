"""Which text stands for a value that is not a number, the same in every process?

The text must tell two values apart (so no ``repr`` that elides or rounds) and must not change between processes (so no
address and no hash order). What has no such text gets none, and cannot be compared.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools as ft
import pathlib
import re
import types
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

_BY_REPR = (
    str,
    bytes,
    bytearray,
    bool,
    int,
    float,
    complex,
    range,
    slice,
    type(None),
    type(...),
    type(NotImplemented),
    decimal.Decimal,
    fractions.Fraction,
    dt.date,
    dt.time,
    dt.datetime,
    dt.timedelta,
    uuid.UUID,
    re.Pattern,
)
_DEEPEST = 20


def static_text(value: Any) -> str | None:
    """Return the stable text of ``value``, or None where there is none.

    Text, numbers, dates and the like as ``repr`` gives them; enum members, types and functions by module and qualified
    name (two lambdas of one function share theirs); paths, partials, containers and dataclasses by what they are made
    of.
    """
    return _text(value, _DEEPEST)


def type_text(kind: type) -> str:
    """Return ``module.QualName`` of a type, without the module for the builtins."""
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _text(value: Any, depth: int) -> str | None:
    kind = type(value)
    if depth == 0:  # a container that holds itself
        return None
    if isinstance(value, enum.Enum):
        # A Flag in which nothing is set has no name.
        inner = value.name or _text(value.value, depth - 1)
        return None if inner is None else f"{type_text(kind)}.{inner}"
    if kind in _BY_REPR:
        return repr(value)
    if isinstance(value, pathlib.PurePath):
        return f"{type_text(kind)}({value.as_posix()!r})"
    if isinstance(value, np.dtype):
        return f"dtype({value.name!r})"
    if isinstance(value, ft.partial):
        return _call("functools.partial", (value.func, value.args, value.keywords), depth)
    if kind in {list, tuple, dict, set, frozenset}:
        return _container(value, depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _call(type_text(kind), (getattr(value, field.name) for field in dataclasses.fields(value)), depth)
    return _named(value, depth)


def _named(value: Any, depth: int) -> str | None:
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__}"
    owner = getattr(value, "__self__", None)
    if isinstance(value, types.MethodType) or (owner is not None and not isinstance(owner, types.ModuleType)):
        inner = _text(owner, depth - 1)
        return None if inner is None else f"{inner}.{value.__name__}"
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{module}.{name}".removeprefix("builtins.") if isinstance(module, str) and isinstance(name, str) else None


def _container(value: Any, depth: int) -> str | None:
    if isinstance(value, dict):
        return _call("dict", (item for pair in value.items() for item in pair), depth)
    inner = [_text(item, depth - 1) for item in value]
    if isinstance(value, (set, frozenset)):
        inner.sort(key=lambda text: text or "")  # the order of a set is the order of its hashes
    return _joined(type(value).__name__, inner)


def _call(name: str, parts: Iterable[Any], depth: int) -> str | None:
    return _joined(name, [_text(part, depth - 1) for part in parts])


def _joined(name: str, inner: list[str | None]) -> str | None:
    known = [text for text in inner if text is not None]
    return f"{name}({', '.join(known)})" if len(known) == len(inner) else None
