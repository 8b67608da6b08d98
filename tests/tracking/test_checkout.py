"""`rlab restore` in the present checkout: what it does and refuses, and that a failure leaves all as it was."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from helpers.checkouts import RUN, checkout, cloned, state, tracked_dirty
from helpers.commands import RLAB, RUNNER, refusal, rlab
from helpers.kept_code import add_submodule, track_whole
from helpers.repos import Repo, contents, footprint, make_repo

from researchlab.cli import app
from researchlab.tracking import restore
from researchlab.tracking._restoring._bundle import write_pack

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

__all__ = ["checkout"]  # a fixture

pytestmark = pytest.mark.slow


def test_restore_brings_the_checkout_of_the_run_back(repo: Repo, store: RunStore) -> None:
    base = repo.git("rev-parse", "HEAD")
    files, status = tracked_dirty(repo, store)
    result = rlab("restore", RUN)
    assert result.exit_code == 0, result.stderr
    assert (contents(repo.top), repo.git("status", "--porcelain")) == (files, status)
    assert repo.git("symbolic-ref", "HEAD") == f"refs/heads/experiment/{RUN}"
    assert repo.git("rev-parse", "HEAD") == base
    assert repo.git("diff", "--cached", "--name-only") == ""
    assert f"experiment/{RUN} at {base[:7]}, 7 changed files" in result.stdout


def test_the_printed_way_back_leads_back_and_loses_nothing(repo: Repo, store: RunStore) -> None:
    tracked_dirty(repo, store)
    repo.write("mlflow.db", "not ignored here, and never to be stashed")
    repo.write("mlartifacts/1/a", "b")
    before = state(repo)
    way_back = rlab("restore", RUN).stdout.partition("To go back: ")[2].strip()
    assert subprocess.run(way_back, shell=True, cwd=repo.top / "mlartifacts", check=False).returncode == 0
    rlab("delete", RUN)
    assert repo.git("stash", "list").count("\n") == 0
    repo.git("stash", "drop")
    assert state(repo) == before


def test_the_way_back_of_a_clean_run_is_one_command(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    assert rlab("restore", RUN).stdout.endswith("To go back: git switch -\n")


def test_the_way_back_to_a_detached_head_names_the_commit(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    repo.git("switch", "--detach", "HEAD~1")
    way_back = rlab("restore", RUN).stdout.partition("To go back: ")[2].strip()
    repo.git(*shlex.split(way_back)[1:])
    assert repo.git("rev-parse", "HEAD") == repo.git("rev-parse", "main~1")


def test_the_reflog_entry_is_dated_now_so_that_gc_keeps_the_way_back(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    rlab("restore", RUN)
    repo.git("gc", "--quiet")
    repo.git("switch", "-")
    assert repo.git("branch", "--show-current") == "main"


def test_restore_works_from_a_subfolder_and_in_a_linked_work_tree(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    files, status = tracked_dirty(repo, store)
    linked = Repo(tmp_path / "linked")
    repo.git("worktree", "add", "--quiet", "--detach", linked.top)
    before = state(repo)
    assert rlab("restore", RUN, "--repo", str(linked.top / "data")).exit_code == 0
    assert (contents(linked.top), linked.git("status", "--porcelain")) == (files, status)
    assert state(repo)[0] == before[0]
    assert f"checked out in {linked.top}. Leave it first: commit or stash" in refusal("delete", RUN)


def test_restore_keeps_what_a_sparse_checkout_leaves_out(repo: Repo, store: RunStore) -> None:
    repo.git("sparse-checkout", "set", "--no-cone", "/*", "!/data")
    repo.write("train.py", "print(3)\n")
    store.track(RUN, repo.top)
    repo.git("restore", "train.py")
    assert rlab("restore", RUN).exit_code == 0
    assert (repo.top / "train.py").read_text() == "print(3)\n"
    assert not (repo.top / "data").exists()
    assert repo.git("status", "--porcelain") == "M train.py"


def test_line_endings_that_git_converts_are_not_uncommitted_work(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    recorded = contents(repo.top)
    repo.git("config", "core.autocrlf", "true")
    repo.git("rm", "--cached", "-r", "--quiet", ".")
    repo.git("reset", "--hard", "--quiet")
    assert (repo.top / "train.py").read_bytes() == b"print(1)\r\n"
    assert rlab("restore", RUN).exit_code == 0
    assert contents(repo.top) == recorded


@pytest.mark.parametrize(
    "work", ["modified", "deleted", "staged", "staged and reverted", "untracked", "intent", "hidden"]
)
def test_restore_refuses_uncommitted_work_and_touches_nothing(work: str, repo: Repo, store: RunStore) -> None:
    tracked_dirty(repo, store)
    name = "notes.txt" if work in {"untracked", "intent"} else "train.py"
    repo.write(name, "work\n")
    if work in {"staged", "staged and reverted"}:
        repo.git("add", name)
    if work == "staged and reverted":
        repo.write(name, "print('later')\n")
    elif work == "deleted":
        (repo.top / name).unlink()
    elif work == "intent":
        repo.git("add", "--intent-to-add", name)
    elif work == "hidden":
        repo.git("update-index", "--assume-unchanged", name)
    before = footprint(repo.top)
    message = refusal("restore", RUN)
    assert f"\n  {name}\n" in message
    assert "git stash push --include-untracked" in message
    assert footprint(repo.top) == before


def test_the_refusal_names_five_files(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    for number in range(7):
        repo.write(f"file{number}")
    message = refusal("restore", RUN)
    assert all(f"file{number}\n" in message for number in range(5))
    assert "and 2 more" in message


def test_restore_refuses_when_the_branch_exists(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    repo.git("branch", f"experiment/{RUN}")
    before = footprint(repo.top)
    message = refusal("restore", RUN)
    assert f"git switch experiment/{RUN}" in message
    assert f"rlab delete {RUN}" in message
    assert footprint(repo.top) == before


@pytest.mark.parametrize("recorded", [True, False])
def test_a_missing_base_commit_is_named_with_all_that_was_tried_and_the_commands_to_fetch_it(
    recorded: bool,  # noqa: FBT001
    repo: Repo,
    store: RunStore,
    tmp_path: Path,
) -> None:
    gone = f"{tmp_path}/gone a b.git"
    record = store.track(RUN, repo.top, remotes={"origin": gone} if recorded else {})
    assert record.snapshot is not None
    base = record.snapshot.base_commit
    other = make_repo(tmp_path / "other", {"a": "b"})
    before = footprint(other.top)
    for command in (("restore", RUN), ("diff", RUN, RUN)):
        message = refusal(*command, "--repo", str(other.top))
        assert f"The base commit {base} of the repository is nowhere to be had. Tried:" in message
        assert f"  {other.top}: it is not there\n" in message
        assert (f"  the remote origin ({gone}): " in message) == recorded
        source = f"'{gone}'" if recorded else "'<a clone>'"
        assert f"git -C {other.top} fetch {source} {base}" in message
    assert footprint(other.top) == before


@pytest.mark.parametrize("place", ["commit", "patch"])
def test_an_ignored_file_in_the_way_is_named_and_kept(place: str, repo: Repo, store: RunStore) -> None:
    repo.write("out/result.txt", "of the run")
    if place == "commit":
        repo.commit("with the result")
    store.track(RUN, repo.top)
    if place == "commit":
        repo.git("rm", "--quiet", "-r", "out")
    else:
        (repo.top / "out/result.txt").unlink()
    repo.write(".gitignore", "out/\n")
    repo.commit("ignore it")
    if place == "patch":
        # Ignored at the base commit, too: what the run had untracked there is now somebody's result.
        (repo.top / ".git/info").mkdir(exist_ok=True)
        (repo.top / ".git/info/exclude").write_text("out/\n")
    repo.write("out/result.txt", "precious")
    before = state(repo)
    assert "out/result.txt" in refusal("restore", RUN)
    assert state(repo) == before


def test_an_altered_patch_is_refused_before_anything_changes(repo: Repo, store: RunStore) -> None:
    repo.write("train.py", "print(2)\n")
    record = store.track(RUN, repo.top)
    assert record.snapshot is not None
    patch = repo.git("diff", "--full-index").replace("print(2)", "print(3)") + "\n"
    store.track("altered", repo.top, patch=patch.encode())
    store.track("garbage", repo.top, patch=b"garbage")
    repo.git("restore", ".")
    before = state(repo)
    assert f"{record.snapshot.tree} was recorded" in refusal("restore", "altered").replace("\n", " ")
    assert "does not apply" in refusal("restore", "garbage")
    assert state(repo) == before


@pytest.mark.parametrize("place", ["branch", "detached"])
def test_a_failure_half_way_takes_everything_back(
    place: str, repo: Repo, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked_dirty(repo, store)
    repo.write("new.log", "ignored, and it stays")
    (repo.top / "new").mkdir()
    if place == "detached":
        repo.git("switch", "--quiet", "--detach")
    before = state(repo)
    write = restore.write_files

    def write_and_fail(top: Path, entries: Any, git_dir: Path) -> None:
        write(top, dict(list(entries.items())[:4]), git_dir)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restore, "write_files", write_and_fail)
    assert "No space left on device" in refusal("restore", RUN)
    assert state(repo) == before
    assert (repo.top / "new").is_dir()
    assert not (repo.top / "new/deep").exists()
    monkeypatch.undo()
    assert rlab("restore", RUN, "--repo", str(repo.top), "--tracking-uri", store.uri).exit_code == 0


def test_what_cannot_be_taken_back_is_said_with_the_commands(
    repo: Repo, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked_dirty(repo, store)

    def lock_and_fail(*args: Any, **kwargs: Any) -> None:
        repo.write(".git/index.lock")
        raise OSError(5, "Input/output error")

    before = state(repo)
    monkeypatch.setattr(restore, "write_into_worktree", lock_and_fail)
    message = refusal("restore", RUN)
    assert "Input/output error\nGoing back" in message
    assert "index.lock" in message
    (repo.top / ".git/index.lock").unlink()
    command = message.partition("Look at `git status`, then: ")[2]
    assert subprocess.run(command, shell=True, cwd=repo.top, check=False).returncode == 0
    assert state(repo) == before


def test_a_locked_index_is_refused_as_that(repo: Repo, store: RunStore) -> None:
    tracked_dirty(repo, store)
    repo.write(".git/index.lock")
    before = state(repo)
    message = refusal("restore", RUN)
    assert "index.lock" in message
    assert "failed as well" not in message
    assert state(repo) == before


def test_ctrl_c_takes_everything_back(repo: Repo, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked_dirty(repo, store)
    before = state(repo)
    write = restore.write_into_worktree

    def interrupted(*args: Any, **kwargs: Any) -> tuple[str, ...]:
        os.kill(os.getpid(), signal.SIGINT)
        return write(*args, **kwargs)

    monkeypatch.setattr(restore, "write_into_worktree", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    result = RUNNER.invoke(app, ["restore", RUN])
    assert result.exit_code != 0
    assert state(repo) == before
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_processes_while_git_checks_out_and_goes_back_leave_nothing_behind(
    number: signal.Signals, repo: Repo, store: RunStore, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    repo.write(".gitattributes", "*.slow filter=slow\n")
    repo.write("first.slow", "1\n")
    repo.write("both.slow", "1\n")
    repo.commit("slow")
    tracked_dirty(repo, store)
    (repo.top / "first.slow").unlink()
    repo.write("both.slow", "2\n")
    repo.commit("later")
    repo.git("config", "filter.slow.smudge", f"echo >> {started}; sleep 0.3; cat")
    before = state(repo)
    process = subprocess.Popen([RLAB, "restore", RUN], start_new_session=True, stderr=subprocess.PIPE)
    for files in (1, 3):  # two are written on the way there, one on the way back
        while not started.exists() or started.stat().st_size < files:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"Traceback" not in errors
    assert not (repo.top / ".git/index.lock").exists()
    assert state(repo) == before


def test_a_run_before_the_first_commit_has_no_branch_to_start_from(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path / "unborn")
    repo.write("train.py", "print(1)\n")
    store.track(RUN, repo.top)
    monkeypatch.chdir(repo.top)
    assert "before its repository had a commit" in refusal("restore", RUN)
    repo.commit()
    message = refusal("restore", RUN)
    assert f"  MLFLOW_TRACKING_URI={store.uri} mlflow artifacts download --run-id " in message
    assert "--artifact-path run.patch --dst-path . && git init && git apply run.patch" in message


def test_a_run_without_code_says_so(repo: Repo, store: RunStore) -> None:
    store.track(RUN, None)
    assert "recorded no code" in refusal("restore", RUN)
    assert "There was no repository." in refusal("diff", RUN, RUN)


def test_restore_says_what_the_run_had_and_the_snapshot_lacks(repo: Repo, store: RunStore) -> None:
    left_out = {"big.bin": "is too large", "train.py": "is too large", "mlflow.db": "belongs to the MLflow store"}
    store.track(RUN, repo.top, left_out=left_out)
    text = rlab("restore", RUN).stdout
    assert "The run had more, which was not captured: big.bin\n" in text
    assert "Not as in the run, which did not capture them, but as in the base commit: train.py\n" in text
    assert "mlflow.db" not in text


def test_scripts_are_told_what_was_restored_and_deleted(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    store.track(RUN, repo.top, left_out={"big.bin": "is too large", "train.py": "is too large"})
    base = repo.git("rev-parse", "HEAD")
    done = json.loads(rlab("restore", RUN, "--json", "--worktree", str(tmp_path / "there")).stdout)
    assert (done["run_id"], done["branch"], done["base_commit"]) == (RUN, f"experiment/{RUN}", base)
    assert (done["worktree"], done["not_captured"], done["as_in_the_base_commit"]) == (
        str(tmp_path / "there"),
        ["big.bin"],
        ["train.py"],
    )
    repo.git("worktree", "remove", "--force", done["worktree"])
    deleted = json.loads(rlab("delete", RUN, "--json").stdout)
    assert (deleted["branch"], deleted["commit"]) == (f"experiment/{RUN}", base)


def test_restore_names_submodules_that_are_not_where_the_run_had_them(
    repo: Repo, store: RunStore, tmp_path: Path
) -> None:
    library = make_repo(tmp_path / "library", {"lib.py": "1"})
    add_submodule(repo, library, "lib")
    store.track(RUN, repo.top)  # a record of version 1 has nothing of the repositories inside
    inner = Repo(repo.top / "lib")
    inner.write("lib.py", "2")
    inner.commit("moved on")
    repo.commit("newer library")
    assert "Submodules at another commit than the run's: lib." in rlab("restore", RUN).stdout


# Base commits that the repository does not have


def test_a_commit_that_only_the_bundle_has_is_brought_into_the_repository(
    repo: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote.git"
    repo.git("clone", "--quiet", "--bare", ".", str(remote))
    clone = cloned(Repo(remote), tmp_path / "clone")
    clone.write("train.py", "never pushed\n")
    base = clone.commit("never pushed")
    clone.write("train.py", "edited\n")
    track_whole(store, RUN, clone.top)
    shutil.rmtree(clone.top)
    other = cloned(Repo(remote), tmp_path / "other")
    monkeypatch.chdir(other.top)
    assert rlab("restore", RUN).exit_code == 0
    assert other.git("rev-parse", "HEAD") == base
    assert (other.top / "train.py").read_text() == "edited\n"
    other.git("fsck", "--strict")
    assert other.git("log", "--format=%s").splitlines() == ["never pushed", "second", "c"]


def test_a_run_outlives_a_rebase_and_the_garbage_collection(repo: Repo, store: RunStore) -> None:
    repo.write("train.py", "base\n")
    base = repo.commit("to be rebased")
    repo.write("train.py", "edited\n")
    track_whole(store, RUN, repo.top)
    repo.git("reset", "--quiet", "--hard", "HEAD~1")
    repo.write("later.py", "")
    repo.commit("instead")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    assert repo.git("cat-file", "-t", base, check=False) == ""
    assert rlab("restore", RUN).exit_code == 0
    assert repo.git("rev-parse", "HEAD") == base
    assert (repo.top / "train.py").read_text() == "edited\n"
    repo.git("fsck", "--strict")


def test_a_commit_without_its_history_does_not_get_into_a_repository(
    repo: Repo, store: RunStore, tmp_path: Path
) -> None:
    folder = track_whole(store, RUN, repo.top, bundle=False)
    write_pack(repo.top / ".git", repo.git("rev-parse", "HEAD"), folder / "rlab/base.pack")
    other = make_repo(tmp_path / "other", {"x": "1"})
    before = footprint(other.top / ".git/objects"), state(other)
    message = refusal("restore", RUN, "--repo", str(other.top))
    assert "the run was exported without it" in message
    assert (footprint(other.top / ".git/objects"), state(other)) == before
