"""What are the hyperparameters of a run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


class Config(pydantic.BaseModel):
    """Immutable hyperparameters, validated when they are made.

    Subclass it with typed fields; a field may be another Config. An unknown field name is an error, defaults are
    validated as given values are (``lr: float = 1`` is ``1.0``), NaN and infinities survive ``model_dump_json``. It is
    hashable, and so can be an argument of ``eqx.filter_jit``, where its fields are: use tuples instead of lists.

    Example:
        >>> class Settings(Config):
        ...     learning_rate: float = 1e-3
        ...     widths: tuple[int, ...] = (64, 64)
        >>> Settings(learning_rate=0.1).learning_rate
        0.1
    """

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        populate_by_name=True,
        ser_json_inf_nan="constants",
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy; unlike pydantic's own, ``update`` is validated.

        Args:
            update: field name to new value.
            deep: also copy the values.

        Raises:
            pydantic.ValidationError: a value of ``update`` does not fit, or names no field.
        """
        copied = super().model_copy(update=update, deep=deep)
        if not update:
            return copied
        values = vars(copied)
        return type(self).model_validate({name: values[name] for name in copied.model_fields_set if name in values})
