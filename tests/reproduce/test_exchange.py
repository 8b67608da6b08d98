"""Is a run that came in one file the same run, on a machine that has neither our store nor our repository?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.repos import Repo, make_repo
from helpers.reproduction import Project, make_project, store_contents

from researchlab.reproduce import Verdict, VerdictKind, reproduce
from researchlab.tracking.exchange import export_run, import_run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

FILES: dict[str, str | bytes] = {
    "pipeline/__init__.py": "",
    "pipeline/run.py": """
        import pathlib, sys
        import mlflow, numpy as np
        from researchlab import ExperimentTracker
        from pipeline import untracked

        here = pathlib.Path(__file__).parents[1]
        with ExperimentTracker("shared", "shared") as tracker:
            table = np.frombuffer((here / "table.bin").read_bytes(), np.uint8)
            with open(here / "data" / "ignored.csv") as stream:
                rows = [float(line) for line in stream]
            for step, row in enumerate(rows):
                mlflow.log_metric("x", row * untracked.FACTOR + float(table.sum()), step=step)
            mlflow.log_metric("inner", float((here / "inner" / "value.txt").read_text()))
            tracker.log_state({"rows": np.array(rows), "table": table})
    """,
    "table.bin": bytes(range(256)),
    ".gitignore": "data/\nmlflow.db*\nmlartifacts/\n__pycache__/\n",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bare repository with the base commit, and a run in a file; the place where it was made is gone."""
    top = tmp_path_factory.mktemp("exchange")
    project = make_project(top / "project", FILES)
    bare = top / "bare.git"
    project.repo.git("clone", "--quiet", "--bare", str(project.top), str(bare))
    project.repo.write("pipeline/untracked.py", "FACTOR = 0.3\n")
    project.repo.write("table.bin", bytes(reversed(range(256))) + b"\0\r\n")
    project.repo.write("data/ignored.csv", "0.1\n0.2\n0.7\n")
    inner = make_repo(project.top / "inner", {"value.txt": "2.5\n"})
    inner.write("value.txt", "3.5\n")
    project.python("-m", "pipeline.run")
    export_run("shared", top / "shared.zip", tracking_uri=project.uri, repo=project.top)
    shutil.rmtree(project.top)
    return bare, top / "shared.zip"


def _reproduce_in(folder: Path) -> Verdict:
    before = store_contents(Project(Repo(folder)))
    verdict = reproduce("shared", repo=folder)
    assert store_contents(Project(Repo(folder))) == before
    return verdict


def _rlab(*words: str | Path, cwd: Path) -> str:
    code = "from researchlab.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, check=False, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def test_another_clone_with_an_empty_store_reproduces_it(exported: tuple[Path, Path], tmp_path: Path) -> None:
    bare, file = exported
    clone = tmp_path / "clone"
    Repo(tmp_path).git("clone", "--quiet", str(bare), str(clone))
    shown = _rlab("import", file, cwd=clone)
    assert "data/ignored.csv (data, 12 B, in the file)" in shown
    assert "inner: commit" in shown
    assert "REPRODUCED" in _rlab("reproduce", "shared", cwd=clone)
    assert Repo(clone).git("status", "--porcelain") == ""


def test_a_folder_that_is_no_repository_reproduces_it(exported: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "no repository"
    folder.mkdir()
    import_run(exported[1], repo=folder)
    verdict = _reproduce_in(folder)
    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert sorted(path.name for path in folder.iterdir()) == ["mlartifacts", "mlflow.db"]


def test_an_imported_run_is_exported_again_without_any_repository(exported: tuple[Path, Path], tmp_path: Path) -> None:
    import_run(exported[1], repo=tmp_path)
    export_run("shared", tmp_path / "again.zip", repo=tmp_path)
    assert (tmp_path / "again.zip").read_bytes() == exported[1].read_bytes()
