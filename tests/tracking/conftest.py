"""A project that this process seems to have been started in, and a store for its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.repos import Repo, make_repo
from helpers.stores import new_store
from helpers.tracked_runs import RunStore, make_run_store

from researchlab.tracking import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from researchlab.tracking.store import Store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """A repository with one commit; it is the working directory, and was when the process started."""
    made = make_repo(tmp_path / "project", {"train.py": "print(1)\n", ".gitignore": "*.log\n"})
    monkeypatch.chdir(made.top)
    monkeypatch.setattr(command, "_FIRST_FOLDER", made.top)
    command._opened.clear()
    yield made
    import mlflow

    mlflow.set_tracking_uri(None)
    while mlflow.active_run() is not None:
        mlflow.end_run()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """An empty store for runs that are made up, the one that is in use."""
    made = make_run_store(tmp_path / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    return made


@pytest.fixture
def own_store(tmp_path: Path) -> Store:
    """An empty store."""
    return new_store(tmp_path / "store")


@pytest.fixture
def other_store(tmp_path: Path) -> Store:
    """Another empty store."""
    return new_store(tmp_path / "other store")
