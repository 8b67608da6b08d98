"""The types that a user of tracking and reproduce gets; pyright checks this file, and nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from researchlab import ExperimentTracker, ResearchlabError
from researchlab.design import Config
from researchlab.reproduce import Verdict, VerdictKind, reproduce
from researchlab.tracking import find_run_by_rlab_id, generate_run_id, get_git_state, log_flattened_params


def check_tracking() -> None:
    with ExperimentTracker("springs", "first", "sqlite:///mlflow.db", volatile=["seconds"]) as tracker:
        assert_type(tracker, ExperimentTracker)
        assert_type(tracker.run_name, str)
        tracker.log_config(Config())
        tracker.log_config(Path("config.yaml"))
        tracker.log_config({"a": {"b": 1}})
        tracker.log_state({"x": 1.0}, step=3)
        tracker.log_input("data/train.npy")
        tracker.log_input(Path("data"))
    log_flattened_params({"a": {"b": 1}}, prefix="c")
    assert_type(generate_run_id(), str)
    assert get_git_state(".")["base_commit"]
    run = find_run_by_rlab_id("2026-02-15_radiant-octopus")
    assert run is None or run.info


def check_reproduce() -> None:
    try:
        verdict = reproduce("2026-02-15_radiant-octopus", repo=".", timeout=60.0)
    except ResearchlabError as error:
        raise SystemExit(str(error)) from error
    assert_type(verdict, Verdict)
    assert_type(verdict.ok, bool)
    assert_type(verdict.kind, VerdictKind)
