"""Calling git and finding the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from helpers.repos import Repo, footprint, isolated_git, make_repo

from researchlab.errors import GitError, NotARepositoryError
from researchlab.tracking import _git
from researchlab.tracking._git import _repository

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures(isolated_git.__name__)


def test_a_repository_is_found_from_a_subfolder_and_from_a_file(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a/b/train.py": "x"})
    for place in (repo.top, repo.top / "a" / "b", repo.top / "a" / "b" / "train.py"):
        found = _git.find_repository(place)
        assert found.top == found.main_worktree == repo.top
        assert found.git_dir == found.common_dir == repo.top / ".git"
        assert found.head == repo.git("rev-parse", "HEAD")
        assert found.head_tree == repo.git("rev-parse", "HEAD^{tree}")
        assert found.branch == "main"
        assert found.object_format == "sha1"


@pytest.mark.parametrize("name", ["line\nfeed", "two\n\n", "sp ace", "-dash", "ü", "\udcff"])
def test_a_repository_is_found_whatever_its_path_holds(tmp_path: Path, name: str) -> None:
    repo = make_repo(tmp_path / name / "repo", {"a": "x"})
    assert _git.find_repository(repo.top).top == repo.top


def test_before_the_first_commit_there_is_a_branch_and_no_head(tmp_path: Path) -> None:
    found = _git.find_repository(make_repo(tmp_path).top)
    assert (found.head, found.head_tree, found.branch) == (None, None, "main")


def test_a_detached_head_has_no_branch(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.git("checkout", "--quiet", "--detach")
    assert _git.find_repository(repo.top).branch is None


@pytest.mark.parametrize("name", ["feature/x", "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "\udcff"])
def test_a_branch_keeps_its_name(tmp_path: Path, name: str) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.git("checkout", "--quiet", "-b", os.fsencode(name))
    assert _git.find_repository(repo.top).branch == name


def test_a_branch_of_the_same_name_as_a_tag_keeps_its_name(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.git("tag", "main")
    assert _git.find_repository(repo.top).branch == "main"


CALLED_HEAD = ["refs/heads/HEAD", "refs/tags/HEAD", "refs/HEAD", "refs/remotes/HEAD"]


@pytest.mark.parametrize("name", CALLED_HEAD)
@pytest.mark.parametrize("detached", [False, True])
def test_another_ref_called_head_is_not_taken_for_it(tmp_path: Path, name: str, *, detached: bool) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.git("update-ref", name, "HEAD")
    head = repo.commit()
    if detached:
        repo.git("checkout", "--quiet", "--detach", head)
    found = _git.find_repository(repo.top)
    assert (found.head, found.branch) == (head, None if detached else "main")
    assert found.head_tree == repo.git("rev-parse", f"{head}^{{tree}}")
    assert found.object_format == "sha1"


@pytest.mark.parametrize("names", [CALLED_HEAD[:1], CALLED_HEAD[1:2], CALLED_HEAD[2:3], CALLED_HEAD])
def test_a_ref_called_head_is_no_first_commit(tmp_path: Path, names: list[str]) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    for name in names:
        repo.git("update-ref", name, "main")
    repo.git("symbolic-ref", "HEAD", "refs/heads/new")
    found = _git.find_repository(repo.top)
    assert (found.head, found.head_tree, found.branch) == (None, None, "new")


def test_a_branch_called_head_is_one(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.git("update-ref", "refs/heads/HEAD", "HEAD")
    repo.git("symbolic-ref", "HEAD", "refs/heads/HEAD")
    found = _git.find_repository(repo.top)
    assert (found.head, found.branch) == (repo.git("rev-parse", "main"), "HEAD")


@pytest.mark.parametrize("knows_no_lazy_fetch", [True, False])
def test_finding_a_treeless_clone_fetches_nothing_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, knows_no_lazy_fetch: bool
) -> None:
    if not knows_no_lazy_fetch:  # git before 2.45
        monkeypatch.delitem(_repository._OFFLINE, "GIT_NO_LAZY_FETCH")
    origin = make_repo(tmp_path / "origin", {"a": "x"})
    origin.git("config", "uploadpack.allowFilter", "true")
    origin.git("clone", "--quiet", "--filter=tree:0", "--no-checkout", f"file://{origin.top}", tmp_path / "clone")
    before = footprint(tmp_path / "clone")
    found = _git.find_repository(tmp_path / "clone")
    assert found.head_tree == origin.git("rev-parse", "HEAD^{tree}")
    assert (found.head, found.branch) == (origin.git("rev-parse", "HEAD"), "main")
    assert footprint(tmp_path / "clone") == before


@pytest.mark.parametrize("target", ["normalTarget", "eventTarget", "perfTarget"])
def test_a_trace_that_the_user_has_configured_is_not_written(tmp_path: Path, isolated_git: Path, target: str) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "x"})
    isolated_git.write_text(f"[trace2]\n\t{target} = {tmp_path / 'trace'}\n")
    _git.find_repository(repo.top)
    _git.list_files(repo.top)
    assert not (tmp_path / "trace").exists()


def test_a_linked_work_tree_knows_the_main_one(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "x"})
    repo.git("worktree", "add", "--quiet", "-b", "side", tmp_path / "linked")
    found = _git.find_repository(tmp_path / "linked")
    assert found.top == tmp_path / "linked"
    assert found.main_worktree == repo.top
    assert found.branch == "side"
    assert found.common_dir == repo.top / ".git"


def test_a_linked_work_tree_of_a_submodule_knows_the_main_one(tmp_path: Path) -> None:
    library, repo = make_repo(tmp_path / "library", {"a": "x"}), make_repo(tmp_path / "repo", {"b": "y"})
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.top, "lib")
    Repo(repo.top / "lib").git("worktree", "add", "--quiet", tmp_path / "linked")
    assert _git.find_repository(tmp_path / "linked").main_worktree == repo.top / "lib"


def test_a_separate_git_dir_is_found(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--separate-git-dir", tmp_path / "store", tmp_path / "repo"], check=True)
    found = _git.find_repository(make_repo(tmp_path / "repo", {"a": "x"}).top)
    assert (found.top, found.main_worktree, found.common_dir) == (
        tmp_path / "repo",
        tmp_path / "repo",
        tmp_path / "store",
    )


def test_a_linked_work_tree_of_a_bare_repository_is_its_own_main(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"a": "x"})
    subprocess.run(["git", "clone", "-q", "--bare", repo.top, tmp_path / "bare"], check=True)
    subprocess.run(["git", "worktree", "add", "-q", tmp_path / "linked", "main"], cwd=tmp_path / "bare", check=True)
    assert _git.find_repository(tmp_path / "linked").main_worktree == tmp_path / "linked"


def test_sha256_is_told(tmp_path: Path) -> None:
    assert _git.find_repository(make_repo(tmp_path, object_format="sha256").top).object_format == "sha256"


def test_the_environment_of_a_git_hook_does_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, other = make_repo(tmp_path / "wanted", {"a": "x"}), make_repo(tmp_path / "other", {"b": "y"})
    monkeypatch.setenv("GIT_DIR", str(other.top / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.top))
    assert _git.find_repository(wanted.top).top == wanted.top


def test_outside_of_a_repository_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotARepositoryError, match=rf"{tmp_path} is not inside a git repository.*git init"):
        _git.find_repository(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotARepositoryError, match=r"There is no folder .*gone"):
        _git.find_repository(tmp_path / "gone")


def test_a_bare_repository_has_no_files_to_record(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    with pytest.raises(NotARepositoryError, match=r"bare repository or a \.git folder"):
        _git.find_repository(repo.top / ".git")


def test_without_git_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="git is not installed"):
        _git.find_repository(tmp_path)


def test_a_repository_of_another_user_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(repo.top / ".git", 12345, 12345)
    os.chown(repo.top, 12345, 12345)
    monkeypatch.delenv("SUDO_UID", raising=False)
    with pytest.raises(
        GitError, match=rf"belongs to another user.*git config --global --add safe.directory {tmp_path}"
    ):
        _git.find_repository(repo.top)


def test_a_cut_branch_file_is_not_taken_for_a_new_repository(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    (repo.top / ".git" / "refs" / "heads" / "main").write_bytes(b"")
    with pytest.raises(GitError, match=r"HEAD .* is broken"):
        _git.find_repository(repo.top)


def test_a_git_that_hangs_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(GitError, match=r"did not finish within 0\.2 s"):
        _git.run_git(("-c", "alias.hang=!sleep 60", "hang"), cwd=tmp_path, timeout=0.2)


def test_remotes_come_without_credentials(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"a": "x"})
    repo.git("remote", "add", "origin", "https://me:ghp_secret@example.org/x.git?token=secret")
    repo.git("remote", "add", "a.b", "git@example.org:x/y.git")
    repo.git("remote", "set-url", "--add", "a.b", "https://second.example.org")
    assert _git.find_repository(repo.top).remotes == {
        "a.b": "git@example.org:x/y.git",
        "origin": "https://example.org/x.git",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host/x.git", "https://host/x.git"),
        ("https://ghp_token@host/x.git", "https://host/x.git"),
        ("https://user:p@ss@host:8443/x", "https://host:8443/x"),
        ("https://user:pa/ss@host/x", "https://host/x"),
        ("https://host/x?private_token=1#frag", "https://host/x"),
        ("https://host", "https://host"),
        ("https://[::1]:80/x", "https://[::1]:80/x"),
        ("https://host:80/@scope/x", "https://host:80/@scope/x"),
        ("ssh://git@host:22/x.git", "ssh://git@host:22/x.git"),
        ("ssh://git:secret@host/x.git", "ssh://git@host/x.git"),
        ("git+ssh://git@host/x", "git+ssh://git@host/x"),
        ("git@host:x/y.git", "git@host:x/y.git"),
        ("ext::https://u:p@host/x", "ext::https://host/x"),
        ("codecommit::eu-central-1://profile@repo", "codecommit::eu-central-1://repo"),
        ("/srv/git/x.git", "/srv/git/x.git"),
        ("../x", "../x"),
        ("file:///srv/a@b:c/x?y", "file:///srv/a@b:c/x?y"),
    ],
)
def test_credentials_are_cut_out_of_a_url(url: str, shown: str) -> None:
    assert _git.without_credentials(url) == shown


def test_importing_the_module_loads_no_gitpython() -> None:
    code = "import sys, researchlab.tracking.snapshot, researchlab.tracking.restore; print('git' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False\n"
