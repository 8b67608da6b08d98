"""`rlab export` and `rlab import`, as commands; what they do is tested with their module."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from helpers.commands import refusal, rlab
from helpers.repos import Repo, make_repo

from researchlab.errors import ResearchlabWarning
from researchlab.tracking.tracker import ExperimentTracker

if TYPE_CHECKING:
    from pathlib import Path

RUN = "2026-02-15_radiant-octopus"


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tracked run in a file; the working directory is an empty one."""
    repo: Repo = make_repo(tmp_path / "repo", {"train.py": "print(1)\n"})
    monkeypatch.chdir(repo.top)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    repo.write("train.py", "print(2)\n")
    repo.write(".env", "TOKEN=1\n")
    with pytest.warns(ResearchlabWarning, match=r"\.env"), ExperimentTracker("tests", RUN) as run:
        run.record_metrics({"loss": 0.5}, 0)
    file = tmp_path / "run.rlab"
    text = rlab("export", RUN, str(file)).stdout
    assert text.startswith(f"Exported {RUN} to {file} (")
    assert "Import it with: rlab import run.rlab\n" in text
    assert refusal("export", RUN, str(file)).endswith("Name another file, or replace this one with --force.\n")
    folder = refusal("export", RUN, ".", "--force")
    assert folder.endswith(f"{repo.top} is a folder. Name the file to write, as in {repo.top}/run.rlab.\n")
    assert rlab("export", RUN, str(file), "--force", "--inputs-limit", "1 MiB").exit_code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return file


def test_an_exported_run_is_imported_where_there_is_no_store(exported: Path, tmp_path: Path) -> None:
    checked = rlab("import", str(exported), "--dry-run").stdout
    assert "train.py" in checked
    assert "the run had more, which was not captured: .env\n" in checked
    assert list((tmp_path / "elsewhere").iterdir()) == []
    result = rlab("import", str(exported))
    assert result.exit_code == 0
    assert result.stdout.startswith(checked)
    assert f"Imported {RUN} into sqlite:///" in result.stdout
    assert f"rlab reproduce {RUN}\n" in result.stdout
    assert json.loads(rlab("runs", "--json").stdout)[0]["dirty"] == 2
    assert "nothing was changed" in rlab("import", str(exported)).stdout


def test_scripts_get_json(exported: Path, tmp_path: Path) -> None:
    assert json.loads(rlab("import", str(exported), "--dry-run", "--json").stdout)["run_id"] == RUN
    document = json.loads(rlab("import", str(exported), "--json").stdout)
    assert (document["run_id"], document["already_there"]) == (RUN, False)
    again = json.loads(rlab("export", RUN, str(tmp_path / "again"), "--json").stdout)
    assert again["run_id"] == RUN


def test_what_makes_no_sense_is_refused(exported: Path) -> None:
    assert rlab("export", RUN, "file", "--inputs-limit", "much").exit_code == 2
    exported.write_bytes(b"garbage")
    refusal("import", str(exported))
    refusal("import", str(exported), "--dry-run")
    refusal("import", "no-such-file")
