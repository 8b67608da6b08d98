"""`rlab restore --worktree` and `rlab delete`: a work tree of its own, and branches that hold the last copy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.checkouts import RUN, checkout, tracked_dirty
from helpers.commands import RLAB, refusal, rlab
from helpers.repos import Repo, contents, footprint

from researchlab.errors import RestoreError
from researchlab.tracking._checkouts._checkout import check_out
from researchlab.tracking._restoring._recorded_code import RecordedCode
from researchlab.tracking.runs import find_run

if TYPE_CHECKING:
    from helpers.tracked_runs import RunStore

__all__ = ["checkout"]  # a fixture

pytestmark = pytest.mark.slow


def test_a_work_tree_of_its_own_leaves_the_checkout_alone(
    repo: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, status = tracked_dirty(repo, store)
    hooks = repo.top / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "post-index-change", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    repo.write("train.py", "uncommitted")
    (tmp_path / "ran").unlink(missing_ok=True)
    before = contents(repo.top), repo.git("status", "--porcelain")
    (tmp_path / "ran").unlink(missing_ok=True)
    tree = Repo(tmp_path / "tree")
    tree.top.mkdir()
    monkeypatch.chdir(tmp_path)
    done = check_out(RecordedCode.of(find_run(RUN)), repo=repo.top, worktree=Path("tree"))
    assert not (tmp_path / "ran").exists()
    assert (contents(tree.top), tree.git("status", "--porcelain")) == (files, status)
    assert tree.git("symbolic-ref", "HEAD") == f"refs/heads/experiment/{RUN}"
    assert (contents(repo.top), repo.git("status", "--porcelain")) == before
    message = refusal("delete", RUN, "--repo", str(repo.top), "--force")
    assert (
        f"checked out in {tree.top}. Commit or stash what is uncommitted there, then remove that work tree" in message
    )
    remove = f"PATH={RLAB.parent}:$PATH; {done.way_back}"
    assert subprocess.run(remove, shell=True, check=False).returncode == 0
    assert not tree.top.exists()
    assert repo.git("branch", "--list", "experiment/*") == ""


def test_a_work_tree_goes_into_an_empty_folder_only(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    store.track(RUN, repo.top)
    code = RecordedCode.of(find_run(RUN))
    before = footprint(repo.top)
    for place in (repo.top, tmp_path / "store", repo.top / "train.py"):
        with pytest.raises(RestoreError, match="empty folder"):
            check_out(code, repo=repo.top, worktree=place)
    assert footprint(repo.top) == before


@pytest.mark.parametrize("kind", ["bare", "separate"])
def test_restore_works_where_the_git_folder_is_elsewhere(
    kind: str, repo: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "bare":
        repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
        Repo(tmp_path / "bare.git").git("worktree", "add", "--quiet", str(tmp_path / "here"), "main")
    else:
        repo.git("clone", "--quiet", f"--separate-git-dir={tmp_path}/git", ".", str(tmp_path / "here"))
    here = Repo(tmp_path / "here")
    monkeypatch.chdir(here.top)
    files, status = tracked_dirty(here, store)
    check_out(RecordedCode.of(find_run(RUN)), repo=here.top, worktree=tmp_path / "tree")
    tree = Repo(tmp_path / "tree")
    assert (contents(tree.top), tree.git("status", "--porcelain")) == (files, status)
    here.git("worktree", "remove", "--force", str(tree.top))
    rlab("delete", RUN)
    assert rlab("restore", RUN).exit_code == 0
    assert (contents(here.top), here.git("status", "--porcelain")) == (files, status)


def test_delete_says_what_to_do_about_a_work_tree_that_is_gone(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    store.track(RUN, repo.top)
    check_out(RecordedCode.of(find_run(RUN)), repo=repo.top, worktree=tmp_path / "tree")
    shutil.rmtree(tmp_path / "tree")
    message = refusal("delete", RUN)
    command = message.partition("If it is gone: ")[2]
    assert subprocess.run(command, shell=True, check=False).returncode == 0
    assert rlab("delete", RUN).exit_code == 0


def test_delete_removes_the_branch_and_says_how_to_undo(repo: Repo, store: RunStore) -> None:
    base = repo.git("rev-parse", "--short", "HEAD")
    store.track(RUN, repo.top)
    rlab("restore", RUN)
    repo.git("switch", "-")
    result = rlab("delete", RUN)
    assert result.exit_code == 0
    assert repo.git("branch", "--list", "experiment/*") == ""
    repo.git(*result.stdout.strip().partition("To undo: git ")[2].split())
    assert repo.git("rev-parse", "--short", f"experiment/{RUN}") == base


def test_delete_refuses_the_branch_that_is_checked_out(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    rlab("restore", RUN)
    before = footprint(repo.top)
    assert "Leave it first: git switch -\n" in refusal("delete", RUN, "--force")
    assert footprint(repo.top) == before


def test_delete_never_loses_the_last_copy_of_a_commit_unforced(repo: Repo) -> None:
    repo.git("switch", "--quiet", "-c", f"experiment/{RUN}")
    for number in range(2):
        repo.write("idea.py", str(number))
        repo.commit(f"idea {number}")
    repo.git("switch", "--quiet", "main")
    assert "has 2 commits that are on no other branch, remote or tag" in refusal("delete", RUN)
    repo.git("tag", "kept", f"experiment/{RUN}~1")
    assert "has 1 commit that is on no other branch" in refusal("delete", RUN)
    assert rlab("delete", RUN, "--force").exit_code == 0
    assert repo.git("branch", "--list", "experiment/*") == ""


@pytest.mark.parametrize("holder", ["branch", "tag", "remote"])
def test_delete_needs_no_force_when_the_commits_are_elsewhere(holder: str, repo: Repo, tmp_path: Path) -> None:
    repo.git("switch", "--quiet", "-c", f"experiment/{RUN}")
    repo.write("idea.py")
    repo.commit("idea")
    if holder == "remote":
        repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "remote.git"))
        repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
        repo.git("fetch", "--quiet", "origin")
    else:
        repo.git(holder, "kept")
    repo.git("switch", "--quiet", "main")
    assert rlab("delete", RUN).exit_code == 0


def test_delete_names_the_closest_branches(repo: Repo) -> None:
    assert "`rlab list`" in refusal("delete", RUN)
    repo.git("branch", f"experiment/{RUN}")
    assert f"Closest: {RUN}." in refusal("delete", RUN.replace("octopus", "octopos"))
