"""How does a warning point at the line of the user's program, however deep it arises?"""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

from researchlab.errors import ResearchlabWarning

_OURS = (str(Path(__file__).parents[1]), contextlib.__file__)


def warn(message: str) -> None:
    """Warn at the innermost line that is not researchlab's own."""
    level = 1
    frame = sys._getframe(1)  # noqa: SLF001 (what `warnings` itself uses; Python 3.12 has skip_file_prefixes)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        level += 1
        frame = frame.f_back
    warnings.warn(message, ResearchlabWarning, stacklevel=level + 1 if frame is not None else 2)
