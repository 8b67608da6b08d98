"""Where did this process start? Noted when researchlab is first imported: a script may change its directory later."""

from __future__ import annotations

import os
from typing import Final

try:
    _folder = os.getcwd()  # noqa: PTH109 (pathlib would cost a plain `import researchlab` its import)
except FileNotFoundError:
    _folder = os.sep  # the folder was removed under the process

#: The working directory at the first import.
FOLDER: Final[str] = _folder
