"""The base commit is found wherever it still is, and the user's repositories are not touched by the search."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from helpers.repos import Repo, contents, footprint, isolated_git, make_repo

from researchlab.errors import RestoreError
from researchlab.tracking import _git
from researchlab.tracking._restoring import _fetching
from researchlab.tracking._restoring._bundle import write_bundle, write_pack
from researchlab.tracking.restore import restore, tree_of
from researchlab.tracking.snapshot import Snapshot, capture

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures(isolated_git.__name__)


def history(top: Path, *, object_format: str = "sha1") -> Repo:
    """A repository with three commits; ``changing`` is another file in each."""
    repo = make_repo(top, {"text": "one\n", "same": "s\n", "folder/changing": "0\n"}, object_format=object_format)
    for number in (1, 2):
        repo.write("folder/changing", f"{number}\n" * 50)
        repo.commit(f"number {number}")
    return repo


def edited(repo: Repo) -> Snapshot:
    repo.write("text", "edited\n")
    repo.write("new", b"\0\1")
    return capture(repo.top)


def given(snapshot: Snapshot, **changes: Any) -> dict[str, Any]:
    return {
        "base_commit": snapshot.base_commit,
        "tree": snapshot.tree,
        "patch": snapshot.patch,
        "object_format": snapshot.repository.object_format,
        "remotes": snapshot.repository.remotes,
        "source": None,
        **changes,
    }


def bundle_of(repo: Repo, to: Path) -> Path:
    assert write_bundle(_git.find_repository(repo.top), to, limit=1 << 20)
    return to


def unchanged(top: Path) -> dict[str, bytes]:
    """All bytes, without time stamps: git renews those of the objects that it uses."""
    return {path: data for path, (_, _, data) in footprint(top).items()}


def log(top: Path) -> list[str]:
    repo = Repo(top)
    repo.git("fsck", "--connectivity-only")
    return repo.git("log", "--format=%s").splitlines()


def test_after_a_rebase_and_gc_the_bundle_brings_the_commit_back(tmp_path: Path) -> None:
    repo = history(tmp_path / "repo")
    bundle = bundle_of(repo, tmp_path / "bundle")
    snapshot = edited(repo)
    files = contents(repo.top)
    repo.git("checkout", "--quiet", "--force", "HEAD~1")
    repo.git("branch", "--quiet", "--force", "main", "HEAD")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    before = unchanged(repo.top)
    with pytest.raises(RestoreError, match="it is not there"):
        restore(tmp_path / "no", **given(snapshot, source=repo.top))
    top = restore(tmp_path / "into", **given(snapshot, source=repo.top, bundle=bundle))
    assert contents(top) == files
    assert log(top) == ["number 2", "number 1", "c"]
    assert unchanged(repo.top) == before


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_bundle_without_any_repository_needs_no_remote_where_there_was_none(
    tmp_path: Path, object_format: str
) -> None:
    repo = history(tmp_path / "repo", object_format=object_format)
    bundle = bundle_of(repo, tmp_path / "bundle")
    snapshot, files = edited(repo), contents(repo.top)
    shutil.rmtree(repo.top)
    top = restore(tmp_path / "into", **given(snapshot, bundle=bundle))
    assert contents(top) == files
    assert log(top) == ["number 2", "number 1", "c"]


def test_what_a_bundle_builds_on_is_fetched_where_no_repository_is_left(tmp_path: Path) -> None:
    origin = history(tmp_path / "origin")
    origin.git("clone", "--quiet", f"file://{origin.top}", tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    clone.write("folder/changing", "1\n" * 50)  # as it was once: the blob is on the remote, and not in its HEAD
    clone.write("text", "mine\n")
    clone.commit("never pushed")
    bundle = bundle_of(clone, tmp_path / "bundle")
    snapshot, files = edited(clone), contents(clone.top)
    shutil.rmtree(clone.top)
    before = unchanged(origin.top)
    top = restore(tmp_path / "into", **given(snapshot, bundle=bundle))
    assert contents(top) == files
    assert log(top) == ["never pushed", "number 2", "number 1", "c"]
    assert unchanged(origin.top) == before
    # Once the remote is gone as well, that is said.
    origin.top.rename(tmp_path / "moved")
    with pytest.raises(RestoreError, match=r"bundle: (.|\n)*the remote origin \(file://"):
        restore(tmp_path / "no", **given(snapshot, bundle=bundle))


@pytest.mark.parametrize("server", ["new", "old"])
def test_a_pushed_commit_is_fetched_where_no_repository_is_left(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = history(tmp_path / "origin")
    origin.git("clone", "--quiet", f"file://{origin.top}", tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    clone.git("checkout", "--quiet", "HEAD~1")
    snapshot, files = edited(clone), contents(clone.top)
    shutil.rmtree(clone.top)
    if server == "old":  # it gives out only what its branches lead to
        monkeypatch.setattr(_fetching, "_OPTIONS", ("-c", "protocol.version=0"))
    top = restore(tmp_path / "into", **given(snapshot))
    assert contents(top) == files
    assert log(top) == ["number 1", "c"]
    assert Repo(top).git("for-each-ref") == ""


def test_after_a_force_push_the_clone_that_fetched_has_it_no_more_and_the_bundle_has(tmp_path: Path) -> None:
    origin = history(tmp_path / "origin")
    origin.git("clone", "--quiet", "--bare", ".", tmp_path / "remote.git")
    origin.git("clone", "--quiet", tmp_path / "remote.git", tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    clone.write("text", "mine\n")
    clone.commit("mine")
    bundle = bundle_of(clone, tmp_path / "bundle")
    snapshot, files = edited(clone), contents(clone.top)
    clone.git("push", "--quiet")
    origin.git("push", "--quiet", "--force", tmp_path / "remote.git", "HEAD:main")
    Repo(tmp_path / "remote.git").git("gc", "--quiet", "--prune=now")
    clone.git("checkout", "--quiet", "--force", "--detach", "HEAD~2")
    clone.git("branch", "--quiet", "-D", "main")
    clone.git("fetch", "--quiet")
    clone.git("reflog", "expire", "--expire=now", "--all")
    clone.git("gc", "--quiet", "--prune=now")
    top = restore(tmp_path / "into", **given(snapshot, source=clone.top, bundle=bundle))
    assert contents(top) == files
    assert log(top)[0] == "mine"


def test_a_repository_that_has_the_commit_in_part_is_not_trusted(tmp_path: Path) -> None:
    origin = history(tmp_path / "origin")
    origin.git("clone", "--quiet", f"file://{origin.top}", tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    snapshot, files = edited(clone), contents(clone.top)
    clone.git("checkout", "--quiet", "--force", "HEAD")
    pack = next((clone.top / ".git/objects/pack").glob("*.pack"), None)
    if pack is not None:  # as loose objects, of which one is lost
        for path in (clone.top / ".git/objects/pack").iterdir():
            path.rename(tmp_path / path.name)
        with (tmp_path / pack.name).open("rb") as file:
            _git.run_git(("unpack-objects", "-q"), git_dir=clone.top / ".git", stdin=file.read())
    blob = clone.git("rev-parse", "HEAD:folder/changing")
    loose = clone.top / ".git/objects" / blob[:2] / blob[2:]
    for damage in ("gone", "empty"):
        loose.unlink(missing_ok=True)
        if damage == "empty":
            loose.touch()
        top = restore(tmp_path / damage, **given(snapshot, source=clone.top))
        assert contents(top) == files
        assert log(top) == ["number 2", "number 1", "c"]
        clone.git("remote", "set-url", "origin", str(tmp_path / "gone.git"))
        with pytest.raises(RestoreError, match=r"it is not there whole: "):
            restore(tmp_path / "no", **given(snapshot, source=clone.top, remotes={}))
        clone.git("remote", "set-url", "origin", f"file://{origin.top}")


@pytest.mark.parametrize("depth", ["--depth=1", "--filter=blob:none", "--filter=tree:0"])
def test_an_incomplete_clone_gives_what_it_has_and_the_remote_the_rest(tmp_path: Path, depth: str) -> None:
    origin = history(tmp_path / "origin")
    origin.git("config", "uploadpack.allowFilter", "true")
    old = origin.git("rev-parse", "HEAD~2")
    origin.git("checkout", "--quiet", old)
    snapshot, files = edited(origin), contents(origin.top)
    origin.git("checkout", "--quiet", "--force", "main")
    origin.git("clone", "--quiet", depth, f"file://{origin.top}", tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    before = unchanged(clone.top)
    top = restore(tmp_path / "into", **given(snapshot, source=clone.top))
    assert contents(top) | {b"new": ("file", b"\0\1")} == files | {b"new": ("file", b"\0\1")}
    assert unchanged(clone.top) == before
    log(top)


def test_the_history_of_a_shallow_clone_ends_in_the_restored_tree_where_it_ends_there(tmp_path: Path) -> None:
    origin = history(tmp_path / "origin")
    origin.git("clone", "--quiet", "--depth=2", f"file://{origin.top}", tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    clone.write("text", "mine")
    clone.commit("mine")
    top = restore(tmp_path / "into", **given(edited(clone), source=clone.top))
    assert log(top) == ["mine", "number 2", "number 1"]
    bundle = bundle_of(clone, tmp_path / "bundle")
    snapshot = edited(clone)
    clone.git("remote", "remove", "origin")
    whole = bundle_of(clone, tmp_path / "whole")
    shutil.rmtree(clone.top)
    # The bundle of a shallow clone without a remote is enough, although what came before is nowhere.
    top = restore(tmp_path / "again", **given(snapshot, bundle=whole, remotes={}))
    assert log(top) == ["mine", "number 2", "number 1"]
    top = restore(tmp_path / "fetched", **given(snapshot, bundle=bundle))
    assert log(top)[-1] == "c"


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_pack_is_enough_and_the_history_ends_there(tmp_path: Path, object_format: str) -> None:
    repo = history(tmp_path / "repo", object_format=object_format)
    snapshot, files = edited(repo), contents(repo.top)
    assert snapshot.base_commit is not None
    write_pack(snapshot.repository, snapshot.base_commit, tmp_path / "pack")
    shutil.rmtree(repo.top)
    top = restore(tmp_path / "into", **given(snapshot, bundle=tmp_path / "pack"))
    assert contents(top) == files
    assert log(top) == ["number 2"]
    assert Repo(top).git("status", "--porcelain").splitlines() == ["M text", "?? new"]
    git_dir, tree = tree_of(
        snapshot.base_commit,
        snapshot.patch,
        source=None,
        scratch=tmp_path,
        object_format=snapshot.repository.object_format,
        bundle=tmp_path / "pack",
    )
    assert tree == snapshot.tree
    assert Repo(git_dir).git("show", f"{tree}:text") == "edited"


def test_a_damaged_bundle_is_named_and_the_search_goes_on(tmp_path: Path) -> None:
    repo = history(tmp_path / "repo")
    bundle = bundle_of(repo, tmp_path / "bundle")
    bundle.write_bytes(bundle.read_bytes()[:-30])
    snapshot, files = edited(repo), contents(repo.top)
    with pytest.raises(RestoreError, match=rf"{bundle}: cannot be unpacked"):
        restore(tmp_path / "no", **given(snapshot, bundle=bundle))
    assert not (tmp_path / "no").exists()
    remotes = {"gone": str(tmp_path / "gone"), "here": str(repo.top)}
    assert contents(restore(tmp_path / "into", **given(snapshot, bundle=bundle, remotes=remotes))) == files


def test_the_credentials_of_a_remote_are_used_and_never_shown(tmp_path: Path) -> None:
    repo = history(tmp_path / "repo")
    repo.git("remote", "add", "origin", "http://user:hunter2@127.0.0.1:9/x.git")
    snapshot = edited(repo)
    missing = given(snapshot, base_commit="0123456789" * 4, source=repo.top)
    with pytest.raises(RestoreError, match=r"the remote origin \(http://127.0.0.1:9/x.git\): ") as error:
        restore(tmp_path / "no", **missing)
    assert "hunter2" not in str(error.value)


def test_a_remote_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = history(tmp_path / "repo")
    slow = repo.write("slow", "#!/bin/sh\nsleep 30\n", executable=True)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(slow))
    monkeypatch.setattr(_fetching, "FETCH_TIMEOUT", 0.5)
    snapshot = edited(repo)
    with pytest.raises(RestoreError, match=r"the remote lab \(me@lab:x.git\): it did not answer within 0.5 s"):
        restore(tmp_path / "no", **given(snapshot, base_commit="0" * 40, remotes={"lab": "me@lab:x.git"}))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_repository_of_another_user_is_named_with_the_remedy_and_the_search_goes_on(tmp_path: Path) -> None:
    repo = history(tmp_path / "repo")
    bundle = bundle_of(repo, tmp_path / "bundle")
    snapshot, files = edited(repo), contents(repo.top)
    for path in (repo.top, repo.top / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(RestoreError, match=r"git config --global --add safe.directory"):
        restore(tmp_path / "no", **given(snapshot, source=repo.top))
    assert contents(restore(tmp_path / "into", **given(snapshot, source=repo.top, bundle=bundle))) == files
