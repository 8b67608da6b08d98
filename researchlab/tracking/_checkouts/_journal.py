"""What has to be taken back of a restoration that was cut off in its middle, by SIGKILL or a power failure?

A file in the repository's git folder says so, from before the first change until the end. While it is locked, the
restoration goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pydantic

from researchlab.errors import RestoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from researchlab.tracking._git import Repository

_FOLDER = "rlab-restore"


@dataclass(frozen=True, slots=True)
class Former:
    """Where one checkout was, and what was not there.

    Attributes:
        top: Root of the work tree.
        head: Id of the commit.
        branch: Name of the branch, or None where HEAD was detached.
        files: Paths that only the restoration can bring.
        folders: Folders that only the restoration can bring, the deepest first.
    """

    top: str
    head: str
    branch: str | None
    files: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Journal:
    """What a restoration is about to do.

    Attributes:
        run_id: The run.
        branch: The branch that it makes.
        top: Root of the work tree that it changes, or makes.
        missing: Folders that were not there yet, of a work tree of its own; None where the present one is changed.
        former: Where the checkout and the repositories inside it were, each after the one around it.
        created: Places of repositories inside that were empty or not there.
    """

    run_id: str
    branch: str
    top: str
    missing: tuple[str, ...] | None = None
    former: tuple[Former, ...] = ()
    created: tuple[str, ...] = ()

    def begin(self, repository: Repository) -> Note:
        """Write the journal, to the disk itself.

        Raises:
            RestoreError: A restoration of this run, or into this work tree, was cut off or goes on.
        """
        for other in _journals(repository):
            if other.run_id == self.run_id or other.top == self.top:
                raise RestoreError(_cut_off(other, repository))
        place = _place(self.run_id, repository)
        place.parent.mkdir(exist_ok=True)
        draft = place.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(descriptor, "w", encoding="ascii", closefd=False) as file:
            json.dump(dataclasses.asdict(self), file)
            file.flush()
            os.fsync(descriptor)
        draft.replace(place)
        return Note(place, descriptor)


class Note:
    """A journal that is written, and locked for as long as this process lives."""

    def __init__(self, place: Path, descriptor: int) -> None:
        self._place = place
        self._descriptor = descriptor

    def end(self) -> None:
        """Remove the journal: the restoration is whole, or everything is as it was."""
        self._place.unlink(missing_ok=True)
        os.close(self._descriptor)
        with contextlib.suppress(OSError):  # another one is in there
            self._place.parent.rmdir()


def is_unfinished(run_id: str, repository: Repository) -> bool:
    """Whether a restoration of this run was cut off, or goes on."""
    return _place(run_id, repository).exists()


def refuse_unfinished(run_id: str, repository: Repository) -> None:
    """Refuse what a restoration that was cut off stands in the way of.

    Raises:
        RestoreError: There is one of this run.
    """
    if is_unfinished(run_id, repository):
        raise RestoreError(_cut_off(_read(_place(run_id, repository)), repository))


def take_over(run_id: str, repository: Repository) -> tuple[Journal, Note]:
    """Return the journal of a restoration that was cut off, locked.

    Raises:
        RestoreError: There is none, or the restoration goes on.
    """
    place = _place(run_id, repository)
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        message = f"No restoration of '{run_id}' was cut off in {repository.top}: there is nothing to take back."
        raise RestoreError(message) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        message = f"The restoration of '{run_id}' in {repository.top} still goes on, in another process."
        raise RestoreError(message) from None
    return _read(place), Note(place, descriptor)


def _journals(repository: Repository) -> Iterator[Journal]:
    yield from map(_read, sorted((repository.common_dir / _FOLDER).glob("*.json")))


def _place(run_id: str, repository: Repository) -> Path:
    return repository.common_dir / _FOLDER / f"{run_id}.json"


def _read(place: Path) -> Journal:
    try:
        # Paths that are not UTF-8 are lone surrogates, which pydantic's own parser refuses.
        return pydantic.TypeAdapter(Journal).validate_python(json.loads(place.read_text(encoding="ascii")))
    except ValueError as error:
        message = (
            f"{place} says how a restoration that was cut off is taken back, and cannot be read ({error}). "
            "See what is in the checkout with `git status`, bring it in order, and remove that file."
        )
        raise RestoreError(message) from error


def _cut_off(journal: Journal, repository: Repository) -> str:
    command = shlex.join(["rlab", "restore", journal.run_id, "--abort"])
    return (
        f"A restoration of '{journal.run_id}' in {journal.top} was cut off before its end, or still goes on: what is "
        f"there is not the code of the run. To go back to where {repository.top} was, without what was changed in "
        f"between: {command}"
    )


__all__ = ["Former", "Journal", "Note", "is_unfinished", "refuse_unfinished", "take_over"]
