"""Repositories inside a work tree come back as repositories, proven first, and never outside of the work tree."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from helpers.kept_code import add_submodule, parts_of, track_whole
from helpers.repos import Repo, contents, footprint, isolated_git, make_repo

from researchlab.errors import MissingPatchError, RestoreError
from researchlab.tracking import _git
from researchlab.tracking._restoring._parts import RepositoryCode
from researchlab.tracking._restoring._recorded_code import RecordedCode
from researchlab.tracking.restore import build, restore, restore_parts
from researchlab.tracking.runs import find_run
from researchlab.tracking.snapshot import Snapshot, capture

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

# What is git's work is the same on every Python: it runs on one.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures(isolated_git.__name__)]

RUN = "2026-02-15_radiant-octopus"


def nested(tmp_path: Path, *, object_format: str = "sha1") -> Repo:
    """A work tree with a submodule in a submodule, a repository of its own and one without a commit, all edited."""
    leaf = make_repo(tmp_path / "origins/leaf", {"leaf.py": "1\n"}, object_format=object_format)
    library = make_repo(tmp_path / "origins/library", {"lib.py": "1\n"}, object_format=object_format)
    add_submodule(library, leaf, "in ner/leaf")
    repo = make_repo(tmp_path / "repo", {"train.py": "1\n"}, object_format=object_format)
    add_submodule(repo, library, "ext/lib")
    repo.write("train.py", "2\n")
    inner = Repo(repo.top / "ext/lib")
    inner.write("lib.py", "2\n")
    inner.commit("never pushed")
    inner.write("lib.py", "3\r\n")
    inner.write(b"caf\xe9/x", b"\0\1\2")
    Repo(inner.top / "in ner/leaf").write("new", "4\n", executable=True)
    own = make_repo(repo.top / "own", {"a": "5\n"}, object_format=object_format)
    own.git("switch", "--quiet", "--create", "mine")
    own.write("a", "6\n")
    make_repo(repo.top / "own/unborn", object_format=object_format).write("b", "7\n")
    return repo


def outermost(snapshot: Snapshot) -> RepositoryCode:
    return RepositoryCode(
        base_commit=snapshot.base_commit,
        tree=snapshot.tree,
        patch=snapshot.patch,
        object_format=snapshot.repository.object_format,
        branch=snapshot.repository.branch,
    )


def without_git(top: Path) -> dict[bytes, tuple[str, bytes]]:
    return {path: entry for path, entry in contents(top).items() if b".git" not in path.split(b"/")}


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_repositories_inside_come_back_as_repositories(tmp_path: Path, object_format: str) -> None:
    repo = nested(tmp_path, object_format=object_format)
    snapshot = capture(repo.top)
    before = footprint(repo.top)
    top = restore(
        tmp_path / "into",
        base_commit=snapshot.base_commit,
        tree=snapshot.tree,
        patch=snapshot.patch,
        source=repo.top,
        object_format=snapshot.repository.object_format,
        branch=snapshot.repository.branch,
        nested=parts_of(snapshot),
    )
    assert without_git(top) == without_git(repo.top)
    assert {path: data for path, (_, _, data) in footprint(repo.top).items()} == {
        path: data for path, (_, _, data) in before.items()
    }
    again = Repo(top)
    for command in (("status", "--porcelain"), ("submodule", "status"), ("diff", "--submodule=short")):
        assert again.git(*command) == repo.git(*command)
    paths = ("ext/lib", "ext/lib/in ner/leaf", "own", "own/unborn")
    assert tuple(part.path for part in parts_of(snapshot)) == paths
    for path in paths:
        here, there = Repo(top / path), Repo(repo.top / path)
        assert here.git("rev-parse", "--show-toplevel") == str(top / path)
        assert here.git("status", "--porcelain") == there.git("status", "--porcelain")
        assert here.git("branch", "--show-current") == there.git("branch", "--show-current")
        assert here.git("rev-parse", "HEAD", check=False) == there.git("rev-parse", "HEAD", check=False)
    assert not (top / ".git/rlab-nested").exists()
    # What was restored is a snapshot like the first.
    second = capture(top)
    assert (second.tree, [part.tree for part in parts_of(second)]) == (
        snapshot.tree,
        [part.tree for part in parts_of(snapshot)],
    )


def test_a_submodule_is_found_where_git_keeps_it_although_it_is_not_checked_out(tmp_path: Path) -> None:
    repo = nested(tmp_path)
    snapshot = capture(repo.top)
    parts = (outermost(snapshot), *(part for part in parts_of(snapshot) if part.path.startswith("ext/lib")))
    files = {path: entry for path, entry in without_git(repo.top).items() if not path.startswith(b"own/")}
    repo.git("submodule", "deinit", "--quiet", "--force", "ext/lib")
    assert list((repo.top / "ext/lib").iterdir()) == []
    assert without_git(restore_parts(tmp_path / "into", parts, sources=(repo.top,))) == files
    # Also from a work tree that is linked to the repository.
    repo.git("worktree", "add", "--quiet", "--detach", tmp_path / "linked")
    assert without_git(restore_parts(tmp_path / "again", parts, sources=(tmp_path / "linked",))) == files


def test_a_wrong_tree_inside_writes_nothing(tmp_path: Path) -> None:
    repo = nested(tmp_path)
    snapshot = capture(repo.top)
    parts = [outermost(snapshot), *parts_of(snapshot)]
    for number in range(1, len(parts)):
        altered = list(parts)
        altered[number] = dataclasses.replace(parts[number], patch=b"", tree="0" * 40)
        with pytest.raises(RestoreError, match="was recorded"):
            restore_parts(tmp_path / "into", altered, sources=(repo.top,))
        assert not (tmp_path / "into").exists()


HOSTILE = [
    "..",
    "../outside",
    "/tmp/rlab-outside",
    "a/../../outside",
    ".git",
    ".git/modules/x",
    ".GIT/x",
    "a/.git/hooks",
    "a/.Git ./x",
    "git~1/x",
    ".",
    "./x",
    "a//b",
    "a/",
    "nul\0",
    "\ud800",
    "link/in",
    "link",
    "file",
    "file/in",
    "folder",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_place_is_refused_before_anything_is_written(tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    repo = make_repo(tmp_path / "repo", {"file": "1", "folder/a": "2"})
    repo.link("link", str(outside))
    repo.commit()
    inner = make_repo(tmp_path / "inner", {"evil": "x"})
    head = _git.find_repository(inner.top)
    assert head.head_tree is not None
    evil = RepositoryCode(base_commit=head.head, tree=head.head_tree, path=path, remotes={"o": str(inner.top)})
    parts = (outermost(capture(repo.top)), evil)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RestoreError, match="made to do harm"):
        restore_parts(tmp_path / "into", parts, sources=(repo.top,))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(RestoreError, match="made to do harm"):
        build(parts, sources=(repo.top,), scratch=tmp_path / "scratch")
    shutil.rmtree(tmp_path / "scratch")
    assert sorted(tmp_path.rglob("*")) == before


def test_two_repositories_in_one_place_and_one_inside_a_file_of_another_are_refused(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"file": "1"})
    inner = _git.find_repository(make_repo(tmp_path / "inner", {"evil": "x"}).top)
    assert inner.head_tree is not None
    part = RepositoryCode(inner.head, inner.head_tree, path="a", remotes={"o": str(inner.top)})
    first = outermost(capture(repo.top))
    with pytest.raises(RestoreError, match="made to do harm"):
        restore_parts(tmp_path / "into", (first, part, part), sources=(repo.top,))
    with pytest.raises(RestoreError, match="the repository in a has 'evil'"):
        restore_parts(tmp_path / "into", (first, part, dataclasses.replace(part, path="a/evil/b")), sources=(repo.top,))
    top = restore_parts(tmp_path / "into", (first, part, dataclasses.replace(part, path="a/b")), sources=(repo.top,))
    assert (top / "a/b/evil").read_text() == "x"


# What a run recorded


def test_a_run_comes_back_from_its_artifacts_alone(tmp_path: Path, store: RunStore) -> None:
    repo = nested(tmp_path)
    files = without_git(repo.top)
    track_whole(store, RUN, repo.top)
    code = RecordedCode.of(find_run(RUN))
    for where in ("with the repositories", "without the repository", "without any"):
        assert without_git(code.restore(tmp_path / where, repo=None)) == files
        if where == "with the repositories":
            shutil.rmtree(repo.top)
        elif where == "without the repository":
            # Only the submodules had remotes; with those gone, a submodule that was pushed is lost.
            shutil.rmtree(tmp_path / "origins/library")
            break
    shutil.rmtree(tmp_path / "origins")
    with pytest.raises(RestoreError, match="of the repository in ext/lib is nowhere to be had"):
        code.restore(tmp_path / "no", repo=None)


def test_a_missing_patch_of_a_repository_inside_is_said(tmp_path: Path, store: RunStore) -> None:
    repo = nested(tmp_path)
    folder = track_whole(store, RUN, repo.top)
    next((folder / "rlab/nested/1").glob("*.patch")).unlink()
    with pytest.raises(MissingPatchError, match=r"The patch of ext/lib in run .* is missing \(rlab/nested/1/run.patch"):
        RecordedCode.of(find_run(RUN))


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "rlab/../../x", "rlab/nested/1/.git/x", ""])
@pytest.mark.parametrize("field", ["patch", "bundle"])
def test_a_record_cannot_name_a_file_outside_of_the_artifacts(
    tmp_path: Path, store: RunStore, field: str, name: str
) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "1"})
    make_repo(repo.top / "own", {"a": "1"}).write("a", "2")
    record = track_whole(store, RUN, repo.top) / "rlab/record.json"
    document = json.loads(record.read_text())
    document["snapshot"]["nested"][0][field] = name
    record.write_text(json.dumps(document))
    with pytest.raises(RestoreError, match="made to do harm"):
        RecordedCode.of(find_run(RUN))


def test_one_tree_of_everything_shows_what_differs_inside(tmp_path: Path, store: RunStore) -> None:
    repo = nested(tmp_path)
    track_whole(store, RUN, repo.top)
    Repo(repo.top / "ext/lib/in ner/leaf").write("new", "changed\n")
    Repo(repo.top / "own/unborn").write("b", "changed\n")
    track_whole(store, "second", repo.top)
    trees: list[Any] = []
    git_dir = tmp_path
    for name in (RUN, "second"):
        code = RecordedCode.of(find_run(name))
        git_dir = code.build(_git.find_repository(repo.top), tmp_path / "scratch")
        trees.append(code.whole_tree(git_dir))
    names = Repo(git_dir).git("diff-tree", "-r", "-z", "--name-only", *trees).split("\0")
    assert names == ["ext/lib/in ner/leaf/new", "own/unborn/b", ""]


def test_a_record_of_version_1_still_comes_back(tmp_path: Path, store: RunStore) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "1\n"})
    repo.write("a", "2\n")
    store.track(RUN, repo.top, facts={"version": 1})
    code = RecordedCode.of(find_run(RUN))
    assert contents(code.restore(tmp_path / "into", repo=repo.top)) == contents(repo.top)
    assert len(code.parts) == 1
