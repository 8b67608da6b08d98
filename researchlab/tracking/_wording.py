"""How are the facts of a run put into words for a terminal?"""

from __future__ import annotations

import contextlib
import re
import shlex
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from researchlab.tracking.record import CommandRecord, SnapshotRecord

_NAMED = 5

_store_option: ContextVar[str] = ContextVar("researchlab_store_option", default="tracking_uri=")

# What moves a cursor, ends a line or turns the direction of the text, and the lone surrogates that stand for bytes
# which are not UTF-8. A record may come from somebody else.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def store_option() -> str:
    """Return how who called us names a store: ``tracking_uri=``, or the option of a command line."""
    return _store_option.get()


@contextlib.contextmanager
def with_store_option(name: str) -> Generator[None]:
    """Let messages of the block name the store by this option."""
    token = _store_option.set(name)
    try:
        yield
    finally:
        _store_option.reset(token)


def printable(text: str) -> str:
    """Return the text in one line that cannot drive a terminal: control characters and stray bytes are escaped."""
    return _UNPRINTABLE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Return the text with everything but its line feeds escaped, as ``printable`` does."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if "\udc80" <= character <= "\udcff":  # a byte that surrogateescape carried
        return f"\\x{ord(character) - 0xDC00:02x}"
    return _SHORT.get(character) or character.encode("unicode_escape", errors="surrogatepass").decode()


def some(names: Sequence[str], *, most: int = _NAMED) -> str:
    """Return the first names in a line, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 file``, ``2 files``."""
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def changed_files(snapshot: SnapshotRecord, noun: str = "file") -> str:
    """Return how many files changed: ``10 files``, ``10 files and 4 in repositories inside``."""
    inside = sum(len(nested.changed) for nested in snapshot.nested)
    own = len(snapshot.changed)
    if inside and not own:
        return f"{counted(inside, noun)} in repositories inside"
    return counted(own, noun) + (f" and {inside} in repositories inside" if inside else "")


def age(seconds: float) -> str:
    """Return how long ago something was, in its largest unit: ``12 s``, ``3 h``, ``40 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{int(seconds // size)} {unit}"
    return f"{max(int(seconds), 0)} s"


def duration(seconds: float) -> str:
    """Return how long something took: ``0.31 s``, ``12.4 s``, ``3 min 20 s``, ``5 h 02 min``."""
    seconds = max(seconds, 0.0)
    if seconds < 59.95:  # noqa: PLR2004
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"  # noqa: PLR2004
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(number: int) -> str:
    """Return a number of bytes: ``812 B``, ``1.4 MB``."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:  # noqa: PLR2004
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def typed_command(command: CommandRecord) -> str:
    """Return the command as a person would type it."""
    words = ["python", *command.flags]
    if command.kind == "module":
        words.append("-m")
    elif command.kind == "code":
        words.append("-c")
    elif command.kind == "pytest":
        words += ["-m", "pytest"]
    text = shlex.join([*words, *([command.target] if command.target else []), *command.argv])
    where = "" if command.cwd in {None, "."} else f"  (in {command.cwd}/)"
    which = f"  (run {command.ordinal + 1} of the process)" if command.ordinal else ""
    return text + where + which
