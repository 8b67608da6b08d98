"""How does a package offer its public names without loading what they stand for (PEP 562)?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package whose names are loaded at their first use.

    Args:
        package: The package's ``__name__``.
        names: Public name to the module that defines it.

    Returns:
        The two functions.
    """

    def load(name: str) -> Any:
        if name not in names:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message)
        return getattr(importlib.import_module(names[name]), name)

    return load, lambda: sorted(names)
