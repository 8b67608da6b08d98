"""A repository with real runs in its store, made once; each test runs pytest in it as a user would."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.repos import IDENTITY, make_repo

# `pytester` makes this process forget what a test imported, but not what hangs on a package as its attribute.
# Imported here, each module is there once.
import pytest_researchlab.stored_runs  # noqa: F401
from researchlab.tracking.store import Store, quiet_mlflow

if TYPE_CHECKING:
    from pathlib import Path

STUDY = """\
import subprocess
import sys
import mlflow
import numpy as np
from researchlab import ExperimentTracker

with ExperimentTracker(run_name="steady"):
    x = np.float64(0.3)
    for step in range(20):
        x = 3.9 * x * (1.0 - x)
        mlflow.log_metric("x", float(x), step=step)

with ExperimentTracker(run_name="drifting"):
    rate = float(subprocess.check_output(["cat", sys.argv[1]]))
    for step in range(20):
        mlflow.log_metric("loss", 1.0 if step < 7 else rate, step=step)
"""

TRACKED_TEST = """\
import mlflow
from researchlab import ExperimentTracker

def test_tracked():
    with ExperimentTracker(run_name="in-a-test"):
        mlflow.log_metric("x", 0.1 + 0.2, step=0)
"""

# What a suite may do to its own tests: none of it may reach the stored runs.
INTRUSIVE = """\
import os
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:////nowhere/mlflow.db"

@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
"""

ORDINARY = """\
import os

os.environ["MLFLOW_TRACKING_URI"] = "sqlite:////nowhere/mlflow.db"

def test_ordinary():
    assert os.listdir() == []
"""


@dataclasses.dataclass(frozen=True)
class StoredRuns:
    """A repository with runs in its store: `steady`, `drifting`, `in-a-test`, and `foreign`, which has no record.

    The first two are of one process; `drifting` has a file read behind Python's back that was changed after the run.
    """

    top: Path

    @property
    def database(self) -> Path:
        return self.top / "mlflow.db"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.database}"


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> StoredRuns:
    outside = tmp_path_factory.mktemp("outside") / "rate"
    outside.write_text("0.5")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MLFLOW_", "PYTEST_"))}
    environ |= IDENTITY | _quiet(cache_home)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in IDENTITY.items():
            patch.setenv(name, value)
        files = {
            "study.py": STUDY.replace("3.9", "3.7"),
            "test_tracked.py": TRACKED_TEST,
            ".gitignore": "mlflow.db*\nmlartifacts/\n__pycache__/\n",
            "pytest.ini": "[pytest]\nfilterwarnings = error\n",
        }
        repo = make_repo(tmp_path_factory.mktemp("research") / "project", files)
    repo.write("study.py", STUDY)  # uncommitted: the patch is needed
    stored = StoredRuns(repo.top)
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tracked.py"]
    for words in (["study.py", str(outside)], tests):
        done = subprocess.run(
            [sys.executable, *words], cwd=repo.top, env=environ, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    _foreign_run(stored)
    outside.write_text("0.25")
    repo.write("tests/conftest.py", INTRUSIVE)
    repo.write("tests/test_ordinary.py", ORDINARY)
    return stored


@pytest.fixture
def stored(
    made_once: StoredRuns, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, cache_home: Path
) -> StoredRuns:
    """The repository, as the working directory of the pytest that a test starts."""
    monkeypatch.setenv("TMPDIR", str(pytester.path))
    for name, value in _quiet(cache_home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this suite's own workers are none of the started pytest
    monkeypatch.chdir(made_once.top)
    return made_once


def _quiet(cache_home: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(cache_home), "MLFLOW_DISABLE_TELEMETRY": "true"}


def _foreign_run(stored: StoredRuns) -> None:
    client = Store(stored.uri).open()
    with quiet_mlflow():
        run = client.create_run("0", tags={"rlab.run_id": "foreign"})
        client.set_terminated(run.info.run_id)
