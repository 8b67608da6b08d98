"""Repositories inside the work tree: submodules, unknown repositories, linked work trees."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from helpers.repos import Repo, contents, footprint, isolated_git, make_repo

from researchlab.tracking import restore
from researchlab.tracking.settings import Settings
from researchlab.tracking.snapshot import NestedSnapshot, Snapshot, capture
from researchlab.tracking.utils import get_git_state

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures(isolated_git.__name__)

ALLOW = ("-c", "protocol.file.allow=always")


def add_submodule(repo: Repo, source: Repo, name: str = "lib") -> Repo:
    repo.git(*ALLOW, "submodule", "--quiet", "add", source.top, name)
    return Repo(repo.top / name)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "repo", {"b": "y"})


@pytest.fixture
def library(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "library", {"a": "x", "deep/c": "z"})


def reasons(snapshot: Snapshot) -> dict[str, str]:
    return {left.path: left.reason for left in snapshot.left_out}


def inside(snapshot: Snapshot) -> dict[str, NestedSnapshot]:
    return {nested.path: nested for nested in snapshot.nested}


def gitlinks(snapshot: Snapshot) -> dict[bytes, str]:
    return {path: oid for path, (mode, oid) in snapshot.entries.items() if mode == b"160000"}


def check(snapshot: Snapshot, scratch: Path) -> None:
    """Restore every repository of a snapshot, each by itself, and compare what lies there."""
    states = [("", snapshot), *((nested.path, nested.snapshot) for nested in snapshot.nested)]
    top = snapshot.repository.top
    for number, (path, state) in enumerate(states):
        into = restore.restore(
            scratch / str(number),
            base_commit=state.base_commit,
            tree=state.tree,
            patch=state.patch,
            source=state.repository.top,
            object_format=state.repository.object_format,
        )
        here = f"{path}/" if path else ""
        others = [
            os.fsencode(other) + b"/" for other, _ in states if other and other.startswith(here) and other != path
        ]
        prefix = os.fsencode(here)
        expected = {
            name[len(prefix) :]: entry
            for name, entry in contents(top).items()
            if name.startswith(prefix)
            and not any(name.startswith(other) for other in others)
            and b".git" not in name.split(b"/")
        }
        assert contents(into) == expected, path


def test_a_clean_submodule_is_listed_and_changes_nothing(tmp_path: Path, repo: Repo, library: Repo) -> None:
    inner = add_submodule(repo, library)
    repo.commit()
    snapshot = capture(repo.top)
    assert not snapshot.is_dirty
    assert (snapshot.changed, snapshot.left_out, snapshot.patch) == ((), (), b"")
    (nested,) = snapshot.nested
    assert (nested.path, nested.is_submodule) == ("lib", True)
    assert nested.snapshot.repository.top == inner.top
    assert nested.snapshot.base_commit == library.git("rev-parse", "HEAD")
    assert nested.snapshot.tree == library.git("rev-parse", "HEAD^{tree}")
    assert (nested.snapshot.patch, nested.snapshot.is_dirty) == (b"", False)
    check(snapshot, tmp_path / "scratch")


def test_edits_in_a_submodule_are_in_its_own_snapshot(tmp_path: Path, repo: Repo, library: Repo) -> None:
    inner = add_submodule(repo, library)
    repo.commit()
    inner.write("a", "edited")
    inner.write("new", b"\0")
    snapshot = capture(repo.top)
    assert snapshot.is_dirty
    assert (snapshot.changed, snapshot.left_out) == ((), ())
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")
    nested = inside(snapshot)["lib"].snapshot
    assert [(change.path, change.status) for change in nested.changed] == [("a", "M"), ("new", "A")]
    check(snapshot, tmp_path / "scratch")
    inner.commit()
    assert nested.tree == inner.git("rev-parse", "HEAD^{tree}")


def test_a_submodule_at_another_commit_shows_in_the_outer_tree(tmp_path: Path, repo: Repo, library: Repo) -> None:
    inner = add_submodule(repo, library)
    repo.commit()
    inner.write("a", "edited")
    local = inner.commit()
    snapshot = capture(repo.top)
    assert [(change.path, change.status) for change in snapshot.changed] == [("lib", "M")]
    assert gitlinks(snapshot) == {b"lib": local}
    assert b"Subproject commit " + local.encode() in snapshot.patch
    assert inside(snapshot)["lib"].snapshot.base_commit == local
    check(snapshot, tmp_path / "scratch")
    repo.commit()
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")


def test_a_submodule_that_is_not_committed_yet_is_one(tmp_path: Path, repo: Repo, library: Repo) -> None:
    inner = add_submodule(repo, library)
    snapshot = capture(repo.top)
    assert gitlinks(snapshot) == {b"lib": inner.git("rev-parse", "HEAD")}
    assert inside(snapshot)["lib"].is_submodule
    check(snapshot, tmp_path / "scratch")
    repo.commit()
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")


def test_submodules_in_submodules_come_after_the_one_around_them(tmp_path: Path, repo: Repo, library: Repo) -> None:
    middle = make_repo(tmp_path / "middle", {"m": "1"})
    add_submodule(middle, library, "deep/lib")
    middle.commit()
    add_submodule(repo, middle, "z")
    add_submodule(repo, library, "a")
    repo.git(*ALLOW, "submodule", "--quiet", "update", "--init", "--recursive")
    repo.commit()
    Repo(repo.top / "z" / "deep" / "lib").write("a", "edited")
    snapshot = capture(repo.top)
    assert [nested.path for nested in snapshot.nested] == ["a", "z", "z/deep/lib"]
    assert [nested.snapshot.is_dirty for nested in snapshot.nested] == [False, True, True]
    assert all(nested.snapshot.nested == () for nested in snapshot.nested)
    assert snapshot.is_dirty
    check(snapshot, tmp_path / "scratch")


def test_a_submodule_that_is_not_checked_out_stays_as_it_is(repo: Repo, library: Repo) -> None:
    add_submodule(repo, library)
    repo.commit()
    repo.git("submodule", "--quiet", "deinit", "--force", "lib")
    snapshot = capture(repo.top)
    assert not snapshot.is_dirty
    assert snapshot.nested == ()
    repo.write("lib/stray", "z")
    assert reasons(capture(repo.top)) == {
        "lib": "is a submodule that is not checked out, with files in it: they are not captured"
    }


def test_a_submodule_that_was_removed_is_gone(tmp_path: Path, repo: Repo, library: Repo) -> None:
    add_submodule(repo, library)
    repo.commit()
    shutil.rmtree(repo.top / "lib")
    snapshot = capture(repo.top)
    assert [(change.path, change.status) for change in snapshot.changed] == [("lib", "D")]
    check(snapshot, tmp_path / "scratch")


def test_a_submodule_that_became_a_folder_a_file_or_a_symlink(tmp_path: Path, repo: Repo, library: Repo) -> None:
    for name in ("folder", "file", "link"):
        add_submodule(repo, library, name)
    repo.commit()
    repo.git("rm", "--quiet", "--cached", "folder")
    for name in ("folder", "file", "link"):
        shutil.rmtree(repo.top / name)
    repo.write("folder/new", "n")
    repo.git("add", "folder")
    repo.write("file", "f")
    repo.link("link", "../library")
    snapshot = capture(repo.top)
    assert {change.path: change.status for change in snapshot.changed} == {
        "folder": "D",
        "folder/new": "A",
        "file": "T",
        "link": "T",
    }
    assert (snapshot.nested, snapshot.left_out) == ((), ())
    check(snapshot, tmp_path / "scratch")


def test_a_folder_that_became_a_submodule(tmp_path: Path, repo: Repo, library: Repo) -> None:
    repo.write("lib/a", "x")
    repo.write("lib/old", "x")
    repo.commit()
    repo.git("rm", "--quiet", "-r", "lib")
    inner = add_submodule(repo, library)
    snapshot = capture(repo.top)
    assert gitlinks(snapshot) == {b"lib": inner.git("rev-parse", "HEAD")}
    check(snapshot, tmp_path / "scratch")


def test_a_submodule_without_a_commit_is_named(repo: Repo, library: Repo) -> None:
    inner = add_submodule(repo, library)
    repo.commit()
    inner.git("checkout", "--quiet", "--orphan", "fresh")
    snapshot = capture(repo.top)
    assert reasons(snapshot) == {"lib": "is a submodule without a commit: it is not captured"}
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")
    assert snapshot.nested == ()


def test_repositories_that_the_outer_one_does_not_know(tmp_path: Path, repo: Repo) -> None:
    known = make_repo(repo.top / "with commit", {"b": "y", ".gitignore": "*.log\n"})
    known.write("b", "edited")
    known.write("x.log", "ignored")
    make_repo(repo.top / "sub" / "fresh").write("c", "z")
    make_repo(repo.top / "empty")
    repo.link("link", "with commit")
    snapshot = capture(repo.top)
    assert [change.path for change in snapshot.changed] == ["link"]
    assert snapshot.is_dirty
    assert {path: nested.is_submodule for path, nested in inside(snapshot).items()} == {
        "empty": False,
        "sub/fresh": False,
        "with commit": False,
    }
    assert inside(snapshot)["sub/fresh"].snapshot.base_commit is None
    (known.top / "x.log").unlink()
    check(snapshot, tmp_path / "scratch")


def test_a_clean_repository_that_the_outer_one_does_not_know_makes_it_dirty(repo: Repo) -> None:
    make_repo(repo.top / "other", {"b": "y"})
    snapshot = capture(repo.top)
    assert snapshot.is_dirty
    assert not inside(snapshot)["other"].snapshot.is_dirty


def test_tracked_files_that_belong_to_an_inner_repository_now(tmp_path: Path, repo: Repo) -> None:
    repo.write("part/a", "x")
    repo.write("part/b", "x")
    repo.commit()
    repo.git("rm", "--quiet", "-r", "--cached", "part")
    make_repo(repo.top / "part", {})
    snapshot = capture(repo.top)
    assert {change.path: change.status for change in snapshot.changed} == {"part/a": "D", "part/b": "D"}
    assert [change.path for change in inside(snapshot)["part"].snapshot.changed] == []
    check(snapshot, tmp_path / "scratch")


def test_a_linked_work_tree_inside_the_main_one(tmp_path: Path, repo: Repo) -> None:
    repo.git("worktree", "add", "--quiet", "-b", "side", repo.top / "side")
    Repo(repo.top / "side").write("b", "edited")
    snapshot = capture(repo.top)
    nested = inside(snapshot)["side"]
    assert (nested.is_submodule, nested.snapshot.repository.branch) == (False, "side")
    assert [change.path for change in nested.snapshot.changed] == ["b"]
    check(snapshot, tmp_path / "scratch")


def test_broken_repositories_are_named(repo: Repo, library: Repo) -> None:
    add_submodule(repo, library)
    repo.commit()
    (repo.top / "lib" / ".git").write_text("gitdir: ../gone\n")
    nested = make_repo(repo.top / "nested", {"a": "x"})
    (nested.top / ".git" / "refs" / "heads" / "main").write_bytes(b"")
    moved = make_repo(repo.top / "moved", {"a": "x"})
    moved.git("config", "core.worktree", library.top)
    snapshot = capture(repo.top)
    found = reasons(snapshot)
    assert found.keys() == {"lib", "nested", "moved"}
    assert found["lib"].startswith("is a git repository that cannot be read")
    assert "broken" in found["nested"]
    assert str(library.top) in found["moved"]
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")


def test_an_inner_repository_that_lost_an_object_is_named(repo: Repo) -> None:
    nested = make_repo(repo.top / "nested", {"d/a": "x"})
    tree = nested.git("rev-parse", "HEAD:d")
    (nested.top / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    snapshot = capture(repo.top)
    assert snapshot.nested == ()
    assert tree in reasons(snapshot)["nested"]


def test_an_inner_repository_of_another_user_is_named(repo: Repo, library: Repo) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    add_submodule(repo, library)
    repo.commit()
    nested = make_repo(repo.top / "nested", {"a": "x"})
    for place in (repo.top / "lib", repo.top / "lib" / ".git", nested.top, nested.top / ".git"):
        os.chown(place, 12345, 12345)
    snapshot = capture(repo.top)
    assert all("belongs to another user" in reason for reason in reasons(snapshot).values())
    assert reasons(snapshot).keys() == {"lib", "nested"}


def test_excluded_paths_are_excluded_inside_too(repo: Repo) -> None:
    inner = make_repo(repo.top / "nested", {"a": "x"})
    inner.write("mlruns/1", "y")
    make_repo(repo.top / "mlruns" / "copy", {"a": "x"})
    snapshot = capture(repo.top, exclude=[inner.top / "mlruns", repo.top / "mlruns"])
    nested = inside(snapshot)["nested"].snapshot
    assert reasons(nested) == {"mlruns": "excluded by the caller"}
    assert reasons(snapshot) == {"mlruns": "excluded by the caller"}
    assert not nested.is_dirty
    assert inside(snapshot).keys() == {"nested"}


def test_budgets_count_over_all_repositories(repo: Repo) -> None:
    inner = make_repo(repo.top / "nested", {"a": "x"})
    repo.write("outer", b"o" * 700)
    inner.write("inner", b"i" * 800)
    snapshot = capture(repo.top, settings=Settings(largest_snapshot=1000))
    assert [change.path for change in snapshot.changed] == ["outer"]
    assert reasons(inside(snapshot)["nested"].snapshot).keys() == {"inner"}
    for number in range(5):
        inner.write(f"many/{number}", "m")
    snapshot = capture(repo.top, settings=Settings(most_files=2))
    assert reasons(inside(snapshot)["nested"].snapshot).keys() == {"many/"}


def test_nothing_is_touched_in_any_of_them(tmp_path: Path, repo: Repo, library: Repo) -> None:
    inner = add_submodule(repo, library)
    repo.commit()
    inner.write("a", "edited")
    other = make_repo(repo.top / "other", {"b": "y"})
    other.write("b", "edited")
    os.utime(inner.top / "deep" / "c", (1, 1))
    before = footprint(repo.top)
    capture(repo.top)
    assert footprint(repo.top) == before


def test_the_git_state_has_those_inside_by_path(repo: Repo, library: Repo) -> None:
    assert get_git_state(repo.top).keys() == {"base_commit", "patch", "is_dirty"}
    inner = add_submodule(repo, library)
    repo.commit()
    inner.write("a", "edited\n")
    state = get_git_state(repo.top)
    assert (state["patch"], state["is_dirty"]) == ("", True)
    nested = state["nested"]["lib"]
    assert (nested["base_commit"], nested["is_dirty"]) == (library.git("rev-parse", "HEAD"), True)
    assert "+edited" in nested["patch"]
