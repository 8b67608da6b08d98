"""What exactly is the working tree of this repository, as base commit and patch?

A snapshot is the id of the tree that git would store if every file went in as its raw bytes, together with the patch
that turns the base commit's tree into it. The user's repository is only read: the snapshot's objects are made in a
scratch store that borrows the repository's.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from researchlab.errors import SnapshotError
from researchlab.tracking import _git
from researchlab.tracking._capture._budgets import leave_out_large, leave_out_many
from researchlab.tracking._capture._nested import survey_all
from researchlab.tracking._capture._patch import Built, Unsettled, build
from researchlab.tracking._capture._pointers import keep_pointers
from researchlab.tracking._capture._scratch import Scratch
from researchlab.tracking._capture._survey import UNREADABLE, Omission
from researchlab.tracking.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from researchlab.tracking._capture._nested import Place
    from researchlab.tracking._capture._survey import Survey
    from researchlab.tracking._git import Entry, Repository
    from researchlab.tracking.settings import Settings


#: Why something is left out that ``capture`` was told to exclude.
EXCLUDED = "excluded by the caller"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs between base commit and snapshot.

    Attributes:
        path: Relative to the work tree's root; bytes that are not UTF-8 are kept as surrogate escapes.
        status: Added, Modified (bytes or executable bit), Deleted, or another Type (file, symlink, submodule).
    """

    path: str
    status: Literal["A", "M", "D", "T"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One path that is not in the snapshot as it is on disk, and why.

    Attributes:
        path: Relative to the work tree's root, as in ``Change``.
        reason: A half sentence for the reader, such as ``is a FIFO``.
        sha256: Hex digest of the file's bytes where it was over a budget, so that the same file may be put back.
        size: Number of its bytes, there.
    """

    path: str
    reason: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class NestedSnapshot:
    """The state of a repository inside the work tree.

    Attributes:
        path: Its root, relative to the root of the outermost work tree.
        is_submodule: Whether the repository around it knows it as a submodule.
        snapshot: Its state; ``snapshot.nested`` is empty, because the outermost snapshot lists them all.
    """

    path: str
    is_submodule: bool
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The working tree of a repository at one moment.

    Attributes:
        repository: Where it was taken.
        base_commit: Id of the commit that HEAD pointed to, or None before the first commit.
        tree: Id of the tree that holds every file as its raw bytes.
        patch: What ``git apply`` needs to make ``tree`` of the base commit's tree (of the empty tree, where there is no
            base commit). Empty when nothing differs.
        changed: The paths that differ, sorted by their bytes.
        left_out: What may differ and is not in the snapshot; it has those paths as the base commit has them, if at all.
        is_dirty: Whether anything differs from the base commit, untracked and left out files included, ignored files
            and excluded paths not.
        nested: The repositories inside the work tree, each after the one around it.
        pointers: Git LFS files that are captured as their pointers.
        ignored: What git ignores: files, folders with a slash at their end, ``folder/*`` for many files in a folder.
        entries: What the snapshot's tree holds: path -> (mode, id), submodules included.
    """

    repository: Repository
    base_commit: str | None
    tree: str
    patch: bytes
    changed: tuple[Change, ...]
    left_out: tuple[LeftOut, ...]
    is_dirty: bool
    nested: tuple[NestedSnapshot, ...] = ()
    pointers: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    entries: Mapping[bytes, Entry] = field(default_factory=dict[bytes, "Entry"], repr=False, compare=False)


def capture(
    repo_path: str | os.PathLike[str] = ".",
    *,
    exclude: Iterable[str | os.PathLike[str]] = (),
    settings: Settings | None = None,
) -> Snapshot:
    """Capture the working tree of the repository that holds ``repo_path``, without writing a byte into it.

    Staged, unstaged and untracked changes alike: what counts is what lies on disk. Ignored files are left out, unless
    they are in the base commit; so are files that look like secrets, that are too large, or that git cannot hold.

    Args:
        repo_path: A folder anywhere in the work tree.
        exclude: Files and folders (with all below) to leave as they are in the base commit: outputs such as the local
            store. Relative paths are relative to the current folder.
        settings: Budgets and exceptions; by default those of the repository's ``pyproject.toml``.

    Returns:
        The snapshot. Whatever could not be captured is named in ``left_out``.

    Raises:
        NotARepositoryError: ``repo_path`` is in no work tree.
        SnapshotError: git could not read the repository, or could not build the snapshot.
        GitError: git is missing, or refuses the repository.
    """
    return capture_repository(_git.find_repository(repo_path), exclude=exclude, settings=settings)


def capture_repository(
    repository: Repository, *, exclude: Iterable[str | os.PathLike[str]] = (), settings: Settings | None = None
) -> Snapshot:
    """Capture the working tree of a repository that was found; the arguments are those of ``capture``."""
    settings = settings or read_settings(repository.top)
    paths = [os.fspath(path) for path in exclude]
    try:
        with Scratch() as scratch:
            try:
                return _capture(repository, paths, settings, scratch, hasty=True)
            except Unsettled:
                return _capture(repository, paths, settings, scratch, hasty=False)
    except OSError as error:
        message = (
            f"The snapshot of {repository.top} could not be built in {tempfile.gettempdir()}: {error}. "
            "Set TMPDIR to a folder with more room."
        )
        raise SnapshotError(message) from error


def _capture(
    repository: Repository, exclude: Sequence[str], settings: Settings, scratch: Scratch, *, hasty: bool
) -> Snapshot:
    places = survey_all(repository, exclude=exclude, settings=settings, scratch=scratch)
    surveys = [place.survey for place in places]
    for survey, dropped in zip(surveys, leave_out_many(surveys, settings.most_files), strict=True):
        survey.read(without=dropped)
        keep_pointers(survey)
    leave_out_large(surveys, largest_file=settings.largest_file, largest_snapshot=settings.largest_snapshot)
    built = _build_all(places, hasty=hasty)
    nested = tuple(
        NestedSnapshot(_text(place.path), place.is_submodule, _snapshot(place, built, made))
        for place, made in list(built.items())[1:]
    )
    return _snapshot(places[0], built, built[places[0]], nested=nested)


def _build_all(places: Sequence[Place], *, hasty: bool) -> dict[Place, Built]:
    """Return tree and patch of each repository; one that cannot be built is left out of the one around it."""
    built: dict[Place, Built] = {}
    for place in reversed(places):
        try:
            built[place] = _build(place.survey, hasty=hasty)
        except SnapshotError as error:
            if place.around is None:
                raise
            place.around.disown(place.name, f"{UNREADABLE}: {error}")
            built = {other: made for other, made in built.items() if not place.holds(other)}
    return dict(reversed(built.items()))


def _build(survey: Survey, *, hasty: bool) -> Built:
    while True:
        try:
            return build(survey)
        except Unsettled as finding:
            if hasty and finding.is_passing:
                raise
            for path, reason in finding.reasons.items():
                survey.leave_out(path, Omission(reason))


def _snapshot(
    place: Place, places: Iterable[Place], built: Built, *, nested: tuple[NestedSnapshot, ...] = ()
) -> Snapshot:
    survey = place.survey
    changed = tuple(Change(_text(path), survey.status_of(path)) for path in sorted(survey.changes))
    left_out = survey.left_out | {path: Omission(EXCLUDED) for path in survey.excluded}
    return Snapshot(
        repository=survey.repository,
        base_commit=survey.repository.head,
        tree=built.tree,
        patch=built.patch,
        changed=changed,
        left_out=tuple(LeftOut(_text(path), *omission) for path, omission in sorted(left_out.items())),
        is_dirty=any(other.survey.is_dirty for other in places if place.holds(other)),
        nested=nested,
        pointers=tuple(_text(path) for path in sorted(survey.pointers)),
        ignored=tuple(_text(path) for path in sorted(survey.ignored)),
        entries=survey.entries,
    )


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


__all__ = ["Change", "LeftOut", "NestedSnapshot", "Snapshot", "capture", "capture_repository"]
