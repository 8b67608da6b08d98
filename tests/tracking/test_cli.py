"""The command line: what it does, what it refuses, and that a refusal or a failure leaves everything as it was."""

from __future__ import annotations

import inspect
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.repos import Repo, contents, footprint, make_repo
from helpers.tracked_runs import RunStore, make_run_store
from typer.testing import CliRunner, Result

from researchlab.cli import app
from researchlab.tracking import restore

RLAB = Path(sys.executable).with_name("rlab")
RUN = "2026-02-15_radiant-octopus"
# click < 8.2 mixes stderr into stdout unless it is told not to; click >= 8.2 does not know that option any more.
RUNNER = CliRunner(**({"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """An empty store, the one that is in use."""
    made = make_run_store(tmp_path / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    return made


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository with two commits, the working directory."""
    made = make_repo(tmp_path / "repo", {"train.py": "print(1)\n", "data/in.txt": "1\n", "gone.txt": "x\n"})
    made.write(".gitignore", "*.log\n")
    made.commit("second")
    monkeypatch.chdir(made.top)
    return made


def rlab(*args: str) -> Result:
    result = RUNNER.invoke(app, list(args))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refusal(*args: str) -> str:
    result = rlab(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    return result.stderr


def state(repo: Repo) -> tuple[Any, ...]:
    """Everything that a refused or failed restore must leave alone."""
    refs = repo.git("for-each-ref", "--format=%(refname) %(objectname)")
    return (
        contents(repo.top),
        (repo.top / ".git/HEAD").read_text(),
        refs,
        repo.git("status", "--porcelain", "--ignored"),
    )


def tracked_dirty(repo: Repo, store: RunStore, run_id: str = RUN) -> tuple[dict[bytes, tuple[str, bytes]], str]:
    """Track a run in a dirty checkout, then clean it and go on; return what the checkout held, and its status."""
    repo.write("train.py", "print(2)\r\nno end")
    repo.write("data/in.txt", "1\n", executable=True)
    repo.write("new/deep/weights.bin", bytes(range(256)))
    repo.write("new/empty")
    repo.write(b"caf\xe9 \t.txt", "latin")
    repo.link("link", "nowhere")
    (repo.top / "gone.txt").unlink()
    before = contents(repo.top), repo.git("status", "--porcelain")
    store.track(run_id, repo.top)
    repo.git("stash", "push", "--include-untracked")
    repo.git("stash", "drop")
    repo.write("train.py", "print('later')\n")
    repo.write("later.py", "")
    repo.commit("later")
    return before


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


@pytest.mark.parametrize("remotes", [{}, {"origin": "https://example.org/a b.git"}])
def test_a_missing_base_commit_is_named_with_the_commands_to_fetch_it(
    remotes: dict[str, str], repo: Repo, store: RunStore, tmp_path: Path
) -> None:
    record = store.track(RUN, repo.top, remotes=remotes)
    assert record.snapshot is not None
    other = make_repo(tmp_path / "other", {"a": "b"})
    before = footprint(other.top)
    for command in (("restore", RUN), ("diff", RUN, RUN)):
        message = refusal(*command, "--repo", str(other.top))
        assert f"The base commit {record.snapshot.base_commit} of run '{RUN}' is not in {other.top}." in message
        source = "'https://example.org/a b.git'" if remotes else "<a clone that has it>"
        assert f"git -C {other.top} fetch {source} {record.snapshot.base_commit}" in message
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
    write = restore._write

    def write_and_fail(top: Path, entries: Any, git_dir: Path) -> None:
        write(top, dict(list(entries.items())[:4]), git_dir)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restore, "_write", write_and_fail)
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
    assert "--artifact-path run.patch --dst-path . && git init && git apply run.patch" in refusal("restore", RUN)


def test_a_run_without_code_says_so(repo: Repo, store: RunStore) -> None:
    store.track(RUN, None)
    assert "recorded no code" in refusal("restore", RUN)
    assert "There was no repository." in refusal("diff", RUN, RUN)


def test_restore_says_what_the_run_had_and_the_snapshot_lacks(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top, left_out={"big.bin": "is too large", "mlflow.db": "excluded by the caller"})
    assert "not captured: big.bin\n" in rlab("restore", RUN).stdout


def test_restore_names_submodules_that_are_not_where_the_run_had_them(
    repo: Repo, store: RunStore, tmp_path: Path
) -> None:
    library = make_repo(tmp_path / "library", {"lib.py": "1"})
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.top), "lib")
    repo.commit("submodule")
    store.track(RUN, repo.top)
    inner = Repo(repo.top / "lib")
    inner.write("lib.py", "2")
    inner.commit("moved on")
    repo.commit("newer library")
    assert "Submodules at another commit than the run's: lib." in rlab("restore", RUN).stdout


def test_an_unknown_run_is_refused_with_the_closest_ids(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    assert f"Closest: {RUN}" in refusal("restore", "2026-02-15_radiant-octopuss")
    assert "cannot be a run id" in refusal("restore", "it's")


def test_looking_for_runs_does_not_make_a_store(repo: Repo) -> None:
    before = footprint(repo.top)
    for command in (("runs",), ("restore", RUN), ("diff", RUN, RUN), ("reproduce", RUN)):
        assert f"the store sqlite:///{repo.top}/mlflow.db does not exist" in refusal(*command)
    assert footprint(repo.top) == before


def test_outside_a_repository_the_commands_say_so(store: RunStore, tmp_path: Path) -> None:
    empty = tmp_path / "nowhere"
    empty.mkdir()
    assert "is not inside a git repository" in refusal("list", "--repo", str(empty))
    assert "There is no folder" in refusal("delete", RUN, "--repo", str(empty / "none"))


def test_list_is_friendly_when_nothing_is_restored(repo: Repo) -> None:
    assert "No restored runs" in rlab("list").stdout
    assert json.loads(rlab("list", "--json").stdout) == []


def test_list_shows_each_restored_run(repo: Repo, store: RunStore) -> None:
    base = repo.git("rev-parse", "HEAD")
    store.track("one", repo.top)
    store.track("two", repo.top)
    rlab("restore", "one")
    repo.write("more.py")
    tip = repo.commit("[bold]more[/bold]")
    rlab("restore", "two")
    header, first, second = rlab("list").stdout.splitlines()
    assert header.split()[:2] == ["run", "base"]
    assert first.split()[:2] == ["one", base[:7]]
    assert first.endswith("[bold]more[/bold] (has commits of its own)")
    assert second.split()[3] == str(repo.top)
    assert second.endswith("second")
    one, two = json.loads(rlab("list", "--json").stdout)
    assert (one["run_id"], one["base_commit"], one["commit"], one["checked_out_at"]) == ("one", base, tip, None)
    assert (two["branch"], two["commit"], two["subject"]) == ("experiment/two", base, "second")


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


def test_diff_is_what_git_says_about_the_two_trees(repo: Repo, store: RunStore) -> None:
    repo.write("train.py", "print(2)\n")
    store.track("one", repo.top)
    repo.git("restore", ".")
    repo.write("later.py", "x = 1\n")
    repo.commit("later")
    repo.write("untracked.py", "y = 1\n")
    store.track("two", repo.top)
    repo.git("config", "--global", "color.ui", "always")
    try:
        before = state(repo)
        result = rlab("diff", "one", "two")
        assert state(repo) == before
    finally:
        repo.git("config", "--global", "--unset", "color.ui")
    assert (result.exit_code, result.stderr) == (0, "")
    names = [line.split()[2] for line in result.stdout.splitlines() if line.startswith("diff --git")]
    assert names == ["a/later.py", "a/train.py", "a/untracked.py"]
    assert "-print(2)\n+print(1)\n" in result.stdout


def test_diff_of_equal_code_says_so_on_stderr(repo: Repo, store: RunStore) -> None:
    repo.write("train.py", "print(2)\n")
    store.track("one", repo.top, left_out={"fifo": "is a FIFO"})
    repo.commit("the same code, committed")
    store.track("two", repo.top)
    result = rlab("diff", "one", "two")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "same code: one and two" in result.stderr
    assert "one did not capture it: fifo" in result.stderr


def test_diff_on_a_terminal_has_the_colours_and_the_pager_of_the_user(repo: Repo, store: RunStore) -> None:
    store.track("one", repo.top)
    repo.write("train.py", "print(2)\n")
    store.track("two", repo.top)
    mine, theirs = pty.openpty()
    environ = {**os.environ, "GIT_PAGER": "sed s/^/PAGED:/", "GIT_OBJECT_DIRECTORY": "/nowhere", "TERM": "xterm"}
    process = subprocess.Popen([RLAB, "diff", "one", "two"], stdout=theirs, env=environ)
    os.close(theirs)
    output = b""
    while True:
        try:
            output += os.read(mine, 4096)
        except OSError:
            break
    os.close(mine)
    assert process.wait() == 0
    assert b"PAGED:\x1b[31m-print(1)" in output


def test_runs_shows_the_newest_first_and_says_what_it_leaves_out(repo: Repo, store: RunStore) -> None:
    for run_id in ("one", "two", "three"):
        store.track(run_id, repo.top)
    result = rlab("runs", "--limit", "2")
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["run", "started", "status", "experiment", "base"]
    assert [row.split()[0] for row in rows] == ["three", "two"]
    assert "1 older ones are not shown" in result.stderr
    entry = json.loads(rlab("runs", "--json", "--experiment", "tests").stdout)[0]
    assert (entry["run_id"], entry["status"], entry["experiment"]) == ("three", "FINISHED", "tests")
    assert entry["base_commit"] == repo.git("rev-parse", "HEAD")
    assert "There is no experiment 'tset'" in refusal("runs", "--experiment", "tset")


def test_runs_of_an_empty_store_is_an_empty_list(repo: Repo, store: RunStore) -> None:
    assert f"No tracked runs in {store.uri}." in rlab("runs").stdout
    assert json.loads(rlab("runs", "--json").stdout) == []


def test_reproduce_tells_another_verdict_from_a_refusal(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top, kind="interactive")
    result = rlab("reproduce", "latest", RUN)
    assert result.exit_code == 1
    assert result.stdout.count("NOT RE-EXECUTABLE") == 1
    assert "no-such-run" in refusal("reproduce", "no-such-run")


@pytest.mark.slow
def test_a_script_is_tracked_listed_reproduced_and_restored(repo: Repo) -> None:
    program = "from researchlab import ExperimentTracker\nwith ExperimentTracker('e', 'the-run') as run:\n"
    repo.write("train.py", program + "    run.record_metrics({'x': 0.1}, 0)\n")
    subprocess.run([sys.executable, "-W", "ignore", "train.py"], cwd=repo.top, check=True)
    written = (repo.top / "train.py").read_text()
    repo.git("restore", "train.py")
    result = rlab("reproduce", "the-run")
    assert result.exit_code == 0, result.stdout
    assert result.stdout.startswith("REPRODUCED  the-run")
    assert rlab("restore", "the-run").exit_code == 0
    assert (repo.top / "train.py").read_text() == written


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from researchlab.cli import app
app(["--help"], standalone_mode=False)
heavy = {"mlflow", "jax", "git", "numpy", "equinox", "pydantic"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "[]\n"
    for command in ("restore", "list", "delete", "diff", "runs", "reproduce"):
        assert command in done.stdout
