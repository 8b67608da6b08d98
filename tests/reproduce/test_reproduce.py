"""Does the whole way hold on real repositories, real processes and a real store?"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.repos import contents
from helpers.reproduction import Project, make_project, running, store_contents, user_files

from researchlab.errors import InvalidRunIdError, RecordError, RunNotFoundError, StoreError
from researchlab.reproduce import VerdictKind, _reproduce
from researchlab.reproduce._execution import Execution, execute
from researchlab.reproduce._surroundings import place_below

if TYPE_CHECKING:
    from researchlab.tracking.record import Record

pytestmark = pytest.mark.slow

STEPS = """
    import os, random, subprocess, sys, time
    mode = os.environ.get("MODE", "")
    if mode == "skip":
        sys.exit(0)
    if mode == "hang":
        print("waiting", flush=True)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)
    import mlflow, numpy as np
    from researchlab import ExperimentTracker

    with ExperimentTracker("modes", "modes", volatile=["seconds"]) as tracker:
        x = 1.0
        for step in range(10):
            x = x * 1.25 + (2.0**-50 if mode == "shift" and step == 4 else 0.0)
            mlflow.log_metrics({"x": x, "seconds": time.time()}, step=step)
            mlflow.log_metric("noise", random.random() if mode == "random" else 0.5, step=step)
            if mode == "raise" and step == 6:
                raise ValueError("only now")
        weights = np.arange(6.0).reshape(2, 3)
        weights[1, 2] = np.nextafter(5.0, 6.0) if mode == "leaf" else 5.0
        tracker.log_state({"weights": weights, "steps": 10})
"""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary folders, of this process and its children; it is empty again after each test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the run `modes`; no test changes it."""
    project = make_project(tmp_path_factory.mktemp("modes") / "project", {"modes.py": STEPS})
    project.python("modes.py")
    return project


@pytest.fixture
def copied(modes: Project, tmp_path: Path) -> Project:
    """The run `modes` in a store that a test may damage."""
    artifacts = modes.artifacts("modes")
    kept = tmp_path / "kept"
    shutil.copytree(artifacts, kept)
    yield modes
    shutil.rmtree(artifacts)
    shutil.copytree(kept, artifacts)


def test_a_dirty_tree_comes_back_and_nothing_of_the_user_changes(tmp_path: Path, scratch: Path) -> None:
    files = {
        "run.py": """
            import hashlib, os, pathlib, time
            import mlflow
            from researchlab import ExperimentTracker
            import helper, new_module
            here = pathlib.Path(__file__).parent
            factor = 1.5
            with ExperimentTracker("dirty", "dirty") as tracker:
                names = sorted(p for p in here.rglob("*") if p.is_file() and not {".git", "__pycache__"} & set(p.parts))
                names = [p for p in names if not p.relative_to(here).parts[0].startswith(("mlflow.db", "mlartifacts"))]
                for step, path in enumerate(names):
                    kind = f"{path.relative_to(here)} {path.is_symlink()} {os.access(path, os.X_OK)}"
                    digest = hashlib.sha256(kind.encode() + path.read_bytes()).hexdigest()[:12]
                    mlflow.log_metric("file", int(digest, 16), step=step)
                mlflow.log_metric("x", factor * helper.VALUE + new_module.VALUE)
                mlflow.log_metric("system/seconds", time.time())
                tracker.log_state({"names": len(names)})
        """,
        "helper.py": "VALUE = 1.0\n",
        "gone.txt": "deleted later\n",
        "old_name.txt": "a\nb\nc\n",
        "data.bin": bytes(range(256)),
        "tool.sh": "#!/bin/sh\n",
        "target.txt": "t\n",
    }
    project = make_project(tmp_path / "project", files)
    repo = project.repo
    repo.write("helper.py", "VALUE = 1.25\n")
    repo.write("new_module.py", "VALUE = 0.125\n")
    (repo.top / "gone.txt").unlink()
    repo.git("mv", "old_name.txt", "new name.txt")
    repo.write("data.bin", bytes(reversed(range(256))))
    (repo.top / "tool.sh").chmod(0o755)
    repo.link("a link", "target.txt")
    repo.git("status")  # which refreshes the index, as nothing after this may
    project.python("run.py")
    repo.write("helper.py", "VALUE = 7.0\n")  # the user goes on working
    before, stored = user_files(project), store_contents(project)

    verdict = project.reproduce("dirty", keep=True)

    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert user_files(project) == before
    assert store_contents(project) == stored
    assert verdict.not_compared == ("metric 'system/seconds': volatile",)
    assert verdict.compared == "2 metrics (10 values), 1 State (1 leaf)"
    assert verdict.kept is not None
    assert list(scratch.iterdir()) == [verdict.kept]
    restored = contents(place_below(verdict.kept / "1" / "tree", str(repo.top)))
    assert restored[b"helper.py"] == ("file", b"VALUE = 1.25\n")
    assert restored[b"a link"] == ("symlink", b"target.txt")
    assert restored[b"tool.sh"][0] == "executable"
    assert b"gone.txt" not in restored
    assert str(verdict.kept) in verdict.report()
    shutil.rmtree(verdict.kept)


def test_changed_code_in_the_stored_patch_is_refused_or_diverges_at_its_first_step(
    tmp_path: Path, scratch: Path
) -> None:
    source = """
        import mlflow
        from researchlab import ExperimentTracker
        with ExperimentTracker("patch", "patch"):
            x = 1.0
            for step in range(20):
                x *= RATE if step >= 7 else 2.0
                mlflow.log_metric("x", x, step=step)
    """
    project = make_project(tmp_path / "project", {"run.py": source.replace("RATE", "1.5")})
    project.repo.write("run.py", (project.top / "run.py").read_text().replace("1.5", "1.125"))
    project.python("run.py")

    project.edit_patch("patch", "+        x *= 1.125", "+        x *= 1.126", tree_too=False)
    refused = project.reproduce("patch")
    assert refused.kind is VerdictKind.NOT_RESTORED
    assert "altered" in refused.reason
    assert refused.seconds is None, "nothing may be run"

    project.edit_patch("patch", "+        x *= 1.126", "+        x *= 1.1875", tree_too=True)
    verdict = project.reproduce("patch")
    assert verdict.kind is VerdictKind.DIVERGED
    assert verdict.executions == 2
    assert verdict.first is not None
    assert (verdict.first.step, verdict.first.name) == (7, "x")
    assert "144.0" in verdict.first.stored
    assert "152.0" in verdict.first.received
    assert "the tag rlab.tree says" in verdict.report(), "the record was altered, and the report says so"
    assert list(scratch.iterdir()) == []


def test_another_environment_diverges_with_both_values_and_their_distance(
    modes: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODE", "shift")
    verdict = modes.reproduce("modes")
    assert verdict.kind is VerdictKind.DIVERGED, verdict.report()
    assert verdict.first is not None
    assert (verdict.first.step, verdict.first.name, verdict.first.kind) == (4, "x", "metric")
    assert verdict.first.ulp == 2
    assert verdict.reason == "the bits differ first at step 4, metric 'x'"
    report = verdict.report()
    for expected in (
        "step 4, metric 'x'",
        "3.0517578125",
        "3.051757812500001",
        "2 ULP",
        "as recorded",
        verdict.command,
    ):
        assert expected in report
    assert "metric 'seconds': volatile" in report


def test_a_leaf_of_the_final_state_that_differs_is_found_with_its_index(
    modes: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODE", "leaf")
    verdict = modes.reproduce("modes", confirm=False)
    assert verdict.kind is VerdictKind.DIVERGED, verdict.report()
    assert verdict.executions == 1
    assert verdict.first is not None
    assert verdict.first.step is None
    assert verdict.first.kind == "leaf"
    assert verdict.first.name.endswith("weights[1, 2]")
    assert verdict.first.ulp == 1
    assert "5.000000000000001" in verdict.report()


def test_a_time_limit_in_the_second_re_execution_makes_no_program_nondeterministic(
    modes: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Execution] = []

    def limited(record: Record, **options: Any) -> Execution:
        done.append(execute(record, **options))
        return done[0] if len(done) == 1 else dataclasses.replace(done[-1], reply=None, timed_out=True)

    monkeypatch.setattr(_reproduce, "execute", limited)
    monkeypatch.setenv("MODE", "random")
    verdict = modes.reproduce("modes")
    assert (verdict.kind, verdict.executions, verdict.timed_out) == (VerdictKind.DIVERGED, 1, False), verdict.report()
    assert "to tell a nondeterministic program: the time limit ended it" in verdict.not_compared[-1]
    assert len(done) == 2


def test_a_program_that_gives_other_bits_each_time_is_nondeterministic(
    modes: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODE", "random")
    verdict = modes.reproduce("modes")
    assert verdict.kind is VerdictKind.NONDETERMINISTIC
    assert "differs from the first one, first at step 0, metric 'noise'" in verdict.reason
    assert verdict.executions == 2


@pytest.mark.parametrize(
    ("mode", "reason", "code", "output"),
    [
        ("raise", "raised ValueError: only now; the run finished", 1, "ValueError: only now"),
        ("skip", "without opening its tracker number 1", 0, ""),
        ("hang", "the time limit of 3 s ended it", None, "waiting"),
    ],
)
def test_a_re_execution_that_does_not_come_to_its_end_fails_and_shows_why(
    mode: str,
    reason: str,
    code: int | None,
    output: str,
    modes: Project,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODE", mode)
    started = time.monotonic()
    verdict = modes.reproduce("modes", timeout=3 if mode == "hang" else None)
    assert verdict.kind is VerdictKind.FAILED, verdict.report()
    assert reason in verdict.reason
    assert output in verdict.output
    assert output in verdict.report()
    if code is not None:
        assert verdict.exit_code == code
    if mode == "hang":
        assert time.monotonic() - started < 30
    assert list(scratch.iterdir()) == []


def test_runs_that_ended_early_are_compared_as_far_as_they_came(tmp_path: Path) -> None:
    source = """
        import os, signal, sys, time
        import mlflow
        from researchlab import ExperimentTracker
        with ExperimentTracker("ends", sys.argv[1]) as tracker:
            for step in range(8):
                mlflow.log_metric("x", 1.5**step, step=step)
                if step == 5 and sys.argv[1] == "raises":
                    raise ValueError(f"as always, in {os.getcwd()}")
                if step == 5 and "FIRST" in os.environ:
                    if sys.argv[1] == "term":
                        os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(3)  # longer than the trace is kept back
                    print("ready", flush=True)
                    time.sleep(600)
            tracker.log_state({"x": 1.5**step})
    """
    project = make_project(tmp_path / "project", {"run.py": source})
    project.python("run.py", "raises", code=1)
    assert project.reproduce("raises").kind is VerdictKind.REPRODUCED

    project.python("run.py", "term", env={"FIRST": "1"}, code=143)
    verdict = project.reproduce("term")
    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert verdict.compared == "1 metric (6 values)"
    assert verdict.not_compared == ("what comes after the point at which the run was killed (2 values)",)

    with subprocess.Popen(
        [sys.executable, "run.py", "kill"], cwd=project.top, env={**os.environ, "FIRST": "1"}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        alive = project.reproduce("kill")
        process.kill()
    assert alive.kind is VerdictKind.NOT_COMPARABLE
    assert f"still going on (process {process.pid})" in alive.reason
    verdict = project.reproduce("kill")
    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert verdict.compared == "1 metric (6 values)"


def test_a_run_that_recorded_nothing_is_not_comparable_and_is_not_executed(tmp_path: Path) -> None:
    source = """
        from researchlab import ExperimentTracker
        with ExperimentTracker("empty", "empty"):
            pass
    """
    project = make_project(tmp_path / "project", {"run.py": source})
    project.python("run.py")
    verdict = project.reproduce("empty")
    assert verdict.kind is VerdictKind.NOT_COMPARABLE
    assert "log_state" in verdict.reason
    assert verdict.executions == 0


def test_a_program_keeps_its_folder_flags_and_arguments_and_may_do_what_programs_do(
    tmp_path: Path, scratch: Path
) -> None:
    source = """
        import os, pathlib, subprocess, sys
        import mlflow
        from researchlab import ExperimentTracker

        assert False, "-O was given"
        data = pathlib.Path(sys.argv[1])
        also = pathlib.Path(sys.argv[2].partition("=")[2])
        own = "sqlite:///" + os.environ["OWN_STORE"]
        mlflow.set_tracking_uri(own)
        with mlflow.start_run():  # outside of any tracker
            mlflow.log_metric("outside", 1.0)
            mlflow.log_text("text", "file.txt")
        with ExperimentTracker("variants", "variants", tracking_uri=own):
            mlflow.set_tracking_uri(own)
            mlflow.log_metric("x", float(data.read_text()) + float(also.read_text()) + float(open("beside.txt").read()))
            mlflow.log_metric("dev", float(sys.flags.dev_mode))
            mlflow.log_metric("stdin", len(sys.stdin.read()))
            mlflow.MlflowClient(tracking_uri=own).create_experiment("made by the program" + str(os.getpid()))
        # A child with a tracker of its own is not the run that is asked.
        subprocess.run([sys.executable, "worker.py"], check=True)
        with mlflow.start_run():
            mlflow.log_metric("after", 1.0)
        nothing = subprocess.DEVNULL
        lazy = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=nothing, stderr=nothing)
        pathlib.Path(os.environ["PIDS"]).write_text(str(lazy.pid))
    """
    worker = """
        import mlflow, os
        from researchlab import ExperimentTracker
        with ExperimentTracker("worker", tracking_uri="sqlite:///" + os.environ["OWN_STORE"]):
            mlflow.log_metric("worker", 1.0)
    """
    project = make_project(
        tmp_path / "project",
        {"sub/run.py": source, "sub/worker.py": worker, "sub/beside.txt": "1", "data.txt": "2.5", "also.txt": "4"},
    )
    pids = tmp_path / "pids"
    env = {"OWN_STORE": str(project.top / "mlflow.db"), "PIDS": str(pids)}
    link = tmp_path / "link"
    link.symlink_to(project.top)
    project.python(
        "-O", "-X", "dev", "-W", "ignore", "run.py", link / "data.txt", f"--also={project.top}/also.txt",
        cwd=project.top / "sub", env=env,
    )  # fmt: skip
    os.kill(int(pids.read_text()), signal.SIGKILL)
    pids.unlink()
    project.repo.write("data.txt", "100")
    stored = store_contents(project)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        verdict = project.reproduce("variants")

    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert verdict.compared == "3 metrics (3 values)"
    assert verdict.started.startswith("python -O -X dev -W ignore sub/run.py ")
    assert store_contents(project) == stored, "the run's store is left alone, whatever URI the program names"
    assert running([int(pids.read_text())]) == []
    assert list(scratch.iterdir()) == []


def test_modules_code_and_scripts_started_from_outside_are_started_again(tmp_path: Path) -> None:
    body = """
        import mlflow, sys
        from researchlab import ExperimentTracker
        from pkg.values import VALUE
        def main(name):
            with ExperimentTracker("starts", name):
                mlflow.log_metric("x", VALUE)
            with ExperimentTracker("starts", name + "-second"):
                mlflow.log_metric("y", VALUE + 1)
                with ExperimentTracker("starts", name + "-nested"):
                    mlflow.log_metric("z", VALUE + 2)
        if __name__ == "__main__":
            main(sys.argv[1])
    """
    project = make_project(
        tmp_path / "project", {"pkg/__init__.py": "", "pkg/values.py": "VALUE = 1.5\n", "pkg/main.py": body}
    )
    script = "import sys; sys.path.insert(0, sys.argv[2]); from pkg.main import main; main(sys.argv[1])"
    project.repo.write("script.py", script)
    outside = tmp_path / "outside"
    outside.mkdir()
    project.python("-m", "pkg.main", "module")
    project.python("-c", "from pkg.main import main; main('code')")
    project.python(project.top / "script.py", "script", project.top, cwd=outside)
    project.repo.write("pkg/values.py", "VALUE = 2.5\n")
    for run_id in ("module-nested", "code-second", "script"):
        verdict = project.reproduce(run_id)
        assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
        assert verdict.compared == "1 metric (1 value)"
        assert ("(run 2 of the process)" in verdict.started) == (run_id == "code-second")


def test_a_tracker_in_a_parametrised_test_is_found_again(tmp_path: Path) -> None:
    source = """
        import mlflow, pytest
        from researchlab import ExperimentTracker

        @pytest.mark.parametrize("name", ["a b", "c[d]"])
        def test_it(name):
            with ExperimentTracker("tests", "test-" + name[0]):
                mlflow.log_metric("x", len(name) + ord(name[0]))
    """
    project = make_project(tmp_path / "project", {"tests/test_it.py": source, "pytest.ini": "[pytest]\n"})
    project.python("-m", "pytest", "-q", "-p", "no:randomly", cwd=project.top / "tests")
    verdict = project.reproduce("test-c")
    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert "test_it.py::test_it[c[d]]" in verdict.started


_CALL = (
    "import signal, sys; from researchlab.reproduce import reproduce; "
    # A shell starts what is in the background with SIGINT ignored.
    "signal.signal(signal.SIGINT, signal.default_int_handler); reproduce('modes', tracking_uri=sys.argv[1])"
)


@pytest.mark.parametrize(
    ("words", "number", "said"),
    [
        (["-c", _CALL, "URI"], signal.SIGINT, "KeyboardInterrupt"),
        (["-c", _CALL, "URI"], signal.SIGTERM, ""),
        (["-m", "pytest", "--rlab-reproduce", "modes", "--rlab-tracking-uri", "URI"], signal.SIGTERM, "told to stop"),
    ],
    ids=["ctrl-c", "sigterm", "sigterm-pytest"],
)
def test_a_signal_ends_the_whole_re_execution_and_removes_its_folder(
    words: list[str], number: int, said: str, modes: Project, scratch: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, *(modes.uri if word == "URI" else word for word in words)],
        cwd=modes.top,
        env={**os.environ, "MODE": "hang"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (descendants := _descendants(process.pid)) or len(descendants) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert said in output
    assert running(descendants) == []
    assert [path.name for path in scratch.iterdir() if path.name.startswith("rlab-")] == []


def _descendants(number: int) -> list[int]:
    """Return the Python processes below a process (git comes and goes)."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = (folder / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == number and sys.executable.encode() in name:
            found += [int(folder.name), *_descendants(int(folder.name))]
    return found


def test_an_unknown_run_is_answered_with_the_closest_ids_and_the_store(modes: Project) -> None:
    with pytest.raises(RunNotFoundError) as error:
        modes.reproduce("mods")
    assert "modes" in str(error.value)
    assert modes.uri in str(error.value)


@pytest.mark.parametrize("run_id", ["a'b", "50%", 'a"b', ""])
def test_characters_that_no_run_id_has_are_refused(run_id: str, modes: Project) -> None:
    with pytest.raises(InvalidRunIdError):
        modes.reproduce(run_id)


def test_looking_into_a_store_that_is_not_there_makes_none(modes: Project, tmp_path: Path) -> None:
    del modes
    from researchlab.reproduce import reproduce

    with pytest.raises(StoreError, match="There is no store"):
        reproduce("modes", tracking_uri=f"sqlite:///{tmp_path}/none.db", repo=tmp_path)
    with pytest.raises(StoreError, match="There is no store"):
        reproduce("modes", repo=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


def test_a_run_without_a_record_is_refused(copied: Project) -> None:
    (copied.artifacts("modes") / "rlab" / "record.json").unlink()
    with pytest.raises(RecordError, match="has no record"):
        copied.reproduce("modes")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"version": 1, ', "is not JSON"), ('{"version": 99}', "pip install -U"), ('{"version": 1}', "broken at")],
)
def test_a_corrupt_or_newer_record_is_refused(text: str, message: str, copied: Project) -> None:
    (copied.artifacts("modes") / "rlab" / "record.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        copied.reproduce("modes")


@pytest.mark.parametrize("damage", ["gone", "cut", "scrambled"])
def test_a_damaged_trace_is_refused_instead_of_looking_empty(damage: str, copied: Project) -> None:
    path = copied.artifacts("modes") / "rlab" / "metrics.arrow"
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else bytes(reversed(data)))
    with pytest.raises(RecordError, match=r"damaged|cannot be read"):
        copied.reproduce("modes")


def test_a_missing_patch_is_not_restored(copied: Project) -> None:
    (copied.artifacts("modes") / "run.patch").unlink()
    verdict = copied.reproduce("modes")
    assert verdict.kind is VerdictKind.NOT_RESTORED
    assert "run.patch" in verdict.reason


def test_a_missing_base_commit_is_named_with_the_commands_that_fetch_it(copied: Project, tmp_path: Path) -> None:
    sha = "0123456789" * 4
    copied.edit_record("modes", snapshot={"base_commit": sha, "remotes": {"origin": "https://example.org/r.git"}})
    verdict = copied.reproduce("modes")
    assert verdict.kind is VerdictKind.NOT_RESTORED
    assert sha in verdict.reason
    assert "git" in verdict.reason
    assert "fetch" in verdict.reason
    assert "https://example.org/r.git" in verdict.reason
    copied.edit_record("modes", snapshot={"repository": str(tmp_path / "gone")})
    from researchlab.reproduce import reproduce

    verdict = reproduce("modes", tracking_uri=copied.uri, repo=tmp_path)
    assert verdict.kind is VerdictKind.NOT_RESTORED
    assert "not" in verdict.reason
    assert "repository" in verdict.reason


@pytest.mark.parametrize("kind", ["interactive", "stdin", "worker"])
def test_what_cannot_be_started_again_is_not_re_executable(kind: str, copied: Project) -> None:
    copied.edit_record("modes", command={"kind": kind})
    verdict = copied.reproduce("modes")
    assert verdict.kind is VerdictKind.NOT_RE_EXECUTABLE
    assert "Track it from a script" in verdict.reason


def test_a_run_without_code_is_not_re_executable(copied: Project) -> None:
    copied.edit_record("modes", snapshot=None, not_recorded=["/x is not in a git repository."])
    verdict = copied.reproduce("modes")
    assert verdict.kind is VerdictKind.NOT_RE_EXECUTABLE
    assert "/x is not in a git repository." in verdict.reason
