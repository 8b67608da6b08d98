"""How `rlab` ends: exit codes, Ctrl-C, a pipe that closes, a store that does not answer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from helpers.commands import RLAB, refusal, rlab
from helpers.repos import Repo, make_repo

from researchlab.tracking._checkouts import _branches
from researchlab.tracking._tags import VERDICT_TAG, VERIFIED_AT_TAG
from researchlab.tracking.runs import find_run
from researchlab.tracking.store import local_path

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

RUN = "2026-02-15_radiant-octopus"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    made = make_repo(tmp_path / "repo", {"train.py": "print(1)\n"})
    monkeypatch.chdir(made.top)
    return made


def buffered() -> dict[str, str]:
    """Return the environment in which Python writes to a pipe or a file as it does by default."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("args", [("nonsense",), ("show",), ("runs", "--limit", "0"), ("diff", "one"), ("runs", "--x")])
def test_a_command_line_that_makes_no_sense_is_2(args: tuple[str, ...]) -> None:
    result = rlab(*args)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_refusal_is_2_and_another_verdict_is_1(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top, kind="interactive")
    result = rlab("reproduce", "latest", RUN)
    assert result.exit_code == 1
    assert result.stdout.count("NOT RE-EXECUTABLE") == 1
    assert "no-such-run" in refusal("reproduce", "no-such-run")


def test_a_failure_of_the_system_is_refused_as_that(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(repo: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/some\x1bwhere")

    monkeypatch.setattr(_branches, "list_branches", full)
    assert refusal("list") == "error: [Errno 28] No space left on device: '/some\\x1bwhere'\n"


def test_a_verdict_is_written_to_the_run_only_on_request(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top, kind="interactive")
    before = find_run(RUN, tracking_uri=store.uri).run
    rlab("reproduce", RUN)
    assert find_run(RUN, tracking_uri=store.uri).run.data.tags == before.data.tags
    assert rlab("reproduce", RUN, "--tag").exit_code == 1
    after = find_run(RUN, tracking_uri=store.uri).run
    new = {name: after.data.tags[name] for name in after.data.tags.keys() - before.data.tags.keys()}
    assert new.keys() == {VERDICT_TAG, VERIFIED_AT_TAG}
    assert new[VERDICT_TAG] == "NOT RE-EXECUTABLE"
    assert (after.info.status, after.info.end_time) == (before.info.status, before.info.end_time)


def test_scripts_get_every_verdict_as_json(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top, kind="interactive")
    store.track("second", repo.top, kind="stdin")
    result = rlab("reproduce", "all", "--json")
    assert result.exit_code == 1
    verdicts = {it["run_id"]: it for it in json.loads(result.stdout)}
    assert list(verdicts) == [RUN, "second"]
    assert verdicts[RUN]["verdict"] == "NOT RE-EXECUTABLE"
    assert "notebook" in verdicts[RUN]["reason"]
    assert (verdicts[RUN]["ok"], verdicts[RUN]["first"], verdicts[RUN]["seconds"]) == (False, None, None)


def test_a_run_that_cannot_be_read_costs_no_verdict_of_another(repo: Repo, store: RunStore, tmp_path: Path) -> None:
    store.track(RUN, repo.top, kind="interactive")
    store.track("second", repo.top)
    artifacts = local_path(find_run("second", tracking_uri=store.uri).run.info.artifact_uri)
    assert artifacts is not None
    artifacts.rename(tmp_path / "elsewhere")
    result = rlab("reproduce", "all", "--json")
    assert (result.exit_code, [it["run_id"] for it in json.loads(result.stdout)]) == (2, [RUN])
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_a_time_limit_is_more_than_nothing(limit: str) -> None:
    result = rlab("reproduce", "latest", "--timeout", limit)
    assert result.exit_code == 2
    assert "greater than" in result.stderr


def test_a_time_limit_writes_no_verdict(repo: Repo, store: RunStore) -> None:
    from researchlab import ExperimentTracker

    repo.write("train.py", "import time\ntime.sleep(60)\n")
    with ExperimentTracker("tests", RUN) as run:
        run.record_metrics({"x": 0.5}, 0)
    find_run(RUN, tracking_uri=store.uri).note_verdict("REPRODUCED", at=datetime.now(UTC))
    number = find_run(RUN, tracking_uri=store.uri).run.info.run_id
    document = find_run(RUN, tracking_uri=store.uri).record()
    command = document.command.model_copy(update={"kind": "script", "target": "train.py", "argv": (), "flags": ()})
    # Without what other threads of this process happened to read meanwhile.
    record = document.model_copy(update={"command": command, "inputs": ()}).to_json()
    find_run(RUN, tracking_uri=store.uri).client.log_text(number, record, "rlab/record.json")
    result = rlab("reproduce", RUN, "--timeout", "0.1", "--tag", "--json")
    (verdict,) = json.loads(result.stdout)
    assert (verdict["verdict"], verdict["timed_out"]) == ("FAILED", True)
    assert "was not tagged: the time limit" in result.stderr
    assert find_run(RUN, tracking_uri=store.uri).run.data.tags[VERDICT_TAG] == "REPRODUCED"


def test_a_dead_server_is_one_readable_line(repo: Repo) -> None:
    for command in (("runs",), ("show", RUN)):
        message = refusal(*command, "--tracking-uri", "http://user:secret@127.0.0.1:9")
        assert message.startswith(
            "error: The tracking server http://127.0.0.1:9 does not answer (Connection refused). "
        )
        assert "leave out --tracking-uri and unset" in message
        assert message.count("\n") == 1
        assert "secret" not in message
        assert "urllib3" not in message


def test_ctrl_c_is_130_without_a_traceback(repo: Repo, tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"""
import pathlib, signal, time
from researchlab import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without it
from researchlab.tracking._checkouts import _branches
def wait(repo):
    pathlib.Path({str(started)!r}).touch()
    time.sleep(60)
_branches.list_branches = wait
cli.main()
"""
    process = subprocess.Popen([sys.executable, "-c", code, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, b"", b"interrupted\n")


@pytest.mark.parametrize("command", ["runs", "show", "list"])
def test_a_reader_that_goes_away_is_met_in_silence(command: str, repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top, left_out={f"file{number}": "is too large" * 20 for number in range(2000)})
    if command == "list":
        repo.git("branch", "experiment/one")
    mine, theirs = os.pipe()
    os.close(mine)  # gone before the first line
    words = [RLAB, command, *((RUN, "--all") if command == "show" else ())]
    done = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, env=buffered(), check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_an_output_that_cannot_be_written_is_named(repo: Repo, store: RunStore) -> None:
    store.track(RUN, repo.top)
    for command in (("runs",), ("show", RUN), ("list", "--json")):
        with open("/dev/full", "w") as full:  # noqa: PTH123
            done = subprocess.run(
                [RLAB, *command], stdout=full, stderr=subprocess.PIPE, text=True, env=buffered(), check=False
            )
        assert (done.returncode, done.stderr) == (2, "error: stdout could not be written: No space left on device\n")


def test_exit_codes_are_in_every_help() -> None:
    for command in ("runs", "show", "restore", "list", "delete", "diff", "export", "import", "reproduce", None):
        text = " ".join(rlab(*filter(None, [command]), "--help").stdout.split())
        assert "Exit codes: 0 done; 1 a run was not REPRODUCED" in text
