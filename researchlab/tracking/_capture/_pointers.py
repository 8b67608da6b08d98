"""Which files are only in Git LFS, so that the snapshot keeps the pointer that the base commit has?

On disk is the file that the pointer names; in the tree goes the pointer, as git would commit it. What differs from its
pointer is captured as the file that it is.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from researchlab.tracking import _git
from researchlab.tracking._capture._worktree import EXECUTABLE, REGULAR, Absent, Content, Unreadable

if TYPE_CHECKING:
    from researchlab.tracking._capture._survey import Survey

_LARGEST = 1023  # bytes of a pointer, by its specification
# One with extensions names bytes that are not those on disk, and is not taken for a pointer.
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n?")


class Pointer(NamedTuple):
    """The file that a pointer names."""

    sha256: str
    size: int


def parse_pointer(data: bytes) -> Pointer | None:
    """Read a Git LFS pointer (version 1); None where it is something else."""
    found = _POINTER.fullmatch(data) if len(data) <= _LARGEST else None
    return None if found is None else Pointer(found[1].decode(), int(found[2]))


def keep_pointers(survey: Survey) -> None:
    """Keep the pointer of each changed file that is what its pointer in the base commit says.

    Args:
        survey: What differs, read.

    Raises:
        GitError: git failed.
    """
    files = {REGULAR, EXECUTABLE}
    candidates = {
        path: survey.base[path][1]
        for path, now in survey.changes.items()
        if now is not None and now.mode in files and path in survey.base and survey.base[path][0] in files
    }
    if not candidates or not _has_attributes(survey):
        return
    sizes = _git.blob_sizes(set(candidates.values()), survey.reader.source)
    small = {path: oid for path, oid in candidates.items() if sizes.get(oid, _LARGEST + 1) <= _LARGEST}
    if not small:
        return
    with _git.open_blobs(survey.reader.source) as blobs:
        for path, oid in small.items():
            found = blobs.read(oid)
            data = b"".join(found[1]) if found is not None else b""
            pointer = parse_pointer(data)
            if pointer is not None and _is_named(survey, path, pointer):
                _keep(survey, path, oid, data)


def _has_attributes(survey: Survey) -> bool:
    """Whether anything in the repository may be in Git LFS; most have no attributes, and git is not asked then."""
    named = any(path.endswith(b".gitattributes") for paths in (survey.base, survey.files) for path in paths)
    # It says no where the folder may not be entered; pathlib raises.
    return named or os.path.exists(survey.repository.common_dir / "info" / "attributes")  # noqa: PTH110


def _is_named(survey: Survey, path: bytes, pointer: Pointer) -> bool:
    now = survey.changes[path]
    if now is None or now.size != pointer.size:
        return False
    try:
        return survey.disk.sha256(path) == pointer
    except (Absent, Unreadable):
        return False


def _keep(survey: Survey, path: bytes, oid: str, data: bytes) -> None:
    now = survey.changes.pop(path)
    survey.pointers.add(path)
    if now is not None and now.mode != survey.base[path][0]:
        survey.changes[path] = Content(now.mode, oid, len(data), data)


__all__ = ["Pointer", "keep_pointers", "parse_pointer"]
