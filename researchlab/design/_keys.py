r"""How is the way to a nested value written as one key, and read back?

Parts are joined by the separator. A part that itself holds the separator or a backslash is escaped with backslashes,
every other part is written as it is: ``{"a": {"b.c": 1}}`` has the key ``a.b\\.c``. ``split(join(parts)) == parts`` for
all parts.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from researchlab.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

_BACKSLASH = "\\"


def check_separator(separator: str) -> None:
    """Raise ArgumentError where ``separator`` cannot separate parts."""
    if not separator or _BACKSLASH in separator:
        msg = f"the separator of flattened keys must be a non-empty string without backslashes, not {separator!r}"
        raise ArgumentError(msg)


def escape(part: str, separator: str) -> str:
    """Return ``part`` so that no separator can be read into it, also across the joint to the next part."""
    written: list[str] = []
    for position, char in enumerate(part):
        rest = part[position:]
        # The second test is for a part that ends on the beginning of a long separator: "a_" with "__".
        if char == _BACKSLASH or rest.startswith(separator) or separator.startswith(rest):
            written.append(_BACKSLASH)
        written.append(char)
    return "".join(written)


def join(parts: Iterable[str], separator: str, *, prefix: str = "") -> str:
    """Return the key of ``parts``; a ``prefix`` goes before it as it is."""
    key = separator.join(escape(part, separator) for part in parts)
    if not prefix:
        return key
    return f"{prefix}{separator}{key}" if key else prefix


def split(key: str, separator: str) -> tuple[str, ...]:
    """Return the parts of a key that ``join`` made; a backslash that escapes nothing stands for itself."""
    parts: list[str] = []
    part: list[str] = []
    position = 0
    while position < len(key):
        char = key[position]
        following = key[position + 1 : position + 2]
        if char == _BACKSLASH and following and (following == _BACKSLASH or following in separator):
            part.append(following)
            position += 2
        elif key.startswith(separator, position):
            parts.append("".join(part))
            part.clear()
            position += len(separator)
        else:
            part.append(char)
            position += 1
    return (*parts, "".join(part))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean ...?"`` for the closest known words, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=3)
    return f" Did you mean {', '.join(repr(name) for name in close)}?" if close else ""
