"""Does a run survive the way through one file, and is every file that is not an honest one refused?"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import sqlite3
import stat
import tempfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from helpers.repos import contents, make_repo
from helpers.reproduction import Project, make_project
from helpers.stores import new_store, points_of
from helpers.tracked_runs import make_run_store

from researchlab.errors import ExchangeError
from researchlab.tracking import exchange
from researchlab.tracking._exchange._archive import Part, write_archive
from researchlab.tracking._restoring._recorded_code import RecordedCode
from researchlab.tracking.exchange import export_run, import_run, inspect_file
from researchlab.tracking.runs import find_run, list_runs
from researchlab.tracking.store import local_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from researchlab.tracking.store import Store

SCRIPT = """
    import pathlib, sys
    import mlflow, numpy as np
    from researchlab import ExperimentTracker
    import untracked

    with ExperimentTracker("Ausfl\u00fcge", "exchanged") as tracker:
        tracker.log_config({"lr": 0.1, "deep": {"er": [1, 2]}})
        mlflow.set_tag("mood", "good")
        for step, value in enumerate([1.5, -0.0, float("nan"), float("inf"), 1e-320]):
            mlflow.log_metric("value", value, step=step)
        mlflow.log_metric("read", float(pathlib.Path("numbers.bin").read_bytes()[0]))
        tracker.log_state({"weights": np.arange(6.0), "step": untracked.STEP})
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("exchange") / "project", {"run.py": SCRIPT, "numbers.bin": b"\1\2\0"})
    made.repo.write("untracked.py", "STEP = 3\n")
    made.repo.write("numbers.bin", b"\7\0\xff")
    made.python("run.py")
    return made


@pytest.fixture(scope="module")
def exported(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in a file; no test changes it."""
    file = tmp_path_factory.mktemp("exported") / "run.zip"
    export_run("exchanged", file, tracking_uri=project.uri, repo=project.top)
    return file


@dataclass
class Place:
    """Where somebody else imports: a folder with an empty store, and a folder for temporary files."""

    top: Path
    store: Store

    def take(self, file: Path) -> Any:
        return import_run(file, tracking_uri=self.store.tracking_uri, repo=self.top)

    def contents(self) -> dict[str, Any]:
        """Every row of the store, and every file around it."""
        found: dict[str, Any] = {}
        database = self.store.database
        assert database is not None
        with contextlib.closing(sqlite3.connect(database)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                found[table] = sorted(map(repr, connection.execute(f'SELECT * FROM "{table}"')))
        for path in sorted(self.top.rglob("*")):
            if path != database:
                status = path.lstat()
                is_file = stat.S_ISREG(status.st_mode)
                found[str(path)] = (status.st_mode, path.read_bytes() if is_file else None)
        return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    top = tmp_path / "place"
    (top / "temporary").mkdir(parents=True)
    (top / "innocent.txt").write_text("mine\n")
    monkeypatch.setenv("TMPDIR", str(top / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return Place(top, new_store(top / "store"))


@dataclass
class Content:
    """What is in a file, to be changed and packed again by somebody who knows the format."""

    manifest: dict[str, Any]
    data: dict[str, bytes]

    @classmethod
    def of(cls, file: Path) -> Content:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            names = [name for name in archive.namelist() if name != "manifest.json"]
            return cls(manifest, {name.removeprefix("artifacts/"): archive.read(name) for name in names})

    def edit(self, **changes: Any) -> None:
        """Change the record; a part that is a mapping keeps its other entries."""
        record = json.loads(self.data["rlab/record.json"])
        for name, value in changes.items():
            record[name] = {**record[name], **value} if isinstance(value, dict) else value
        self.data["rlab/record.json"] = json.dumps(record).encode()

    def list_members(self) -> None:
        """Have the manifest say what is there."""
        parts = [Part.of(name, data) for name, data in sorted(self.data.items())]
        self.manifest["members"] = [{"name": it.name, "size": it.size, "sha256": it.sha256} for it in parts]

    def pack(self, to: Path, *, names: dict[str, str] | None = None) -> Path:
        """Write the file, as the format wants it; ``names`` are other names in the archive than in the manifest."""
        manifest = json.dumps(self.manifest).encode()
        parts = [("manifest.json", manifest)]
        for name, data in self.data.items():
            parts.append((f"artifacts/{(names or {}).get(name, name)}", data))
        with to.open("wb") as stream:
            write_archive(stream, [(Part.of(name, data), data) for name, data in parts])
        return to


def _as_anybody_zips(content: Content, to: Path, change: Callable[[zipfile.ZipFile], None] | None = None) -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr("manifest.json", json.dumps(content.manifest))
        for name, data in content.data.items():
            archive.writestr(f"artifacts/{name}", data)
        if change is not None:
            change(archive)
    return to


# The way there and back


def test_an_imported_run_is_the_run_that_was_exported(project: Project, exported: Path, place: Place) -> None:
    imported = place.take(exported)

    assert (imported.run_id, imported.already_there) == ("exchanged", False)
    before = find_run("exchanged", tracking_uri=project.uri)
    after = find_run("exchanged", tracking_uri=place.store.tracking_uri)
    assert after.record() == before.record()
    assert after.patch() == before.patch()
    assert points_of(after) == points_of(before)
    assert after.run.data.params == before.run.data.params == {"lr": "0.1", "deep.er": "[1, 2]"}
    assert after.run.data.tags["mood"] == "good"
    assert after.run.data.tags["rlab.imported_from"] == imported.exported.sha256
    for tag in ("rlab.run_id", "rlab.tree", "rlab.base_commit", "rlab.script", "rlab.dirty"):
        assert after.run.data.tags[tag] == before.run.data.tags[tag], tag
    for name in ("status", "start_time", "end_time", "run_name"):
        assert getattr(after.run.info, name) == getattr(before.run.info, name), name
    assert after.client.get_experiment(after.run.info.experiment_id).name == "Ausfl\u00fcge"
    histories = [
        [(it.step, repr(it.value)) for it in run.client.get_metric_history(run.run.info.run_id, "value")]
        for run in (before, after)
    ]
    assert sorted(histories[0]) == sorted(histories[1])
    mine, theirs = local_path(before.run.info.artifact_uri), local_path(after.run.info.artifact_uri)
    assert mine is not None
    assert theirs is not None
    for path in mine.rglob("*"):
        if path.is_file():
            assert (theirs / path.relative_to(mine)).read_bytes() == path.read_bytes()
    added = {str(path.relative_to(theirs)) for path in theirs.rglob("*") if path.is_file()} - {
        str(path.relative_to(mine)) for path in mine.rglob("*")
    }
    assert added == {"rlab/base.pack"}


def test_what_is_no_text_goes_through_too(place: Place, tmp_path: Path) -> None:
    """Names, arguments and variables that are not UTF-8, and a message that is not even Unicode."""
    odd = os.fsdecode(b"caf\xe9")
    script = """
        import sys
        from researchlab import ExperimentTracker
        with ExperimentTracker("e", "odd"):
            open(sys.argv[1], "rb").read()
            raise ValueError("\\0 \\ud800 \\udce9")
    """
    made = make_project(tmp_path / "project", {"run.py": script})
    for name in (f"{odd}/{odd}.bin", f"ignored/{odd}"):
        made.repo.write(os.fsencode(name), b"1")
    made.repo.write(".git/info/exclude", "ignored\n")
    made.repo.git("checkout", "-q", "-b", odd)
    made.repo.git("remote", "add", "origin", f"https://example.org/{odd}")
    argument = f"{made.top}/ignored/{odd}"
    made.python("../run.py", argument, cwd=made.top / odd, env={"LC_ODD": odd}, code=1)

    record = find_run("odd", tracking_uri=made.uri).record()
    assert record.snapshot is not None
    assert record.result is not None
    assert record.snapshot.branch == odd
    assert record.snapshot.changed == (f"{odd}/{odd}.bin",)
    assert (record.command.cwd, record.command.argv) == (odd, (argument,))
    assert record.environment.variables["LC_ODD"] == odd
    assert [item.path for item in record.inputs] == [f"ignored/{odd}"]
    assert record.result.error == "ValueError: \0 \ud800 \udce9"
    place.take(export_run("odd", tmp_path / "odd.zip", tracking_uri=made.uri, repo=made.top).file)
    assert find_run("odd", tracking_uri=place.store.tracking_uri).record() == record


def test_the_same_run_gives_the_same_bytes_here_and_after_an_import(
    project: Project, exported: Path, place: Place
) -> None:
    place.take(exported)

    export_run("exchanged", place.top / "a.zip", tracking_uri=project.uri, repo=project.top)
    export_run("exchanged", place.top / "b.zip", tracking_uri=place.store.tracking_uri, repo=place.top)

    assert (place.top / "a.zip").read_bytes() == exported.read_bytes()
    assert (place.top / "b.zip").read_bytes() == exported.read_bytes()


def test_any_tool_looks_into_the_file(exported: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "manifest.json"
        assert {"artifacts/run.patch", "artifacts/rlab/record.json", "artifacts/rlab/base.pack"} < {*archive.namelist()}


def test_inspecting_says_what_would_run_and_stores_nothing(exported: Path, place: Place) -> None:
    before = place.contents()
    found = inspect_file(exported)
    text = found.summary()
    assert found.run_id == "exchanged"
    assert found.size == exported.stat().st_size
    assert "command      python run.py" in text
    assert "2 changed files: numbers.bin, untracked.py" in text
    assert "`rlab reproduce exchanged` executes this code on this machine" in text
    assert json.loads(json.dumps(found.to_json()))["run_id"] == "exchanged"
    assert place.contents() == before


def test_importing_a_second_time_changes_nothing(exported: Path, place: Place) -> None:
    first = place.take(exported)
    before = place.contents()
    second = place.take(exported)
    assert second.already_there
    assert second.mlflow_run_id == first.mlflow_run_id
    assert place.contents() == before


def test_another_run_of_the_same_id_is_not_touched(exported: Path, place: Place, tmp_path: Path) -> None:
    place.take(exported)
    content = Content.of(exported)
    content.edit(host="another")
    content.list_members()
    other = content.pack(tmp_path / "other.zip")
    before = place.contents()
    with pytest.raises(ExchangeError, match=r"has another run 'exchanged' than .*: their records differ"):
        place.take(other)
    assert place.contents() == before


def test_an_empty_folder_gets_a_store_of_its_own(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    imported = import_run(exported, repo=tmp_path / "empty")
    assert imported.store == f"sqlite:///{tmp_path / 'empty' / 'mlflow.db'}"
    assert find_run("exchanged", repo=tmp_path / "empty").record().run_id == "exchanged"


def test_a_run_that_cannot_be_stored_whole_is_deleted(
    exported: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def fail(*args: Any, **options: Any) -> None:
        message = "the disk is full"
        raise OSError(message)

    monkeypatch.setattr(mlflow.MlflowClient, "set_terminated", fail)
    with pytest.raises(ExchangeError, match=r"could not be imported whole .* deleted: the disk is full"):
        place.take(exported)
    monkeypatch.undo()
    assert list_runs(tracking_uri=place.store.tracking_uri) == []
    assert [path for path in (place.top / "store" / "mlartifacts").rglob("*") if path.is_file()] == []
    assert not place.take(exported).already_there


# What the file holds


def test_files_that_the_run_read_go_in_within_the_budget(project: Project, tmp_path: Path) -> None:
    folder = project.artifacts("exchanged")
    record = json.loads((folder / "rlab" / "record.json").read_text())
    kept = (folder / "rlab" / "record.json").read_bytes()
    small, large, changed = b"small\n", bytes(5000), b"changed\n"
    project.repo.write(b"ignored/sm\xffll.txt", small)
    project.repo.write("ignored/large.bin", large)
    outside = tmp_path / "outside.txt"
    outside.write_bytes(changed)
    key = project.repo.write("ignored/id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----\n")
    parts = {
        "ignored/sm\udcffll.txt": Part.of("", small),
        "ignored/large.bin": Part.of("", large),
        str(outside): dataclasses.replace(Part.of("", b"CHANGED\n"), size=8),
        "ignored/id_rsa": Part.of("", key),
    }
    record["inputs"] = [
        {"path": path, "role": "data", "why": "ignored", "sha256": part.sha256, "size": part.size}
        for path, part in parts.items()
    ]
    (folder / "rlab" / "record.json").write_text(json.dumps(record))
    try:
        done = export_run(
            "exchanged", tmp_path / "run.zip", tracking_uri=project.uri, repo=project.top, inputs_limit=4000
        )
    finally:
        (folder / "rlab" / "record.json").write_bytes(kept)
        for path in (project.top / "ignored").iterdir():
            path.unlink()
        (project.top / "ignored").rmdir()
    stored = [member.name for member in done.members if member.name.startswith("rlab/inputs/")]
    assert stored == [f"rlab/inputs/{Part.of('', small).sha256}"]
    assert {item.path: item.why for item in done.left_out} == {
        str(outside): "no longer there as the run had it",
        "ignored/id_rsa": done.left_out[1].why,
        "ignored/large.bin": "beyond the budget of 4 kB",
    }
    assert done.left_out[1].why.startswith("it looks like a secret: ")
    assert "ignored/large.bin (5 kB): beyond the budget" in done.summary()
    assert "ignored/sm\\xffll.txt (data, 6 B, in the file)" in done.summary()
    assert inspect_file(done.file) == done


@pytest.mark.parametrize("kind", ["sha1", "sha256", "unborn"])
def test_the_code_comes_back_from_the_file_alone(kind: str, place: Place, tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", object_format="sha256" if kind == "sha256" else "sha1")
    repo.write(b"caf\xe9.txt", b"\0\r\n")
    repo.write("gone.txt", "gone\n")
    if kind != "unborn":
        repo.commit("first")
        repo.commit("second")
    repo.write("tool.sh", "#!/bin/sh\n", executable=True)
    repo.link("link", "nowhere")
    (repo.top / "gone.txt").unlink()
    before = contents(repo.top)
    runs = make_run_store(tmp_path / "runs")
    runs.track("code", repo.top)
    done = export_run("code", tmp_path / "code.zip", tracking_uri=runs.uri, repo=repo.top)
    assert ("rlab/base.pack" in {member.name for member in done.members}) == (kind != "unborn")
    shutil.rmtree(repo.top)

    place.take(done.file)
    code = RecordedCode.of(find_run("code", tracking_uri=place.store.tracking_uri))
    assert contents(code.restore(tmp_path / "restored", repo=None)) == before


def test_code_that_is_nowhere_is_not_exported(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a.txt": "a\n"})
    runs = make_run_store(tmp_path / "runs")
    runs.track("code", repo.top)
    shutil.rmtree(repo.top)
    with pytest.raises(ExchangeError, match=r"'code' cannot be exported, as its code cannot be brought back"):
        export_run("code", tmp_path / "code.zip", tracking_uri=runs.uri, repo=tmp_path)
    assert not (tmp_path / "code.zip").exists()


def test_a_run_that_goes_on_is_not_exported(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a.txt": "a\n"})
    runs = make_run_store(tmp_path / "runs")
    runs.track("code", repo.top)
    record = next(tmp_path.rglob("record.json"))
    record.write_text(record.read_text().replace('"started_at": 0.0', f'"started_at": {time.time()}'))
    with pytest.raises(ExchangeError, match=r"'code' is still going on \(process \d+\)"):
        export_run("code", tmp_path / "code.zip", tracking_uri=runs.uri, repo=repo.top)


def test_a_run_without_code_goes_through_too(place: Place, tmp_path: Path) -> None:
    runs = make_run_store(tmp_path / "runs")
    runs.track("no-code", None)
    done = export_run("no-code", tmp_path / "run.zip", tracking_uri=runs.uri, repo=tmp_path)
    assert [member.name for member in done.members] == ["rlab/record.json"]
    assert "code         none was recorded. There was no repository." in done.summary()
    place.take(done.file)
    assert find_run("no-code", tracking_uri=place.store.tracking_uri).record().snapshot is None


def test_two_imports_at_once_do_not_leave_two_runs(
    exported: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "the_run", lambda *_: None)  # neither has seen the other
    place.take(exported)
    with pytest.raises(ExchangeError, match=r"deleted: 2 runs of .* carry the id 'exchanged'"):
        place.take(exported)
    assert len(list_runs(tracking_uri=place.store.tracking_uri)) == 1


def test_an_export_replaces_nothing_unless_told(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "run.zip"
    file.write_text("precious\n")
    with pytest.raises(ExchangeError, match=r"is there already.*with overwrite=True"):
        export_run("exchanged", file, tracking_uri=project.uri, repo=project.top)
    assert file.read_text() == "precious\n"
    export_run("exchanged", file, tracking_uri=project.uri, repo=project.top, overwrite=True)
    assert inspect_file(file).run_id == "exchanged"
    assert list(tmp_path.iterdir()) == [file]


def test_an_export_that_fails_leaves_no_file(project: Project, tmp_path: Path) -> None:
    folder = project.artifacts("exchanged") / "rlab"
    kept = (folder / "metrics.arrow").read_bytes()
    (folder / "metrics.arrow").write_bytes(kept[:-200])
    try:
        with pytest.raises(ExchangeError, match="'exchanged' cannot be exported: its trace"):
            export_run("exchanged", tmp_path / "run.zip", tracking_uri=project.uri, repo=project.top)
    finally:
        (folder / "metrics.arrow").write_bytes(kept)
    with pytest.raises(ExchangeError, match=r"There is no folder .*/nowhere"):
        export_run("exchanged", tmp_path / "nowhere" / "run.zip", tracking_uri=project.uri, repo=project.top)
    assert list(tmp_path.iterdir()) == []


# Files that lie


def _edited(**changes: Any) -> Callable[[Content, Path], Path]:
    def make(content: Content, to: Path) -> Path:
        content.edit(**changes)
        content.list_members()
        return content.pack(to)

    return make


def _snapshot(**changes: Any) -> Callable[[Content, Path], Path]:
    return _edited(snapshot=changes)


def _input(path: str, **more: Any) -> Callable[[Content, Path], Path]:
    item = {"path": path, "role": "data", "why": "ignored", "sha256": "0" * 64, "size": 1, **more}
    return _edited(inputs=[item])


def _nested(**changes: Any) -> Callable[[Content, Path], Path]:
    nested = {"path": "sub", "is_submodule": False, "base_commit": None, "tree": "1" * 40, **changes}
    return _snapshot(nested=[nested])


def _member(name: str) -> Callable[[Content, Path], Path]:
    def make(content: Content, to: Path) -> Path:
        content.data[name] = b"payload\n"
        content.data = dict(sorted(content.data.items()))
        content.list_members()
        return content.pack(to)

    return make


def _manifest(**changes: Any) -> Callable[[Content, Path], Path]:
    def make(content: Content, to: Path) -> Path:
        content.manifest.update(changes)
        return content.pack(to)

    return make


def _link(content: Content, to: Path) -> Path:
    def change(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("artifacts/rlab/link")
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")

    return _as_anybody_zips(content, to, change)


def _link_in_the_directory(content: Content, to: Path) -> Path:
    content.pack(to)
    data = to.read_bytes()
    regular, link = (0o100644 << 16).to_bytes(4, "little"), ((stat.S_IFLNK | 0o777) << 16).to_bytes(4, "little")
    place = data.rindex(regular)
    to.write_bytes(data[:place] + link + data[place + 4 :])
    return to


def _bomb(*, lying: bool) -> Callable[[Content, Path], Path]:
    """Thirty megabytes of zeros in thirty kilobytes, as the zip says, or as a zip that says it is a few bytes."""

    def make(content: Content, to: Path) -> Path:
        zeros = bytes(30_000_000)
        content.data["rlab/zeros.bin"] = zeros
        content.data = dict(sorted(content.data.items()))
        content.list_members()
        with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(content.manifest))
            for name, data in content.data.items():
                archive.writestr(f"artifacts/{name}", data)
        if lying:
            size = len(zeros).to_bytes(4, "little")
            to.write_bytes(to.read_bytes().replace(size, (10).to_bytes(4, "little")))
        assert to.stat().st_size < 1_000_000
        return to

    return make


def _deflated_member(content: Content, to: Path) -> Path:
    """The right layout, and a member whose method says that it is compressed."""
    content.pack(to)
    data = bytearray(to.read_bytes())
    second = data.index(b"PK\x03\x04", 4)
    data[second + 8] = 8
    to.write_bytes(data)
    return to


def _wrong_hash(content: Content, to: Path) -> Path:
    content.data["run.patch"] = content.data["run.patch"].replace(b"STEP = 3", b"STEP = 4")
    return content.pack(to)


def _wrong_size(content: Content, to: Path) -> Path:
    for member in content.manifest["members"]:
        if member["name"] == "run.patch":
            member["size"] += 1
    return content.pack(to)


def _missing_member(content: Content, to: Path) -> Path:
    del content.data["run.patch"]
    return content.pack(to)


def _missing(name: str) -> Callable[[Content, Path], Path]:
    """A file that does not list the member either."""

    def make(content: Content, to: Path) -> Path:
        del content.data[name]
        content.list_members()
        return content.pack(to)

    return make


def _extra_member(content: Content, to: Path) -> Path:
    content.data["rlab/zzz"] = b"extra"
    return content.pack(to)


def _hidden_bytes(content: Content, to: Path) -> Path:
    """Bytes that no directory lists, between the members and the directory."""
    content.pack(to)
    data = to.read_bytes()
    place = data.index(b"PK\x01\x02")
    to.write_bytes(data[:place] + b"hidden" + data[place:])
    return to


def _duplicate_in_the_archive(content: Content, to: Path) -> Path:
    def change(archive: zipfile.ZipFile) -> None:
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("artifacts/run.patch", "other")

    return _as_anybody_zips(content, to, change)


def _duplicate_in_the_manifest(content: Content, to: Path) -> Path:
    members = content.manifest["members"]
    members.insert(0, members[0])
    return content.pack(to)


def _other_name_in_the_archive(content: Content, to: Path) -> Path:
    return content.pack(to, names={"run.patch": "../x.patch"})


def _renamed_in_the_archive(content: Content, to: Path) -> Path:
    return content.pack(to, names={"run.patch": "../.bashrc"[:9]})


def _differ_in_case(content: Content, to: Path) -> Path:
    content.data["rlab/RECORD.JSON"] = b"{}"
    content.data = dict(sorted(content.data.items()))
    content.list_members()
    return content.pack(to)


def _trailing_bytes(content: Content, to: Path) -> Path:
    content.pack(to)
    to.write_bytes(to.read_bytes() + b"\0")
    return to


def _leading_bytes(content: Content, to: Path) -> Path:
    content.pack(to)
    to.write_bytes(b"#!/bin/sh\n" + to.read_bytes())
    return to


def _comment(content: Content, to: Path) -> Path:
    def change(archive: zipfile.ZipFile) -> None:
        archive.comment = b"hello"

    return _as_anybody_zips(content, to, change)


def _folder_member(content: Content, to: Path) -> Path:
    return _as_anybody_zips(content, to, lambda archive: archive.mkdir("artifacts/folder"))


def _packed_anew(content: Content, to: Path) -> Path:
    return _as_anybody_zips(content, to)


def _text(text: bytes) -> Callable[[Content, Path], Path]:
    def make(content: Content, to: Path) -> Path:
        del content
        to.write_bytes(text)
        return to

    return make


def _manifest_text(text: bytes) -> Callable[[Content, Path], Path]:
    def make(content: Content, to: Path) -> Path:
        del content
        with to.open("wb") as stream:
            write_archive(stream, [(Part.of("manifest.json", text), text)])
        return to

    return make


def _record_text(text: bytes) -> Callable[[Content, Path], Path]:
    def make(content: Content, to: Path) -> Path:
        content.data["rlab/record.json"] = text
        content.list_members()
        return content.pack(to)

    return make


def _trace(data: bytes) -> Callable[[Content, Path], Path]:
    def make(content: Content, to: Path) -> Path:
        content.data["rlab/metrics.arrow"] = data
        content.list_members()
        return content.pack(to)

    return make


def _compressed_trace(content: Content, to: Path) -> Path:
    """A trace of a few kilobytes that Arrow would inflate to as many megabytes as its author likes."""
    import pyarrow as pa

    source = pa.ipc.open_stream(content.data["rlab/state.arrow"])
    column = source.schema.get_field_index("data")
    zeros = pa.array([bytes(20_000_000)], pa.large_binary())
    batch = next(iter(source))
    columns = [zeros if index == column else array for index, array in enumerate(batch.columns)]
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(pa.record_batch(columns, schema=batch.schema))
    content.data["rlab/state.arrow"] = sink.getvalue()
    assert len(sink.getvalue()) < 100_000
    content.list_members()
    return content.pack(to)


HOSTILE: dict[str, tuple[Callable[[Content, Path], Path], str]] = {
    # the archive
    "nothing": (_text(b""), "it is empty"),
    "text": (_text(b"hello, world\n" * 100), "it is no zip"),
    "a bare end of a zip": (_text(b"PK\5\6" + bytes(18)), "it is no zip"),
    "gzip": (_text(zlib.compress(b"hello")), "it is no zip"),
    "packed by another program": (_packed_anew, "packed by another program"),
    "a symlink": (_link, "packed by another program"),
    "a symlink in the directory alone": (_link_in_the_directory, "its directory does not list the members as they are"),
    "a bomb": (_bomb(lying=False), "packed by another program"),
    "a bomb that lies": (_bomb(lying=True), "packed by another program"),
    "a member that says it is compressed": (_deflated_member, "a member is compressed"),
    "a wrong hash": (_wrong_hash, "has sha256 .* and its manifest says"),
    "a wrong size": (_wrong_size, "it is cut short"),
    "a missing member": (_missing_member, "it has .* bytes where|it is cut short"),
    "a missing member that the record needs": (_missing("run.patch"), "needs run.patch"),
    "an extra member": (_extra_member, "it has .* bytes where its manifest says"),
    "hidden bytes": (_hidden_bytes, "it has .* bytes where its manifest says"),
    "a member twice": (_duplicate_in_the_archive, "packed by another program"),
    "a member twice in the manifest": (_duplicate_in_the_manifest, "two members of one name"),
    "another name in the archive": (
        _other_name_in_the_archive,
        "it has .* bytes where|header of 'artifacts/run.patch'",
    ),
    "another name of the same length": (_renamed_in_the_archive, "the header of 'artifacts/run.patch' is not the one"),
    "names that differ in case": (_differ_in_case, "two members of one name"),
    "bytes behind the end": (_trailing_bytes, "it has .* bytes where its manifest says"),
    "bytes before the start": (_leading_bytes, "it is no zip"),
    "a comment": (_comment, "packed by another program"),
    "a folder": (_folder_member, "packed by another program"),
    # the names of members
    "a path that climbs": (_member("../../evil.py"), "which no exported run has"),
    "a path that climbs inside": (_member("rlab/../../../evil.py"), "which no exported run has"),
    "an absolute path": (_member("/tmp/evil.py"), "which no exported run has"),
    "a backslash": (_member("rlab\\..\\evil"), "which no exported run has"),
    "a drive": (_member("C:evil.json"), "which no exported run has"),
    "a NUL": (_member("rlab/a\0b"), "which no exported run has"),
    "a line feed": (_member("rlab/a\n"), "which no exported run has"),
    "an empty part": (_member("rlab//a"), "which no exported run has"),
    "a dot": (_member("./run.patch"), "which no exported run has"),
    "a hidden file": (_member(".bashrc.json"), "which no exported run has"),
    "a nested repository that is none": (_member("rlab/nested/7/run.patch"), "knows no nested repository"),
    "an input under a wrong hash": (_member(f"rlab/inputs/{'0' * 64}"), f"'rlab/inputs/{'0' * 64}' has the sha256"),
    # the manifest
    "a newer version": (_manifest(version=2), "it has version 2, and this researchlab reads up to 1. Upgrade it"),
    "another format": (_manifest(format="docker image"), "not the one of an exported run"),
    "no JSON": (_manifest_text(b"{"), "manifest.json cannot be read"),
    "no mapping": (_manifest_text(b"[1]"), "not the one of an exported run"),
    "deep JSON": (_manifest_text(b"[" * 200_000), "manifest.json cannot be read"),
    "a name twice in JSON": (_manifest_text(b'{"version": 1, "version": 1}'), "manifest.json cannot be read"),
    "another run id": (_manifest(run_id="other"), "names the run 'other', and its record the run 'exchanged'"),
    "no version": (_manifest(version=None), "broken at 'version'"),
    "a version that is none": (_manifest(version=True), "broken at 'version': .* found True"),
    "a negative version": (_manifest(version=-1), "broken at 'version': .* found -1"),
    "a start behind the calendar": (_manifest(started=253_402_300_799_999), "broken at 'started'"),
    "a size that is none": (
        _manifest(left_out=[{"path": "x", "why": "x", "size": 10**400}]),
        r"broken at 'left_out\.0\.size'",
    ),
    "an unknown field": (_manifest(extra=1), "broken at 'extra'"),
    "a status that is none": (_manifest(status="RUNNING"), "broken at 'status'"),
    "a tag without a name": (_manifest(tags={"": "x"}), "a tag of the name ''"),
    "a tag that is too long": (_manifest(tags={"x": "x" * 8001}), "its tag 'x' has a value that MLflow does not take"),
    "a parameter that climbs": (_manifest(params={"../x": "x"}), "a parameter of the name '../x'"),
    "an experiment without a name": (_manifest(experiment=""), "broken at 'experiment'"),
    # the record
    "a record that is no JSON": (_record_text(b"no"), "record cannot be used"),
    "a newer record": (_edited(version=1000), "record cannot be used.* has version 1000.* Upgrade it"),
    "a run id that is none": (_edited(run_id="../../x"), "cannot be a run id"),
    "a working directory above": (_edited(command={"cwd": "../.."}), "command.cwd that leads out of the work tree"),
    "an absolute working directory": (_edited(command={"cwd": "/etc"}), "command.cwd that leads out of the work tree"),
    "modules from above": (_edited(command={"source_roots": ["../x"]}), "command.source_roots that leads out"),
    "a folder above": (_edited(folders=["results", "../x"]), "folders that leads out"),
    "a script above": (_edited(command={"target": "../x.py"}), "command.target that leads out"),
    "an input above": (_input("../x"), "inputs.0.path that leads out"),
    "an input above, absolute": (_input("/a/../x"), "inputs.0.path that leads out"),
    "an input in git's folder": (_input(".git/hooks/post-checkout"), "inputs.0.path that leads out"),
    "an input in GIT's folder": (_input("sub/.GIT/config"), "inputs.0.path that leads out"),
    "an input that is the root": (_input("."), "inputs.0.path that leads out"),
    "an input with a NUL": (_input("a\0b"), r"'inputs\.0\.path': it holds a NUL, found"),
    "an input with a stray surrogate": (_input("\ud800"), r"'inputs\.0\.path': it holds a lone surrogate"),
    "an input above, elsewhere": (_input("a\\..\\b"), "inputs.0.path that leads out"),
    "an input of a negative size": (_input("x", size=-1), r"'inputs\.0\.size': .* found -1"),
    "a record from before all time": (_edited(started_at=-1e11), "'started_at': .* found -1"),
    "a record of no time": (_edited(ended_at=float("nan")), "'ended_at': .* found nan"),
    "a name twice in the record": (
        _record_text(b'{"version": 1, "version": 1}'),
        "record cannot be used.* 'version' stands in an object twice",
    ),
    "a variable that loads a library": (
        _edited(environment={"variables": {"TZ": "UTC", "LD_PRELOAD": "/x.so"}}),
        "variable at environment.variables that no run records: 'LD_PRELOAD'",
    ),
    "a variable that hides another": (
        _edited(environment={"variables": {"LC_X=1": ""}}),
        "variable at environment.variables that no run records: 'LC_X=1'",
    ),
    "an input stored elsewhere": (_input("x", stored="../../x"), "names the artifact '../../x' at inputs.0.stored"),
    "an input that is not stored": (_input("x", stored=f"rlab/inputs/{'0' * 64}"), "which the file does not hold"),
    "an input without a hash": (_input("x", sha256="../x"), "holds no sha256 at inputs.0"),
    "a large file above": (_snapshot(large={"../x": {"sha256": "0" * 64, "size": 1}}), "snapshot.large that leads out"),
    "a base commit that is an option": (_snapshot(base_commit="--upload-pack=x"), "broken at 'snapshot.base_commit'"),
    "a tree that is none": (_snapshot(tree="HEAD"), "broken at 'snapshot.tree'"),
    "a tree of another kind of repository": (_snapshot(tree="0" * 64), "no object id at snapshot.tree"),
    "a branch that is an option": (_snapshot(branch="--exec"), "no branch at snapshot.branch"),
    "a remote that is an option": (_snapshot(remotes={"o": "--upload-pack=x"}), "a remote at snapshot.remotes"),
    "a remote that is a command": (_snapshot(remotes={"o": "ext::sh -c x"}), "a remote at snapshot.remotes"),
    "a remote with a line feed": (_snapshot(remotes={"o\n[core]": "x"}), "a remote at snapshot.remotes"),
    "a bundle elsewhere": (_snapshot(bundle="../x.bundle"), "names the artifact '../x.bundle' at snapshot.bundle"),
    "a bundle that is not there": (_missing("rlab/base.bundle"), "needs rlab/base.bundle, which"),
    "a nested repository above": (_nested(path="../sub"), "snapshot.nested.0.path that leads out"),
    "a nested repository above, elsewhere": (_nested(path="a\\..\\b"), "snapshot.nested.0.path that leads out"),
    "a nested repository with a stray surrogate": (_nested(path="\ud800"), "it holds a lone surrogate"),
    "an absolute nested repository": (_nested(path="/sub"), "snapshot.nested.0.path that leads out"),
    "a nested repository in git's folder": (_nested(path=".git/modules"), "snapshot.nested.0.path that leads out"),
    "a nested patch elsewhere": (_nested(patch="run.patch"), "names the artifact 'run.patch' at snapshot.nested.0"),
    "no code, and a patch": (_edited(snapshot=None), "holds no code, and the file holds a run.patch"),
    # the trace
    "a trace that is none": (
        _trace(b"hello, world"),
        "compressed, or no trace|its trace can",
    ),
    "an empty trace": (_trace(b""), "its trace is damaged"),
    "a compressed trace": (_compressed_trace, "trace file state.arrow is compressed"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_lies_is_refused_and_nothing_is_written(
    what: str, exported: Path, place: Place, tmp_path: Path
) -> None:
    make, match = HOSTILE[what]
    file = make(Content.of(exported), tmp_path / "hostile.zip")
    around = sorted(tmp_path.rglob("*"))
    before = place.contents()
    with pytest.raises(ExchangeError, match=f"(?s)hostile.zip cannot be imported: .*(?:{match}).*Nothing was stored"):
        place.take(file)
    assert place.contents() == before
    assert sorted(tmp_path.rglob("*")) == around


@pytest.mark.parametrize("kind", ["nothing", "folder", "fifo"])
def test_what_is_no_file_is_refused(kind: str, place: Place, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(ExchangeError, match=r"cannot be read|is not a file"):
        place.take(path)


def test_a_file_that_is_cut_short_anywhere_is_refused(exported: Path, place: Place, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    before = place.contents()
    file = tmp_path / "cut.zip"
    lengths = [*range(0, len(whole), 1000), *range(200), *range(len(whole) - 200, len(whole))]
    assert len(whole) > 10_000
    for length in lengths:
        file.write_bytes(whole[:length])
        with pytest.raises(ExchangeError, match=r"cut short|is empty|is no zip"):
            place.take(file)
    assert place.contents() == before


def test_a_byte_that_is_another_one_anywhere_is_refused(exported: Path, place: Place, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    before = place.contents()
    file = tmp_path / "flipped.zip"
    chosen = random.Random(20260215)
    for _ in range(500):
        data = bytearray(whole)
        data[chosen.randrange(len(data))] ^= chosen.randrange(1, 256)
        file.write_bytes(data)
        with pytest.raises(ExchangeError):
            place.take(file)
    assert place.contents() == before


def test_tags_of_ours_that_a_file_brings_do_not_count(exported: Path, place: Place, tmp_path: Path) -> None:
    content = Content.of(exported)
    content.manifest["tags"] |= {"rlab.run_id": "other", "rlab.verdict": "REPRODUCED", "rlab.imported_from": "me"}
    imported = place.take(content.pack(tmp_path / "tags.zip"))
    tags = find_run("exchanged", tracking_uri=place.store.tracking_uri).run.data.tags
    assert tags["rlab.run_id"] == "exchanged"
    assert tags["rlab.imported_from"] == imported.exported.sha256
    assert "rlab.verdict" not in tags


def test_a_summary_cannot_drive_a_terminal(exported: Path, tmp_path: Path) -> None:
    content = Content.of(exported)
    content.edit(host="\x1b]0;evil\x07\nrlab-says: fine", snapshot={"changed": ["a\u202eb\r"]})
    content.list_members()
    text = inspect_file(content.pack(tmp_path / "loud.zip")).summary()
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)
    assert not any(line.startswith("rlab-says") for line in text.splitlines())


def test_nothing_is_compressed_so_that_nothing_can_be_inflated(exported: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
