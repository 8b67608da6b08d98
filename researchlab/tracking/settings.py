"""What may a snapshot take in, and what does this repository say of it in its `pyproject.toml`?"""

from __future__ import annotations

import re
import stat
import tomllib
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from researchlab.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def _bytes(value: Any) -> Any:
    """Read ``"10 MiB"`` as a number of bytes."""
    if isinstance(value, bool):
        message = "it is true or false, and a size is wanted"
        raise ValueError(message)  # noqa: TRY004 - what pydantic reports
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)\s*", value, re.IGNORECASE | re.ASCII)
    if found is None or found[2].upper() not in _UNITS:
        message = f"{value!r} is no size: write a number of bytes, or one with a unit, as in '10 MiB'"
        raise ValueError(message)
    return int(Fraction(found[1]) * _UNITS[found[2].upper()])


Size = Annotated[int, pydantic.BeforeValidator(_bytes), pydantic.Field(ge=0)]


class Settings(pydantic.BaseModel):
    """The table ``[tool.researchlab]`` of ``pyproject.toml``; sizes are bytes, or text such as ``"10 MiB"``.

    Attributes:
        largest_file: Bytes of the largest changed file that a snapshot takes in.
        largest_snapshot: Bytes of all changed files together; beyond, the largest are left out.
        most_files: Number of untracked files; beyond, the folders with the most of them are left out.
        largest_bundle: Bytes of the commits that no remote has and that are kept with a run.
        largest_input: Bytes of the largest file that was read or imported and is copied into the record or an export.
        allow_secrets: Globs of paths that are captured although they look like secrets, matched against the whole path;
            ``*`` stands for any characters, ``/`` included (Python's ``fnmatch``).
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )

    largest_file: Size = 100 << 20
    largest_snapshot: Size = 256 << 20
    most_files: int = pydantic.Field(default=100_000, ge=0, strict=True)
    largest_bundle: Size = 64 << 20
    largest_input: Size = 16 << 20
    allow_secrets: tuple[str, ...] = ()


def read_settings(top: Path) -> Settings:
    """Read the settings of a repository; one without the table, or without the file, has the defaults.

    Args:
        top: Root of the work tree.

    Returns:
        The settings.

    Raises:
        SettingsError: The file is no TOML, or the table holds something that it does not know.
    """
    path = top / "pyproject.toml"
    try:
        # Opening a FIFO would wait for somebody to write to it.
        text = path.read_text(encoding="utf-8-sig") if stat.S_ISREG(path.stat().st_mode) else ""
    except (FileNotFoundError, NotADirectoryError):
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        message = f"The settings in {path} cannot be read: {error}"
        raise SettingsError(message) from error
    if "researchlab" not in text:
        return Settings()
    try:
        tool = tomllib.loads(text).get("tool", {})
        table = tool.get("researchlab", {}) if isinstance(tool, dict) else {}
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message = f"{path} is no TOML, so that the table [tool.researchlab] cannot be read: {error}"
        raise SettingsError(message) from error
    try:
        return Settings.model_validate(table)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("tool", "researchlab", *(str(part) for part in first["loc"])))
        what = (
            "no such setting"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ").replace("tuple", "array")
        )
        known = ", ".join(name.replace("_", "-") for name in Settings.model_fields)
        message = f"{path}: '{where}': {what}. The table takes: {known}."
        raise SettingsError(message) from error
