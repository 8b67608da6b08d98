"""The small tools: run ids, git state, parameters, and finding a run."""

from __future__ import annotations

import datetime as dt
import random
import re
from typing import TYPE_CHECKING

import mlflow
import pytest
from helpers.repos import make_repo
from helpers.stores import new_store

from researchlab.errors import AmbiguousRunError, ConfigError, InvalidRunIdError, ResearchlabWarning, StoreError
from researchlab.tracking import find_run_by_rlab_id, generate_run_id, get_git_state, log_flattened_params
from researchlab.tracking._tags import RUN_ID_TAG
from researchlab.tracking.utils import check_run_id

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.repos import Repo

    from researchlab.tracking.store import Store


def test_a_generated_id_is_the_date_and_two_words() -> None:
    today = dt.datetime.now(tz=dt.UTC).astimezone().date()
    run_id = generate_run_id()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_[a-z]+-[a-z]+", run_id)
    assert run_id.partition("_")[0] in {today.isoformat(), (today - dt.timedelta(1)).isoformat()}
    assert check_run_id(run_id) == run_id


def test_generated_ids_differ_also_when_the_program_seeds_its_random_numbers() -> None:
    ids = []
    for _ in range(20):
        random.seed(1)
        ids.append(generate_run_id())
    assert len(set(ids)) > 18


def test_generating_an_id_leaves_the_random_state_alone() -> None:
    state = random.getstate()
    generate_run_id()
    assert random.getstate() == state


def test_generating_ids_leaves_the_random_generator_of_coolname_alone() -> None:
    import coolname

    generate_run_id()
    random.seed(3)
    first = coolname.generate_slug()
    random.seed(3)
    assert coolname.generate_slug() == first


def test_git_state_of_a_clean_and_a_dirty_repository(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a.txt": "1\n"})
    head = repo.git("rev-parse", "HEAD")
    assert get_git_state(tmp_path) == {"base_commit": head, "patch": "", "is_dirty": False}
    repo.write("new.bin", b"\x00\xff")
    repo.write("a.txt", b"\xff2\n")
    before = repo.git("status", "--porcelain")
    state = get_git_state(str(tmp_path))
    assert state["base_commit"] == head
    assert state["is_dirty"] is True
    assert "new.bin" in state["patch"]
    assert b"+\xff2\n" in state["patch"].encode("utf-8", "surrogateescape")
    assert repo.git("status", "--porcelain") == before


def test_the_local_store_is_no_change_of_the_repository(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a.txt": "1\n"})
    repo.write("mlflow.db", "x")
    repo.write("mlartifacts/1/x", "x")
    assert get_git_state(tmp_path)["is_dirty"] is False


@pytest.fixture
def in_use(own_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own_store.tracking_uri)
    return own_store


def test_parameters_are_flattened(in_use: Store) -> None:
    client = in_use.open()
    with mlflow.start_run() as run:
        log_flattened_params({"a": {"b": {"c": 1}}, "d": "x", "empty": {}})
        log_flattened_params({"a": {"b": 2}}, "prefix")
    assert client.get_run(run.info.run_id).data.params == {
        "a.b.c": "1",
        "d": "x",
        "empty": "{}",
        "prefix.a.b": "2",
    }


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"fine": 1, "a@b": 2}, r"'a@b' holds '@'"),
        ({"fine": 1, "a/../b": 2}, "cannot be a parameter name"),
        ({"fine": 1, "x" * 251: 2}, "1 to 250"),
        ({"fine": 1, "": 2}, "cannot be a parameter name"),
        ({"fine": 1, "a": {"b": 1}, "a.b": 2}, "Two entries"),
    ],
)
def test_refused_parameters_log_nothing(in_use: Store, params: dict[str, object], said: str) -> None:
    client = in_use.open()
    with mlflow.start_run() as run, pytest.raises(ConfigError, match=said):
        log_flattened_params(params)
    assert client.get_run(run.info.run_id).data.params == {}


def test_a_parameter_that_changes_is_an_error_and_a_long_one_a_warning(in_use: Store) -> None:
    in_use.open()
    with mlflow.start_run():
        log_flattened_params({"a": 1})
        log_flattened_params({"a": 1})
        with pytest.raises(ConfigError, match="keeps its first value"):
            log_flattened_params({"a": 2})
        with pytest.warns(ResearchlabWarning, match="first 6000 characters"):
            log_flattened_params({"b": "x" * 6001})


def test_a_run_is_found_in_any_experiment(in_use: Store) -> None:
    client = in_use.open()
    experiment = client.create_experiment("another")
    run = client.create_run(experiment, tags={RUN_ID_TAG: "2026-02-15_radiant-octopus"})
    found = find_run_by_rlab_id("2026-02-15_radiant-octopus")
    assert found is not None
    assert found.info.run_id == run.info.run_id
    assert find_run_by_rlab_id("2026-02-15_radiant-octopu") is None
    assert find_run_by_rlab_id("2026_02-15_radiant-octopus") is None


def test_two_runs_of_one_id_are_an_error(in_use: Store) -> None:
    client = in_use.open()
    for _ in range(2):
        client.create_run("0", tags={RUN_ID_TAG: "twice"})
    with pytest.raises(AmbiguousRunError, match="2 runs"):
        find_run_by_rlab_id("twice")


@pytest.mark.parametrize("run_id", ["it's", "100%", "", "a b", 'a"b', "x' OR '1'='1"])
def test_an_id_that_no_run_has_is_refused(run_id: str) -> None:
    with pytest.raises(InvalidRunIdError, match="cannot be a run id"):
        find_run_by_rlab_id(run_id)


def test_looking_for_a_run_makes_no_store(project: Repo) -> None:
    assert find_run_by_rlab_id("2026-02-15_radiant-octopus") is None
    assert not (project.top / "mlflow.db").exists()
    assert not (project.top / "mlartifacts").exists()


def test_a_store_that_cannot_be_used_is_an_error(project: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("mlflow.db", "this is no database")
    with pytest.raises(StoreError, match="not a database"):
        find_run_by_rlab_id("x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_store(project.top / "other").tracking_uri)
    assert find_run_by_rlab_id("x") is None
