"""What the Tab key suggests, and that asking costs and breaks nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.commands import RLAB
from helpers.repos import Repo, footprint, make_repo
from helpers.tracked_runs import RunStore, make_run_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    made = make_repo(tmp_path / "repo", {"train.py": "print(1)\n"})
    monkeypatch.chdir(made.top)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


@pytest.fixture
def store(repo: Repo) -> RunStore:
    """The repository's own store with two runs."""
    made = make_run_store(repo.top)
    for name in ("2026-02-15_radiant-octopus", "2026-02-16_calm-newt"):
        made.track(name, repo.top)
    return made


def suggested(line: str, **environ: str) -> list[str]:
    """Return what bash would suggest at the end of the line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_RLAB_COMPLETE": "complete_bash"}
    done = subprocess.run([RLAB], env={**os.environ, **words, **environ}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_run_ids_are_suggested_the_newest_first(store: RunStore) -> None:
    both = ["2026-02-16_calm-newt", "2026-02-15_radiant-octopus"]
    assert suggested("rlab show ") == ["latest", *both]
    assert suggested("rlab show 2026-02-15") == both[1:]
    assert suggested("rlab diff 2026-02-15_radiant-octopus 2026-02-16") == both[:1]
    assert suggested("rlab show 2026_02") == []  # no wildcards
    assert suggested("rlab reproduce ") == ["latest", "all", *both]
    assert suggested("rlab runs --experiment t") == ["tests"]


def test_another_store_is_asked_where_one_is_named(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert suggested("rlab show 2") == []
    assert len(suggested(f"rlab show --tracking-uri {store.uri} 2")) == 2
    assert len(suggested("rlab show 2", MLFLOW_TRACKING_URI=store.uri)) == 2
    assert len(suggested(f"rlab show --repo {tmp_path / 'repo'} 2")) == 2


def test_restored_runs_are_suggested_for_delete(repo: Repo) -> None:
    repo.git("branch", "experiment/one")
    repo.git("branch", "other")
    assert suggested("rlab delete ") == ["one"]


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "sqlite:///missing.db", "sqlite:///:memory:", "nonsense://", "sqlite:///garbage"]
)
def test_a_store_that_cannot_be_asked_suggests_nothing_and_is_not_made(uri: str, repo: Repo) -> None:
    repo.write("garbage", b"no database at all")
    before = footprint(repo.top)
    assert suggested("rlab show ", MLFLOW_TRACKING_URI=uri) == ["latest"]
    assert footprint(repo.top) == before


def test_a_store_that_is_being_written_to_is_read_all_the_same(store: RunStore) -> None:
    import sqlite3

    database = sqlite3.connect(store.store.database or "")
    database.execute("BEGIN IMMEDIATE")
    try:
        assert len(suggested("rlab show 2")) == 2
    finally:
        database.close()


def test_completion_loads_nothing_heavy(store: RunStore) -> None:
    code = """
import sys
from types import SimpleNamespace
from researchlab.tracking._cli._completion import complete_run
import researchlab.cli
print(complete_run(SimpleNamespace(params={}), "2026-02-15"))
print(sorted({"mlflow", "jax", "git", "numpy", "equinox", "pydantic", "sqlalchemy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "['2026-02-15_radiant-octopus']\n[]\n"
