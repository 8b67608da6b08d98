"""The command line: what it does, what it refuses, and that a refusal or a failure leaves everything as it was."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.commands import refusal, rlab
from helpers.repos import Repo, footprint, make_repo

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

RUN = "2026-02-15_radiant-octopus"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository with two commits, the working directory."""
    made = make_repo(tmp_path / "repo", {"train.py": "print(1)\n", "data/in.txt": "1\n", "gone.txt": "x\n"})
    made.write(".gitignore", "*.log\n")
    made.commit("second")
    monkeypatch.chdir(made.top)
    return made


def test_an_unknown_run_is_refused_with_the_closest_ids(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    assert f"Closest: {RUN}" in refusal("restore", "2026-02-15_radiant-octopuss")
    assert "cannot be a run id" in refusal("restore", "it's")


def test_looking_for_runs_does_not_make_a_store(repo: Repo) -> None:
    before = footprint(repo.top)
    assert json.loads(rlab("runs", "--json").stdout) == []
    for command in (
        ("runs", "--tracking-uri", f"sqlite:///{repo.top}/mlflow.db"),
        ("show", RUN),
        ("show", "latest"),
        ("restore", RUN),
        ("diff", RUN, RUN),
        ("reproduce", RUN),
        ("export", RUN, "f"),
    ):
        message = refusal(*command)
        assert f"There is no store {repo.top}/mlflow.db." in message
        assert " --tracking-uri " in message
    assert footprint(repo.top) == before


def test_a_new_project_has_no_runs_and_is_told_how_to_track_one(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    text = rlab("runs").stdout
    assert text.startswith(f"No run was tracked here yet: there is no {repo.top}/mlflow.db.\n")
    assert "with ExperimentTracker(" in text
    assert "with ExperimentTracker(" in refusal("show", RUN)
    named = refusal("runs", "--json", "--tracking-uri", "sqlite:///elsewhere.db")
    assert "ExperimentTracker" not in named
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert refusal("runs") == named


def test_latest_is_the_newest_run_wherever_a_run_is_named(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    store.track("one", repo.top)
    repo.write("train.py", "print(2)\n")
    store.track("two", repo.top)
    assert json.loads(rlab("show", "latest", "--json").stdout)["run_id"] == "two"
    assert rlab("diff", "latest", "two").stderr.startswith("same code: two and two ran tree")
    assert "+print(2)" in rlab("diff", "one", "latest").stdout
    assert rlab("export", "latest", str(tmp_path / "file")).stdout.startswith("Exported two to ")
    repo.git("restore", "train.py")
    assert rlab("restore", "latest").stdout.startswith("Restored two: branch experiment/two at ")


def test_the_version_is_told() -> None:
    assert rlab("--version").stdout == f"researchlab {importlib.metadata.version('researchlab')}\n"


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
    for command in ("runs", "show", "restore", "list", "delete", "diff", "export", "import", "reproduce"):
        assert command in done.stdout
