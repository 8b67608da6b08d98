from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from plugin.conftest import StoredRuns

pytestmark = pytest.mark.usefixtures("stored")

ALL = ["rlab::steady", "rlab::drifting", "rlab::in-a-test", "rlab::foreign"]
QUIET = ("-p", "no:randomly", "-p", "no:cacheprovider")


def _collected(pytester: pytest.Pytester, *options: str | Path) -> list[str]:
    result = pytester.runpytest_inprocess(*QUIET, "--collect-only", "-q", *options)
    assert result.ret == pytest.ExitCode.OK, result.outlines
    return [line for line in result.outlines if "::" in line]


def test_without_a_path_only_the_runs_are_collected(pytester: pytest.Pytester):
    assert _collected(pytester, "--rlab-reproduce", "all") == ALL


def test_with_a_path_the_tests_come_first_and_then_the_runs(pytester: pytest.Pytester):
    options = ("--rlab-reproduce", "steady", "--rlab-reproduce", "latest", "--rlab-reproduce", "steady", "tests")
    assert _collected(pytester, *options) == ["tests/test_ordinary.py::test_ordinary", "rlab::steady", "rlab::foreign"]


def test_runs_are_selected_by_keyword_and_marker(pytester: pytest.Pytester):
    options = (
        "--rlab-reproduce",
        "all",
        "-k",
        "drifting or ordinary",
        "-m",
        "rlab_reproduce",
        "--strict-markers",
        "tests",
    )
    assert _collected(pytester, *options) == ["rlab::drifting"]


def test_the_experiment_narrows_latest(pytester: pytest.Pytester):
    assert _collected(pytester, "--rlab-reproduce", "latest", "--rlab-experiment", "project") == ["rlab::in-a-test"]


def test_a_keyword_that_no_run_matches_is_exit_code_5(pytester: pytest.Pytester, stored: StoredRuns):
    result = pytester.runpytest_inprocess(*QUIET, "--rlab-reproduce", "all", "-k", "nothing")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines([f"researchlab: 4 stored runs of {stored.uri}"])


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["serial", "xdist"])
def test_an_unknown_run_is_one_clean_error(pytester: pytest.Pytester, workers: tuple[str, ...]):
    result = pytester.runpytest_inprocess(*QUIET, *workers, "--rlab-reproduce", "stedy")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "".join(result.outlines).strip() == ""
    [line] = [line for line in result.errlines if line]
    assert line.startswith("ERROR: There is no run 'stedy' in sqlite:///")
    assert "Closest: steady" in line


def test_a_server_that_does_not_answer_is_one_clean_error(pytester: pytest.Pytester):
    result = pytester.runpytest_inprocess(
        *QUIET, "--rlab-reproduce", "all", "--rlab-tracking-uri", "http://127.0.0.1:9"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    [line] = [line for line in result.errlines if line]
    assert "http://127.0.0.1:9 does not answer" in line
