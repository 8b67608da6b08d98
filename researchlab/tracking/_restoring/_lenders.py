"""Which git folders on this machine may have the objects of a run?"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError
from researchlab.tracking import _git
from researchlab.tracking._restoring._parts import enclosing, relative_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from researchlab.tracking._git import ObjectFormat
    from researchlab.tracking._restoring._parts import RepositoryCode


@dataclass(frozen=True, slots=True)
class Lender:
    """A git folder on this machine whose objects may be borrowed.

    Attributes:
        place: What a message calls it: its work tree, or the folder itself.
        git_dir: The folder that holds objects and refs.
        object_format: How it names objects.
        top: Root of its work tree, where one is there.
        remotes: URL of each remote as it is configured, with the credentials.
    """

    place: Path
    git_dir: Path
    object_format: ObjectFormat
    top: Path | None = None
    remotes: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @property
    def objects(self) -> Path:
        """Folder of the object store."""
        return self.git_dir / "objects"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the base commits of the repositories of a run may be found on this machine.

    Attributes:
        lenders: Path of each repository -> git folders that may have its base commit, the likeliest first.
        trouble: Why a place that was named cannot be read.
    """

    lenders: Mapping[str, tuple[Lender, ...]]
    trouble: tuple[str, ...] = ()


def look_around(parts: Sequence[RepositoryCode], sources: Iterable[Path]) -> Surroundings:
    """Find the repositories on this machine that may have the base commits.

    Args:
        parts: The repositories of a run, the outermost first, each after the one around it.
        sources: Folders in work trees of the outermost one.

    Returns:
        What was found. A repository inside is looked for in the same place of the work tree, and among the submodules
        that the repository around it keeps.
    """
    outermost: list[Lender] = []
    trouble: list[str] = []
    for source in sources:
        try:
            repository = _git.find_repository(source)
        except (GitError, OSError) as error:
            trouble.append(str(error))
            continue
        if all(lender.git_dir != repository.common_dir for lender in outermost):
            outermost.append(_lender(repository.top, repository.common_dir, top=repository.top))
    found: dict[str, tuple[Lender, ...]] = {parts[0].path: tuple(outermost)}
    for part in parts[1:]:
        outer = enclosing(part, [parts[0], *(other for other in parts[1:] if other.path in found)])
        path = os.fsdecode(relative_path(part, outer))
        found[part.path] = tuple(_inside(found[outer.path], path))
    return Surroundings(found, tuple(trouble))


def _inside(outer: Iterable[Lender], path: str) -> Iterable[Lender]:
    """Yield the git folders of the repository at ``path`` in each of these."""
    seen: set[Path] = set()
    for lender in outer:
        candidates: list[tuple[Path, Path | None]] = []
        if lender.top is not None and os.path.lexists(lender.top / path / ".git"):
            try:
                repository = _git.find_repository(lender.top / path)
                candidates.append((repository.common_dir, repository.top))
            except (GitError, OSError):
                pass
        for name in _submodule_names(lender, path):
            folder = lender.git_dir / "modules" / name
            if (folder / "objects").is_dir() and ".." not in Path(name).parts:
                candidates.append((folder.resolve(), None))
        for git_dir, top in candidates:
            if git_dir not in seen:
                seen.add(git_dir)
                yield _lender(top or git_dir, git_dir, top=top)


def _submodule_names(lender: Lender, path: str) -> list[str]:
    """Return the names under which a submodule at ``path`` may be kept."""
    names = [path]
    if lender.top is not None and (lender.top / ".gitmodules").is_file():
        args = ("config", "--file", str(lender.top / ".gitmodules"), "--list", "-z")
        for entry in _git.call_git(args, cwd=lender.top, isolated=True).stdout.split(b"\0"):
            key, _, value = entry.decode(errors="surrogateescape").partition("\n")
            if value == path and key.startswith("submodule.") and key.endswith(".path"):
                names.insert(0, key[len("submodule.") : -len(".path")])
    return list(dict.fromkeys(names))


def _lender(place: Path, git_dir: Path, *, top: Path | None) -> Lender:
    listing = _git.call_git(("config", "--list", "-z"), git_dir=git_dir).stdout.decode(errors="surrogateescape")
    remotes: dict[str, str] = {}
    object_format: ObjectFormat = "sha1"
    for entry in listing.split("\0"):
        key, _, value = entry.partition("\n")
        if key.startswith("remote.") and key.endswith(".url"):
            remotes.setdefault(key[len("remote.") : -len(".url")], value)
        elif key == "extensions.objectformat" and value.lower() == "sha256":
            object_format = "sha256"
    return Lender(place, git_dir, object_format, top, remotes)
