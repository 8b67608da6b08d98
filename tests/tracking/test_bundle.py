"""Commits that no remote has are kept whole, read-only, within their budget, and honestly."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest
from helpers.repos import Repo, footprint, isolated_git, make_repo

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git
from researchlab.tracking._restoring._bundle import unpack, write_bundle, write_pack

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures(isolated_git.__name__)

LIMIT = 1 << 20


def clone_of(repo: Repo, to: Path, *args: str) -> Repo:
    repo.git("clone", "--quiet", *args, f"file://{repo.top}", to)
    return Repo(to)


def bundled(repo: Repo, to: Path, *, limit: int = LIMIT) -> bool:
    """Write the bundle, and see that nothing in the repository has changed."""
    before = footprint(repo.top)
    written = write_bundle(_git.find_repository(repo.top), to, limit=limit)
    assert footprint(repo.top) == before
    assert to.exists() == written
    return written


def objects_in(path: Path, git_dir: Path, *, object_format: str = "sha1") -> Repo:
    """Unpack into an empty store."""
    _git.make_git_dir(git_dir, object_format="sha256" if object_format == "sha256" else "sha1", borrow=None)
    unpack(path, git_dir=git_dir)
    return Repo(git_dir)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_nothing_is_written_where_a_remote_has_the_commit_or_there_is_none(tmp_path: Path) -> None:
    origin = make_repo(tmp_path / "origin", {"a": "1"})
    clone = clone_of(origin, tmp_path / "clone")
    assert not bundled(clone, tmp_path / "bundle")
    clone.git("switch", "--quiet", "--detach")
    assert not bundled(clone, tmp_path / "bundle")
    assert not bundled(make_repo(tmp_path / "unborn"), tmp_path / "bundle")


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
@pytest.mark.parametrize("where", ["branch", "detached", "linked"])
def test_the_commits_that_no_remote_has_are_a_bundle_that_git_takes(
    tmp_path: Path, where: str, object_format: str
) -> None:
    origin = make_repo(tmp_path / "origin", {"a": "1", "big": noise(100_000)}, object_format=object_format)
    clone = clone_of(origin, tmp_path / "clone")
    if where == "detached":
        clone.git("switch", "--quiet", "--detach")
    if where == "linked":
        clone.git("worktree", "add", "--quiet", tmp_path / "linked")
        clone = Repo(tmp_path / "linked")
    for number in range(3):
        clone.write("a", f"{number}\n")
        clone.commit()
    head = clone.git("rev-parse", "HEAD")
    bundle = tmp_path / "bundle"
    assert bundled(clone, bundle)
    assert bundle.stat().st_size < 5_000  # what the remote has is not in it
    other = clone_of(origin, tmp_path / "other")
    other.git("bundle", "verify", bundle)
    other.git("fetch", "--quiet", bundle, "HEAD")
    assert other.git("rev-parse", "FETCH_HEAD") == head
    other.git("fsck", "--strict")


def test_without_a_remote_the_whole_history_is_kept(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "1"})
    repo.write("a", "2")
    head = repo.commit()
    repo.git("switch", "--quiet", "-c", "other", "HEAD~1")
    repo.write("not needed", noise(50_000))
    repo.commit()
    repo.git("switch", "--quiet", "main")
    assert bundled(repo, tmp_path / "bundle")
    assert (tmp_path / "bundle").stat().st_size < 5_000
    repo.git("clone", "--quiet", tmp_path / "bundle", tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    assert clone.git("log", "--format=%H", head) == repo.git("log", "--format=%H")
    assert "complete history" in clone.git("bundle", "verify", tmp_path / "bundle")


@pytest.mark.parametrize("size", [LIMIT * 3 // 2, LIMIT * 20])
def test_too_much_is_refused_with_the_remedy_and_leaves_no_file(tmp_path: Path, size: int) -> None:
    repo = make_repo(tmp_path / "repo", {"a": noise(size)})
    with pytest.raises(GitError, match=r"largest-bundle") as error:
        write_bundle(_git.find_repository(repo.top), tmp_path / "bundle", limit=LIMIT)
    assert "git remote add origin" in str(error.value)
    assert "no more than 1 MiB" in str(error.value)
    assert not (tmp_path / "bundle").exists()
    repo.git("remote", "add", "origin", tmp_path / "nowhere")
    with pytest.raises(GitError, match=r"Either push it \(git push\)"):
        write_bundle(_git.find_repository(repo.top), tmp_path / "bundle", limit=LIMIT)


def test_what_packing_makes_small_enough_is_kept(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a": noise(LIMIT // 2)})
    for number in range(4):
        repo.write("a", noise(LIMIT // 2) + bytes([number]))
        repo.commit()
    assert bundled(repo, tmp_path / "bundle")


def test_the_cut_of_a_shallow_clone_is_not_pretended_to_be_the_beginning(tmp_path: Path) -> None:
    origin = make_repo(tmp_path / "origin", {"a": "1"})
    first = origin.git("rev-parse", "HEAD")
    origin.write("a", "2")
    origin.commit()
    clone = clone_of(origin, tmp_path / "clone", "--depth=1")
    clone.git("remote", "remove", "origin")
    clone.write("a", "3")
    head = clone.commit()
    assert bundled(clone, tmp_path / "bundle")
    lacks = clone.git("bundle", "verify", tmp_path / "bundle", check=False)
    assert "complete history" not in lacks
    assert f"-{first}".encode() in (tmp_path / "bundle").read_bytes().partition(b"\n\n")[0]
    origin.git("bundle", "verify", tmp_path / "bundle")
    store = objects_in(tmp_path / "bundle", tmp_path / "store")
    assert store.git("show", f"{head}:a") == "3"


def test_a_partial_clone_is_not_completed_behind_the_users_back(tmp_path: Path) -> None:
    origin = make_repo(tmp_path / "origin", {"a": "1", "folder/b": "2"})
    origin.write("folder/b", "3")
    origin.commit()
    origin.git("config", "uploadpack.allowFilter", "true")
    for number, kind in enumerate(("blob:none", "tree:0")):
        clone = clone_of(origin, tmp_path / f"clone{number}", f"--filter={kind}")
        assert not bundled(clone, tmp_path / f"bundle{number}")
        clone.write("mine", "4")
        clone.commit()
        assert bundled(clone, tmp_path / f"bundle{number}")
        other = clone_of(origin, tmp_path / f"other{number}")
        other.git("bundle", "verify", tmp_path / f"bundle{number}")
        other.git("fetch", "--quiet", tmp_path / f"bundle{number}", "HEAD")
        assert other.git("show", "FETCH_HEAD:mine") == "4"
        # Nothing is on a remote any more, and not all of it is here: a bundle of the rest would be no history.
        clone.git("update-ref", "-d", "refs/remotes/origin/main")
        clone.git("update-ref", "-d", "refs/remotes/origin/HEAD", "--no-deref")
        with pytest.raises(GitError):
            bundled(clone, tmp_path / "no")
        assert not (tmp_path / "no").exists()


def test_a_damaged_repository_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "1"})
    repository = _git.find_repository(repo.top)
    blob = repo.git("rev-parse", "HEAD:a")
    (repo.top / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(GitError):
        write_bundle(repository, tmp_path / "bundle", limit=LIMIT)
    assert not (tmp_path / "bundle").exists()


def test_the_environment_of_a_hook_does_not_name_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repo(tmp_path / "other", {"b": "2"})
    repo = make_repo(tmp_path / "repo", {"a": "1"})
    head = repo.git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other.top / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.top / ".git/index"))
    assert bundled(repo, tmp_path / "bundle")
    assert head.encode() in (tmp_path / "bundle").read_bytes()


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_pack_holds_one_commit_with_its_files_and_no_history(tmp_path: Path, object_format: str) -> None:
    repo = make_repo(tmp_path / "repo", {"a": noise(50_000)}, object_format=object_format)
    repo.write("a", "small")
    repo.write("folder/b", "2")
    head = repo.commit()
    before = footprint(repo.top)
    write_pack(_git.find_repository(repo.top), head, tmp_path / "pack")
    assert footprint(repo.top) == before
    assert (tmp_path / "pack").stat().st_size < 5_000
    store = objects_in(tmp_path / "pack", tmp_path / "store", object_format=object_format)
    assert store.git("ls-tree", "-r", head) == repo.git("ls-tree", "-r", head)
    assert store.git("show", f"{head}:folder/b") == "2"
    assert store.git("cat-file", "-t", f"{head}~1", check=False) == ""
    # The same from a scratch store.
    write_pack(store.top, head, tmp_path / "again")
    assert (tmp_path / "again").read_bytes()[:12] == (tmp_path / "pack").read_bytes()[:12]


def test_a_pack_of_what_is_not_there_whole_or_too_large_is_refused(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a": noise(50_000)})
    head = repo.git("rev-parse", "HEAD")
    with pytest.raises(GitError, match="no more than 0 MiB"):
        write_pack(repo.top / ".git", head, tmp_path / "pack", limit=40_000)
    with pytest.raises(GitError):
        write_pack(repo.top / ".git", "0" * 40, tmp_path / "pack")
    blob = repo.git("rev-parse", "HEAD:a")
    (repo.top / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(GitError):
        write_pack(repo.top / ".git", head, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_a_damaged_bundle_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "1"})
    assert bundled(repo, tmp_path / "bundle")
    whole = (tmp_path / "bundle").read_bytes()
    cut = tmp_path / "cut"
    _git.make_git_dir(tmp_path / "store", object_format="sha1", borrow=None)
    for size in range(0, len(whole), 23):
        cut.write_bytes(whole[:size])
        with pytest.raises(RestoreError, match=re.compile("damaged|cannot be unpacked")):
            unpack(cut, git_dir=tmp_path / "store")
    cut.write_bytes(whole.replace(b"PACK", b"KCAP"))
    with pytest.raises(RestoreError, match="cannot be unpacked"):
        unpack(cut, git_dir=tmp_path / "store")
