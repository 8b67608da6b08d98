"""Is the recorded command started as it was, and does nothing of it stay behind?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.reproduction import running

from researchlab.errors import NotReExecutableError, RecordError
from researchlab.reproduce import _execution
from researchlab.reproduce._execution import check_executable, execute
from researchlab.tracking._wording import typed_command
from researchlab.tracking.record import CommandRecord, EnvironmentRecord, Record, SnapshotRecord
from researchlab.tracking.request import REQUEST_VARIABLE, Request, active_request
from researchlab.tracking.store import scratch_store

#: What an asked tracker does at its end, for scripts that need no store.
ANSWER = f"""
import json, os, pathlib
def answer(**facts):
    request = json.loads(pathlib.Path(os.environ["{REQUEST_VARIABLE}"]).read_text())
    fresh = pathlib.Path(request["reply"] + ".new")
    fresh.write_text(json.dumps({{"trace": "/", "record": json.dumps(facts)}}))
    fresh.rename(request["reply"])
"""


@pytest.fixture
def restored(tmp_path: Path) -> Path:
    folder = tmp_path / "restored"
    folder.mkdir()
    (folder / "answering.py").write_text(ANSWER)
    return folder


def record_of(original: Path | str = "/original", *, variables: dict[str, str] | None = None, **command: Any) -> Record:
    return Record(
        run_id="a-run",
        experiment="e",
        researchlab="0",
        started_at=0.0,
        host="h",
        pid=1,
        snapshot=SnapshotRecord(base_commit=None, tree="0" * 40, repository=str(original)),
        command=CommandRecord(**{"kind": "script", "folder": str(original), "cwd": ".", **command}),
        environment=EnvironmentRecord(variables=variables or {}),
    )


def run(restored: Path, code: str, *, timeout: float | None = 60, **record: Any) -> tuple[_execution.Execution, Any]:
    """Execute code as the script of a run, and return what happened and what it answered."""
    target = Path(record.pop("target", "script.py"))
    (restored / target).parent.mkdir(parents=True, exist_ok=True)
    (restored / target).write_text("import os\nfrom answering import answer\n" + textwrap.dedent(code))
    done = execute(
        record_of(target=str(target), source_roots=(".",), **record),
        restored=restored,
        scratch=restored.parent / "scratch",
        timeout=timeout,
    )
    return done, None if done.reply is None else json.loads(done.reply.record)


def test_the_program_gets_its_folder_arguments_flags_variables_and_search_path(
    restored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = restored.parent / "original"
    (original / "data").mkdir(parents=True)
    (restored.parent / "link").symlink_to(original)
    (restored / "src").mkdir()
    for name, value in {
        "OMP_NUM_THREADS": "7",
        "MKL_NUM_THREADS": "7",
        "OWN": "kept",
        "GIT_DIR": "/x",
        "PYTEST_ADDOPTS": "--x",
        "MLFLOW_RUN_ID": "x",
        "MLFLOW_REGISTRY_URI": "x",
        "PYTHONPATH": f"/elsewhere{os.pathsep}{original}/src",
    }.items():
        monkeypatch.setenv(name, value)
    argv = (
        str(original),
        f"--data={original}/data/a.npy",
        str(restored.parent / "link" / "data"),
        f"{original}-other",
        "a b",
    )
    done, seen = run(
        restored,
        """
        import sys
        answer(cwd=os.getcwd(), argv=sys.argv, optimize=sys.flags.optimize, utf8=sys.flags.utf8_mode,
               path=sys.path, env=dict(os.environ), stdin=sys.stdin.read(), pgid=os.getpgid(0), pid=os.getpid())
        """,
        original=original,
        target="sub/script.py",
        cwd="sub",
        argv=argv,
        flags=("-O", "-X", "utf8"),
        variables={"OMP_NUM_THREADS": "2"},
    )
    assert done.exit_code == 0, done.output
    assert seen["cwd"] == str(restored / "sub")
    assert seen["argv"] == [
        "script.py",
        str(restored),
        f"--data={restored}/data/a.npy",
        f"{restored}/data",
        f"{original}-other",
        "a b",
    ]
    assert (seen["optimize"], seen["utf8"], seen["stdin"]) == (1, 1, "")
    env = seen["env"]
    assert env["OMP_NUM_THREADS"] == "2"
    assert env["OWN"] == "kept"
    assert not {"MKL_NUM_THREADS", "GIT_DIR", "PYTEST_ADDOPTS", "MLFLOW_RUN_ID", "MLFLOW_REGISTRY_URI"} & env.keys()
    assert env["PWD"] == str(restored / "sub")
    assert env["MLFLOW_TRACKING_URI"].startswith(f"sqlite:///{restored.parent}/scratch/")
    assert env["PYTHONPATH"] == os.pathsep.join([str(restored), "/elsewhere", str(restored / "src")])
    assert seen["pgid"] == seen["pid"]


def test_only_variables_that_a_run_records_are_set(restored: Path) -> None:
    before = {name: os.environ.get(name) for name in ("LD_PRELOAD", "PATH", "GIT_DIR")}
    _, seen = run(
        restored,
        "answer(env=dict(os.environ))",
        variables={"TZ": "UTC", "LD_PRELOAD": "/evil.so", "PATH": "/evil", "GIT_DIR": "/evil", "LC_X=1": "evil"},
    )
    assert seen["env"]["TZ"] == "UTC"
    assert {name: seen["env"].get(name) for name in before} == before
    assert "LC_X" not in seen["env"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ({"kind": "module", "target": "pkg.main", "argv": ("x",)}, ["-m", "pkg.main", "x"]),
        ({"kind": "code", "target": "print(1)", "flags": ("-I",)}, ["-I", "-c", "print(1)"]),
        ({"kind": "script", "target": "a/b.py", "cwd": "c"}, ["../a/b.py"]),
        (
            {"kind": "pytest", "target": "t.py::test[a b]"},
            ["-m", "pytest", "t.py::test[a b]", "-p", "no:cacheprovider", "-n0"],
        ),
    ],
)
def test_the_words_of_the_command_line(command: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    record = record_of(**command)
    folder = tmp_path / (record.command.cwd or ".")
    got = _execution._words(record, restored=tmp_path, folder=folder, original=None)
    assert got == [sys.executable, *words]


def test_a_command_is_shown_as_a_person_would_type_it() -> None:
    command = CommandRecord(
        kind="script", target="a b.py", argv=("-x", "1 2"), flags=("-O",), cwd="sub", folder="/", ordinal=1
    )
    assert typed_command(command) == "python -O 'a b.py' -x '1 2'  (in sub/)  (run 2 of the process)"


def test_the_command_of_an_installed_package_is_found_where_it_is_installed_now(tmp_path: Path) -> None:
    record = record_of(target="/some/other/venv/bin/pytest")
    words = _execution._words(record, restored=tmp_path, folder=tmp_path, original=None)
    assert words == [sys.executable, str(Path(sys.executable).parent / "pytest")]
    with pytest.raises(NotReExecutableError, match="'no-such-command' is not installed here"):
        check_executable(record_of(target="/some/other/venv/bin/no-such-command"))
    with pytest.raises(NotReExecutableError, match="lies outside the repository"):
        check_executable(record_of(target="/home/someone/script.py"))


def test_what_a_program_started_ends_with_it(restored: Path) -> None:
    done, seen = run(
        restored,
        """
        import subprocess, sys
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        answer(child=child.pid)
        """,
    )
    assert done.exit_code == 0, done.output
    assert _gone([seen["child"]])


def test_a_program_that_goes_on_long_after_its_run_is_stopped(restored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_execution, "GRACE", 0.5)
    done, seen = run(restored, "import time\nanswer(pid=os.getpid())\ntime.sleep(600)", timeout=120)
    assert done.reply is not None
    assert done.exit_code is None
    assert not done.timed_out
    assert _gone([seen["pid"]])


def test_a_program_may_work_on_for_a_while_after_its_run(restored: Path) -> None:
    done, _ = run(restored, "import time\nanswer()\ntime.sleep(0.5)\nopen('after', 'w')\nraise SystemExit(3)")
    assert done.exit_code == 3
    assert (restored / "after").exists()


def test_the_time_limit_ends_a_program_that_does_not_listen(restored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_execution, "_STOP", 0.5)
    started = time.monotonic()
    done, _ = run(
        restored,
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
        time.sleep(600)
        """,
        timeout=3,
    )
    assert done.timed_out
    assert done.reply is None
    assert done.output == "deaf"
    assert time.monotonic() - started < 60


def test_only_the_end_of_a_long_output_is_kept(restored: Path) -> None:
    done, _ = run(restored, "for number in range(100_000):\n    print(number)\nraise SystemExit('the reason')")
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[-1] == "the reason"
    assert len(lines) <= 30


def test_a_damaged_request_is_named_and_a_program_that_is_no_re_execution_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert active_request() is None
    monkeypatch.setenv(REQUEST_VARIABLE, str(tmp_path / "none.json"))
    with pytest.raises(RecordError, match="Unset the variable"):
        active_request()


def test_only_the_process_itself_is_asked_and_not_what_it_starts(tmp_path: Path) -> None:
    request = Request(
        run_id="r",
        tracking_uri="sqlite:///x",
        asker=os.getppid(),
        test=None,
        ordinal=1,
        original=None,
        restored=tmp_path,
        reply=tmp_path / "reply.json",
    )
    assert request.asks(test=None, ordinal=1)
    assert not request.asks(test=None, ordinal=0)
    assert not request.asks(test="t.py::test", ordinal=1)
    assert not request.model_copy(update={"asker": os.getpid()}).asks(test=None, ordinal=1)


@pytest.mark.slow
def test_every_uri_leads_to_the_scratch_store_and_mlflow_is_not_imported_for_it(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    request = tmp_path / "request.json"
    (tmp_path / "earlier").mkdir()
    scratch_store(tmp_path / "earlier")  # which made the template that is copied
    request.write_text(json.dumps({"tracking_uri": scratch_store(tmp_path).tracking_uri}))
    code = f"""
import researchlab, sys
assert "mlflow" not in sys.modules
import mlflow
uri = "sqlite:///{other}"
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
with mlflow.start_run() as run:
    mlflow.log_text("a", "a.txt")
assert mlflow.MlflowClient().get_run(run.info.run_id).info.artifact_uri.startswith("file://{tmp_path}/mlartifacts/")
mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).create_registered_model("m")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, REQUEST_VARIABLE: str(request)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not other.exists()


def _gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while running(processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(processes)
