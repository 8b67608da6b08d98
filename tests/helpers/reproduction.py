"""Projects whose scripts are really run, stores that must not change, and verdicts from other interpreters."""

from __future__ import annotations

import contextlib
import json
import os
import site
import sqlite3
import subprocess
import sys
import textwrap
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.repos import Repo, footprint, make_repo

from researchlab.reproduce import Verdict, reproduce
from researchlab.tracking.restore import tree_of
from researchlab.tracking.runs import find_run
from researchlab.tracking.store import local_path, scratch_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Project:
    """A repository whose scripts are tracked; its store is the default one, ignored by git."""

    repo: Repo

    @property
    def top(self) -> Path:
        """The root of the repository."""
        return self.repo.top

    @property
    def uri(self) -> str:
        """The URI of the repository's store."""
        return f"sqlite:///{self.top / 'mlflow.db'}"

    def python(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        interpreter: str | Path = sys.executable,
        code: int = 0,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python as a user would, and see it end with the exit code."""
        done = subprocess.run(
            [interpreter, *words],
            cwd=self.top if cwd is None else cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def reproduce(self, run_id: str, **options: Any) -> Verdict:
        """Re-execute a run of this project's store."""
        return reproduce(run_id, tracking_uri=self.uri, repo=self.top, **options)

    def artifacts(self, run_id: str) -> Path:
        """Return the folder that holds the artifacts of a run."""
        found = local_path(str(find_run(run_id, tracking_uri=self.uri).run.info.artifact_uri))
        assert found is not None
        return found

    def edit_record(self, run_id: str, **changes: Any) -> None:
        """Change fields of the stored record; of a part that is a mapping, the named entries."""
        path = self.artifacts(run_id) / "rlab" / "record.json"
        document = json.loads(path.read_text())
        for name, value in changes.items():
            document[name] = {**document[name], **value} if isinstance(value, dict) else value
        path.write_text(json.dumps(document))

    def edit_patch(self, run_id: str, old: str, new: str, *, tree_too: bool) -> None:
        """Change the code in the stored patch by hand, and on request the tree that the record says it gives."""
        path = self.artifacts(run_id) / "run.patch"
        patch = path.read_bytes()
        assert patch.count(old.encode()) == 1
        patch = patch.replace(old.encode(), new.encode())
        path.write_bytes(patch)
        if tree_too:
            base = find_run(run_id, tracking_uri=self.uri).record().snapshot
            assert base is not None
            scratch = self.top.parent / f"tree-{run_id}"
            scratch.mkdir()
            tree = tree_of(base.base_commit, patch, source=self.top, scratch=scratch)[1]
            self.edit_record(run_id, snapshot={"tree": tree})


def make_project(top: Path, files: dict[str, str | bytes]) -> Project:
    """Make a repository with these files in its first commit; text is dedented."""
    ignored = "mlflow.db*\nmlartifacts/\n__pycache__/\n"
    texts = {name: textwrap.dedent(text) if isinstance(text, str) else text for name, text in files.items()}
    repo = make_repo(top, {".gitignore": ignored, **texts})
    scratch_store(top)  # a copy, since MLflow takes long to make one
    return Project(repo)


def store_contents(project: Project) -> dict[str, Any]:
    """Return every row of the database and every artifact's bytes: what a re-execution must not change."""
    found: dict[str, Any] = {}
    with contextlib.closing(sqlite3.connect(project.top / "mlflow.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            found[table] = sorted(map(repr, database.execute(f'SELECT * FROM "{table}"')))
    for path in sorted((project.top / "mlartifacts").rglob("*")):
        found[str(path)] = path.read_bytes() if path.is_file() else None
    return found


def user_files(project: Project) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, time stamp and bytes of all in the repository but its store; of git's objects only the bytes."""
    found: dict[str, tuple[int, int, bytes]] = {}
    for name, (mode, stamp, data) in footprint(project.top).items():
        if name.startswith(("mlflow.db", "mlartifacts")) or name == ".":
            continue
        found[name] = (mode, 0 if name.startswith(".git/objects") else stamp, data)
    return found


def verdicts_of(interpreter: Path, project: Project, *run_ids: str) -> list[dict[str, Any]]:
    """Re-execute runs with another interpreter, and return the verdicts' fields."""
    code = """
import dataclasses, json, sys
from researchlab.reproduce import reproduce
uri, repo, *run_ids = sys.argv[1:]
verdicts = [reproduce(run_id, tracking_uri=uri, repo=repo) for run_id in run_ids]
print(json.dumps([{**dataclasses.asdict(verdict), "report": verdict.report()} for verdict in verdicts], default=str))
"""
    done = project.python(
        "-c", code, project.uri, project.top, *run_ids, cwd=project.top.parent, interpreter=interpreter
    )
    return json.loads(done.stdout)


def make_interpreter(folder: Path) -> Path:
    """Make a virtual environment that has the packages of this one besides its own, and return its interpreter."""
    venv.create(folder, symlinks=True, with_pip=False)
    interpreter = folder / "bin" / "python"
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
    (site_packages(interpreter) / "packages.pth").write_text(lines)
    return interpreter


def site_packages(interpreter: Path) -> Path:
    """Return the folder of an interpreter's own packages."""
    return next((interpreter.parent.parent / "lib").glob("python*")) / "site-packages"


def running(processes: Sequence[int]) -> list[int]:
    """Return which of the processes still run."""
    alive: list[int] = []
    for number in processes:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                alive.append(number)
    return alive
