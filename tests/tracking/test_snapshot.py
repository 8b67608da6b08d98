"""Capturing a work tree: what is in it, what is named, and that nothing is touched."""

from __future__ import annotations

import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.repos import Repo, contents, footprint, isolated_git, make_repo

from researchlab.errors import NotARepositoryError, SnapshotError
from researchlab.tracking import _worktree
from researchlab.tracking import snapshot as snapshot_module
from researchlab.tracking.snapshot import Change, Snapshot, capture

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
    # git does not list an untracked FIFO or socket at all.
    assert reasons(snapshot) == {"was_file": "is a FIFO"}
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")
    assert snapshot.is_dirty


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


def test_what_is_too_large_is_named_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "LARGEST_FILE", 1000)
    monkeypatch.setattr(snapshot_module, "LARGEST_SNAPSHOT", 1500)
    repo = make_repo(tmp_path, {"grown": "x", "kept": b"k" * 2000})
    repo.write("grown", b"x" * 1001)
    repo.write("new", b"x" * 1001)
    for name, size in {"one": 700, "two": 600, "three": 500}.items():
        repo.write(name, b"x" * size)
    snapshot = capture(repo.top)
    assert statuses(snapshot) == {"two": "A", "three": "A"}
    assert set(reasons(snapshot)) == {"grown", "new", "one"}
    assert reasons(snapshot)["one"] == "has 1 MiB, and no more than 0 MiB are captured in all changes together"


def test_changes_that_are_not_kept_in_memory_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    for number in range(5):
        repo.write(f"new{number}", f"{number}" * 10, executable=bool(number % 2))
        repo.link(f"link{number}", f"{number}" * 10)
    expected = capture(repo.top)
    monkeypatch.setattr(snapshot_module, "_KEPT_IN_MEMORY", 25)
    assert capture(repo.top) == expected


def test_secrets_stay_out_and_are_named(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"conf/.env": "KEY=", "a.py": "x"})
    key = "-----BEGIN RSA PRIVATE " + "KEY-----\nMII\n"
    secrets = {"conf/.env": "KEY=1", ".env.local": "KEY=1", "id_ed25519": "k", "new.pem": key}
    secrets["account.json"] = '{"type": "service_account", "private_key": "' + key + '"}'
    for name, content in secrets.items():
        repo.write(name, content)
    for name in (".env.example", "environment.py", "id_rsa.pub", "env"):
        repo.write(name, "x")
    repo.write("about_keys.py", f"KEY = {key!r}")
    snapshot = capture(repo.top)
    assert reasons(snapshot) == dict.fromkeys(secrets, "looks like a secret")
    assert set(statuses(snapshot)) == {".env.example", "environment.py", "id_rsa.pub", "env", "about_keys.py"}
    assert b"KEY=1" not in snapshot.patch


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


def test_a_nested_repository_is_named(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "x"})
    make_repo(repo.top / "nested", {"b": "y"})
    make_repo(repo.top / "fresh").write("c", "z")
    snapshot = capture(repo.top)
    assert set(reasons(snapshot)) == {"nested", "fresh"}
    assert snapshot.is_dirty


def with_submodule(folder: Path) -> tuple[Repo, Repo]:
    library = make_repo(folder / "library", {"a": "x"})
    repo = make_repo(folder / "repo", {"b": "y"})
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.top, "lib")
    return repo, Repo(repo.top / "lib")


def test_a_submodule_is_kept_and_named_where_it_differs(tmp_path: Path) -> None:
    repo, inner = with_submodule(tmp_path)
    assert "lib" in reasons(capture(repo.top))  # added and not yet committed
    repo.commit()
    assert not capture(repo.top).is_dirty
    inner.write("a", "edited")
    snapshot = capture(repo.top)
    assert "lib" in reasons(snapshot)
    assert snapshot.is_dirty
    assert snapshot.tree == repo.git("rev-parse", "HEAD^{tree}")
    inner.git("commit", "--quiet", "--all", "--message", "local")
    assert "lib" in reasons(capture(repo.top))


def test_a_submodule_that_is_not_checked_out_is_clean(tmp_path: Path) -> None:
    repo, _ = with_submodule(tmp_path)
    repo.commit()
    repo.git("submodule", "deinit", "--force", "lib")
    assert not capture(repo.top).is_dirty
    repo.write("lib/stray", "z")
    assert "lib" in reasons(capture(repo.top))


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


def test_a_large_file_that_changes_between_hash_and_copy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.write("big", b"x" * (_worktree.IN_MEMORY + 1))
    repo.write("a", "edited")
    real = _worktree.WorkTree.chunks

    def late(self: _worktree.WorkTree, path: bytes, content: _worktree.Content) -> object:
        repo.write("big", b"y" * (_worktree.IN_MEMORY + 1))
        return real(self, path, content)

    monkeypatch.setattr(_worktree.WorkTree, "chunks", late)
    snapshot = capture(repo.top)
    assert statuses(snapshot) == {"a": "M"}
    assert reasons(snapshot) == {"big": "was written while it was read"}


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


def test_a_held_index_lock_is_no_obstacle(tmp_path: Path) -> None:
    repo = messy(tmp_path)
    expected = capture(repo.top)
    (repo.top / ".git" / "index.lock").touch()
    assert capture(repo.top) == expected


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
