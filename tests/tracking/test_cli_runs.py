"""`rlab runs` and `rlab show`: what they say of a run, and that nothing in it can drive the terminal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import RLAB, on_a_terminal, refusal, rlab
from helpers.repos import Repo, make_repo

from researchlab.tracking._tags import DIRTY_TAG, PROCESS_TAG, SCRIPT_TAG, VERDICT_TAG, VERIFIED_AT_TAG
from researchlab.tracking.record import (
    CommandRecord,
    EnvironmentRecord,
    ExecutionRecord,
    FileRecord,
    InputRecord,
    NestedRecord,
    ResultRecord,
    read_record,
)
from researchlab.tracking.runs import find_run
from researchlab.tracking.store import local_path

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

RUN = "2026-02-15_radiant-octopus"
HOSTILE = "evil\x1b]0;owned\x07\x1b[2J\u202e\n\udcff.txt"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    made = make_repo(tmp_path / "repo", {"train.py": "print(1)\n"})
    monkeypatch.chdir(made.top)
    return made


def change(store: RunStore, run_id: str, *, status: str | None = None, **tags: str | None) -> None:
    """Change what the store says of a run."""
    run = find_run(run_id, tracking_uri=store.uri)
    number = run.run.info.run_id
    if status is not None:
        run.client.update_run(number, status=status)
    for name, value in tags.items():
        if value is None:
            run.client.delete_tag(number, name)
        else:
            run.client.set_tag(number, name, value)


def listed(*args: str) -> dict[str, dict[str, Any]]:
    return {entry["run_id"]: entry for entry in json.loads(rlab("runs", "--json", *args).stdout)}


def test_runs_shows_the_newest_first_and_says_what_it_leaves_out(repo: Repo, store: RunStore) -> None:
    for run_id in ("one", "two", "three"):
        repo.write("new.txt", run_id)
        store.track(run_id, repo.top)
    result = rlab("runs", "--limit", "2")
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["run", "age", "status", "script", "dirty", "verdict", "experiment"]
    assert [row.split()[0] for row in rows] == ["three", "two"]
    assert rows[0].split()[3:] == ["FINISHED", "train.py", "1", "-", "tests"]
    assert "Older ones are not shown (--limit)" in result.stderr
    assert rlab("runs", "--limit", "3").stderr == ""
    entry = listed("--experiment", "tests")["three"]
    assert (entry["status"], entry["experiment"], entry["script"], entry["dirty"]) == (
        "FINISHED",
        "tests",
        "train.py",
        1,
    )
    assert entry["base_commit"] == repo.git("rev-parse", "HEAD")
    assert "There is no experiment 'tset'" in refusal("runs", "--experiment", "tset")


def test_runs_of_an_empty_store_is_an_empty_list(repo: Repo, store: RunStore) -> None:
    assert f"No tracked runs in {store.uri}." in rlab("runs").stdout
    assert json.loads(rlab("runs", "--json").stdout) == []


def test_the_list_needs_no_artifact(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    store.track(RUN, repo.top)
    (tmp_path / "store/mlartifacts").rename(tmp_path / "elsewhere")
    entry = listed()[RUN]
    assert (entry["script"], entry["dirty"]) == ("train.py", 0)


def test_a_run_of_an_older_researchlab_is_listed_from_its_record(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    repo.write("new.txt")
    for run_id in ("old", "lost"):
        store.track(run_id, repo.top)
        change(store, run_id, **{SCRIPT_TAG: None, DIRTY_TAG: None})
    artifacts = local_path(find_run("lost", tracking_uri=store.uri).run.info.artifact_uri)
    assert artifacts is not None
    (artifacts / "rlab").rename(tmp_path / "moved")
    entries = listed()
    assert (entries["old"]["script"], entries["old"]["dirty"]) == ("train.py", 1)
    assert (entries["lost"]["script"], entries["lost"]["dirty"]) == (None, None)
    assert rlab("runs").stdout.splitlines()[1].split()[4:6] == ["-", "-"]


def test_a_run_that_was_killed_outright_is_told_from_one_that_goes_on(repo: Repo, store: RunStore) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    processes = {
        "alive": f"{socket.gethostname()} {os.getpid()}",
        "gone": f"{socket.gethostname()} {ended.pid}",
        "elsewhere": f"another.host {ended.pid}",
        "no-tag": None,
    }
    for run_id, process in processes.items():
        store.track(run_id, repo.top)
        change(store, run_id, status="RUNNING", **{PROCESS_TAG: process} if process else {})
    entries = listed()
    assert {name: entry["process"] for name, entry in entries.items()} == {
        "alive": "alive",
        "gone": "gone",
        "elsewhere": "unknown",
        "no-tag": "unknown",
    }
    assert {entry["status"] for entry in entries.values()} == {"RUNNING"}
    shown = {row.split()[0]: row.split()[3] for row in rlab("runs").stdout.splitlines()[1:]}
    assert shown == {"alive": "RUNNING", "gone": "gone", "elsewhere": "RUNNING", "no-tag": "RUNNING"}
    assert "its process is gone: it was killed outright" in rlab("show", "gone").stdout


def test_the_verdict_is_listed_and_shown(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    change(store, RUN, **{VERDICT_TAG: "DIVERGED", VERIFIED_AT_TAG: "2026-02-16T12:00:00+00:00"})
    assert rlab("runs").stdout.splitlines()[1].split()[-2:] == ["DIVERGED", "tests"]
    text = rlab("show", RUN).stdout
    assert "  verdict       DIVERGED\n  verified at   2026-02-16T12:00:00+00:00\n" in text


@pytest.mark.slow
def test_a_thousand_runs_are_listed(store: RunStore, repo: Repo) -> None:
    import sqlite3

    store.track(RUN, repo.top)
    database = sqlite3.connect(store.store.database or "")
    with database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
        others = ", ".join(name for name in columns if name != "run_uuid")
        for number in range(1000):
            database.execute(
                f"INSERT INTO runs (run_uuid, {others}) SELECT ?, {others} FROM runs LIMIT 1", (f"{number:032x}",)
            )
            database.execute(
                "INSERT INTO tags (key, value, run_uuid) VALUES ('rlab.run_id', ?, ?)",
                (f"run-{number}", f"{number:032x}"),
            )
    database.close()
    assert len(listed("--limit", "2000")) == 1001
    assert len(listed()) == 50


def test_show_says_what_was_recorded(repo: Repo, store: RunStore) -> None:
    repo.write("new.txt")
    repo.git("remote", "add", "origin", "https://example.org/a.git")
    nested = NestedRecord(
        path="lib",
        is_submodule=True,
        base_commit="c" * 40,
        tree="d" * 40,
        changed=("inner.py",),
        left_out={"huge.bin": "is larger than 100 MiB"},
        patch="rlab/nested/1/run.patch",
    )
    inputs = (
        InputRecord(path="data/in.csv", role="data", why="it is ignored", sha256="e" * 64, size=1_400_000),
        InputRecord(
            path="/opt/w.bin", role="declared", why="it is outside", sha256=None, size=3, stored="rlab/inputs/ff"
        ),
    )
    environment = EnvironmentRecord(
        python={"version": "3.11.7", "implementation": "CPython", "executable": "/usr/bin/python"},
        platform={
            "system": "Linux",
            "release": "6",
            "machine": "x86_64",
            "cores": "2",
            "processor": "EPYC",
            "isa": "avx2",
        },
        packages={"jax": "0.7.2", "numpy": "2.0"},
        variables={"XLA_FLAGS": "--a"},
        jax={"backend": "cpu"},
    )
    store.track(
        RUN,
        repo.top,
        facts={
            "inputs": inputs,
            "folders": ("results", "runs/deep"),
            "command": CommandRecord(kind="script", target="train.py", folder="/", cwd=".", stdin="pipe"),
            "environment": environment,
            "ended_at": 200.0,
            "executions": (ExecutionRecord(source="loop", facts={"mode": "scan", "steps": "100"}),),
            "result": ResultRecord(status="FINISHED", metrics=2, points=10, states=1),
            "not_recorded": ("The config was not logged.",),
        },
        left_out={"big.bin": "is larger than 100 MiB", "pipe": "is a FIFO"},
        large={"big.bin": FileRecord(sha256="f" * 64, size=200_000_000)},
        pointers=("weights.bin",),
        ignored=("build/", "data/*"),
        bundle="rlab/base.bundle",
        nested=(nested,),
    )
    text = rlab("show", RUN).stdout
    base = repo.git("rev-parse", "HEAD")
    for line in (
        f"id            {RUN}",
        "status        FINISHED",
        "took          3 min 20 s",
        "typed         python train.py",
        f"base commit   {base} (on main)",
        "changed       1 file and 1 in repositories inside\n                  new.txt",
        "left out      2 paths\n                  big.bin: is larger than 100 MiB (200 MB, sha256 ffffffffffff)\n",
        "                  pipe: is a FIFO\n",
        "ignored       2 paths\n                  build/\n                  data/*",
        "LFS pointers  1 file\n                  weights.bin",
        "remotes       origin: https://example.org/a.git",
        "bundle        rlab/base.bundle (commits that no remote had)",
        "submodule lib\n  base commit   " + "c" * 40,
        "huge.bin: is larger than 100 MiB",
        "patch         rlab/nested/1/run.patch",
        "data          data/in.csv\n                  it is ignored; 1.4 MB, sha256 eeeeeeeeeeee, not stored",
        "it is outside; 3 B, bytes not known, stored as rlab/inputs/ff",
        "folders       results/\n                runs/deep/",
        "stdin         pipe, not recorded",
        "execution     loop: mode scan, steps 100",
        "python        CPython 3.11.7\n                /usr/bin/python",
        "processor     EPYC, avx2",
        "jax           backend: cpu",
        "variables     XLA_FLAGS=--a",
        "packages      2 (--all lists them)",
        "metrics       2 metrics, 10 values",
        "not recorded\n                The config was not logged.",
    ):
        assert line in text, f"{line}\n--- is not in ---\n{text}"
    everything = rlab("show", RUN, "--all").stdout
    assert "packages      jax 0.7.2\n                numpy 2.0" in everything


def test_show_as_json_is_the_record(repo: Repo, store: RunStore) -> None:
    record = store.track(RUN, repo.top)
    assert read_record(rlab("show", RUN, "--json").stdout, where="the output") == record


def test_long_lists_are_cut_short_unless_all_is_asked_for(repo: Repo, store: RunStore) -> None:
    for number in range(30):
        repo.write(f"file{number:02}")
    store.track(RUN, repo.top)
    text = rlab("show", RUN).stdout
    assert "30 files" in text
    assert "file19" in text
    assert "file20" not in text
    assert "and 10 more (--all)" in text
    assert "file29" in rlab("show", RUN, "--all").stdout


def test_a_run_without_code_is_shown(repo: Repo, store: RunStore) -> None:
    store.track(RUN, None)
    text = rlab("show", RUN).stdout
    assert "There was no repository." in text
    assert "\ncode\n" not in text
    assert listed()[RUN]["dirty"] is None


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 1e300, -1e11])
def test_a_record_of_a_strange_time_is_said_to_be_broken(time: float, repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top, facts={"started_at": time})
    for command in (("show", RUN), ("show", RUN, "--json")):
        assert f"The record of run '{RUN}' is broken at 'started_at'" in refusal(*command)
    assert RUN in rlab("runs").stdout


@pytest.mark.parametrize("how", ["pipe", "terminal"])
def test_a_hostile_record_cannot_drive_the_terminal(how: str, repo: Repo, store: RunStore) -> None:
    store.track(
        RUN,
        repo.top,
        facts={
            "experiment": HOSTILE,
            "not_recorded": (HOSTILE,),
            "inputs": (InputRecord(path=HOSTILE, role="data", why=HOSTILE, sha256=None, size=1),),
            "result": ResultRecord(status="FINISHED", error=HOSTILE),
            "environment": EnvironmentRecord(variables={HOSTILE: HOSTILE}),
        },
        changed=(HOSTILE,),
        left_out={HOSTILE: HOSTILE},
        remotes={HOSTILE: HOSTILE},
    )
    change(store, RUN, **{SCRIPT_TAG: "evil\x1b[2J", VERDICT_TAG: "evil\x1b[2J"})
    for command in (("runs",), ("show", RUN)):
        if how == "pipe":
            done = subprocess.run([RLAB, *command], capture_output=True, check=True)
            output = done.stdout
            assert b"\x1b" not in output
        else:
            code, output = on_a_terminal(*command)
            assert code == 0
        assert b"\x1b[2J" not in output
        assert b"\x1b]0;" not in output
        assert b"\x07" not in output
        assert "\u202e".encode() not in output
        assert b"\\x1b[2J" in output


def test_text_in_a_pipe_is_plain_and_on_a_terminal_coloured(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    change(store, RUN, status="FAILED")
    assert b"\x1b[31mFAILED" in on_a_terminal("show", RUN)[1]
    forced = subprocess.run([RLAB, "show", RUN], capture_output=True, check=True, env={**os.environ, "COLUMNS": "20"})
    assert forced.stdout.decode() == rlab("show", RUN).stdout


def test_last_values_come_from_the_trace(repo: Repo, store: RunStore) -> None:
    from researchlab.tracking.tracker import ExperimentTracker

    with ExperimentTracker("tests", RUN) as run:
        for step in range(3):
            run.record_metrics({"loss": 1 / (step + 3), "odd": float("nan")}, step)
    text = rlab("show", RUN).stdout
    assert "last values   loss = 0.2 at step 2\n                odd = nan at step 2\n" in text
    entry = listed()[RUN]
    assert (entry["process"], entry["dirty"], entry["verdict"]) == (None, 0, None)


def test_the_store_is_left_out_as_what_it_is_and_does_not_make_a_run_dirty(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    from researchlab.tracking.tracker import ExperimentTracker

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with ExperimentTracker("tests", "first") as run:
        run.record_metrics({"x": 0.5}, 0)
    assert "metrics       1 metric, 1 value\n" in rlab("show", "first").stdout
    assert "(1 tracked run)" in refusal("show", "second")
    with ExperimentTracker("tests", "second"):
        pass
    assert "mlflow.db: belongs to the MLflow store\n" in rlab("show", "second").stdout
    assert {name: entry["dirty"] for name, entry in listed().items()} == {"first": 0, "second": 0}


def test_the_tracker_writes_what_the_list_needs(repo: Repo, store: RunStore) -> None:
    repo.write(
        "run.py",
        "import time\nfrom researchlab import ExperimentTracker\n"
        "with ExperimentTracker('e', 'live'):\n    print('on', flush=True)\n    time.sleep(60)\n",
    )
    process = subprocess.Popen([sys.executable, "-W", "ignore", "run.py"], cwd=repo.top, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    entry = listed()["live"]
    assert (entry["script"], entry["dirty"], entry["process"]) == ("run.py", 1, "alive")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert listed()["live"]["process"] == "gone"
