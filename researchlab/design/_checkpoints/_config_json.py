"""How is a configuration written as JSON so that the same one comes back?"""

from __future__ import annotations

import json
from typing import Any

import pydantic

from researchlab.errors import CheckpointError


def config_to_json(config: Any) -> Any:
    """Return a configuration as JSON has it.

    Any pydantic model, dataclass, dict, list or number will do, NaN, infinities and -0.0 included.

    Returns:
        What ``json.dumps`` takes; None where a configuration that is no pydantic model cannot be written so that it
        comes back.

    Raises:
        CheckpointError: a pydantic model does not come back from JSON as it was; names the field.
    """
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type(config))
        # Python makes the text: where a model does not say otherwise, pydantic writes NaN as null.
        value = adapter.dump_python(config, mode="json", warnings=False)
        restored = adapter.validate_json(json.dumps(value))
    except (pydantic.errors.PydanticUserError, ValueError, TypeError, RecursionError) as error:
        if isinstance(config, pydantic.BaseModel):
            first_line = " ".join(str(error).split())[:300]
            msg = f"the config {type(config).__name__} cannot be written as JSON and read back: {first_line}"
            raise CheckpointError(msg) from error
        return None
    if not isinstance(config, pydantic.BaseModel):
        return value if _same(restored, config) else None
    for name in type(config).model_fields:
        before, after = getattr(config, name), getattr(restored, name)
        if not _same(before, after):
            msg = (
                f"the config's field {type(config).__name__}.{name} does not come back from JSON: {before!r:.100} "
                f"becomes {after!r:.100}. Give it a type that says what it holds (a tuple, a discriminated union, "
                "pydantic.SerializeAsAny), and do not exclude it."
            )
            raise CheckpointError(msg)
    return value


def config_from_json(value: Any, like: Any, where: str) -> Any:
    """Return the configuration that ``config_to_json`` wrote.

    Args:
        value: what it returned.
        like: a configuration of the class that is wanted; given back where it is None.
        where: the checkpoint, for the error.

    Raises:
        CheckpointError: the stored values do not fit the class any more.
    """
    if value is None:
        return like
    kind = type(like)
    try:
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(value))
    except (pydantic.errors.PydanticUserError, ValueError) as error:
        msg = (
            f"the config in {where} does not fit {kind.__name__}:\n{error}\nLoad it with the code that saved it, "
            "give new fields a default, or start anew."
        )
        raise CheckpointError(msg) from error


def _same(before: Any, after: Any) -> bool:
    try:
        equal = type(before) is type(after) and bool(before == after)
    except Exception:  # noqa: BLE001 - whatever a value's own comparison raises
        equal = False
    return equal or repr(before) == repr(after)
