from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("equinox", "git", "jax", "mlflow", "numpy", "pyarrow", "pydantic", "researchlab", "syrupy")

# At exit, not after configuring: a summary hook that imports is noticed, too.
PROBE = """\
import atexit, json, pathlib, sys

atexit.register(lambda: pathlib.Path("modules.json").write_text(json.dumps(sorted(sys.modules))))
"""


def _loaded(pytester: pytest.Pytester, *options: str) -> set[str]:
    report: Path = pytester.path / "modules.json"
    report.unlink(missing_ok=True)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rA", *options)
    result.assert_outcomes(passed=1)
    return set(json.loads(report.read_text()))


@pytest.fixture
def unrelated_suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(PROBE)
    pytester.makepyfile("def test_unrelated():\n    assert True\n")
    return pytester


def test_an_unused_plugin_loads_nothing_heavy(unrelated_suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    loaded = _loaded(unrelated_suite, "-p", "pytest_researchlab.plugin")
    assert "pytest_researchlab.plugin" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_an_unused_plugin_that_was_found_by_its_entry_point_loads_nothing_heavy(unrelated_suite: pytest.Pytester):
    without = _loaded(unrelated_suite, "-p", "no:syrupy", "-p", "no:researchlab")
    loaded = _loaded(unrelated_suite, "-p", "no:syrupy")
    assert "pytest_researchlab.plugin" in loaded
    assert (loaded - without).isdisjoint(HEAVY)
