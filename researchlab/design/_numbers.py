"""Is what was given a whole number, or a positive one?"""

from __future__ import annotations

import math
import operator
from typing import Any, cast

from researchlab.errors import ArgumentError


def whole(value: object) -> int | None:
    """Return ``value`` as an int, numpy's integers too; None for what is no whole number, True and False among it."""
    try:
        return None if isinstance(value, bool) else operator.index(cast("Any", value))
    except TypeError:
        return None


def whole_number(name: str, value: object, *, at_least: int) -> int:
    """Return ``value`` as an int.

    Raises:
        ArgumentError: it is not a whole number, or smaller than ``at_least``.
    """
    number = whole(value)
    if number is None or number < at_least:
        msg = f"{name} must be a whole number of at least {at_least}; it is {value!r}"
        raise ArgumentError(msg)
    return number


def is_positive(value: object) -> bool:
    """Return whether ``value`` is a finite number above zero, and no bool."""
    try:
        return not isinstance(value, bool) and 0 < float(cast("Any", value)) < math.inf
    except (TypeError, ValueError):
        return False
