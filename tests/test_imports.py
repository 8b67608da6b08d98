from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = frozenset(
    {
        "coolname",
        "equinox",
        "git",
        "jax",
        "jaxlib",
        "mlflow",
        "numpy",
        "orbax",
        "pyarrow",
        "pydantic",
        "pytest",
        "syrupy",
    }
)

OPTIONAL = frozenset({"IPython", "grain", "imageio", "imageio_ffmpeg", "matplotlib", "tqdm"})


def loaded_by(statement: str) -> frozenset[str]:
    """Return the heavy packages that a fresh interpreter has loaded after the statement."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    # -P: the installed package is meant, not the folder that the tests are started in.
    command = [sys.executable, "-P", "-c", code]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return (HEAVY | OPTIONAL) & frozenset(finished.stdout.split())


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import equinox.nn") >= {"equinox", "jax", "jaxlib", "numpy"}


@pytest.mark.parametrize("package", ["researchlab", "researchlab.errors", "researchlab.cli"])
def test_the_package_and_its_command_load_nothing_heavy(package: str) -> None:
    assert loaded_by(f"import {package}") == frozenset()


@pytest.mark.parametrize(
    "statement",
    [
        "import researchlab.tracking",
        "from researchlab import ExperimentTracker",
        "from researchlab.tracking import *",
        "import researchlab.reproduce",
        "from researchlab.reproduce import *",
    ],
)
def test_tracking_and_reproduce_load_no_jax(statement: str) -> None:
    assert not loaded_by(statement) & {"equinox", "jax", "jaxlib", "pytest", "syrupy"}


@pytest.mark.parametrize("statement", ["import researchlab.design", "from researchlab.design import *"])
def test_design_loads_no_mlflow(statement: str) -> None:
    assert not loaded_by(statement) & {"git", "mlflow", "orbax", "pytest", "syrupy"}


@pytest.mark.parametrize("statement", ["import researchlab", "from researchlab.design import *"])
def test_optional_packages_are_loaded_when_they_are_needed(statement: str) -> None:
    assert not loaded_by(statement) & OPTIONAL


@pytest.mark.parametrize("statement", ["import researchlab.numerics", "from researchlab.numerics import *"])
def test_numerics_load_neither_mlflow_nor_pytest(statement: str) -> None:
    assert not loaded_by(statement) & {"git", "mlflow", "pytest", "syrupy"}


def test_the_plugin_loads_pytest_and_nothing_else() -> None:
    assert loaded_by("import pytest_researchlab.plugin") <= {"pytest"}


@pytest.mark.parametrize(
    "package", ["researchlab", "researchlab.design", "researchlab.numerics", "researchlab.tracking"]
)
def test_every_public_name_exists(package: str) -> None:
    assert loaded_by(
        f"import {package} as package\nassert package.__all__\nfor name in package.__all__: getattr(package, name)"
    )


def test_the_lowest_versions_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pins = [
        line for line in (ROOT / "requirements" / "lowest.txt").read_text().splitlines() if not line.startswith("#")
    ]

    def version(text: str, operator: str) -> tuple[str, tuple[int, ...]]:
        name, _, number = re.split(r"[,;]", text)[0].partition(operator)
        parts = [int(part) for part in number.split(".")]
        while parts and parts[-1] == 0:
            parts.pop()
        return name, tuple(parts)

    assert dict(version(line, "==") for line in pins) == dict(version(line, ">=") for line in promised)
