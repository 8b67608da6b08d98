"""Is what a run imported and read beside its snapshot in the record, and nothing else?"""

from __future__ import annotations

import hashlib
import importlib
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.repos import Repo, make_repo
from helpers.reproduction import Project, make_project

from researchlab.errors import InputError, ResearchlabError
from researchlab.tracking import ExperimentTracker
from researchlab.tracking._reading import _digests, _inputs, _opened
from researchlab.tracking._reading._inputs import Inputs
from researchlab.tracking._reading._sealed import is_sealed, seal
from researchlab.tracking.runs import find_run
from researchlab.tracking.settings import Settings
from researchlab.tracking.snapshot import capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from researchlab.tracking.record import InputRecord

WHOLE_SECONDS = 2.5


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the watch begin anew: what is there now was there before the process."""

    def now() -> None:
        time.sleep(0.03)  # a tick of the clock of the file system
        monkeypatch.setattr(_opened._watch, "noted", {})
        for name in ("both", "made", "folders"):
            monkeypatch.setattr(_opened._watch, name, set())
        monkeypatch.setattr(_opened._watch, "since", time.time_ns())

    return now


@pytest.fixture
def repo(tmp_path: Path, begin: Callable[[], None]) -> Repo:
    """A repository with tracked and ignored files."""
    made = make_repo(tmp_path / "repo", {"a.txt": "a\n", "b.txt": "b\n", ".gitignore": "*.dat\ncache/\n"})
    made.write("x.dat", "x")
    made.write("y.dat", "y")
    begin()
    return made


def audit(repo: Repo, **settings: Any) -> Inputs:
    """Capture the repository as a tracker does when it starts."""
    began = time.time_ns()
    chosen = Settings(**settings)
    with _opened.paused():
        taken = capture(repo.top, settings=chosen)
    return Inputs(taken, settings=chosen, own=[repo.top / "mlflow.db"], began=began)


def inside(inputs: Inputs, kept: dict[str, bytes] | None = None, **options: int) -> dict[str, InputRecord]:
    """Collect the inputs, without those outside of the repository: this test process reads many."""
    found = inputs.collect({}.__setitem__ if kept is None else kept.__setitem__, **options)
    return {record.path: record for record in found.records if not record.path.startswith("/")}


def edit(path: Path, text: str) -> None:
    """Change a file as an editor does, from another process."""
    subprocess.run(["sh", "-c", 'sleep 0.03; printf %s "$1" > "$0"', path, text], check=True)


def sha256(text: str) -> str:
    """Return the digest that a record holds."""
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_file_that_the_snapshot_holds_as_it_was_read_is_no_input(repo: Repo) -> None:
    (repo.top / "a.txt").read_text()
    inputs = audit(repo)
    (repo.top / "b.txt").read_text()

    assert inside(inputs) == {}


def test_an_ignored_file_that_was_read_before_or_in_the_run_is_recorded_and_not_stored(repo: Repo) -> None:
    (repo.top / "x.dat").read_text()
    inputs = audit(repo)
    (repo.top / "y.dat").read_text()
    kept: dict[str, bytes] = {}

    found = inside(inputs, kept)

    assert {path: (item.role, item.why, item.sha256, item.size, item.stored) for path, item in found.items()} == {
        "x.dat": ("data", "is ignored by git", sha256("x"), 1, None),
        "y.dat": ("data", "is ignored by git", sha256("y"), 1, None),
    }
    assert kept == {}


@pytest.mark.parametrize("read_before", [True, False])
def test_a_file_that_is_edited_after_it_was_read_counts_as_it_was_read(repo: Repo, *, read_before: bool) -> None:
    if read_before:
        (repo.top / "a.txt").read_text()
    inputs = audit(repo)
    if not read_before:
        (repo.top / "a.txt").read_text()
    edit(repo.top / "a.txt", "the user goes on working")

    assert inside(inputs) == {}


def test_a_file_that_is_edited_between_capture_and_reading_is_stored_as_it_was_read(repo: Repo) -> None:
    inputs = audit(repo)
    edit(repo.top / "a.txt", "edited")
    (repo.top / "a.txt").read_text()
    kept: dict[str, bytes] = {}

    found = inside(inputs, kept)["a.txt"]

    assert (found.why, found.sha256) == ("was edited after the code was captured", sha256("edited"))
    assert kept == {found.stored: b"edited"}
    assert inputs.collect({}.__setitem__).warnings[0].startswith("Edited after the code was captured")


def test_bytes_that_nobody_can_know_any_more_are_said_to_be_unknown(repo: Repo) -> None:
    (repo.top / "a.txt").read_text()
    edit(repo.top / "a.txt", "edited before the capture")
    inputs = audit(repo)
    edit(repo.top / "b.txt", "edited")
    (repo.top / "b.txt").read_text()
    edit(repo.top / "b.txt", "edited again")
    (repo.top / "x.dat").read_text()
    edit(repo.top / "x.dat", "state of the program")
    (repo.top / "y.dat").read_text()
    (repo.top / "y.dat").unlink()

    found = {path: (item.sha256, item.why) for path, item in inside(inputs).items()}

    assert found == {
        "a.txt": (None, "was edited before the code was captured, and changed during the run"),
        "b.txt": (None, "was edited after the code was captured, and changed during the run"),
        "x.dat": (None, "changed during the run"),
        "y.dat": (None, "changed during the run"),
    }


def test_what_the_run_made_is_no_input(repo: Repo) -> None:
    inputs = audit(repo)
    (repo.top / "x.dat").write_text("made")
    (repo.top / "x.dat").read_text()
    (repo.top / "tmp.dat").write_text("made")
    (repo.top / "tmp.dat").replace(repo.top / "y.dat")
    (repo.top / "y.dat").read_text()
    (repo.top / "made").mkdir()
    edit(repo.top / "made" / "z.dat", "made by another process, in a folder of this one")
    (repo.top / "made" / "z.dat").read_text()
    (repo.top / "made").rename(repo.top / "moved")
    (repo.top / "moved" / "z.dat").read_text()

    assert inside(inputs) == {}


def test_an_input_that_is_replaced_or_whose_folder_is_made_anew_stays_one(
    repo: Repo, begin: Callable[[], None]
) -> None:
    repo.write("cache/old.dat", "1")
    begin()
    inputs = audit(repo)
    (repo.top / "x.dat").read_text()
    (repo.top / "tmp.dat").write_text("made")
    (repo.top / "tmp.dat").replace(repo.top / "x.dat")
    (repo.top / "cache" / "old.dat").read_text()
    shutil.rmtree(repo.top / "cache")
    (repo.top / "cache").mkdir()

    found = inputs.collect({}.__setitem__)

    unknown = {item.path: (item.sha256, item.why, item.required) for item in found.records if item.path[0] != "/"}
    assert unknown == dict.fromkeys(("cache/old.dat", "x.dat"), (None, "changed during the run", True))
    told = [line for line in found.warnings if "cache/old.dat, x.dat" in line]
    assert len(told) == 1
    assert told[0].startswith("Read, and then changed or deleted while the run lasted")


def test_what_was_not_seen_to_be_written_while_the_process_ran_is_recorded_and_not_required(repo: Repo) -> None:
    inputs = audit(repo)
    for name in ("by_child.dat", "changed.dat", "gone.dat"):
        edit(repo.top / name, "1")
        (repo.top / name).read_text()
    edit(repo.top / "changed.dat", "2")
    (repo.top / "gone.dat").unlink()

    found = {path: (item.sha256, item.why, item.required) for path, item in inside(inputs).items()}

    late = "was written while the process ran, by another one or behind Python's back"
    assert found == {
        "by_child.dat": (sha256("1"), late, False),
        "changed.dat": (None, f"{late}, and changed during the run", False),
    }


def test_what_is_opened_to_be_read_and_written_is_required_where_it_was_not_changed(repo: Repo) -> None:
    inputs = audit(repo)
    with (repo.top / "x.dat").open("a+") as file:
        file.seek(0)
        file.read()
    with (repo.top / "y.dat").open("a+") as file:
        time.sleep(0.03)
        file.write("a line of a log")

    found = {path: (item.sha256, item.why, item.required) for path, item in inside(inputs).items()}

    assert found == {
        "x.dat": (sha256("x"), "is ignored by git", True),
        "y.dat": (None, "is ignored by git, and changed during the run", False),
    }


def test_folders_that_were_there_and_that_the_snapshot_does_not_hold_are_named(
    repo: Repo, begin: Callable[[], None], tmp_path: Path
) -> None:
    for name in ("results/deep", "listed", "never", "src", ".tox/log", "elsewhere"):
        (repo.top / name).mkdir(parents=True)
    repo.write("src/a.py", "1")
    repo.link("link", "elsewhere")
    begin()
    inputs = audit(repo)
    (repo.top / "made").mkdir()
    for name in ("results/deep", "made", "src", ".tox/log", "link"):
        (repo.top / name / "x.dat").write_text("1")
    (tmp_path / "outside").write_text("1")
    assert not any((repo.top / "listed").iterdir())

    found = inputs.collect({}.__setitem__).folders

    assert found == ("elsewhere", "listed", "results/deep")


def test_the_database_of_another_run_of_the_process_is_no_input(repo: Repo) -> None:
    Inputs(None, settings=Settings(), own=[repo.top / "x.dat"], began=0)
    inputs = audit(repo)
    (repo.top / "x.dat").read_text()

    assert inside(inputs) == {}


def test_files_of_git_environments_tools_and_the_store_are_no_inputs(repo: Repo, begin: Callable[[], None]) -> None:
    names = [".git/description", ".venv/pyvenv.cfg", ".venv/share/data.dat", "lib/site-packages/a.dat", "mlflow.db"]
    names += [".pytest_cache/x.dat", "src/p.egg-info/PKG-INFO.dat", "cache/kept.dat"]
    for name in names:
        repo.write(name, "1")
    begin()
    inputs = audit(repo)
    for name in names:
        (repo.top / name).read_bytes()

    found = inside(inputs)

    assert list(found) == ["cache/kept.dat"]


def test_files_of_the_system_and_of_tools_at_home_are_foreign_and_data_sets_are_not() -> None:
    from researchlab.tracking._reading._origins import is_foreign

    home = os.environ["HOME"]
    ours = ["/data/x", "/tmp/x", f"{home}/scikit_learn_data/x", f"{home}/.keras/datasets/x", "/run/media/me/disk/x"]
    ours += [f"{home}/.cache/{name}/x" for name in ("huggingface", "torch", "pooch", "kagglehub")]
    theirs = [
        "/usr/share/x",
        "/etc/x",
        "/lib/x",
        f"{home}/.config/x",
        f"{home}/.gitconfig",
        f"{home}/.aws/x",
        os.__file__,
    ]
    theirs += [f"{home}/.cache/{name}/x" for name in ("pip", "matplotlib", "researchlab")] + [_inputs.__file__]

    assert [path for path in ours if is_foreign(path)] == []
    assert [path for path in theirs if not is_foreign(path)] == []


def test_a_symlink_of_the_snapshot_is_followed_and_any_other_stands_for_its_file(
    repo: Repo, tmp_path: Path, begin: Callable[[], None]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "z").write_text("z")
    repo.link("tracked", str(outside))
    repo.link("link.txt", "a.txt")
    repo.link("ignored.dat", str(outside / "z"))
    begin()
    inputs = audit(repo)
    (repo.top / "link.txt").read_text()
    (repo.top / "ignored.dat").read_text()
    (repo.top / "tracked" / "z").read_text()

    found = inputs.collect({}.__setitem__).records

    paths = {item.path: item.sha256 for item in found if item.path.startswith(str(outside)) or item.path[0] != "/"}
    assert paths == {str(outside / "z"): sha256("z"), "ignored.dat": sha256("z")}


def test_a_nested_repository_has_a_snapshot_of_its_own(repo: Repo, begin: Callable[[], None]) -> None:
    make_repo(repo.top / "inner", {"in.txt": "1\n", ".gitignore": "*.dat\n"})
    repo.write("inner/i.dat", "i")
    begin()
    inputs = audit(repo)
    for name in ("inner/in.txt", "inner/i.dat"):
        (repo.top / name).read_bytes()

    assert {path: item.sha256 for path, item in inside(inputs).items()} == {"inner/i.dat": sha256("i")}


def test_what_looks_like_a_secret_is_named_with_a_digest_that_cannot_be_guessed_back(repo: Repo) -> None:
    repo.write(".gitignore", ".env\n")
    (repo.write(".env", "PASSWORD=1234")).touch()
    inputs = audit(repo)
    inputs.declare(repo.top / ".env")

    found = inside(inputs)[".env"]

    assert (found.sha256, found.stored, found.why) == (None, None, _inputs.SECRET)
    assert found.sealed is not None
    assert sha256("PASSWORD=1234") not in found.model_dump_json()
    assert is_sealed(found.sealed, sha256("PASSWORD=1234"))
    assert not is_sealed(found.sealed, sha256("PASSWORD=1235"))
    assert seal(sha256("PASSWORD=1234")) != found.sealed  # the salt is another one
    allowed = audit(repo, allow_secrets=(".env",))
    allowed.declare(repo.top / ".env")
    assert inside(allowed)[".env"].sha256 == sha256("PASSWORD=1234")


def test_more_secrets_than_are_sealed_are_named(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_inputs, "SEALED_AT_MOST", 1)
    inputs = audit(repo)
    for number in range(2):
        repo.write(f".env.{number}", str(number)).touch()
        inputs.declare(repo.top / f".env.{number}")

    found = inside(inputs)

    assert [item.sealed is None for _, item in sorted(found.items())] == [False, True]
    assert {item.why for item in found.values()} == {_inputs.SECRET}


def test_a_module_that_was_left_out_as_a_secret_is_known_when_the_run_starts(
    repo: Repo, begin: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"TOKEN = 'ghp_{'16C7e42F292c6912E7710c838347Ae178B4a'}'\n"
    repo.write("helper_with_token.py", "VALUE = 1\n")
    repo.commit()
    repo.write("helper_with_token.py", text)
    begin()
    module = types.ModuleType("helper_with_token")
    module.__file__ = str(repo.top / "helper_with_token.py")
    monkeypatch.setitem(sys.modules, "helper_with_token", module)

    early = audit(repo).collect_ignored_code({}.__setitem__)

    (found,) = [item for item in early if item.path == "helper_with_token.py"]
    assert (found.sha256, found.stored) == (None, None)
    assert found.sealed is not None
    assert is_sealed(found.sealed, sha256(text))


def test_what_is_too_much_to_hash_is_named_without_hash(repo: Repo) -> None:
    inputs = audit(repo)
    (repo.top / "x.dat").read_text()
    (repo.top / "y.dat").read_text()
    (repo.top / "a.txt").read_text()

    found = inside(inputs, limit=1)

    assert sorted(found) == ["x.dat", "y.dat"]
    left = [item for item in found.values() if item.sha256 is None]
    assert left
    assert {item.why for item in left} == {"was not hashed: more was read than is hashed when a run ends"}


def test_declared_folders_are_taken_with_all_below_and_each_folder_once(repo: Repo, tmp_path: Path) -> None:
    repo.write("cache/in/one", "1")
    repo.link("cache/in/again", "..")
    outside = tmp_path / "two"
    outside.write_text("2")
    inputs = audit(repo)

    inputs.declare(repo.top / "cache")
    inputs.declare(str(outside))
    inputs.declare(repo.top / "a.txt")
    edit(outside, "later")
    records = {item.path: item for item in inputs.collect({}.__setitem__).records if item.role == "declared"}

    assert {path: item.sha256 for path, item in records.items()} == {
        "cache/in/one": sha256("1"),
        str(outside): sha256("2"),
    }


@pytest.mark.parametrize("name", ["absent", "fifo", "a\0b", ".git/config", "a.txt/b"])
def test_what_cannot_be_declared_is_refused(repo: Repo, name: str) -> None:
    os.mkfifo(repo.top / "fifo")
    (repo.top / "fifo").chmod(0o600)
    inputs = audit(repo)

    with pytest.raises(InputError, match=r"The input '.*(absent|fifo|b|config)'"):
        inputs.declare(f"{repo.top}/{name}")


def test_log_input_needs_an_active_run() -> None:
    with pytest.raises(ResearchlabError, match="log_input needs an active run"):
        ExperimentTracker("e").log_input("x")


def test_many_files_are_hashed_once_and_ctrl_c_does_not_wait_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {str(tmp_path / f"{number}"): None for number in range(20)}
    for number, path in enumerate(files):
        Path(path).write_bytes(os.urandom(1 << 17) + bytes([number]))
        os.utime(path, (1, 1))
    time.sleep(WHOLE_SECONDS)  # what was written this moment is not remembered
    first = _digests.digest_all(files)
    assert {path: digest.sha256 for path, digest in first.items()} == {
        path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files
    }
    calls: list[object] = []
    monkeypatch.setattr(_digests, "_digest", lambda *task: calls.append(task))

    assert _digests.digest_all(files) == first
    assert calls == []

    stopped = threading.Event()

    def interrupted(task: object, stop: threading.Event) -> None:
        if len(calls) == 0:
            calls.append(task)
            raise KeyboardInterrupt
        stopped.set() if stop.wait(10) else None

    monkeypatch.setattr(_digests, "_digest", interrupted)
    monkeypatch.setattr(_digests, "_known", {})
    with pytest.raises(KeyboardInterrupt):
        _digests.digest_all(files)


PROGRAM = """
    import os, pathlib, subprocess, sys
    import early, _version, outer
    from researchlab import ExperimentTracker
    import mlflow, numpy as np

    here = pathlib.Path(__file__).parent
    before = (here / "data" / "before.txt").read_text()
    with ExperimentTracker("all", "all") as tracker:
        subprocess.run(["sh", "-c", "sleep 0.03; echo VALUE = 2 > late.py; echo made > data/made.txt"], check=True)
        import late
        loaded = np.load(sys.argv[1])
        (here / "data" / "written.txt").write_text("1")
        text = (here / "data" / "written.txt").read_text() + (here / "data" / "made.txt").read_text()
        tracker.log_input("data/by_c")
        mlflow.log_metric("x", float(loaded.sum()) + late.VALUE + early.VALUE + _version.VALUE + outer.VALUE)
        subprocess.run(["sh", "-c", "echo VALUE = 9 > early.py"], check=True)
    with ExperimentTracker("all", "again"):
        mlflow.log_metric("x", 1.0)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path, str]:
    """A project that has run a program with inputs of every kind, the folder outside, and what the program said."""
    folder = tmp_path_factory.mktemp("inputs")
    files: dict[str, str | bytes] = {"run.py": PROGRAM, "early.py": "VALUE = 1\n", "late.py": "VALUE = 1\n"}
    project = make_project(folder / "project", files)
    project.repo.write(".gitignore", "mlflow.db*\nmlartifacts/\n__pycache__/\ndata/\n_version.py\n")
    project.repo.commit()
    project.repo.write("_version.py", "VALUE = 4\n")
    for name in ("before.txt", "by_c", "never.txt"):
        project.repo.write(f"data/{name}", name)
    outside = folder / "outside"
    outside.mkdir()
    (outside / "outer.py").write_text("VALUE = 8\n")
    make = "import numpy as np, sys; np.save(sys.argv[1], np.arange(3))"
    subprocess.run([sys.executable, "-c", make, outside / "x.npy"], check=True)
    time.sleep(0.03)
    search = os.pathsep.join(filter(None, [str(outside), os.environ.get("PYTHONPATH")]))
    done = project.python("run.py", outside / "x.npy", env={"PYTHONPATH": search})
    return project, outside, done.stderr


@pytest.mark.slow
def test_a_program_with_inputs_of_every_kind(program: tuple[Project, Path, str]) -> None:
    project, outside, _ = program
    record = find_run("all", tracking_uri=project.uri).record()

    assert [(item.path, item.role, item.why, item.stored is not None) for item in record.inputs] == [
        (str(outside / "outer.py"), "code", "lies outside of the repository", False),
        (str(outside / "x.npy"), "data", "lies outside of the repository", False),
        ("_version.py", "code", "is ignored by git", True),
        ("data/before.txt", "data", "is ignored by git", False),
        ("data/by_c", "declared", "was declared by the program", False),
        ("data/made.txt", "data", "was written while the process ran, by another one or behind Python's back", False),
        ("late.py", "code", "was edited after the code was captured", True),
    ]
    assert record.not_recorded == ()
    assert record.folders == ("data",)
    for item in record.inputs:
        place = project.top / item.path
        assert item.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
        assert item.size == place.stat().st_size
        if item.stored is not None:
            assert (project.artifacts("all") / item.stored).read_bytes() == place.read_bytes()


@pytest.mark.slow
def test_the_user_is_told_once_a_run_with_a_line_for_each_kind(program: tuple[Project, Path, str]) -> None:
    told = [
        line.partition("ResearchlabWarning: ")[2] for line in program[2].splitlines() if "ResearchlabWarning" in line
    ]

    assert [line.partition(":")[0] for line in told[:4]] == [
        "Imported, but not part of the recorded code",
        "Edited after the code was captured, or before and after it was read",
        "Read from outside of the repository, and recorded by hash only",
        "Read, and then changed or deleted while the run lasted",  # by the second run
    ]
    assert "_version.py" in told[0]
    assert "late.py" in told[1]
    assert "x.npy" in told[2]
    assert "made.txt" not in "".join(told)
    assert "early.py" in told[3]


@pytest.mark.slow
def test_each_tracker_of_a_process_has_what_was_read_before_it(program: tuple[Project, Path, str]) -> None:
    project, _, _ = program
    record = find_run("again", tracking_uri=project.uri).record()

    # The second snapshot holds late.py as it was imported; early.py was edited after its import and before the capture.
    assert {item.path: item.sha256 is None for item in record.inputs if not item.path.startswith("/")} == {
        "_version.py": False,
        "data/before.txt": False,
        "data/made.txt": False,
        "early.py": True,
    }


@pytest.mark.slow
def test_a_run_that_is_killed_outright_has_kept_the_ignored_code(tmp_path: Path) -> None:
    code = """
    import os, signal
    import _version
    from researchlab import ExperimentTracker
    with ExperimentTracker("killed", "killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    """
    project = make_project(tmp_path / "project", {"run.py": code})
    project.repo.write(".git/info/exclude", "_version.py\n")
    project.repo.write("_version.py", "VALUE = 4\n")

    project.python("run.py", code=-signal.SIGKILL)

    record = find_run("killed", tracking_uri=project.uri).record()
    assert [(item.path, item.sha256) for item in record.inputs] == [("_version.py", sha256("VALUE = 4\n"))]
    stored = record.inputs[0].stored
    assert stored is not None
    assert (project.artifacts("killed") / stored).read_text() == "VALUE = 4\n"


def test_a_git_lfs_file_that_is_kept_as_its_pointer_is_an_input(repo: Repo, begin: Callable[[], None]) -> None:
    data = "large object"
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(data)}\nsize {len(data)}\n"
    repo.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    repo.write("model.bin", pointer)
    repo.git("-c", "filter.lfs.clean=cat", "add", "--all")
    repo.git("commit", "--quiet", "-m", "lfs")
    repo.write("model.bin", data)
    place = repo.write(f".git/lfs/objects/{sha256(data)[:2]}/{sha256(data)[2:4]}/{sha256(data)}", data)
    assert place.exists()
    begin()
    inputs = audit(repo)
    (repo.top / "model.bin").read_bytes()

    found = inside(inputs)["model.bin"]

    assert (found.why, found.sha256) == ("is not in the snapshot: it is kept as its Git LFS pointer", sha256(data))
    assert found.stored is None


def test_a_module_with_a_made_up_file_name_is_no_input(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = types.ModuleType("made_up")
    made_up.__file__ = str(repo.top / "_ops.py")
    monkeypatch.setitem(sys.modules, "made_up", made_up)

    assert inside(audit(repo)) == {}


def test_a_compiled_module_of_the_repository_is_code(
    repo: Repo, begin: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write(".gitignore", "*.so\n")
    made = types.ModuleType("extension")
    made.__file__ = str(repo.write("pkg/extension.cpython-311-x86_64-linux-gnu.so", "\x7fELF"))
    monkeypatch.setitem(sys.modules, "extension", made)
    begin()
    kept: dict[str, bytes] = {}

    found = inside(audit(repo), kept)

    assert [(item.role, kept[item.stored or ""]) for item in found.values()] == [("code", b"\x7fELF")]


@pytest.mark.parametrize(
    ("unchecked", "imported", "written", "stale"),
    [
        (False, "rate = 1\n", "rate = 2\n", True),
        (False, "rate = 1\n", "rate = 1\n", False),
        (False, "rate = 1\n", "rate = 10\n", False),  # Python compiles it again
        (True, "rate = 1\n", "rate = 10\n", True),
    ],
)
def test_a_module_that_ran_from_an_old_compiled_file_is_named(
    repo: Repo,
    monkeypatch: pytest.MonkeyPatch,
    *,
    unchecked: bool,
    imported: str,
    written: str,
    stale: bool,
) -> None:
    source = repo.write("rlab_swept.py", imported)
    second = int(time.time()) - 60
    os.utime(source, (second, second))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH if unchecked else py_compile.PycInvalidationMode.TIMESTAMP
    compiled = py_compile.compile(str(source), doraise=True, invalidation_mode=mode)
    os.utime(compiled, ns=(0, second * 10**9 + 10**8))
    source.write_text(written)
    os.utime(source, ns=(0, second * 10**9 + 5 * 10**8))
    monkeypatch.syspath_prepend(str(repo.top))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    rate = importlib.import_module("rlab_swept").rate
    inputs = audit(repo)

    found = inputs.collect({}.__setitem__)
    del sys.modules["rlab_swept"]

    assert rate == (1 if stale else eval(written.partition("= ")[2]))
    named = [item.why for item in found.records if item.path == "rlab_swept.py"]
    assert named == (["ran from a compiled file that its source does not give"] if stale else [])
    assert any("Delete the __pycache__ folders" in line for line in found.warnings) == stale
