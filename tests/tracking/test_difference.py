"""`rlab diff`: paths as git takes them, and what lies in repositories inside the work tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.commands import on_a_terminal, refusal, rlab
from helpers.repos import Repo, footprint, make_repo

from researchlab.tracking._reading._sealed import seal
from researchlab.tracking.record import FileRecord, InputRecord
from researchlab.tracking.tracker import ExperimentTracker

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

pytestmark = pytest.mark.slow


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    made = make_repo(tmp_path / "repo", {"train.py": "print(1)\n", "data/in.txt": "1\n", "data/more.txt": "1\n"})
    monkeypatch.chdir(made.top)
    return made


def test_a_run_without_code_says_so(repo: Repo, store: RunStore) -> None:
    store.track("one", None)
    assert "There was no repository." in refusal("diff", "one", "one")


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
        before = footprint(repo.top)
        result = rlab("diff", "one", "two")
        assert footprint(repo.top) == before
    finally:
        repo.git("config", "--global", "--unset", "color.ui")
    assert (result.exit_code, result.stderr) == (0, "")
    names = [line.split()[2] for line in result.stdout.splitlines() if line.startswith("diff --git")]
    assert names == ["a/later.py", "a/train.py", "a/untracked.py"]
    assert "-print(2)\n+print(1)\n" in result.stdout


def test_code_of_which_a_part_was_left_out_is_not_called_the_same(repo: Repo, store: RunStore) -> None:
    reasons = {f"{number}.p12": "looks like a secret (key store)" for number in range(7)}
    left_out = reasons | {"train.py": "looks like a secret (a GitHub token)", "weights": "is too large"}
    program = InputRecord(path="train.py", role="code", why="?", sha256=None, size=1, sealed=seal("0" * 64))
    for run_id, digest in (("one", "0"), ("two", "0"), ("three", "1")):
        large = {"weights": FileRecord(sha256=digest * 64, size=1)}
        store.track(run_id, repo.top, left_out=left_out, large=large, facts={"inputs": (program,)})

    result = rlab("diff", "one", "two")

    assert "same code, as far as it was captured: one and two" in result.stderr
    assert "one did not capture it: train.py, 0.p12" in result.stderr
    assert "two did not capture it: train.py, 0.p12" in result.stderr
    assert "weights" not in result.stderr  # of the same hash
    assert "weights" in rlab("diff", "one", "three").stderr


def test_equal_files_that_were_too_large_are_the_same_code(repo: Repo, store: RunStore) -> None:
    for run_id in ("one", "two"):
        large = {"weights": FileRecord(sha256="0" * 64, size=1)}
        store.track(run_id, repo.top, left_out={"weights": "is too large"}, large=large)

    assert rlab("diff", "one", "two").stderr.startswith("same code: one and two ran")


def test_diff_of_equal_code_says_so_on_stderr(repo: Repo, store: RunStore) -> None:
    repo.write("train.py", "print(2)\n")
    store.track("one", repo.top, left_out={"fifo": "is a FIFO"})
    repo.commit("the same code, committed")
    store.track("two", repo.top)
    result = rlab("diff", "one", "two")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "same code, as far as it was captured: one and two" in result.stderr
    assert "one did not capture it: fifo" in result.stderr


def test_diff_on_a_terminal_has_the_colours_and_the_pager_of_the_user(repo: Repo, store: RunStore) -> None:
    store.track("one", repo.top)
    repo.write("train.py", "print(2)\n")
    store.track("two", repo.top)
    code, output = on_a_terminal("diff", "one", "two", GIT_PAGER="sed s/^/PAGED:/", GIT_OBJECT_DIRECTORY="/nowhere")
    assert code == 0
    assert b"PAGED:\x1b[31m-print(1)" in output


def files(*paths: str) -> list[str]:
    """Return the files that differ between the runs one and two."""
    result = rlab("diff", "one", "two", *paths)
    assert result.exit_code == 0, result.stderr
    return [line.split(" b/")[1] for line in result.stdout.splitlines() if line.startswith("diff --git")]


@pytest.fixture
def changed(repo: Repo, store: RunStore) -> Repo:
    store.track("one", repo.top)
    for name in ("train.py", "data/in.txt", "data/more.txt", "caf\u00e9.txt"):
        repo.write(name, "2\n")
    store.track("two", repo.top)
    return repo


def test_paths_are_pathspecs_of_git(changed: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(files()) == 4
    assert files("--", "train.py") == ["train.py"]
    assert files("train.py") == ["train.py"]
    assert files("--", "data") == ["data/in.txt", "data/more.txt"]
    assert files("--", "data", ":!*more*") == ["data/in.txt"]
    assert files("--", ":(glob)*.py") == ["train.py"]
    assert files("--", "nothing") == []
    monkeypatch.chdir(changed.top / "data")
    assert files("--", "in.txt") == ["data/in.txt"]
    assert files("--", "../train.py") == ["train.py"]
    assert files("--", ":/train.py") == ["train.py"]
    assert files() == [*files("--", ":/")]


def test_paths_are_relative_to_the_named_folder(changed: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files("--repo", str(changed.top / "data"), "--", "in.txt") == ["data/in.txt"]


def test_a_pathspec_that_git_refuses_is_refused(changed: Repo) -> None:
    assert "outside repository" in refusal("diff", "one", "two", "--", "../other")


def test_the_terminal_gets_the_same_paths(changed: Repo) -> None:
    code, output = on_a_terminal("diff", "one", "two", "--", "data/in.txt", GIT_PAGER="cat")
    assert code == 0
    assert b"data/in.txt" in output
    assert b"train.py" not in output


def track(run_id: str) -> None:
    with ExperimentTracker("tests", run_id):
        pass


def test_a_submodule_and_a_nested_repository_stand_under_their_paths(
    repo: Repo, store: RunStore, tmp_path: Path
) -> None:
    library = make_repo(tmp_path / "library", {"lib.py": "1\n"})
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.top), "ext/lib")
    repo.commit("submodule")
    inner = make_repo(repo.top / "nested", {"tool.py": "1\n"})
    track("one")
    Repo(repo.top / "ext/lib").write("lib.py", "2\n")
    inner.write("tool.py", "2\n")
    inner.write("new.py", "2\n")
    before = repo.git("status", "--porcelain")
    track("two")
    assert files() == ["ext/lib/lib.py", "nested/new.py", "nested/tool.py"]
    assert files("--", "nested/tool.py") == ["nested/tool.py"]
    inner.commit("the same files, committed")
    track("three")
    result = rlab("diff", "two", "three")
    assert (result.stdout, result.exit_code) == ("", 0)
    assert "same code" in result.stderr
    assert repo.git("status", "--porcelain") == before
