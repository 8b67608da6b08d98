from __future__ import annotations

import math
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.films import read_film
from helpers.reproduction import make_project

from researchlab.numerics import compare_leaves
from researchlab.reproduce import VerdictKind, reproduce
from researchlab.tracking._tags import RUN_ID_TAG
from researchlab.tracking.runs import list_runs
from researchlab.tracking.store import resolve_store
from researchlab.tracking.trace import Trace, read_trace

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("default_jax_in_children")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the examples in it, one of them edited and one file untracked."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "examples").mkdir()
    for name in EXAMPLES:
        (folder / "examples" / f"{name}.py").write_bytes((ROOT / "examples" / f"{name}.py").read_bytes())
    (folder / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "examples"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    with (folder / "examples" / "plain.py").open("a") as file:
        file.write("# an edit\n")
    (folder / "notes.txt").write_text("untracked\n")
    return folder


def run_example(project: Path, name: str, *options: str, cwd: Path) -> Run:
    """Run an example as a user does, and return what MLflow has of it."""
    script = project / "examples" / f"{name}.py"
    finished = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", script, *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    # The library in which two processes talk to each other says so on either stream.
    assert [line for line in finished.stderr.splitlines() if "peer ranks" not in line] == []
    client = resolve_store(None, project).open()
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"], max_results=1)[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_from_any_folder_and_comes_back(name: str, project: Path, tmp_path: Path) -> None:
    status = git_status(project)
    run = run_example(project, name, cwd=tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.metrics
    assert all(math.isfinite(value) for value in run.data.metrics.values())
    verdict = reproduce(run.data.tags[RUN_ID_TAG], repo=project)
    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert git_status(project) == status
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_on_a_page(name: str) -> None:
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) <= 100


def test_digits_stopped_and_started_again_comes_to_the_same_bits_and_back(project: Path) -> None:
    straight = run_example(project, "digits", "--resume", cwd=project)
    checkpoints = project / "examples" / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("step-*")) == ["step-0000000200", "step-0000000300"]
    # As if it had been killed at step 250.
    shutil.rmtree(checkpoints / "step-0000000300")
    resumed = run_example(project, "digits", "--resume", cwd=project)
    assert resumed.data.metrics == straight.data.metrics
    for run in (straight, resumed):
        verdict = reproduce(run.data.tags[RUN_ID_TAG], repo=project)
        assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    traces = [trace_of(run) for run in (straight, resumed)]
    assert [len(trace.metrics.metrics["loss"]) for trace in traces] == [300, 100]
    assert compare_leaves(*(trace.states["loop", None] for trace in traces)) == ()


def test_lorenz96_is_filmed_in_compiled_loops_and_comes_back(project: Path) -> None:
    run = run_example(project, "lorenz96", "--scan", "500", "--video", "out.mp4", cwd=project)
    artifacts = Path(urllib.parse.urlsplit(run.info.artifact_uri).path)
    film = read_film(artifacts / "out.mp4")
    assert film.shape == (200, 240, 320, 3)
    assert 0.2 < (film[-1] > 128).mean() < 0.8
    verdict = reproduce(run.data.tags[RUN_ID_TAG], repo=project)
    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()


def trace_of(run: Run) -> Trace:
    """Return what a run computed."""
    return read_trace(Path(urllib.parse.urlsplit(run.info.artifact_uri).path) / "rlab")


def git_status(project: Path) -> str:
    """Return what git says has changed in the project."""
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


def test_a_changed_constant_in_the_stored_code_of_a_chaotic_run_diverges_at_the_first_step(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", {"README": "the example is untracked, so that the patch holds it\n"})
    project.repo.write("lorenz96.py", (ROOT / "examples" / "lorenz96.py").read_bytes())
    project.python("lorenz96.py")
    (run,) = list_runs(tracking_uri=project.uri)
    project.edit_patch(run.run_id, "+    forcing: float = 8.0", "+    forcing: float = 8.5", tree_too=True)
    verdict = project.reproduce(run.run_id)
    assert verdict.kind is VerdictKind.DIVERGED
    assert verdict.first is not None
    assert (verdict.first.step, verdict.first.name) == (1, "energy")
    assert any("x: 40/40 differ" in line for line in verdict.differences)
