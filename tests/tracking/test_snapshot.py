"""Capturing a work tree: what is in it, what is named, and that nothing is touched."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.repos import Repo, contents, footprint, isolated_git, make_repo

from researchlab.errors import NotARepositoryError, SnapshotError
from researchlab.tracking import _git, restore
from researchlab.tracking._capture import _nested, _patch, _reader, _survey, _worktree
from researchlab.tracking._git import find_repository
from researchlab.tracking.settings import Settings
from researchlab.tracking.snapshot import Change, Snapshot, capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytestmark = pytest.mark.usefixtures(isolated_git.__name__)


def statuses(snapshot: Snapshot) -> dict[str, str]:
    return {change.path: change.status for change in snapshot.changed}


def reasons(snapshot: Snapshot) -> dict[str, str]:
    return {left.path: left.reason for left in snapshot.left_out}


def test_a_clean_tree_is_its_base_commit(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x", "b/c": "y"})
    snapshot = capture(repo.top)
    assert snapshot.base_commit == repo.git("rev-parse", "HEAD")
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")
    assert (snapshot.patch, snapshot.changed, snapshot.left_out, snapshot.is_dirty) == (b"", (), (), False)


def test_the_tree_is_the_one_that_git_would_commit(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x", "b/c": "y", "d/e": "z"})
    repo.write("a", "edited")
    repo.write("new/file", "untracked", executable=True)
    repo.git("rm", "--quiet", "b/c")
    snapshot = capture(repo.top)
    assert statuses(snapshot) == {"a": "M", "b/c": "D", "new/file": "A"}
    assert snapshot.is_dirty
    repo.commit()
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")


def test_every_kind_of_change_has_its_letter(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"edited": "1", "mode": "2", "gone": "3", "turned": "4"})
    repo.write("edited", "5")
    repo.write("mode", "2", executable=True)
    (repo.top / "gone").unlink()
    (repo.top / "turned").unlink()
    repo.link("turned", "edited")
    repo.write("new")
    assert statuses(capture(repo.top)) == {"edited": "M", "mode": "M", "gone": "D", "turned": "T", "new": "A"}


def test_a_subfolder_captures_the_whole_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path, {"a": "x", "sub/b": "y"})
    repo.write("a", "edited")
    monkeypatch.chdir(repo.top / "sub")
    assert capture().changed == (Change("a", "M"),)


def test_paths_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.write(b"\xff\n\"\\\t'", "y")
    (change,) = capture(repo.top).changed
    assert change.path.encode("utf-8", "surrogateescape") == b"\xff\n\"\\\t'"


def test_ignored_files_are_not_listed_unless_they_are_in_the_base_commit(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"kept.log": "x"})
    repo.write(".gitignore", "*.log\n")
    repo.commit()
    repo.write("kept.log", "edited")
    repo.write("other.log", "y")
    assert statuses(capture(repo.top)) == {"kept.log": "M"}
    repo.git("rm", "--quiet", "--cached", "kept.log")
    assert statuses(capture(repo.top)) == {"kept.log": "M"}


def test_what_is_ignored_is_named_by_folder_where_it_is_a_whole_one(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {".gitignore": "*.log\nbuild/\n*.npy\n", "src/a": "x"})
    repo.write("src/kept.log", "x")
    repo.git("add", "--force", "src/kept.log")
    repo.commit()
    repo.git("rm", "--quiet", "--cached", "src/kept.log")
    for path in ("build/deep/one", "src/other.log", "logs/deep/one.log", "logs/deep/two.log", "new/b", "new/b.log"):
        repo.write(path, "y")
    for number in range(101):
        repo.write(f"src/data/{number}.npy", "z")
    repo.write("src/data/code.py", "z")
    snapshot = capture(repo.top)
    assert snapshot.ignored == ("build/", "logs/", "new/b.log", "src/data/*", "src/other.log")
    assert statuses(snapshot) == {"new/b": "A", "src/data/code.py": "A"}
    assert not snapshot.left_out


def test_the_files_of_the_root_that_are_ignored_stand_together_where_they_are_many(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {".gitignore": "*.npy\n"})
    for number in range(101):
        repo.write(f"{number}.npy", "z")
    assert capture(repo.top).ignored == ("*",)
    repo.write("sub/x.npy", "z")
    (repo.top / "0.npy").unlink()
    (repo.top / "1.npy").unlink()
    assert len(capture(repo.top).ignored) == 100


def test_edits_that_git_was_told_not_to_see_are_found(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"assumed": "x", "skipped": "y"})
    repo.git("update-index", "--assume-unchanged", "assumed")
    repo.git("update-index", "--skip-worktree", "skipped")
    repo.write("assumed", "X")
    repo.write("skipped", "Y")
    assert repo.git("status", "--short") == ""
    assert statuses(capture(repo.top)) == {"assumed": "M", "skipped": "M"}


def test_an_edit_of_the_same_size_and_time_stamp_is_found(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "one"})
    repo.git("status")
    before = (repo.top / "a").stat()
    repo.write("a", "two")
    os.utime(repo.top / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert statuses(capture(repo.top)) == {"a": "M"}


@pytest.mark.parametrize("cone", ["--cone", "--no-cone"])
def test_what_a_sparse_checkout_leaves_out_is_as_in_the_base_commit(tmp_path: Path, cone: str) -> None:
    repo = make_repo(tmp_path, {"in/a": "x", "out/b": "y", "out/c": "z"})
    repo.git("sparse-checkout", "set", cone, "in")
    assert not (repo.top / "out" / "b").exists()
    assert not capture(repo.top).is_dirty
    repo.write("in/a", "edited")
    assert statuses(capture(repo.top)) == {"in/a": "M"}


def test_without_file_mode_the_executable_bit_is_that_of_the_base_commit(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"plain": "x"})
    repo.write("tool", "y", executable=True)
    repo.commit()
    repo.git("config", "core.fileMode", "false")
    repo.write("plain", "x", executable=True)
    repo.write("tool", "y")
    assert not capture(repo.top).is_dirty
    repo.write("tool", "edited")
    snapshot = capture(repo.top)
    assert statuses(snapshot) == {"tool": "M"}
    assert b"old mode" not in snapshot.patch


def test_files_behind_a_symlinked_folder_are_gone(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"data/a": "x", "data/b": "y"})
    (repo.top / "data").rename(tmp_path / "elsewhere")
    repo.link("data", "../elsewhere")
    assert statuses(capture(repo.top)) == {"data": "A", "data/a": "D", "data/b": "D"}


# What stays out, and is named


def test_what_git_cannot_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path, {"was_file": "x"})
    (repo.top / "was_file").unlink()
    os.mkfifo(repo.top / "was_file")
    monkeypatch.chdir(repo.top)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        snapshot = capture(repo.top)
    assert reasons(snapshot) == {"was_file": "is a FIFO", "sock": "is a socket"}
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")
    assert snapshot.is_dirty


def test_fifos_are_named_wherever_git_would_list_a_file(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"src/a": "x", ".gitignore": "*.ignored\nbuild/\n!kept.ignored\n"})
    repo.write("untracked/b", "y")
    repo.write("logs/c.ignored", "z")
    named = ["top", "src/one", "untracked/two", "only/deep/three", "logs/four", ":(top)five", "kept.ignored"]
    for name in [*named, "six.ignored", "build/seven", "logs/x.ignored/eight", ".git/nine"]:
        (repo.top / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(repo.top / name)
    make_repo(repo.top / "nested")
    os.mkfifo(repo.top / "nested" / "ten")
    snapshot = capture(repo.top, exclude=[repo.top / "excluded"])
    assert reasons(snapshot) == dict.fromkeys(named, "is a FIFO")
    (nested,) = snapshot.nested
    assert reasons(nested.snapshot) == {"ten": "is a FIFO"}


@pytest.mark.parametrize("name", [".GIT/config", "a/.Git", ".git /x", "git~1", "..git", ".gitmodules", "-x", "a/.gitx"])
def test_names_that_git_refuses_are_named_and_others_captured(tmp_path: Path, name: str) -> None:
    repo = make_repo(tmp_path, {"a.py": "x"})
    repo.write(name, "y")
    repo.write("other", "z")
    found = {**statuses(capture(repo.top)), **reasons(capture(repo.top))}
    refused = name.lower() in {".git/config", "a/.git"}
    assert found == {"other": "A", name: "has a name that git cannot hold" if refused else "A"}


def test_a_symlink_that_git_refuses_is_named(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a.py": "x"})
    repo.link("d/.gitmodules", "a.py")
    assert reasons(capture(repo.top)) == {"d/.gitmodules": "has a name that git cannot hold"}


def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x", "closed/b": "y"})
    repo.write("locked").chmod(0)
    if os.access(repo.top / "locked", os.R_OK):
        pytest.skip("root reads everything")
    repo.write("hidden/c")
    (repo.top / "hidden").chmod(0)
    (repo.top / "closed").chmod(0)
    try:
        found = reasons(capture(repo.top))
    finally:
        (repo.top / "hidden").chmod(0o755)
        (repo.top / "closed").chmod(0o755)
    assert found == {
        "locked": "cannot be read: Permission denied",
        "hidden": "is a folder that cannot be listed",
        "closed": "is a folder that cannot be listed",
        "closed/b": "cannot be read: Permission denied",
    }


@pytest.mark.parametrize(
    ("size", "limit", "text"),
    [
        (2_000_000, 1 << 20, "has 1.91 MiB, and no more than 1 MiB are captured"),
        ((100 << 20) + 1, 100 << 20, "has 100.01 MiB, and no more than 100 MiB are captured"),
        (3 << 30, 3 << 29, "has 3 GiB, and no more than 1.5 GiB are captured"),
        (1001, 1000, "has 1001 bytes, and no more than 1000 bytes are captured"),
    ],
)
def test_a_size_over_the_budget_is_told_as_it_is(size: int, limit: int, text: str) -> None:
    assert _worktree.too_large(size, limit) == text


def test_what_is_too_large_is_named_with_its_hash(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"grown": "x", "kept": b"k" * 2000})
    repo.write("grown", b"g" * 1001)
    repo.write("new", b"n" * 1001)
    for name, size in {"one": 700, "two": 600, "three": 500}.items():
        repo.write(name, b"x" * size)
    snapshot = capture(repo.top, settings=Settings(largest_file=1000, largest_snapshot=1500))
    assert statuses(snapshot) == {"two": "A", "three": "A"}
    assert set(reasons(snapshot)) == {"grown", "new", "one"}
    assert reasons(snapshot)["one"] == "has 700 bytes, and no more than 1500 bytes are captured in all changes together"
    for left in snapshot.left_out:
        data = (repo.top / left.path).read_bytes()
        assert (left.sha256, left.size) == (hashlib.sha256(data).hexdigest(), len(data))


def test_a_file_of_exactly_the_budget_is_captured(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.write("a", b"y" * 1000)
    repo.write("b", b"y" * 1000)
    settings = Settings(largest_file=1000, largest_snapshot=2000, most_files=1)
    assert statuses(capture(repo.top, settings=settings)) == {"a": "M", "b": "A"}


def test_the_budget_of_the_repository_itself_holds_without_settings(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"pyproject.toml": '[tool.researchlab]\nlargest-file = "1 KiB"\n'})
    repo.write("new", b"n" * 1025)
    assert set(reasons(capture(repo.top))) == {"new"}


def numbered(folder: str, number: int) -> list[str]:
    return [f"{folder}/{index}" for index in range(number)]


@pytest.mark.parametrize(
    ("untracked", "most", "named"),
    [
        (["train.py", *numbered("data/frames", 30), "data/labels"], 30, {"data/frames/": 30}),
        (["train.py", *(name for part in range(10) for name in numbered(f"data/{part}", 3))], 5, {"data/": 30}),
        ([*numbered("one", 8), *numbered("two", 9), *numbered("three", 7)], 8, {"one/": 8, "two/": 9}),
        ([*numbered("here/deep", 5), *numbered("here", 6)], 5, {"here/": 6}),
        (["1", "2", "3", "sub/4"], 1, {"./": 3}),
        (["train.py", "sub/x"], 2, {}),
    ],
)
def test_beyond_a_number_of_untracked_files_the_heaviest_folders_are_left_out(
    untracked: list[str], most: int, named: dict[str, int], tmp_path: Path
) -> None:
    repo = make_repo(tmp_path, {f"tracked/{index}": "x" for index in range(40)})
    for index in range(40):
        repo.write(f"tracked/{index}", "edited")
    for name in untracked:
        repo.write(name, "y")
    snapshot = capture(repo.top, settings=Settings(most_files=most))
    captured = [path for path, status in statuses(snapshot).items() if status == "A"]
    assert len(captured) == len(untracked) - sum(named.values()) <= most
    assert len(snapshot.changed) - len(captured) == 40
    assert reasons(snapshot) == {
        folder: f"holds {number} untracked files, and no more than {most} are captured"
        for folder, number in named.items()
    }


def test_changes_that_are_not_kept_in_memory_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    for number in range(5):
        repo.write(f"new{number}", f"{number}" * 10, executable=bool(number % 2))
        repo.link(f"link{number}", f"{number}" * 10)
    expected = capture(repo.top)
    monkeypatch.setattr(_nested, "KEPT_IN_MEMORY", 25)
    assert capture(repo.top) == expected


def test_secrets_stay_out_and_are_named(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"conf/.env": "KEY=", "a.py": "x"})
    key = "-----BEGIN RSA PRIVATE " + "KEY-----\n" + "MIIEpAIBAAKCAQEAx7Kq" * 20 + "\n"
    secrets = {"conf/.env": "KEY=1", ".env.local": "KEY=1", "id_ed25519": "k", "new.pem": key}
    secrets["account.json"] = '{"type": "service_account", "private_key": "' + key + '"}'
    for name, content in secrets.items():
        repo.write(name, content)
    for name in (".env.example", "environment.py", "id_rsa.pub", "env"):
        repo.write(name, "x")
    repo.write("about_keys.py", f"HEADER = {key.splitlines()[0]!r}")
    snapshot = capture(repo.top)
    assert reasons(snapshot).keys() == secrets.keys()
    assert all(reason.startswith("looks like a secret") for reason in reasons(snapshot).values())
    assert set(statuses(snapshot)) == {".env.example", "environment.py", "id_rsa.pub", "env", "about_keys.py"}
    assert b"KEY=1" not in snapshot.patch
    allowed = capture(repo.top, settings=Settings(allow_secrets=("conf/*",)))
    assert set(statuses(allowed)) - set(statuses(snapshot)) == {"conf/.env"}


def test_excluded_paths_are_as_in_the_base_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path / "repo", {"mlflow.db": "tracked", "a": "x"})
    repo.write("mlflow.db", "edited")
    repo.write("mlartifacts/0/run/model", "y")
    repo.write("mlartifacts2", "z")
    (tmp_path / "alias").symlink_to(repo.top)
    monkeypatch.chdir(repo.top)
    snapshot = capture(
        exclude=[Path("mlflow.db"), tmp_path / "alias" / "mlartifacts", repo.top / "mlruns", Path("/etc")]
    )
    assert statuses(snapshot) == {"mlartifacts2": "A"}
    assert reasons(snapshot) == dict.fromkeys(("mlartifacts", "mlflow.db"), "excluded by the caller")
    (repo.top / "mlartifacts2").unlink()
    assert not capture(exclude=[Path("mlflow.db"), Path("mlartifacts")]).is_dirty


@pytest.mark.parametrize("size", [10, _worktree.IN_MEMORY + 1])
def test_a_file_that_is_written_all_the_time_is_named(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    log = repo.write("train.log", b"x" * size)
    real = os.read

    def read_while_it_grows(descriptor: int, length: int) -> bytes:
        with log.open("ab") as file:
            file.write(b"y")
        return real(descriptor, length)

    monkeypatch.setattr(_worktree.os, "read", read_while_it_grows)
    files = _worktree.WorkTree(repo.top, "sha1")
    with pytest.raises(_worktree.Changing):
        files.read(b"train.log")


def test_a_file_that_is_written_once_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.write("late", "before")
    real, pending = os.read, ["after it"]

    def read_and_then_write(descriptor: int, length: int) -> bytes:
        data = real(descriptor, length)
        if data == b"before" and pending:
            repo.write("late", pending.pop())
        return data

    monkeypatch.setattr(_worktree.os, "read", read_and_then_write)
    content = _worktree.WorkTree(repo.top, "sha1").read(b"late")
    assert content.data == b"after it"
    assert content.oid == repo.git("hash-object", "late")


@pytest.mark.parametrize(("times", "named"), [(1, {}), (100, {"big": "was written while it was read"})])
def test_a_large_file_that_changes_between_hash_and_copy_is_read_again_and_then_named(
    times: int, named: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.write("big", b"x" * (_worktree.IN_MEMORY + 1))
    repo.write("a", "edited")
    real, letters = _worktree.WorkTree.chunks, iter(range(times))

    def late(self: _worktree.WorkTree, path: bytes, content: _worktree.Content) -> object:
        for letter in [next(letters, None)]:
            if letter is not None:
                repo.write("big", bytes([letter]) * (_worktree.IN_MEMORY + 1))
        return real(self, path, content)

    monkeypatch.setattr(_worktree.WorkTree, "chunks", late)
    snapshot = capture(repo.top)
    assert reasons(snapshot) == named
    assert statuses(snapshot) == {"a": "M"} | ({} if named else {"big": "A"})


@pytest.mark.parametrize("base", ["file", "folder", "neither"])
@pytest.mark.parametrize("times", [1, 100])
def test_a_folder_that_becomes_a_file_while_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, times: int
) -> None:
    repo = make_repo(tmp_path, {"a": "x", **{"file": {"d": "1"}, "folder": {"d/x": "1"}, "neither": {}}[base]})
    repo.write("a", "edited")
    left = iter(range(times))

    def find_both(survey: _survey.Survey, **without: Iterable[bytes]) -> None:
        real(survey, **without)
        if next(left, None) is not None:
            for path in (b"d", b"d/x"):
                survey.changes[path] = _worktree.Content(b"100644", repo_id, 1, b"2")

    repo_id, real = git_id(repo, "2"), _survey.Survey.read
    monkeypatch.setattr(_survey.Survey, "read", find_both)
    snapshot = capture(repo.top)
    if times == 1:
        assert snapshot == capture(repo.top)
        assert b"d/x" not in snapshot.entries or base == "folder"
    else:
        assert reasons(snapshot) == {("d/x" if base == "file" else "d"): "was written while it was read"}
        assert {"a", "d" if base == "file" else "d/x"} == set(statuses(snapshot))


@pytest.mark.parametrize("size", [2 << 20, 10])
def test_a_scratch_folder_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.write("new", b"x" * size)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_git.PackWriter, "_write", full)
    with pytest.raises(SnapshotError, match=r"No space left on device.*TMPDIR"):
        capture(repo.top)


def test_files_beside_others_of_the_same_letters_are_found(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"text": "x", "folder/b": "y", ".gitignore": "*.log\n"})
    repo.git("config", "core.ignoreCase", "true")
    for name in ("TEXT", "FOLDER/b", "X.LOG"):
        repo.write(name, "z")
    assert statuses(capture(repo.top)) == dict.fromkeys(("TEXT", "FOLDER/b", "X.LOG"), "A")


def test_a_folder_at_a_longer_path_than_the_system_takes_is_named(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"text": "x", ".gitignore": "/ignored\n"})
    for name in ("deep", "ignored"):
        here = os.open(repo.top, os.O_RDONLY)
        for part in [name, *["d" * 200] * 25]:
            os.mkdir(part, dir_fd=here)
            inside = os.open(part, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inside
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)
    snapshot = capture(repo.top)
    [(path, reason)] = reasons(snapshot).items()
    assert (path[:9], reason) == ("deep/dddd", "is a folder that cannot be listed")
    assert snapshot.ignored == ("ignored/",)
    assert snapshot.is_dirty


def test_a_listing_that_waits_for_a_fifo_is_ended_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path / "repo", {"text": "x"})
    (repo.top / "new" / "deep").mkdir(parents=True)
    os.mkfifo(repo.top / "new" / "deep" / ".gitignore")
    monkeypatch.setattr(_reader, "_PATIENCE", 0.2)
    with pytest.raises(SnapshotError, match=r"new/deep/\.gitignore is a FIFO.*rm "):
        capture(repo.top)


def test_a_listing_that_takes_its_time_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path / "repo", {"text": "x"})
    repo.write("new", "y")
    monkeypatch.setattr(_reader, "_PATIENCE", 0.0)
    assert statuses(capture(repo.top)) == {"new": "A"}


# Nothing is touched


def messy(folder: Path) -> Repo:
    repo = make_repo(folder, {"a": "x", "b/c": "y", "gone": "z"})
    repo.write("a", "staged")
    repo.git("add", "a")
    repo.write("a", "staged and edited")
    repo.write("new", b"\0binary")
    repo.write("intended", "later")
    repo.git("add", "--intent-to-add", "intended")
    (repo.top / "gone").unlink()
    return repo


def test_capture_changes_no_byte_and_no_time_stamp(tmp_path: Path) -> None:
    repo = messy(tmp_path)
    os.utime(repo.top / "b" / "c", (1, 1))  # a stale stat cache, which git would like to refresh
    before = footprint(repo.top)
    capture(repo.top)
    assert footprint(repo.top) == before


def hold_the_index(repo: Repo) -> None:
    (repo.top / ".git" / "index.lock").touch()


def split_the_index(repo: Repo) -> None:
    repo.git("update-index", "--split-index")


def let_a_hook_say_that_nothing_changed(repo: Repo) -> None:
    hook = repo.write(".git/lying-hook", "#!/bin/sh\ntouch hook-has-run\nprintf 'token\\0'\n", executable=True)
    repo.git("config", "core.fsmonitor", hook)
    repo.git("config", "core.fsmonitorHookVersion", "2")
    repo.git("update-index", "--fsmonitor")
    (repo.top / "hook-has-run").unlink(missing_ok=True)


def ask_for_a_daemon(repo: Repo) -> None:
    repo.git("config", "core.fsmonitor", "true")


def cache_what_is_untracked(repo: Repo) -> None:
    repo.git("config", "core.untrackedCache", "true")
    repo.git("update-index", "--force-untracked-cache")
    repo.git("status")


def assume_that_nothing_changes(repo: Repo) -> None:
    repo.git("update-index", "--assume-unchanged", "a", "gone")


def skip_the_work_tree(repo: Repo) -> None:
    repo.git("update-index", "--skip-worktree", "a")


def replace_the_commit(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD")
    other = repo.git("commit-tree", "-m", "other", EMPTY)
    repo.git("replace", head, other)


def graft(repo: Repo) -> None:
    repo.write(
        ".git/info/grafts", repo.git("rev-parse", "HEAD") + " " + repo.git("commit-tree", "-m", "o", EMPTY) + "\n"
    )


def convert_line_endings(repo: Repo) -> None:
    repo.git("config", "core.autocrlf", "true")
    repo.git("config", "core.eol", "crlf")
    repo.write(".git/info/attributes", "* text=auto ident filter=x diff=x\n")
    repo.git("config", "filter.x.required", "true")
    repo.git("config", "filter.x.clean", "touch filter-has-run; false")
    repo.git("config", "diff.x.textconv", "touch filter-has-run; false")


def print_diffs_another_way(repo: Repo) -> None:
    for key, value in {
        "diff.noprefix": "true",
        "diff.external": "false",
        "diff.context": "0",
        "diff.algorithm": "patience",
        "color.ui": "always",
        "apply.whitespace": "error-all",
        "core.quotePath": "true",
        "core.bigFileThreshold": "1",
        "core.hooksPath": str(repo.top),
        "status.showUntrackedFiles": "no",
    }.items():
        repo.git("config", key, value)


EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@pytest.mark.parametrize(
    "make_hostile",
    [
        hold_the_index,
        split_the_index,
        let_a_hook_say_that_nothing_changed,
        ask_for_a_daemon,
        cache_what_is_untracked,
        assume_that_nothing_changes,
        skip_the_work_tree,
        replace_the_commit,
        graft,
        convert_line_endings,
        print_diffs_another_way,
    ],
)
def test_no_setting_changes_what_is_captured_and_nothing_is_touched(
    make_hostile: Callable[[Repo], None], tmp_path: Path
) -> None:
    repo = messy(tmp_path)
    repo.git("hash-object", "-w", "a", "new")  # objects that git would renew if it made them again
    expected = capture(repo.top)
    make_hostile(repo)
    before = footprint(repo.top)
    assert capture(repo.top) == replace(expected, repository=find_repository(repo.top))
    assert footprint(repo.top) == before
    assert not (repo.top / "hook-has-run").exists()
    assert not (repo.top / "filter-has-run").exists()


@pytest.mark.parametrize("how", [["--depth=1"], ["--filter=blob:none"], ["--filter=tree:0"], ["--shared"]])
@pytest.mark.parametrize("sparse", [False, True])
def test_clones_that_lack_objects_are_captured_and_stay_without_them(
    tmp_path: Path, how: list[str], *, sparse: bool
) -> None:
    origin = make_repo(tmp_path / "origin", {"in/a": "x\n", "out/b": "y\n", "out/sub/c": "z\n", "d": "1\n"})
    origin.write("d", "2\n")
    origin.commit()
    origin.git("config", "uploadpack.allowFilter", "true")
    origin.git("config", "uploadpack.allowAnySHA1InWant", "true")
    url = f"file://{origin.top}" if how != ["--shared"] else str(origin.top)
    origin.git("clone", "--quiet", *how, *(["--sparse"] if sparse else []), url, tmp_path / "clone")
    repo = Repo(tmp_path / "clone")
    if sparse:
        repo.git("sparse-checkout", "set", "--cone", "--sparse-index", "in")
        repo.write("out/b", "edited\n")  # its base blob is not there in a partial clone
    repo.write("in/a", "edited\n")
    repo.write("new", "n\n")
    (repo.top / "d").unlink()
    before = footprint(repo.top)
    snapshot = capture(repo.top)
    assert footprint(repo.top) == before
    assert statuses(snapshot) == {"in/a": "M", "new": "A", "d": "D"} | ({"out/b": "M"} if sparse else {})
    assert snapshot.left_out == ()
    origin.write("in/a", "edited\n")
    origin.write("new", "n\n")
    origin.git("rm", "--quiet", "d")
    if sparse:
        origin.write("out/b", "edited\n")
    origin.commit()
    assert snapshot.tree == origin.git("rev-parse", "HEAD^{tree}")


def test_what_a_partial_clone_cannot_get_is_named(tmp_path: Path) -> None:
    origin = make_repo(tmp_path / "origin", {"in/a": "x\n", "out/b": "y\n"})
    origin.git("config", "uploadpack.allowFilter", "true")
    origin.git("clone", "--quiet", "--filter=blob:none", "--sparse", f"file://{origin.top}", tmp_path / "clone")
    repo = Repo(tmp_path / "clone")
    repo.git("sparse-checkout", "set", "--cone", "in")
    origin.top.rename(tmp_path / "elsewhere")
    repo.write("out/b", "edited\n")
    repo.write("in/a", "edited\n")
    before = footprint(repo.top)
    snapshot = capture(repo.top)
    assert footprint(repo.top) == before
    assert statuses(snapshot) == {"in/a": "M"}
    assert "partial clone" in reasons(snapshot)["out/b"]


def test_ten_captures_at_once_agree(tmp_path: Path) -> None:
    repo = messy(tmp_path)
    before = footprint(repo.top)
    with ThreadPoolExecutor(10) as pool:
        snapshots = list(pool.map(capture, [repo.top] * 10))
    assert all(snapshot == snapshots[0] for snapshot in snapshots)
    assert footprint(repo.top) == before


def test_variables_of_a_git_hook_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo, other = messy(tmp_path / "repo"), make_repo(tmp_path / "other", {"b": "y"})
    expected = capture(repo.top)
    before = footprint(other.top)
    for name, value in {
        "GIT_DIR": other.top / ".git",
        "GIT_WORK_TREE": other.top,
        "GIT_INDEX_FILE": other.top / ".git" / "index",
        "GIT_OBJECT_DIRECTORY": other.top / ".git" / "objects",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": other.top / ".git" / "objects",
        "GIT_EXTERNAL_DIFF": "false",
        "GIT_DIFF_OPTS": "-u0",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_TRACE": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.worktree",
        "GIT_CONFIG_VALUE_0": other.top,
    }.items():
        monkeypatch.setenv(name, str(value))
    assert capture(repo.top) == expected
    assert footprint(other.top) == before


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = messy(tmp_path / "repo")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    capture(repo.top)
    assert contents(tmp_path / "scratch") == {}


# Bad input


def test_outside_of_a_repository_capture_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotARepositoryError):
        capture(tmp_path)


def test_a_repository_that_lost_its_base_tree_is_refused(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a/b": "x"})
    tree = repo.git("rev-parse", "HEAD:a")
    (repo.top / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(SnapshotError, match=rf"could not be captured(.|\n)*{tree}"):
        capture(repo.top)


def test_a_repository_that_lost_a_blob_of_an_edited_file_is_refused(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    blob = repo.git("rev-parse", "HEAD:a")
    (repo.top / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    repo.write("a", "edited")
    with pytest.raises(SnapshotError, match=rf"could not be built(.|\n)*{blob}"):
        capture(repo.top)


def test_no_file_stays_open(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("counts open files through /proc")
    repo = messy(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        capture(repo.top)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Git LFS


def pointer_to(data: bytes, *, extra: str = "") -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\n{extra}oid sha256:{digest}\nsize {len(data)}\n"


def with_pointers(folder: Path, **files: str) -> Repo:
    return make_repo(folder, {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", **files})


def test_a_file_that_its_pointer_names_stays_a_pointer(tmp_path: Path) -> None:
    small, large = b"\0weights", b"\1" * (_worktree.IN_MEMORY + 1)
    repo = with_pointers(tmp_path, small=pointer_to(small), large=pointer_to(large), unfetched=pointer_to(b"x"))
    repo.git("config", "filter.lfs.required", "true")
    repo.git("config", "filter.lfs.clean", "false")
    repo.write("small", small)
    repo.write("large", large)
    snapshot = capture(repo.top, settings=Settings(largest_file=10))
    assert (snapshot.pointers, snapshot.is_dirty) == (("large", "small"), False)
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")
    assert snapshot.left_out == ()


def test_a_file_that_differs_from_its_pointer_is_captured_raw(tmp_path: Path) -> None:
    data = b"\0weights"
    repo = with_pointers(
        tmp_path, edited=pointer_to(data), longer=pointer_to(data), chained=pointer_to(data, extra="ext-0-x sha256:0\n")
    )
    repo.write("edited", b"\0weighty")
    repo.write("longer", data + b"!")
    repo.write("chained", data)
    snapshot = capture(repo.top)
    assert statuses(snapshot) == dict.fromkeys(("edited", "longer", "chained"), "M")
    assert snapshot.pointers == ()


def test_a_pointer_takes_the_executable_bit_of_its_file(tmp_path: Path) -> None:
    repo = with_pointers(tmp_path, tool=pointer_to(b"\0elf"))
    base = capture(repo.top).entries[b"tool"]
    repo.write("tool", b"\0elf", executable=True)
    snapshot = capture(repo.top)
    assert snapshot.pointers == ("tool",)
    assert statuses(snapshot) == {"tool": "M"}
    assert snapshot.entries[b"tool"] == (b"100755", base[1])


# The patch is applied before anything relies on it


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(b"+edited", b"+edlted"), (b"new file mode 100644", b"new file mode 100755"), (b"+++ b/new", b"+++ b/neu")],
)
def test_a_patch_that_does_not_give_the_tree_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bytes, wrong: bytes
) -> None:
    repo = make_repo(tmp_path, {"a": "x\n"})
    repo.write("a", "edited\n")
    repo.write("new", "y\n")
    real = _patch._appliable

    def broken(patch: bytes, paths: object) -> bytes:
        made = real(patch, ())
        assert right in made
        return made.replace(right, wrong)

    monkeypatch.setattr(_patch, "_appliable", broken)
    with pytest.raises(SnapshotError, match=rf"{tmp_path}") as refusal:
        capture(repo.top)
    if b"+++" not in right:
        tree = _git.make_trees(
            {b"a": (b"100644", git_hash(repo, "a")), b"new": (b"100644", git_hash(repo, "new"))}, "sha1"
        )
        assert tree.root in str(refusal.value)
        assert "report it" in str(refusal.value)


def git_hash(repo: Repo, name: str) -> str:
    return repo.git("hash-object", name)


def test_a_patch_that_leaves_something_out_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path, {"a": "x\n"})
    repo.write("a", "edited\n")
    repo.write("b", "y\n")
    monkeypatch.setattr(_patch, "_appliable", lambda patch, _: patch[: patch.index(b"diff --git a/b")])
    with pytest.raises(SnapshotError, match="report it"):
        capture(repo.top)


def test_the_trees_made_here_are_those_that_git_makes(tmp_path: Path) -> None:
    names = [
        "a",
        "a.b",
        "a-b",
        "a0",
        "dir/x",
        "dir.x",
        "dir-x",
        "dir0/y/z/w",
        "dir/sub/deep",
        "d/ü",
        "d/\udcff",
        "z" * 5000,
    ]
    for object_format in ("sha1", "sha256"):
        repo = make_repo(tmp_path / object_format, object_format=object_format)
        listing = "".join(f"100644 {git_id(repo, name)}\t{name}\0" for name in names)
        subprocess.run(
            ["git", "update-index", "-z", "--index-info"], input=os.fsencode(listing), cwd=repo.top, check=True
        )
        tree = repo.git("write-tree")
        entries = _git.list_tree(tree, git_dir=repo.top / ".git")
        assert len(entries) == len(names)
        assert _git.make_trees(entries, object_format).root == tree
        (repo.top / ".git" / "index").write_bytes(_git.make_index(entries, object_format))
        assert repo.git("write-tree") == tree


def git_id(repo: Repo, content: str) -> str:
    done = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"],
        input=os.fsencode(content),
        cwd=repo.top,
        check=True,
        capture_output=True,
    )
    return done.stdout.decode().strip()


def test_modes_of_long_ago_are_no_changes_and_the_tree_is_what_a_restore_makes(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"old/a": "x", "old/b": "x", "kept/c": "x"})
    root = raw(repo, "HEAD^{tree}")
    for folder in (b"old", b"kept"):
        old = bytes.fromhex(repo.git("rev-parse", b"HEAD:" + folder))
        root = root.replace(
            old, bytes.fromhex(store_tree(repo, raw(repo, b"HEAD:" + folder).replace(b"100644 ", b"100664 ")))
        )
    repo.git("update-ref", "HEAD", repo.git("commit-tree", "-m", "old", store_tree(repo, root)))
    assert b"100664" in raw(repo, "HEAD:old")
    assert not capture(repo.top).is_dirty
    repo.write("old/a", "edited")
    snapshot = capture(repo.top)
    assert statuses(snapshot) == {"old/a": "M"}
    restore.restore(
        tmp_path / "again",
        base_commit=snapshot.base_commit,
        tree=snapshot.tree,
        patch=snapshot.patch,
        source=repo.top,
    )
    assert contents(tmp_path / "again") == contents(repo.top)


def raw(repo: Repo, tree: str | bytes) -> bytes:
    return subprocess.run(["git", "cat-file", "tree", tree], cwd=repo.top, check=True, capture_output=True).stdout


def store_tree(repo: Repo, data: bytes) -> str:
    words = ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"]
    return subprocess.run(words, input=data, cwd=repo.top, check=True, capture_output=True).stdout.decode().strip()
