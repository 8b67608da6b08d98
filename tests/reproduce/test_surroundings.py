"""Does a path out of the restored tree lead where it led in the run, and an absolute one not to another file?"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from helpers.repos import make_repo
from helpers.reproduction import Project, make_project, user_files

from researchlab.reproduce import VerdictKind, reproduce
from researchlab.reproduce._findings import ChangedInputsError
from researchlab.reproduce._inputs import FoundInput, FoundInputs
from researchlab.reproduce._surroundings import link_outside, place_below
from researchlab.tracking.exchange import export_run, import_run
from researchlab.tracking.record import InputRecord

if TYPE_CHECKING:
    from pathlib import Path

    from researchlab.reproduce import Verdict

PROGRAM = """
    import sys
    from pathlib import Path
    import mlflow
    from researchlab import ExperimentTracker
    def number(name):
        return float(Path(name).read_text())
    here = Path(__file__).parent
    with ExperimentTracker("outside", "outside"):
        {code}
"""


def project_of(tmp_path: Path, code: str, **files: str) -> Project:
    """Make a project whose program has this code, with files beside it, and run it."""
    project = make_project(tmp_path / "home" / "project", {"run.py": PROGRAM.format(code=code), "inside.csv": "1"})
    for name, text in files.items():
        place = tmp_path / "home" / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    project.python("run.py")
    return project


def imported(project: Project, folder: Path) -> Verdict:
    """Take the run to another repository, and execute it again there."""
    if not folder.exists():
        make_repo(folder, {"other.txt": ""})
        export_run("outside", folder.parent / "run.zip", tracking_uri=project.uri, repo=project.top)
        import_run(folder.parent / "run.zip", repo=folder)
    return reproduce("outside", repo=folder)


@pytest.mark.parametrize(("path", "place"), [("/a/b", "a/b"), ("/", ""), ("/../../a", "a"), ("../a", "a"), ("", "")])
def test_no_path_leads_out_of_the_scratch_root(tmp_path: Path, path: str, place: str) -> None:
    assert place_below(tmp_path, path) == tmp_path / place


def test_what_is_in_the_way_of_a_link_is_never_followed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / "home" / "project").mkdir(parents=True)
    (root / "data").symlink_to(elsewhere)
    source = tmp_path / "source"
    source.write_text("x")

    def link(path: str, role: str = "data") -> tuple[Path, ...]:
        record = InputRecord.model_validate({"path": path, "role": role, "why": "?", "sha256": "0" * 64, "size": 1})
        found = FoundInputs((FoundInput(record, source, is_inside=False, digest=None),), ())
        return link_outside(found, root, restored=root / "home" / "project")

    with pytest.raises(ChangedInputsError, match="cannot be linked beside the restored tree: data is no folder"):
        link("/data/x")
    assert link("/home/project/x") == ()
    assert link("/home/x.py", "code") == ()
    assert link("/home/x") == (source,)
    assert list(elsewhere.iterdir()) == []
    assert list((root / "home" / "project").iterdir()) == []
    assert not (root / "home" / "x.py").is_symlink()


@pytest.mark.slow
def test_inputs_beside_the_repository_are_found_by_each_relative_way(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "x.csv").write_text("8")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mounted").symlink_to(tmp_path / "disk")
    code = """sys.path.insert(0, "../library")
        import helper
        ways = ["../a.csv", here / ".." / "data" / "b.csv", here.parent / "c.csv", "../mounted/x.csv", "link/b.csv"]
        mlflow.log_metric("x", sum(map(number, ways)) + helper.VALUE)"""
    project = make_project(tmp_path / "home" / "project", {"run.py": PROGRAM.format(code=code)})
    project.repo.link("link", "../data")
    for name, text in {"a.csv": "1", "data/b.csv": "2", "c.csv": "4", "library/helper.py": "VALUE = 16"}.items():
        (tmp_path / "home" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "home" / name).write_text(text)
    project.python("run.py")

    assert project.reproduce("outside").kind is VerdictKind.REPRODUCED
    (tmp_path / "home" / "a.csv").write_text("2")
    verdict = project.reproduce("outside")
    assert verdict.kind is VerdictKind.NOT_RESTORED
    assert f"'{tmp_path}/home/a.csv' changed" in verdict.reason


@pytest.mark.slow
def test_a_run_that_was_started_outside_of_the_repository_finds_what_lies_there(tmp_path: Path) -> None:
    project = make_project(
        tmp_path / "project", {"run.py": PROGRAM.format(code="mlflow.log_metric('x', number('here.csv'))")}
    )
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "here.csv").write_text("1")
    project.python(project.top / "run.py", cwd=folder)

    assert project.reproduce("outside").kind is VerdictKind.REPRODUCED


@pytest.mark.slow
def test_an_imported_run_brings_what_it_named_relatively_and_asks_for_the_rest(tmp_path: Path) -> None:
    absolute = tmp_path / "home" / "absolute.csv"
    project = project_of(
        tmp_path,
        f"mlflow.log_metric('x', number('../relative.csv') + number('{absolute}'))",
        **{"relative.csv": "1", "absolute.csv": "2"},
    )
    imported(project, tmp_path / "other")
    (tmp_path / "home" / "relative.csv").unlink()
    found: list[str] = []
    for text in ("3", None):
        absolute.unlink() if text is None else absolute.write_text(text)
        verdict = imported(project, tmp_path / "other")
        assert (verdict.kind, verdict.executions) == (VerdictKind.NOT_RESTORED, 0)
        found.append(verdict.reason)
    assert found[0].startswith(f"the input '{absolute}' changed: the run read sha256")
    assert found[1].startswith(f"the input '{absolute}' is missing")
    command = found[1].partition("Put them there: ")[2]

    subprocess.run(["sh", "-c", command], check=True)

    assert absolute.read_text() == "2"
    assert imported(project, tmp_path / "other").kind is VerdictKind.REPRODUCED


@pytest.mark.slow
def test_an_input_that_is_named_both_ways_is_not_taken_from_another_place(tmp_path: Path) -> None:
    both = tmp_path / "home" / "both.csv"
    project = project_of(
        tmp_path, f"mlflow.log_metric('x', number('../both.csv') + number('{both}'))", **{"both.csv": "1"}
    )
    imported(project, tmp_path / "other")
    both.write_text("2")

    verdict = imported(project, tmp_path / "other")

    assert verdict.kind is VerdictKind.NOT_RESTORED
    assert verdict.reason.startswith(f"the program opens {both} by an absolute path, where it is not as the run read")
    assert "Put them there: mkdir -p" in verdict.reason


@pytest.mark.slow
def test_what_the_program_reads_and_writes_in_the_original_checkout_is_named(tmp_path: Path) -> None:
    top = tmp_path / "home" / "project"
    code = f"""mlflow.log_metric("x", 1.0)
        if "reading" in sys.argv:
            number("{top}/inside.csv")
        if "writing" in sys.argv:
            with open("{top}/result.txt", "a") as result:
                result.write("again")"""
    project = make_project(top, {"run.py": PROGRAM.format(code=code), "inside.csv": "1", ".gitignore": "result.txt\n"})
    project.repo.write(".git/info/exclude", "mlflow.db*\nmlartifacts/\n")
    for what in ("reading", "writing"):
        project.python("run.py", what)
    before = user_files(project)

    reading, writing = (project.reproduce(name) for name in ("outside", "outside-2"))

    assert reading.kind is VerdictKind.NOT_RESTORED
    assert reading.reason.startswith(f"the program reads {top}/inside.csv, by an absolute path, from the original")
    assert writing.kind is VerdictKind.NOT_RESTORED
    assert writing.reason.startswith(f"the program writes to {top}/result.txt, by an absolute path, which a")
    assert "Name it from Path(__file__).parent" in writing.reason
    assert user_files(project) == before


@pytest.mark.slow
def test_an_input_of_the_checkout_whose_hash_is_right_may_be_read_there(tmp_path: Path) -> None:
    top = tmp_path / "home" / "project"
    project = make_project(top, {"run.py": PROGRAM.format(code=f"mlflow.log_metric('x', number('{top}/data/x.csv'))")})
    project.repo.write(".git/info/exclude", "data/\n")
    project.repo.write("data/x.csv", "1")
    project.python("run.py")

    assert project.reproduce("outside").kind is VerdictKind.REPRODUCED
    project.repo.write("data/x.csv", "2")
    assert project.reproduce("outside").kind is VerdictKind.NOT_RESTORED
