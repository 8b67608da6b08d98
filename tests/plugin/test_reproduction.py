from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from plugin.conftest import StoredRuns


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("stored")]


def _properties(junit: Path) -> dict[str, dict[str, str]]:
    cases = ET.parse(junit).getroot().iter("testcase")
    return {
        f"{case.get('classname')}::{case.get('name')}": {
            str(item.get("name")): str(item.get("value")) for item in case.iter("property")
        }
        for case in cases
    }


def test_each_run_passes_or_fails_with_its_verdict(pytester: pytest.Pytester):
    junit, cache = pytester.path / "junit.xml", pytester.path / "cache"
    options = ("-p", "no:randomly", "-o", f"cache_dir={cache}", "--rlab-reproduce", "all")
    result = pytester.runpytest_subprocess(*options, "-rA", f"--junitxml={junit}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2, failed=2)
    text = result.stdout.str()
    assert "Traceback" not in text
    assert "pytest_researchlab" not in text
    result.stdout.fnmatch_lines(
        [
            "*= FAILURES =*",
            "*_ drifting _*",
            "DIVERGED  drifting",
            "*step 7, metric 'loss'",
            "*pytest --rlab-reproduce drifting --rlab-tracking-uri sqlite:///*mlflow.db",
            "*_ foreign _*",
            "The run 'foreign' has no record*",
            "*= PASSES =*",
            "*- researchlab -*",
            "REPRODUCED  steady",
            "*= researchlab =*",
            "REPRODUCED  steady     *s  *",
            "DIVERGED    drifting   *s  first at step 7, metric 'loss'",
            "REPRODUCED  in-a-test  *s  *",
            "NO VERDICT  foreign    *The run 'foreign' has no record*",
            "*= short test summary info =*",
            "PASSED rlab::steady",
            "FAILED rlab::drifting - DIVERGED: *",
            "FAILED rlab::foreign - The run 'foreign'*",
        ]
    )
    assert text.count("again         pytest --rlab-reproduce drifting") == 1
    properties = _properties(junit)
    assert {name: facts["rlab.verdict"] for name, facts in properties.items()} == {
        "rlab::steady": "REPRODUCED",
        "rlab::drifting": "DIVERGED",
        "rlab::in-a-test": "REPRODUCED",
        "rlab::foreign": "NO VERDICT",
    }
    assert properties["rlab::steady"]["rlab.run_id"] == "steady"

    again = pytester.runpytest_subprocess(*options, "--lf", "--collect-only", "-q")
    assert [line for line in again.outlines if "::" in line] == ["rlab::drifting", "rlab::foreign"]


def test_workers_of_xdist_execute_runs_beside_tests_in_any_order(pytester: pytest.Pytester, stored: StoredRuns):
    junit = pytester.path / "junit.xml"
    runs = ("--rlab-reproduce", "steady", "--rlab-reproduce", "foreign")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n2", *runs, "tests", f"--junitxml={junit}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"researchlab: 2 stored runs of {stored.uri}",
            "The run 'foreign' has no record*",
            "*= researchlab =*",
            "REPRODUCED  steady   *s  *",
            "NO VERDICT  foreign  *",
            "FAILED rlab::foreign - The run 'foreign' has no record*",
        ]
    )
    assert result.stdout.str().count("REPRODUCED  steady") == 1
    assert _properties(junit)["rlab::steady"]["rlab.verdict"] == "REPRODUCED"


def test_a_time_limit_ends_a_run_and_what_is_kept_is_named(pytester: pytest.Pytester):
    options = ("-p", "no:cacheprovider", "-p", "no:randomly", "-o", "rlab_timeout=0.1", "--rlab-keep", "-x")
    runs = ("--rlab-reproduce", "steady", "--rlab-reproduce", "in-a-test")
    result = pytester.runpytest_subprocess(*options, *runs)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAILED rlab::steady - FAILED: *"])
    [kept] = [line.partition("kept in ")[2] for line in result.outlines if "  kept in " in line]
    assert Path(kept).is_dir()
    assert Path(kept).is_relative_to(pytester.path)


def test_where_every_run_passes_each_has_its_line(pytester: pytest.Pytester):
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--rlab-reproduce", "steady")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*= researchlab =*", "REPRODUCED  steady  *s  *", "*= 1 passed in *"])
