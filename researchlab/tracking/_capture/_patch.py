"""How does a survey become a tree and the patch that leads to it, and is the patch right?

Both trees are made in a scratch store with no way to the objects of the user's repository, so that no git can renew the
time stamps of these. The patch is applied there before anything relies on it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from researchlab.errors import GitError, SnapshotError
from researchlab.tracking import _git
from researchlab.tracking._capture._survey import folders_of, parents
from researchlab.tracking._capture._worktree import GITLINK, Changing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from researchlab.tracking._capture._survey import Survey

_DIFF = (
    "diff-tree",
    "--stdin",
    "-r",
    "-p",
    "--binary",
    "--full-index",
    "--no-renames",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "-U3",
    "--inter-hunk-context=0",
    "--diff-algorithm=myers",
    "--submodule=short",
    "--ignore-submodules=none",
    "--no-relative",
    f"-O{os.devnull}",
)


_APPLY = ("apply", "--cached", "--binary", "--whitespace=nowarn", "-p1", "-")


class Unsettled(Exception):  # noqa: N818 - a finding that is handled
    """Files cannot be captured as the survey found them.

    Attributes:
        reasons: Path -> why.
        is_passing: Whether another survey may find it otherwise.
    """

    def __init__(self, reasons: dict[bytes, str], *, is_passing: bool = True) -> None:
        super().__init__(reasons)
        self.reasons = reasons
        self.is_passing = is_passing


class Built(NamedTuple):
    """The id of a snapshot's tree, and the patch that makes it of the base commit's tree."""

    tree: str
    patch: bytes


def build(survey: Survey) -> Built:
    """Make tree and patch, and prove that git makes the one of the other.

    Args:
        survey: What differs, read.

    Raises:
        Unsettled: Files changed meanwhile, or what they were in the base commit cannot be had.
        SnapshotError: git failed, or the patch does not give the tree.
    """
    repository = survey.repository
    if not survey.changes:
        return Built(survey.reader.base_tree, b"")
    git_dir = survey.reader.make_store()
    try:
        (git_dir / "index").write_bytes(_git.make_index(survey.base, repository.object_format))
        # Both wait for their input while there is something else to do.
        with (
            _git.start_git(_DIFF, git_dir=git_dir, stdin=b"", isolated=True) as differing,
            _git.start_git(_APPLY, git_dir=git_dir, stdin=b"", isolated=True) as applying,
        ):
            base, tree = _write_objects(survey, git_dir)
            survey.forget()
            header = f"{base} {tree}\n".encode()
            patch = differing.result(stdin=header).stdout.removeprefix(header)
            patch = _appliable(patch, survey.changes)
            applying.result(stdin=patch)
        _check(survey, tree, git_dir)
        if base == survey.reader.base_tree:
            return Built(tree, patch)
        return Built(_tree_as_git_has_it(survey), patch)
    except GitError as error:
        if isinstance(error, SnapshotError):
            raise
        message = f"The snapshot of {repository.top} could not be built. {error}"
        raise SnapshotError(message) from error


def _write_objects(survey: Survey, git_dir: Path) -> tuple[str, str]:
    """Write all that differs into a store, and return the ids of the trees of the base commit and of the snapshot."""
    entries = survey.entries
    _check_that_it_fits(survey, entries)
    base = _git.make_trees(survey.base, survey.repository.object_format)
    trees = _git.make_trees(entries, survey.repository.object_format)
    with _git.PackWriter(git_dir, survey.repository.object_format) as pack:
        for oid, data in (base.objects | trees.objects).items():
            pack.add(oid, _git.TREE, data)
        _add_base_blobs(survey, pack)
        _add_blobs(survey, pack)
    return base.root, trees.root


def _check_that_it_fits(survey: Survey, entries: Mapping[bytes, _git.Entry]) -> None:
    """Find what was a file at one moment and a folder at another."""
    both = folders_of(entries) & entries.keys()
    if not both:
        return
    new = {folder for folder in both if folder not in survey.base}
    new.update(path for path in survey.changes if not survey.base.keys().isdisjoint(both.intersection(parents(path))))
    raise Unsettled(dict.fromkeys(new, "was written while it was read"))


def _add_base_blobs(survey: Survey, pack: _git.PackWriter) -> None:
    """Write what the changed files were in the base commit."""
    wanted = {path: survey.base[path] for path in survey.changes if path in survey.base}
    oids = {oid: path for path, (mode, oid) in wanted.items() if mode != GITLINK}
    if not oids:
        return
    missing = _copy_blobs(oids, survey, pack)
    if missing and survey.repository.promisor is not None:
        _git.fetch_blobs(missing, survey.repository, survey.reader.make_store())
        missing = _copy_blobs(missing, survey, pack)
        if missing:
            reason = (
                "differs from the base commit, but what it was there is neither in this partial clone nor to be had "
                f"from {survey.repository.promisor}"
            )
            raise Unsettled({path: reason for path, (_, oid) in wanted.items() if oid in missing}, is_passing=False)
    if missing:
        message = f"These objects of the base commit are missing: {', '.join(sorted(missing)[:5])}\nSee: git fsck"
        raise GitError(message)


def _copy_blobs(oids: Iterable[str], survey: Survey, pack: _git.PackWriter) -> set[str]:
    """Write blobs, and return those that are missing."""
    missing: set[str] = set()
    with _git.open_blobs(survey.reader.source) as blobs:
        for oid in oids:
            found = blobs.read(oid)
            if found is None:
                missing.add(oid)
            else:
                pack.add_chunks(oid, _git.BLOB, *found)
    return missing


def _add_blobs(survey: Survey, pack: _git.PackWriter) -> None:
    """Write what lies on disk now."""
    for path, content in survey.changes.items():
        if content is None or content.mode == GITLINK:
            continue
        if content.data is not None:
            pack.add(content.oid, _git.BLOB, content.data)
            continue
        try:
            pack.add_chunks(content.oid, _git.BLOB, content.size, survey.disk.chunks(path, content))
        except Changing as finding:
            raise Unsettled({path: str(finding)}) from finding


def _check(survey: Survey, tree: str, git_dir: Path) -> None:
    """Ask git for the tree that the patch has made of the base commit's, as it will when the snapshot is restored."""
    found = _git.run_git(("write-tree", "--missing-ok"), git_dir=git_dir, isolated=True).decode().strip()
    if found != tree:
        message = (
            f"The patch of {survey.repository.top} gives the tree {found} and not {tree}, which was captured: it would "
            "not bring the code back. This is a bug of researchlab; please report it with the names in `git status`."
        )
        raise SnapshotError(message)


def _tree_as_git_has_it(survey: Survey) -> str:
    """Return the tree's id where folders of the base commit are stored in a way that git does not write any more.

    A restore leaves those folders as they are that the patch does not touch; so git has to say what comes out.
    """
    git_dir, env = (
        survey.reader.make_store(),
        {"GIT_ALTERNATE_OBJECT_DIRECTORIES": os.fspath(survey.repository.objects)},
    )
    (git_dir / "index").unlink()
    gone = (b"0", b"0" * len(survey.reader.base_tree))
    lines = [
        b"%b %b\t%b\0" % (*(gone if now is None else (now.mode, now.oid.encode())), path)
        for path, now in sorted(survey.changes.items(), key=lambda change: change[1] is not None)
    ]
    _git.run_git(("read-tree", survey.reader.base_tree), git_dir=git_dir, env=env, isolated=True)
    _git.run_git(("update-index", "-z", "--index-info"), git_dir=git_dir, stdin=b"".join(lines), isolated=True)
    return _git.run_git(("write-tree", "--missing-ok"), git_dir=git_dir, env=env, isolated=True).decode().strip()


def _appliable(patch: bytes, paths: Iterable[bytes]) -> bytes:
    """Quote what git prints and cannot read: without quotes, a space at the end of a folder's name ends the path."""
    if not any(b" /" in path for path in paths):
        return patch

    def quoted(header: re.Match[bytes]) -> bytes:
        return b"diff --git %s %s" % (_git.quote_path(b"a/" + header[1]), _git.quote_path(b"b/" + header[1]))

    return re.sub(rb"^diff --git a/([^\n]* /[^\n]*) b/\1$", quoted, patch, flags=re.MULTILINE)


__all__ = ["Built", "Unsettled", "build"]
