from __future__ import annotations

from pathlib import Path

import pytest

NAME = "researchlab-stored-runs"


def test_a_session_without_the_option_has_none_of_the_hooks(pytester: pytest.Pytester):
    assert not pytester.parseconfigure().pluginmanager.has_plugin(NAME)


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_limit_that_makes_no_sense_is_refused(pytester: pytest.Pytester, seconds: str):
    with pytest.raises(pytest.UsageError, match=f"'{seconds}'.*greater than 0"):
        pytester.parseconfigure("--rlab-reproduce", "all", f"--rlab-timeout={seconds}")


def test_a_time_limit_in_the_ini_file_is_checked_too(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\nrlab_timeout = soon\n")
    with pytest.raises(pytest.UsageError, match="ini rlab_timeout"):
        pytester.parseconfigure("--rlab-reproduce", "all")


def test_a_store_that_is_not_there_is_named_and_not_made(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(pytest.UsageError, match=r"There is no store .*typo.db.*--rlab-tracking-uri"):
        pytester.parseconfigure("--rlab-reproduce", "all", "--rlab-tracking-uri", "sqlite:///folder/typo.db")
    assert not Path("folder").exists()


@pytest.mark.parametrize("given", ["option", "ini"])
def test_a_relative_store_is_found_from_the_command_line_and_from_the_ini_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, given: str
):
    below = pytester.mkdir("below")
    if given == "ini":
        pytester.makeini("[pytest]\nrlab_tracking_uri = sqlite:///runs.db\n")
    else:
        pytester.makeini("[pytest]\n")
    monkeypatch.chdir(below)
    options = ["--rlab-tracking-uri", "sqlite:///runs.db"] if given == "option" else []
    expected = (below if given == "option" else pytester.path) / "runs.db"
    with pytest.raises(pytest.UsageError, match=f"There is no store {expected}[.] "):
        pytester.parseconfigure("--rlab-reproduce", "all", *options)


def test_a_re_execution_starts_no_other(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RLAB_REQUEST", "/nowhere/request.json")
    assert not pytester.parseconfigure("--rlab-reproduce", "all").pluginmanager.has_plugin(NAME)


def test_credentials_of_the_store_stay_out_of_the_header():
    from pytest_researchlab._plan import Plan

    plan = Plan(("a", "b"), "https://user:secret@host:5000/path", ".", None, keep=False)
    assert plan.describe() == "2 stored runs of https://host:5000/path"
