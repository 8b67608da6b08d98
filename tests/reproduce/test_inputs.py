"""Are inputs checked before a run is executed again, and are they in their place then?"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.repos import make_repo
from helpers.reproduction import Project, make_project, user_files
from helpers.tracked_runs import make_run_store

from researchlab.reproduce import VerdictKind, _inputs
from researchlab.reproduce._findings import ChangedInputsError
from researchlab.reproduce._inputs import FoundInputs, PutInputs, find_inputs, put_inputs
from researchlab.reproduce._surroundings import place_below
from researchlab.tracking._reading._inputs import SECRET
from researchlab.tracking._reading._sealed import seal
from researchlab.tracking.record import FileRecord, InputRecord, Record
from researchlab.tracking.runs import find_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = """
    import pathlib, subprocess, sys
    import _version, outer
    from researchlab import ExperimentTracker
    import mlflow, numpy as np

    here = pathlib.Path(__file__).parent
    with ExperimentTracker("all", "all", volatile=["seconds"]) as tracker:
        if "rlab-reproduce" not in str(here):
            subprocess.run(["sh", "-c", "sleep 0.03; echo VALUE = 2 > late.py"], check=True)
        import late
        state = here / "data" / "state.txt"
        state.open("a+").write("1")
        tracker.log_input("data/by_c")
        loaded = np.load(sys.argv[1]).sum() + len((here / "data" / "raw.txt").read_text())
        loaded += int(subprocess.run(["cat", "data/by_c"], check=True, capture_output=True).stdout)
        mlflow.log_metric("x", float(loaded) + late.VALUE + _version.VALUE + outer.VALUE)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a run of inputs of every kind; `outside` lies beside it."""
    folder = tmp_path_factory.mktemp("inputs")
    project = make_project(folder / "project", {"run.py": PROGRAM, "late.py": "VALUE = 1\n"})
    project.repo.write(".gitignore", "mlflow.db*\nmlartifacts/\n__pycache__/\ndata/\n_version.py\n")
    project.repo.commit()
    project.repo.write("_version.py", "VALUE = 4\n")
    for name, text in (("raw.txt", "raw"), ("by_c", "32"), ("state.txt", "0")):
        project.repo.write(f"data/{name}", text)
    outside = folder / "outside"
    outside.mkdir()
    (outside / "outer.py").write_text("VALUE = 8\n")
    make = "import numpy as np, sys; np.save(sys.argv[1], np.arange(3))"
    subprocess.run([sys.executable, "-c", make, outside / "x.npy"], check=True)
    time.sleep(0.03)
    search = os.pathsep.join(filter(None, [str(outside), os.environ.get("PYTHONPATH")]))
    project.python("run.py", outside / "x.npy", env={"PYTHONPATH": search})
    return project


@pytest.fixture
def ran(original: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Project]:
    """The project after its run; everything in it is as it was again after the test."""
    folder = original.top.parent
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept, symlinks=True)
    monkeypatch.setenv("PYTHONPATH", str(folder / "outside"), prepend=os.pathsep)
    yield original
    for path in folder.iterdir():
        shutil.rmtree(path)
    shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)


@pytest.mark.slow
def test_all_inputs_are_back_where_the_original_has_moved_on(ran: Project) -> None:
    ran.repo.write("_version.py", "VALUE = 400\n")  # stored, so that this does not matter
    ran.repo.write("late.py", "VALUE = 100\n")
    before = user_files(ran)

    verdict = ran.reproduce("all", keep=True)

    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert user_files(ran) == before
    assert verdict.kept is not None
    tree = place_below(verdict.kept / "1" / "tree", str(ran.top))
    assert (tree / "_version.py").read_text() == "VALUE = 4\n"
    assert (tree / "late.py").read_text() == "VALUE = 2\n"
    assert not (tree / "data" / "raw.txt").is_symlink()
    assert "6 inputs, late.py in place of the snapshot's" in verdict.code
    assert verdict.not_compared == ()
    shutil.rmtree(verdict.kept)


@pytest.mark.slow
def test_a_changed_input_is_not_restored_and_never_a_divergence(ran: Project) -> None:
    ran.repo.write("data/raw.txt", "other")
    (ran.top.parent / "outside" / "outer.py").write_text("VALUE = 9\n")

    verdict = ran.reproduce("all")

    assert verdict.kind is VerdictKind.NOT_RESTORED
    outer = ran.top.parent / "outside" / "outer.py"
    assert verdict.reason == f"2 inputs cannot be had as the run read them: {outer}, data/raw.txt"
    was, now = (hashlib.sha256(text).hexdigest()[:12] for text in (b"raw", b"other"))
    expected = f"'data/raw.txt' changed: the run read sha256 {was}, 3 B; {ran.top}/data/raw.txt has sha256 {now}, 5 B"
    assert expected in verdict.differences
    assert expected in verdict.report()
    assert verdict.executions == 0


@pytest.mark.slow
def test_a_missing_input_is_named_with_the_places_that_were_searched(ran: Project) -> None:
    (ran.top / "data" / "by_c").unlink()

    verdict = ran.reproduce("all")

    assert verdict.kind is VerdictKind.NOT_RESTORED
    assert verdict.reason.startswith("the input 'data/by_c' is missing (the run read sha256 ")
    assert f"there is no such file at {ran.top}/data/by_c" in verdict.reason


@pytest.mark.slow
def test_inputs_are_found_in_another_checkout_and_no_module_may_come_from_it(ran: Project, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ran.top, clone, symlinks=True)
    (ran.top / "data" / "raw.txt").unlink()
    found = find_run("all", tracking_uri=ran.uri)
    from researchlab.reproduce import reproduce

    verdict = reproduce("all", tracking_uri=ran.uri, repo=clone)

    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert _inputs.other_checkout(found.record(), clone) == clone
    assert _inputs.other_checkout(found.record(), ran.top) is None
    assert _inputs.other_checkout(found.record(), tmp_path) is None


@pytest.mark.slow
def test_what_else_a_run_was_given_is_there_or_named(tmp_path: Path) -> None:
    code = """
        import pathlib, subprocess, sys
        import mlflow
        from researchlab import ExperimentTracker
        with ExperimentTracker("given", "given"):
            open("results/table.csv", "w").write("1")
            if "counts" in sys.argv:
                before = pathlib.Path("results/count.txt").read_text()
                pathlib.Path("results/count.txt").write_text(before + "1")
            subprocess.run(["sh", "-c", "sleep 0.03; date +%s%N > results/by_child"], check=True)
            by_child = len(pathlib.Path("results/by_child").read_text())
            mlflow.log_metric("x", float(by_child + len(sys.stdin.read() if "reads" in sys.argv else "")))
    """
    project = make_project(tmp_path / "project", {"run.py": code})
    project.repo.write(".git/info/exclude", "results/\n")
    project.repo.write("results/count.txt", "1")
    time.sleep(0.03)
    for number, words in enumerate([(), ("reads",), ("counts",)], start=1):
        project.python("run.py", *words, stdin="12345")
        project.repo.write("results/by_child", "of a later run")
        verdict = project.reproduce("given" if number == 1 else f"given-{number}")
        if not words:
            assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
            assert verdict.not_compared == ()
        elif words == ("reads",):
            assert verdict.kind is VerdictKind.DIVERGED, verdict.report()
            by_child, stdin = verdict.not_compared
            assert by_child.startswith("input 'results/by_child': it was written while the process ran")
            assert stdin.startswith("standard input: it was a pipe, whose content is not recorded")
        else:
            assert verdict.kind is VerdictKind.NOT_RESTORED
            assert "'results/count.txt' cannot be had as the run read it" in verdict.reason
            assert verdict.executions == 0


@pytest.mark.slow
def test_large_inputs_are_linked_and_the_program_cannot_write_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import pathlib, mlflow
        from researchlab import ExperimentTracker
        big = pathlib.Path("big.dat")
        with ExperimentTracker("big", "big"):
            mlflow.log_metric("x", float(big.read_text()))
            if big.is_symlink():
                try:
                    big.open("r+")
                except PermissionError as error:
                    print(error)
                else:
                    mlflow.log_metric("x", 2.0)
                    big.write_text("2")
    """
    project = make_project(tmp_path / "project", {"run.py": code})
    project.repo.write(".git/info/exclude", "*.dat\n")
    project.repo.write("big.dat", "1")
    project.python("run.py")
    monkeypatch.setattr(_inputs, "COPIED_AT_MOST", 0)
    monkeypatch.setattr(_inputs, "_clone", lambda *_: False)

    verdict = project.reproduce("big", keep=True)

    assert verdict.kind is VerdictKind.REPRODUCED, verdict.report()
    assert verdict.kept is not None
    assert (place_below(verdict.kept / "1" / "tree", str(project.top)) / "big.dat").is_symlink()
    assert "does not write to the checkout" in (verdict.kept / "1" / "run" / "output.txt").read_text()
    assert (project.top / "big.dat").read_text() == "1"
    shutil.rmtree(verdict.kept)


@pytest.fixture
def search_run(tmp_path: Path) -> Callable[..., FoundInputs]:
    """Search the inputs of a run that is as good as empty; `repo` is its repository, `scratch` the folder."""
    repo = make_repo(tmp_path / "repo", {"train.py": "1\n"})
    store = make_run_store(tmp_path / "store")
    record = store.track("run", repo.top)
    tracked = find_run("run", tracking_uri=store.uri)

    def find(snapshot: dict[str, Any] | None = None, **facts: Any) -> FoundInputs:
        assert record.snapshot is not None
        code = record.snapshot.model_copy(update=snapshot)
        changed: Record = record.model_copy(update={"snapshot": code, **facts})
        return find_inputs(tracked, changed, repo=repo.top, scratch=tmp_path / "scratch")

    return find


@pytest.fixture
def search(search_run: Callable[..., FoundInputs]) -> Callable[..., FoundInputs]:
    """Search these inputs, of a run whose snapshot has these other fields."""

    def find(*inputs: InputRecord, **snapshot: Any) -> FoundInputs:
        return search_run(snapshot, inputs=inputs)

    return find


def item(path: str, data: bytes | None = b"x", **fields: Any) -> InputRecord:
    """Make an input."""
    digest = None if data is None else hashlib.sha256(data).hexdigest()
    size = 0 if data is None else len(data)
    given: dict[str, Any] = {"path": path, "role": "data", "why": "?", "sha256": digest, "size": size, **fields}
    return InputRecord(**given)


def artifact(tmp_path: Path, data: bytes, name: str | None = None) -> str:
    """Put an artifact of the run into the store by hand, and return its name."""
    run = find_run("run", tracking_uri=f"sqlite:///{tmp_path}/store/mlflow.db")
    name = f"rlab/inputs/{hashlib.sha256(data).hexdigest() if name is None else name}"
    place = Path(str(run.run.info.artifact_uri).removeprefix("file://")) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return name


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "a//b", "", ".", "./a", "a/.git/hooks/x", ".GIT/config", "/a/../etc/passwd", "//x"],
)
def test_a_path_that_no_run_can_have_is_refused(search: Callable[..., FoundInputs], path: str) -> None:
    with pytest.raises(ChangedInputsError, match="the record was altered"):
        search(item(path))


def test_a_hash_that_is_none_is_refused(search: Callable[..., FoundInputs]) -> None:
    with pytest.raises(ChangedInputsError, match="the record was altered"):
        search(item("x", sha256="../../../rlab/record.json"))


def test_stored_bytes_come_from_the_store_and_are_checked(search: Callable[..., FoundInputs], tmp_path: Path) -> None:
    stored = item("code.py", b"stored", role="code", stored=artifact(tmp_path, b"stored"))

    found = search(stored)

    assert found.inputs[0].place.read_bytes() == b"stored"
    artifact(tmp_path, b"damage", stored.sha256)
    with pytest.raises(ChangedInputsError, match="is not in the store, or damaged there, and is missing"):
        search(stored)
    (tmp_path / "repo" / "code.py").write_bytes(b"stored")
    assert search(stored).inputs[0].place == tmp_path / "repo" / "code.py"


def test_bytes_that_came_with_an_import_count_though_the_record_does_not_name_them(
    search: Callable[..., FoundInputs], tmp_path: Path
) -> None:
    artifact(tmp_path, b"imported")

    assert search(item("data/x", b"imported")).inputs[0].place.read_bytes() == b"imported"


def test_files_over_a_budget_are_inputs_too_those_of_nested_repositories_included(
    search: Callable[..., FoundInputs], tmp_path: Path
) -> None:
    from researchlab.tracking.record import NestedRecord

    large = {"big": FileRecord(sha256=hashlib.sha256(b"big").hexdigest(), size=3)}
    nested = NestedRecord(base_commit=None, tree="0" * 40, path="inner", is_submodule=False, large=large)
    with pytest.raises(ChangedInputsError) as caught:
        search(large=large, nested=(nested,))
    assert [line.partition(" is missing")[0] for line in caught.value.findings] == ["'big'", "'inner/big'"]
    (tmp_path / "repo" / "inner").mkdir()
    for name in ("big", "inner/big"):
        (tmp_path / "repo" / name).write_bytes(b"big")

    assert [found.record.path for found in search(large=large, nested=(nested,)).inputs] == ["big", "inner/big"]


def test_a_secret_is_taken_from_its_place_when_its_sealed_digest_is_right(
    search: Callable[..., FoundInputs], tmp_path: Path
) -> None:
    place = tmp_path / "repo" / ".env"
    place.write_text("TOKEN=1")
    secret = item(".env", None, why=SECRET, size=7, sealed=seal(hashlib.sha256(b"TOKEN=1").hexdigest()))

    assert [one.place for one in search(secret).inputs] == [place]
    place.write_text("TOKEN=2")
    with pytest.raises(ChangedInputsError, match=r"'.env' changed: .*/repo/.env is another file"):
        search(secret)
    place.unlink()
    with pytest.raises(ChangedInputsError, match=r"'.env' is missing: there is no such file at .*salted digest"):
        search(secret)


def test_a_secret_of_which_nothing_is_known_is_refused(search: Callable[..., FoundInputs], tmp_path: Path) -> None:
    (tmp_path / "repo" / ".env").write_text("TOKEN=1")
    with pytest.raises(ChangedInputsError, match="recorded nothing that tells its bytes again"):
        search(item(".env", None, why=SECRET))


def test_a_program_that_was_left_out_must_be_among_the_inputs(
    search: Callable[..., FoundInputs], tmp_path: Path
) -> None:
    reason = {"train.py": "looks like a secret (a GitHub token)"}
    with pytest.raises(ChangedInputsError, match=r"'train.py' is the program itself and looks like a secret"):
        search(left_out=reason)
    (tmp_path / "repo" / "train.py").write_bytes(b"x")

    assert [one.record.path for one in search(item("train.py", role="code"), left_out=reason).inputs] == ["train.py"]


@pytest.mark.slow
def test_a_program_with_a_token_in_it_is_never_another_program(tmp_path: Path) -> None:
    code = """
        import mlflow, library
        from researchlab import ExperimentTracker
        with ExperimentTracker("token", "token"):
            mlflow.log_metric("x", float(open(".env").read()) + library.VALUE)
    """
    project = make_project(tmp_path / "project", {"run.py": code, "library.py": "VALUE = 1\n"})
    token = f"TOKEN = 'ghp_{'16C7e42F292c6912E7710c838347Ae178B4a'}'\n"
    ran = {"run.py": (project.top / "run.py").read_text() + token, "library.py": f"VALUE = 2\n{token}", ".env": "3"}
    for name, text in ran.items():
        project.repo.write(name, text)
    project.python("run.py")
    kinds = {"as it was": project.reproduce("token").kind}
    # Each says the same numbers as what ran.
    for name, other in {"run.py": ran["run.py"] + "# other\n", "library.py": "VALUE = 2\n", ".env": "3.0"}.items():
        project.repo.write(name, other)
        verdict = project.reproduce("token")
        kinds[name] = verdict.kind
        assert f"'{name}' changed" in verdict.reason
        project.repo.write(name, ran[name])
    (project.top / ".env").unlink()
    kinds["gone"] = project.reproduce("token").kind

    assert kinds.pop("as it was") is VerdictKind.REPRODUCED
    assert set(kinds.values()) == {VerdictKind.NOT_RESTORED}


def test_an_input_that_changed_during_the_run_is_refused_by_name(search: Callable[..., FoundInputs]) -> None:
    for why in ("changed during the run", "ran from a compiled file that its source does not give"):
        with pytest.raises(ChangedInputsError, match=f"'state' cannot be had .* not known, since it {why}"):
            search(item("state", None, why=why))


def test_what_the_run_may_make_itself_refuses_nothing_and_is_named(
    search: Callable[..., FoundInputs], tmp_path: Path
) -> None:
    (tmp_path / "repo" / "same").write_bytes(b"x")
    (tmp_path / "repo" / "other").write_bytes(b"y")
    names = ("same", "other", "absent")

    found = search(
        *(item(name, why="came late", required=False) for name in names),
        item("log", None, why="changed during the run", required=False),
    )

    assert [one.record.path for one in found.inputs] == ["same"]
    assert found.unchecked == ()
    assert [line.partition(": ")[0] for line in found.doubtful] == ["input 'log'", "input 'other'", "input 'absent'"]
    assert "it came late, and changed: the run read sha256" in found.doubtful[1]
    assert "it came late, and is missing" in found.doubtful[2]


def test_folders_that_the_run_found_are_made_and_nothing_else_is_touched(
    search: Callable[..., FoundInputs], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(elsewhere)
    (tree / "file").write_text("kept")

    put_inputs(FoundInputs((), folders=("results/deep", "link/x", "file")), tree)

    assert (tree / "results" / "deep").is_dir()
    assert list(elsewhere.iterdir()) == []
    assert (tree / "file").read_text() == "kept"


@pytest.mark.parametrize("folder", ["../x", "/x", ".git/hooks", ""])
def test_a_folder_that_no_run_can_have_is_refused(search_run: Callable[..., FoundInputs], folder: str) -> None:
    with pytest.raises(ChangedInputsError, match="the record was altered"):
        search_run(folders=(folder,))


def test_a_database_is_never_linked(
    search: Callable[..., FoundInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_inputs, "COPIED_AT_MOST", 0)
    monkeypatch.setattr(_inputs, "_clone", lambda *_: False)
    (tmp_path / "tree").mkdir()
    data = b"SQLite format 3\0..."
    (tmp_path / "repo" / "db").write_bytes(data)

    assert put_inputs(search(item("db", data)), tmp_path / "tree").linked == ()
    assert not (tmp_path / "tree" / "db").is_symlink()


def put(search: Callable[..., FoundInputs], tmp_path: Path, path: str, role: str = "data") -> PutInputs:
    """Find one input in the repository and put it into the tree `tree`."""
    place = tmp_path / "repo" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.write_bytes(b"x")
    return put_inputs(search(item(path, role=role)), tmp_path / "tree")


def test_an_input_never_goes_through_a_symlink_or_over_a_folder(
    search: Callable[..., FoundInputs], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").symlink_to(elsewhere)
    (tree / "file").write_text("")
    (tree / "folder").mkdir()
    for path in ("a/x", "a/b/x", "file/x", "folder"):
        with pytest.raises(ChangedInputsError, match="cannot be put into the restored tree"):
            put(search, tmp_path, path) if path != "folder" else put_inputs(
                FoundInputs((_found(tmp_path, path),), ()), tree
            )
    assert list(elsewhere.iterdir()) == []
    (elsewhere / "target").write_text("kept")
    (tree / "link").symlink_to(elsewhere / "target")

    assert put(search, tmp_path, "link").replaced == ("link",)
    assert (elsewhere / "target").read_text() == "kept"
    assert (tree / "link").read_bytes() == b"x"
    assert not (tree / "link").is_symlink()


def _found(tmp_path: Path, path: str) -> _inputs.FoundInput:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    return _inputs.FoundInput(item(path), source, is_inside=True, digest=None)


def test_code_is_copied_however_large_and_keeps_its_mode(
    search: Callable[..., FoundInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_inputs, "COPIED_AT_MOST", 0)
    monkeypatch.setattr(_inputs, "_clone", lambda *_: False)
    (tmp_path / "tree").mkdir()
    module = tmp_path / "repo" / "sub" / "ext.so"
    module.parent.mkdir()
    module.write_bytes(b"x")
    module.chmod(0o755)

    assert put(search, tmp_path, "sub/ext.so", role="code") == PutInputs()
    assert not (tmp_path / "tree" / "sub" / "ext.so").is_symlink()
    assert os.access(tmp_path / "tree" / "sub" / "ext.so", os.X_OK)
    assert put(search, tmp_path, "sub/data", role="data").linked == (tmp_path / "repo" / "sub" / "data",)


def test_names_that_are_not_utf8_are_found(search: Callable[..., FoundInputs], tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    name = b"caf\xe9.dat".decode("utf-8", "surrogateescape")

    put(search, tmp_path, name)

    assert [os.fsencode(path.name) for path in (tmp_path / "tree").iterdir()] == [b"caf\xe9.dat"]
    with pytest.raises(ChangedInputsError, match=r"caf\\xe9.dat' changed"):
        search(item(name, b"other"))


def test_nothing_is_left_in_the_folder_of_temporary_files(
    search: Callable[..., FoundInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tree").mkdir()

    put(search, tmp_path, "x")

    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_object_of_a_git_lfs_pointer_is_found_in_the_repository(
    search: Callable[..., FoundInputs], tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"large").hexdigest()
    place = tmp_path / "repo" / ".git" / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
    place.parent.mkdir(parents=True)
    place.write_bytes(b"large")
    (tmp_path / "repo" / "model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")

    assert search(item("model.bin", b"large")).inputs[0].place == place


@pytest.mark.slow
def test_a_module_from_another_checkout_of_the_project_is_not_restored(tmp_path: Path) -> None:
    code = """
        import os, pathlib, sys
        sys.path.insert(0, os.environ.get("LIBRARY", str(pathlib.Path(__file__).parent / "inner")))
        import library, mlflow
        from researchlab import ExperimentTracker
        with ExperimentTracker("foreign", "foreign"):
            mlflow.log_metric("x", library.VALUE)
    """
    project = make_project(tmp_path / "project", {"run.py": code})
    make_repo(project.top / "inner", {"library.py": "VALUE = 1\n"})
    project.python("run.py")
    clone = tmp_path / "clone"
    shutil.copytree(project.top, clone, symlinks=True)
    from researchlab.reproduce import reproduce

    kinds: dict[str, str] = {}
    for name in ("project", "clone"):
        os.environ["LIBRARY"] = str(tmp_path / name / "inner")
        try:
            verdict = reproduce("foreign", tracking_uri=project.uri, repo=clone)
        finally:
            del os.environ["LIBRARY"]
        kinds[name] = f"{verdict.kind}: {verdict.reason.partition(' came')[0]}"

    assert kinds == {"project": "NOT RESTORED: library", "clone": "NOT RESTORED: library"}
