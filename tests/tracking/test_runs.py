"""Finding runs, and fetching what they stored."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from helpers.tracked_runs import make_run_store

from researchlab.errors import (
    AmbiguousRunError,
    InvalidRunIdError,
    RecordError,
    ResearchlabError,
    RunNotFoundError,
    StoreError,
)
from researchlab.tracking import runs
from researchlab.tracking._tags import RUN_ID_TAG, VERDICT_TAG, VERIFIED_AT_TAG
from researchlab.tracking._wording import with_store_option
from researchlab.tracking.runs import find_run, list_runs, names_that_start_with, resolve_references
from researchlab.tracking.store import local_path

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.repos import Repo
    from helpers.tracked_runs import RunStore
    from mlflow import MlflowClient


@pytest.fixture
def tracked(tmp_path: Path, project: Repo) -> RunStore:
    """A store with three runs, and one of plain MLflow."""
    made = make_run_store(tmp_path / "runs")
    for name in ("2026-02-15_radiant-octopus", "2026-02-15_radiant-otter", "2026-02-16_calm-newt"):
        made.track(name, project.top)
    client = made.store.open()
    other = client.create_experiment("other", artifact_location=made.store.artifact_root)
    client.create_run(other, tags={RUN_ID_TAG: "in-the-other"})
    client.create_run("0")
    return made


def _client(store: RunStore) -> MlflowClient:
    return store.store.open()


def test_a_run_is_found_by_either_id_in_any_experiment(tracked: RunStore) -> None:
    by_name = find_run("2026-02-15_radiant-octopus", tracking_uri=tracked.uri)
    by_number = find_run(by_name.run.info.run_id, tracking_uri=tracked.uri)
    assert by_name.run_id == by_number.run_id == "2026-02-15_radiant-octopus"
    assert find_run("in-the-other", tracking_uri=tracked.uri).run_id == "in-the-other"
    assert by_name.record().run_id == by_name.run_id
    with by_name.documents() as folder:
        assert (folder / "record.json").is_file()


def test_an_unknown_id_names_the_closest_ones_and_the_store(tracked: RunStore) -> None:
    with pytest.raises(RunNotFoundError) as caught:
        find_run("2026-02-15_radiant-octopuss", tracking_uri=tracked.uri)
    message = str(caught.value)
    assert "Closest: 2026-02-15_radiant-octopus" in message
    assert tracked.uri in message
    assert "4 tracked runs" in message
    with pytest.raises(RunNotFoundError, match=r"Closest: .*calm-newt"):
        find_run("calm-newt", tracking_uri=tracked.uri)
    with pytest.raises(RunNotFoundError):
        find_run("0" * 32, tracking_uri=tracked.uri)


@pytest.mark.parametrize("run_id", ["it's", "100%", 'a"b', "", "a b", "-n"])
def test_an_id_that_cannot_be_searched_is_refused(tracked: RunStore, run_id: str) -> None:
    with pytest.raises(InvalidRunIdError):
        find_run(run_id, tracking_uri=tracked.uri)


def test_two_runs_of_one_id_name_both(tracked: RunStore) -> None:
    rival = _client(tracked).create_run("0", tags={RUN_ID_TAG: "in-the-other"})
    with pytest.raises(AmbiguousRunError, match=rival.info.run_id):
        find_run("in-the-other", tracking_uri=tracked.uri)


def test_runs_are_listed_from_the_newest_and_by_experiment(tracked: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_PAGE", 2)  # several pages
    names = [run.run_id for run in list_runs(tracking_uri=tracked.uri)]
    assert sorted(names) == [
        "2026-02-15_radiant-octopus",
        "2026-02-15_radiant-otter",
        "2026-02-16_calm-newt",
        "in-the-other",
    ]
    starts = [run.run.info.start_time for run in list_runs(tracking_uri=tracked.uri)]
    assert starts == sorted(starts, reverse=True)
    only = list_runs(tracking_uri=tracked.uri, experiment="other")
    assert [run.run_id for run in only] == ["in-the-other"]
    with pytest.raises(RunNotFoundError, match="there are: Default, other, tests"):
        list_runs(tracking_uri=tracked.uri, experiment="none")


def test_references_become_ids_each_once(tracked: RunStore) -> None:
    everything = resolve_references(["all"], tracking_uri=tracked.uri)
    assert len(everything) == 4
    latest = resolve_references(["latest"], tracking_uri=tracked.uri, experiment="other")
    assert latest == ["in-the-other"]
    assert resolve_references(["in-the-other", "latest"], tracking_uri=tracked.uri, experiment="other") == latest
    with pytest.raises(RunNotFoundError):
        resolve_references(["nothing"], tracking_uri=tracked.uri)


def test_runs_that_share_an_id_are_named_by_the_id_of_mlflow(tracked: RunStore) -> None:
    rival = _client(tracked).create_run("0", tags={RUN_ID_TAG: "in-the-other"}).info.run_id
    assert resolve_references([rival], tracking_uri=tracked.uri) == [rival]
    assert resolve_references(["latest"], tracking_uri=tracked.uri) == [rival]
    only = resolve_references(["latest"], tracking_uri=tracked.uri, experiment="other")
    assert only != ["in-the-other"]
    assert find_run(only[0], tracking_uri=tracked.uri).run_id == "in-the-other"
    everything = resolve_references(["all"], tracking_uri=tracked.uri)
    assert (
        len(everything) == len({find_run(name, tracking_uri=tracked.uri).run.info.run_id for name in everything}) == 5
    )
    unique = find_run("2026-02-16_calm-newt", tracking_uri=tracked.uri).run.info.run_id
    assert resolve_references([unique], tracking_uri=tracked.uri) == ["2026-02-16_calm-newt"]
    with pytest.raises(AmbiguousRunError):
        resolve_references(["in-the-other"], tracking_uri=tracked.uri)


def test_as_many_runs_as_asked_for_are_listed(tracked: RunStore) -> None:
    everything = [run.run_id for run in list_runs(tracking_uri=tracked.uri)]
    assert [run.run_id for run in list_runs(tracking_uri=tracked.uri, limit=2)] == everything[:2]
    assert len(list_runs(tracking_uri=tracked.uri, limit=100)) == 4


def test_messages_name_the_store_as_the_front_end_does(tracked: RunStore) -> None:
    with pytest.raises(RunNotFoundError, match="named with tracking_uri= or MLFLOW_TRACKING_URI"):
        find_run("none", tracking_uri=tracked.uri)
    with with_store_option("--somehow"), pytest.raises(RunNotFoundError, match="named with --somehow or"):
        find_run("none", tracking_uri=tracked.uri)


def test_a_verdict_is_noted_on_the_run_and_replaced(tracked: RunStore) -> None:
    run = find_run("in-the-other", tracking_uri=tracked.uri)
    before = dict(run.run.data.tags)
    for verdict in ("DIVERGED", "REPRODUCED"):
        run.note_verdict(verdict, at=datetime(2026, 2, 15, 13, tzinfo=timezone(timedelta(hours=1))))
    tags = find_run("in-the-other", tracking_uri=tracked.uri).run.data.tags
    assert tags == {**before, VERDICT_TAG: "REPRODUCED", VERIFIED_AT_TAG: "2026-02-15T12:00:00+00:00"}


def test_any_artifact_is_given_as_a_file(tracked: RunStore) -> None:
    run = find_run("2026-02-16_calm-newt", tracking_uri=tracked.uri)
    with run.artifact("rlab/record.json") as path:
        assert path is not None
        assert path.read_bytes().startswith(b"{")
    with run.artifact("rlab") as path:
        assert path is None


def test_names_that_start_alike_are_found_without_wildcards(tracked: RunStore) -> None:
    found = names_that_start_with(_client(tracked), "2026-02-15_radiant-o")
    assert set(found.values()) == {"2026-02-15_radiant-octopus", "2026-02-15_radiant-otter"}


def test_a_run_without_documents_says_what_is_missing(tracked: RunStore) -> None:
    run = find_run("in-the-other", tracking_uri=tracked.uri)
    with pytest.raises(RecordError, match="'in-the-other' has no record"):
        run.record()
    with pytest.raises(ResearchlabError, match="patch of run 'in-the-other' is missing"):
        run.patch()


def test_a_damaged_record_says_whose(tracked: RunStore) -> None:
    run = find_run("2026-02-16_calm-newt", tracking_uri=tracked.uri)
    folder = local_path(run.run.info.artifact_uri)
    assert folder is not None
    (folder / "rlab" / "record.json").write_text("{")
    with pytest.raises(RecordError, match="2026-02-16_calm-newt"):
        run.record()


def test_looking_where_no_store_is_makes_none(project: Repo) -> None:
    for look in (lambda: find_run("x"), list_runs, lambda: resolve_references(["latest"])):
        with pytest.raises(StoreError, match="There is no store"):
            look()
    assert sorted(path.name for path in project.top.iterdir()) == [".git", ".gitignore", "train.py"]
