"""What is inside a nested configuration or metrics mapping, and under which plain name?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pydantic

from researchlab.errors import ArgumentError


def children(value: object) -> dict[Any, Any] | None:
    """Return what a model or mapping holds by name, or None where ``value`` is a value and not a container.

    A field that was declared with ``exclude=True`` stays out, as in pydantic's own dump.
    """
    if isinstance(value, pydantic.RootModel):
        return None
    if isinstance(value, pydantic.BaseModel):
        fields = type(value).model_fields
        inside = {name: getattr(value, name) for name, field in fields.items() if not field.exclude}
        return {**inside, **(value.model_extra or {})}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    return None


def flatten_names(nested: object, *, what: str) -> dict[str, Any]:
    """Return the values of a model or of nested mappings by dotted name, for a store that knows flat names only.

    Names are joined as they are, without escapes, because a store shows them to people. An empty mapping stays as a
    value.

    Args:
        nested: a pydantic model or a mapping.
        what: what the values are ("metric", "parameter"), for messages.

    Raises:
        ArgumentError: two values have the same dotted name.
    """
    flat: dict[str, Any] = {}

    def visit(value: object, name: str | None) -> None:
        inside = children(value)
        if name is not None and not inside:
            if name in flat:
                msg = f"two values have the {what} name {name!r}: rename one of them"
                raise ArgumentError(msg)
            flat[name] = value if inside is None else {}
            return
        for key, child in (inside or {}).items():
            visit(child, str(key) if name is None else f"{name}.{key}")

    visit(nested, None)
    return flat
