"""The hooks of the plugin; nothing heavy is imported before an option asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and the ini names; an option on the command line beats its ini name."""
    group = parser.getgroup("researchlab", "researchlab: execute stored runs again and compare the bits")
    group.addoption(
        "--rlab-reproduce",
        action="append",
        default=[],
        metavar="RUN",
        help="execute this stored run again from its base commit and patch, and fail unless the same bits come back; "
        "RUN is a run id, `latest` or `all`; repeatable. Without a path, no other tests are collected",
    )
    group.addoption(
        "--rlab-tracking-uri",
        metavar="URI",
        help="MLflow store of the runs (default: MLFLOW_TRACKING_URI, else mlflow.db at the root of the repository)",
    )
    group.addoption(
        "--rlab-experiment",
        metavar="NAME",
        help="let `latest` and `all` mean only the runs of this MLflow experiment",
    )
    group.addoption(
        "--rlab-timeout",
        metavar="SECONDS",
        help="stop a re-execution, and fail, when it takes longer than this (default: no limit)",
    )
    group.addoption(
        "--rlab-keep",
        action="store_true",
        default=False,
        help="keep the folder in which a run was executed again; the report names it",
    )
    parser.addini("rlab_tracking_uri", "what --rlab-tracking-uri says; a relative path starts at this file", default="")
    parser.addini("rlab_experiment", "what --rlab-experiment says", default="")
    parser.addini("rlab_timeout", "what --rlab-timeout says", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and, when runs are asked for, what collects and executes them."""
    config.addinivalue_line("markers", "rlab_reproduce: a stored run that --rlab-reproduce executes again")
    if config.getoption("rlab_reproduce"):
        from pytest_researchlab import stored_runs

        stored_runs.activate(config)
