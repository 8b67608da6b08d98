"""What `rlab restore` and `rlab delete` advise when they refuse: that it helps, word for word."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from helpers.checkouts import RUN, checkout, cloned, state
from helpers.commands import refusal, rlab
from helpers.kept_code import add_submodule, track_whole
from helpers.repos import Repo, contents, make_repo

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

__all__ = ["checkout"]  # a fixture

pytestmark = pytest.mark.slow


def typed(command: str, folder: Path) -> None:
    """Type a printed command."""
    done = subprocess.run(command, shell=True, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)


def two_sides(repo: Repo) -> None:
    """Make a branch whose commit conflicts with the one of main."""
    repo.git("switch", "--quiet", "-c", "side")
    repo.write("train.py", "side\n")
    repo.commit("side")
    repo.git("switch", "--quiet", "main")
    repo.write("train.py", "main\n")
    repo.commit("main")


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (("merge", "side"), "merge"),
        (("rebase", "side"), "rebase"),
        (("rebase", "--apply", "side"), "rebase"),
        (("cherry-pick", "side"), "cherry-pick"),
        (("revert", "HEAD~1"), "revert"),
        (("bisect", "start"), "bisection"),
    ],
)
def test_in_the_middle_of_an_operation_the_way_out_is_told(
    start: tuple[str, ...], name: str, repo: Repo, store: RunStore, tmp_path: Path
) -> None:
    store.track(RUN, repo.top)
    two_sides(repo)
    if name == "revert":
        repo.write("train.py", "once more\n")
        repo.commit("again")
    repo.git(*start, check=False)
    before = state(repo)
    message = refusal("restore", RUN)
    assert f"{repo.top} is in the middle of a {name}. " in message
    assert "stash" not in message
    assert state(repo) == before
    assert rlab("restore", RUN, "--worktree", str(tmp_path / "there")).exit_code == 0
    command = message.partition("give it up (" if name != "bisection" else "End it (")[2].partition(")")[0]
    typed(command, repo.top)
    assert "exists already" in refusal("restore", RUN)


def test_a_branch_in_the_middle_of_a_merge_is_left_when_that_is_over(repo: Repo, store: RunStore) -> None:
    two_sides(repo)
    store.track(RUN, repo.top)
    rlab("restore", RUN)
    repo.git("merge", "side", check=False)
    message = refusal("delete", RUN)
    assert "is in the middle of a merge. Finish it (git merge --continue)" in message
    assert "git switch" not in message


def test_conflicts_without_an_operation_are_not_told_to_be_stashed(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    two_sides(repo)
    repo.write("train.py", "uncommitted\n")
    repo.git("stash")
    repo.git("switch", "--quiet", "side")
    repo.git("stash", "apply", check=False)
    message = refusal("restore", RUN)
    assert "There are conflicts in it, which git does not stash" in message
    assert "git stash push" not in message


def test_a_branch_that_exists_is_gone_on_with_where_the_edits_are(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    repo.write("train.py", "edited\n")
    store.track(RUN, repo.top)
    repo.git("restore", "train.py")
    way_back = rlab("restore", RUN).stdout.partition("To go back: ")[2].strip()
    assert f"It is checked out in {repo.top}: go on there." in refusal("restore", RUN)
    typed(way_back, repo.top)
    message = refusal("restore", RUN)
    assert "`git stash list` has those that the printed way back put aside" in message
    typed(message.partition("To go on there: ")[2].partition("\n")[0], repo.top)
    assert repo.git("branch", "--show-current") == f"experiment/{RUN}"
    repo.git("switch", "--quiet", "main")
    message = refusal("restore", RUN, "--worktree", str(tmp_path / "a b"))
    typed(message.partition("To go on there: ")[2].partition("\n")[0], tmp_path)
    assert Repo(tmp_path / "a b").git("branch", "--show-current") == f"experiment/{RUN}"
    repo.git("worktree", "remove", str(tmp_path / "a b"))
    again = refusal("restore", RUN).strip().rpartition("try again: ")[2]
    assert again == f"rlab delete {RUN}"
    assert rlab(*again.split()[1:]).exit_code == 0
    assert rlab("restore", RUN).exit_code == 0


@pytest.mark.parametrize("branch", ["as it was", "advanced"])
def test_a_branch_whose_commits_are_with_the_run_is_deleted_with_force(
    branch: str, repo: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = cloned(repo, tmp_path / "origin")
    clone = cloned(origin, tmp_path / "clone")
    clone.write("train.py", "never pushed\n")
    clone.commit("never pushed")
    track_whole(store, RUN, clone.top)
    other = cloned(origin, tmp_path / "other")
    monkeypatch.chdir(other.top)
    assert rlab("restore", RUN).exit_code == 0
    if branch == "advanced":
        other.write("train.py", "more\n")
        other.commit("more")
    other.git("switch", "--quiet", "-")
    assert ("It stands where `rlab restore` made it" in refusal("delete", RUN)) is (branch == "as it was")
    message = refusal("restore", RUN)
    why = (
        "it has 2 commits on no other branch, which are lost then"
        if branch == "advanced"
        else "and stored with the run"
    )
    assert f"rlab delete {RUN} --force (" in message
    assert why in message
    assert rlab("delete", RUN, "--force").exit_code == 0
    removal = rlab("restore", RUN, "--worktree", str(tmp_path / "tree")).stdout.partition("To remove it: ")[2]
    first, _, second = removal.strip().partition(" && ")
    typed(first, tmp_path)
    assert rlab(*second.split()[1:]).exit_code == 0


def test_a_work_tree_with_repositories_inside_is_removed_as_advised(
    repo: Repo, store: RunStore, tmp_path: Path
) -> None:
    add_submodule(repo, make_repo(tmp_path / "library", {"lib.py": "1\n"}), "lib")
    track_whole(store, RUN, repo.top)
    rlab("restore", RUN, "--worktree", str(tmp_path / "tree"))
    message = refusal("delete", RUN)
    assert "also in the repositories inside it" in message
    typed(message.rpartition(" work tree: ")[2], tmp_path)
    assert rlab("delete", RUN).exit_code == 0


def test_the_way_back_from_repositories_that_were_not_there_leads_back_fully(
    repo: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = make_repo(tmp_path / "library", {"lib.py": "1\n"})
    add_submodule(library, make_repo(tmp_path / "leaf", {"leaf.py": "1\n"}), "leaf")
    add_submodule(repo, library, "lib")
    clone = cloned(repo, tmp_path / "clone")
    clone.write("lib/lib.py", "edited\n")
    clone.write("train.py", "edited\n")
    make_repo(clone.top / "own/deep", {"a": "1\n"}).write("b", "2\n")
    track_whole(store, RUN, clone.top)
    shutil.rmtree(clone.top)
    fresh = cloned(repo, tmp_path / "fresh", whole=False)
    monkeypatch.chdir(fresh.top)
    before = contents(fresh.top), fresh.git("status", "--porcelain")
    for _ in range(2):
        text = rlab("restore", RUN).stdout
        removal = text.partition("To remove them with all that is in them: ")[2].partition("\n")[0]
        assert "leaf" not in removal  # it goes with the one around it
        typed(removal, tmp_path)
        typed(text.partition("To go back: ")[2].strip(), fresh.top)
        assert (contents(fresh.top), fresh.git("status", "--porcelain")) == before
        assert rlab("delete", RUN).exit_code == 0
