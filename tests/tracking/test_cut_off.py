"""`rlab restore` that was killed outright: nothing half-done passes for a whole, and `--abort` takes it back."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from helpers.checkouts import RUN, checkout, state, tracked_dirty
from helpers.commands import RLAB, refusal, rlab
from helpers.kept_code import add_submodule, track_whole
from helpers.repos import Repo, make_repo

from researchlab.tracking import restore

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

__all__ = ["checkout"]  # a fixture

pytestmark = pytest.mark.slow


def killed(repo: Repo, *args: str, after: int) -> None:
    """Start `rlab restore` and kill it outright when it has written so many files."""
    script = (
        "import os, signal, sys\n"
        "from researchlab.tracking._restoring import _raw_files\n"
        "write, left = _raw_files._write_draft, [int(sys.argv[1])]\n"
        "def write_and_die(*args):\n"
        "    if not left[0]:\n"
        "        args[0].touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1\n"
        "    write(*args)\n"
        "_raw_files._write_draft = write_and_die\n"
        "from researchlab.cli import app\n"
        "app(['restore', *sys.argv[2:]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(after), *args], cwd=repo.top, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("after", [0, 3])
def test_a_restore_that_was_killed_is_said_to_be_cut_off_and_is_taken_back(
    after: int, repo: Repo, store: RunStore
) -> None:
    tracked_dirty(repo, store)
    repo.write("kept.log", "ignored, and it stays")
    before = state(repo)
    killed(repo, RUN, after=after)
    assert state(repo) != before
    assert "was cut off" in refusal("restore", RUN)
    assert "was cut off" in refusal("delete", RUN, "--force")
    assert f"rlab restore {RUN} --abort" in " ".join(rlab("list").stdout.split())
    assert rlab("restore", RUN, "--abort").exit_code == 0
    assert state(repo) == before
    assert "nothing to take back" in refusal("restore", RUN, "--abort")
    assert rlab("restore", RUN).exit_code == 0


def test_another_run_is_not_restored_into_a_checkout_that_was_left_half_way(repo: Repo, store: RunStore) -> None:
    tracked_dirty(repo, store)
    store.track("other", repo.top)
    killed(repo, RUN, after=2)
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "--message", "thought that it was whole")
    assert f"rlab restore {RUN} --abort" in refusal("restore", "other")


def test_a_work_tree_that_was_left_half_way_is_taken_back(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    tracked_dirty(repo, store)
    before = state(repo)
    killed(repo, RUN, "--worktree", str(tmp_path / "new" / "tree"), after=2)
    assert "was cut off" in refusal("restore", RUN, "--worktree", str(tmp_path / "elsewhere"))
    assert rlab("restore", RUN, "--abort").exit_code == 0
    assert state(repo) == before
    assert not (tmp_path / "new").exists()
    assert repo.git("worktree", "list").count("\n") == 0


def test_a_restore_that_goes_on_is_not_taken_back(repo: Repo, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked_dirty(repo, store)
    write, said = restore.write_into_worktree, []

    def asked(*args: Any, **kwargs: Any) -> tuple[str, ...]:
        said.append(subprocess.run([RLAB, "restore", RUN, "--abort"], cwd=repo.top, capture_output=True, check=False))
        return write(*args, **kwargs)

    monkeypatch.setattr(restore, "write_into_worktree", asked)
    assert rlab("restore", RUN).exit_code == 0
    assert b"still goes on" in said[0].stderr
    assert not (repo.top / ".git" / "rlab-restore").exists()


def test_a_damaged_journal_is_named(repo: Repo, store: RunStore) -> None:
    tracked_dirty(repo, store)
    repo.write(f".git/rlab-restore/{RUN}.json", "{")
    assert f"{RUN}.json" in refusal("restore", RUN, "--abort")


def test_a_file_with_the_name_of_a_draft_is_kept(repo: Repo, store: RunStore) -> None:
    repo.write(".gitignore", "*.log\n.rlab-draft-*\n")
    repo.commit()
    tracked_dirty(repo, store)
    oid = repo.git("hash-object", "--no-filters", repo.write("one.log", bytes(range(256))))
    mine = repo.write(f"new/deep/.rlab-draft-{oid}", "mine")
    before = state(repo)
    assert f"{mine} is in the way" in refusal("restore", RUN)
    assert state(repo) == before
    assert mine.read_text() == "mine"


def test_repositories_inside_are_taken_back_as_well(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    library = make_repo(tmp_path / "library", {"lib.py": "1\n", "more.py": "1\n"})
    add_submodule(repo, library, "lib")
    repo.write("lib/lib.py", "2\n")
    repo.write("lib/new.py", "new\n")
    repo.write("train.py", "print(2)\n")
    track_whole(store, RUN, repo.top)
    Repo(repo.top / "lib").git("stash", "--include-untracked")
    repo.git("stash")
    inside = Repo(repo.top / "lib")
    before = state(repo), inside.git("status", "--porcelain", "--branch")
    killed(repo, RUN, after=2)  # train.py, and one file inside
    assert rlab("restore", RUN, "--abort").exit_code == 0
    assert (state(repo), inside.git("status", "--porcelain", "--branch")) == before


def test_a_git_folder_is_no_place_for_a_work_tree(repo: Repo, store: RunStore) -> None:
    tracked_dirty(repo, store)
    assert "is in the git folder" in refusal("restore", RUN, "--worktree", ".git/tree")
