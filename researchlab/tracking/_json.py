"""How is a JSON document read that somebody else may have written?"""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse a document that says one thing only.

    Raises:
        ValueError: It is not JSON, a name stands in an object twice, or it is nested deeper than any of ours.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        message = "it is nested too deep"
        raise ValueError(message) from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        message = f"the name {twice[:80]!r} stands in an object twice"
        raise ValueError(message)
    return found
