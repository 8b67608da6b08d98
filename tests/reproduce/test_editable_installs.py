"""Does the code of the run come back where the project is installed editable, and the checkout has moved on?"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from helpers.reproduction import make_interpreter, make_project, site_packages, store_contents, verdicts_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

#: What the finders of setuptools do: map the name of a package to its folder in the checkout.
FINDER = """
import importlib.util, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top, _, rest = name.partition(".")
        if top != {package!r}:
            return None
        place = {folder!r} + "/" + top + ("/" + rest.replace(".", "/") + ".py" if rest else "/__init__.py")
        return importlib.util.spec_from_file_location(name, place)
def install():
    sys.meta_path.insert({position}, Finder)
"""

MAIN = """
import sys
import mlflow
from researchlab import ExperimentTracker
import by_path, by_finder
if sys.argv[1] == "hooked":
    import by_hook
def main():
    with ExperimentTracker("editable", sys.argv[1]):
        mlflow.log_metric("x", by_path.VALUE + by_finder.VALUE)
if __name__ == "__main__":
    main()
"""


def test_the_old_code_runs_or_the_module_that_does_not_is_named(tmp_path: Path) -> None:
    packages = {"src/by_path": "1.5", "lib/by_finder": "0.25", "hooked/by_hook": "1.0"}
    project = make_project(
        tmp_path / "project",
        {"run.py": MAIN, "src/by_path/main.py": MAIN, ".venv/.gitignore": "*\n"}
        | {f"{name}/__init__.py": f"VALUE = {value}\n" for name, value in packages.items()},
    )
    # The environment lies in the checkout, as uv and many a tutorial have it, and knows the checkout through a symlink.
    python = make_interpreter(project.top / ".venv")
    link = tmp_path / "link"
    link.symlink_to(project.top)
    folder = site_packages(python)
    (folder / "by_path.pth").write_text(f"{link}/src\n")
    for position, (package, place) in enumerate([("by_hook", "hooked"), ("by_finder", "lib")]):
        # The first one comes before the search path, which no restored tree can get before.
        where = "0" if position == 0 else "len(sys.meta_path)"
        source = FINDER.format(package=package, folder=f"{link}/{place}", position=where)
        (folder / f"_{package}_finder.py").write_text(source)
        (folder / f"{package}.pth").write_text(f"import _{package}_finder; _{package}_finder.install()\n")
    command = python.with_name("demo")
    command.write_text(f"#!{python}\nfrom by_path.main import main\nmain()\n")
    command.chmod(0o755)

    project.python("run.py", "script", interpreter=python)
    subprocess.run([command, "command"], cwd=project.top, check=True)
    project.python("run.py", "hooked", interpreter=python)
    for name in packages:
        project.repo.write(f"{name}/__init__.py", "VALUE = 100.0\n")
    stored = store_contents(project)

    script, installed, hooked = verdicts_of(python, project, "script", "command", "hooked")

    assert script["kind"] == "REPRODUCED", script["report"]
    assert installed["kind"] == "REPRODUCED", installed["report"]
    assert hooked["kind"] == "NOT RESTORED", hooked["report"]
    assert hooked["reason"].startswith(f"by_hook came from the original checkout {project.top}")
    assert store_contents(project) == stored


@pytest.mark.skipif(not (find_spec("pip") and find_spec("flit_core")), reason="needs pip and flit-core")
def test_a_project_that_pip_installed_editable_comes_back(tmp_path: Path) -> None:
    project = make_project(
        tmp_path / "project",
        {
            "pyproject.toml": """
                [build-system]
                requires = ["flit_core"]
                build-backend = "flit_core.buildapi"
                [project]
                name = "simulation"
                version = "1"
                description = "of something"
            """,
            "src/simulation/__init__.py": "VALUE = 1.0\n",
            "scripts/run.py": """
                import mlflow
                from researchlab import ExperimentTracker
                from simulation import VALUE
                with ExperimentTracker("editable", "pip"):
                    mlflow.log_metric("x", VALUE)
            """,
        },
    )
    python = make_interpreter(tmp_path / "venv")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--disable-pip-version-check", "-e", project.top], check=True, cwd=tmp_path)
    project.repo.write("src/simulation/__init__.py", "VALUE = 2.0\n")
    project.python("scripts/run.py", interpreter=python)
    project.repo.write("src/simulation/__init__.py", "VALUE = 3.0\n")
    (verdict,) = verdicts_of(python, project, "pip")
    assert verdict["kind"] == "REPRODUCED", verdict["report"]
