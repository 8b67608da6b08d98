"""Which modules ran from compiled code that their source does not give?

Python takes a cached `.pyc` for its source when the source's time, in whole seconds, and size are those that it names.
A source that was rewritten within the second at the same size (a sweep with `sed`) is not what runs then.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import marshal
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_HEADER = 16
_WHOLE = 0xFFFFFFFF
_UNCHECKED_HASH = 0b01


def stale_modules(is_wanted: Callable[[str], bool]) -> Iterator[str]:
    """Yield the sources of loaded modules that ran from other code.

    Args:
        is_wanted: Whether a source, by its absolute path, is asked about.
    """
    for module in list(sys.modules.values()):
        found = _compiled_module(module)
        if found is None:
            continue
        source, compiled = found
        with contextlib.suppress(OSError, SyntaxError, ValueError, EOFError, TypeError):
            if _may_be_stale(source, compiled) and is_wanted(source) and _is_stale(source, compiled):
                yield source


def _compiled_module(module: ModuleType) -> tuple[str, str] | None:
    spec = getattr(module, "__dict__", {}).get("__spec__")
    # Only the plain loader: pytest's, which rewrites asserts, keeps compiled files of its own.
    if spec is None or type(getattr(spec, "loader", None)) is not importlib.machinery.SourceFileLoader:
        return None
    source, compiled = spec.origin, spec.cached
    return (source, compiled) if isinstance(source, str) and isinstance(compiled, str) else None


def _may_be_stale(source: str, compiled: str) -> bool:
    status = os.stat(source)  # noqa: PTH116
    # The times of a file that was copied are not when it came.
    return os.stat(compiled).st_mtime_ns < max(status.st_mtime_ns, status.st_ctime_ns)  # noqa: PTH116


def _is_stale(source: str, compiled: str) -> bool:
    with open(compiled, "rb") as file:  # noqa: PTH123
        data = file.read()
    if data[:4] != importlib.util.MAGIC_NUMBER:
        return False
    kind, seconds, size = (int.from_bytes(data[start : start + 4], "little") for start in (4, 8, 12))
    status = os.stat(source)  # noqa: PTH116
    is_for_source = (seconds, size) == (int(status.st_mtime) & _WHOLE, status.st_size & _WHOLE)
    if kind != _UNCHECKED_HASH and (kind != 0 or not is_for_source):
        return False  # Python compiled the source itself
    with open(source, "rb") as file:  # noqa: PTH123
        text = file.read()
    return bool(marshal.loads(data[_HEADER:]) != compile(text, source, "exec", dont_inherit=True))  # noqa: S302
