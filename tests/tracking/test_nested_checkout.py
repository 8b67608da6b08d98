"""`rlab restore` brings repositories inside the work tree along, and takes them back with the rest."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from helpers.checkouts import RUN, cloned, state
from helpers.commands import RLAB, refusal, rlab
from helpers.kept_code import add_submodule, track_whole
from helpers.repos import Repo, contents, footprint, make_repo

from researchlab.tracking import restore
from researchlab.tracking._checkouts._checkout import check_out
from researchlab.tracking._restoring._recorded_code import RecordedCode
from researchlab.tracking.runs import find_run

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

pytestmark = pytest.mark.slow


def everything(top: Path) -> dict[bytes, tuple[str, bytes]]:
    """Everything in the work tree, the repositories inside included, their git folders not."""
    return {path: entry for path, entry in contents(top).items() if b".git" not in path.split(b"/")}


@pytest.fixture
def origin(tmp_path: Path) -> Repo:
    """A repository with a submodule in a submodule, and one that is only a submodule."""
    leaf = make_repo(tmp_path / "origins/leaf", {"leaf.py": "1\n"})
    library = make_repo(tmp_path / "origins/library", {"lib.py": "1\n", "data.bin": bytes(range(256))})
    add_submodule(library, leaf, "inner/leaf")
    made = make_repo(tmp_path / "origins/project", {"train.py": "print(1)\n", ".gitignore": "*.log\n"})
    add_submodule(made, library, "ext/lib")
    add_submodule(made, leaf, "other")
    return made


def edit_inside(repo: Repo) -> None:
    """Edit submodules in every way, local commits included, and add repositories of its own."""
    repo.write("train.py", "print(2)\n")
    library = Repo(repo.top / "ext/lib")
    library.write("lib.py", "committed\n")
    library.commit("never pushed")
    library.write("lib.py", "and edited\n")
    library.write("data.bin", bytes(range(255, -1, -1)))
    library.write(b"caf\xe9", "latin")
    Repo(library.top / "inner/leaf").write("new.py", "2\n")
    own = make_repo(repo.top / "own", {"a": "1\n"})
    own.write("a", "2\n")
    unborn = make_repo(repo.top / "deep/er/unborn")
    unborn.write("b", "3\n")


INSIDE = ("deep/er/unborn", "ext/lib", "ext/lib/inner/leaf", "other", "own")


def states_inside(repo: Repo) -> dict[str, tuple[str, ...]]:
    return {
        path: (
            Repo(repo.top / path).git("rev-parse", "--verify", "--quiet", "HEAD", check=False),
            Repo(repo.top / path).git("status", "--porcelain"),
            Repo(repo.top / path).git("rev-parse", "--show-toplevel"),
        )
        for path in INSIDE
    }


@pytest.mark.parametrize("how", ["in place", "work tree", "clone in place", "clone work tree"])
def test_repositories_inside_come_back_whether_they_are_checked_out_or_not(
    how: str, origin: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = cloned(origin, tmp_path / "clone")
    edit_inside(repo)
    files = everything(repo.top)
    status, submodules = repo.git("status", "--porcelain"), repo.git("submodule", "status", "--recursive")
    inside = states_inside(repo)
    track_whole(store, RUN, repo.top)
    if how.startswith("clone"):
        # The first clone is gone, and with it the commits that were never pushed.
        repo.top.rename(tmp_path / "gone")
        shutil.rmtree(tmp_path / "gone")
        repo = cloned(origin, tmp_path / "fresh", whole=False)
    else:
        for path in ("ext/lib/inner/leaf", "ext/lib", "."):
            Repo(repo.top / path).git("stash", "--quiet", "--include-untracked", check=False)
        Repo(repo.top / "ext/lib").git("switch", "--quiet", "main")
        Repo(repo.top / "ext/lib").git("reset", "--quiet", "--hard", "origin/main")
        for path in ("own", "deep"):
            shutil.rmtree(repo.top / path, ignore_errors=True)
        repo.git("reset", "--quiet", "--hard")
    monkeypatch.chdir(repo.top)
    done = None
    if how.endswith("place"):
        result = rlab("restore", RUN)
        assert result.exit_code == 0, result.stderr
        top = repo
    else:
        repo.write("train.py", "uncommitted here")
        before = contents(repo.top), repo.git("status", "--porcelain", "--branch")
        top = Repo(tmp_path / "a b" / "tree")
        done = check_out(RecordedCode.of(find_run(RUN)), repo=repo.top, worktree=top.top)
        assert done.worktree == top.top
        assert set(done.created) == set(INSIDE)
        assert (contents(repo.top), repo.git("status", "--porcelain", "--branch")) == before
    assert everything(top.top) == files
    assert top.git("status", "--porcelain") == status
    assert top.git("symbolic-ref", "HEAD") == f"refs/heads/experiment/{RUN}"
    strip = [line.split(" (")[0] for line in submodules.splitlines()]
    assert [line.split(" (")[0] for line in top.git("submodule", "status", "--recursive").splitlines()] == strip
    found = states_inside(top)
    assert {path: entry[:2] for path, entry in found.items()} == {path: entry[:2] for path, entry in inside.items()}
    assert all(entry[2] == str(top.top / path) for path, entry in found.items())
    for path in INSIDE:
        Repo(top.top / path).git("fsck", "--connectivity-only")
    top.git("fsck", "--connectivity-only")
    if done is not None:
        remove = f"PATH={RLAB.parent}:$PATH; {done.way_back}"
        assert subprocess.run(remove, shell=True, check=False).returncode == 0
        assert not top.top.exists()
        assert repo.git("branch", "--list", "experiment/*") == ""


def test_the_way_back_leads_back_inside_as_well_and_keeps_everything(
    origin: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = cloned(origin, tmp_path / "clone")
    monkeypatch.chdir(repo.top)
    library = Repo(repo.top / "ext/lib")
    library.write("lib.py", "edited\n")
    track_whole(store, RUN, repo.top)
    library.git("checkout", "--quiet", "lib.py")
    library.git("switch", "--quiet", "--create", "mine")
    before = state(repo), library.git("branch", "--show-current"), library.git("status", "--porcelain")
    way_back = rlab("restore", RUN).stdout.partition("To go back: ")[2].strip()
    assert library.git("branch", "--show-current") == ""
    assert (library.top / "lib.py").read_text() == "edited\n"
    done = subprocess.run(way_back, shell=True, cwd=repo.top, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    rlab("delete", RUN)
    assert (state(repo), library.git("branch", "--show-current"), library.git("status", "--porcelain")) == before
    assert "edited" in library.git("stash", "show", "-p")


def test_uncommitted_work_inside_is_refused_and_named(
    origin: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = cloned(origin, tmp_path / "clone")
    monkeypatch.chdir(repo.top)
    track_whole(store, RUN, repo.top)
    Repo(repo.top / "ext/lib/inner/leaf").write("mine.py", "precious")
    before = footprint(repo.top)
    message = refusal("restore", RUN)
    assert f"{repo.top}/ext/lib/inner/leaf has uncommitted work" in message
    assert "mine.py" in message
    assert f"git -C {repo.top}/ext/lib/inner/leaf stash push" in message
    assert {path: data for path, (_, _, data) in footprint(repo.top).items()} == {
        path: data for path, (_, _, data) in before.items()
    }


@pytest.mark.parametrize("checked_out", [True, False])
@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("when", ["first", "last"])
def test_a_failure_inside_takes_everything_back(
    when: str,
    linked: bool,  # noqa: FBT001
    checked_out: bool,  # noqa: FBT001
    origin: Repo,
    store: RunStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repo = cloned(origin, tmp_path / "clone")
    edit_inside(repo)
    track_whole(store, RUN, repo.top)
    repo = cloned(origin, tmp_path / "fresh", whole=checked_out)
    monkeypatch.chdir(repo.top)

    def all_of() -> tuple[Any, ...]:
        return (
            state(repo),
            (repo.top / ".git/config").read_bytes(),
            sorted(tmp_path.glob("tree*/**")),
            sorted(path for path in repo.top.rglob("*") if ".git" not in path.parts),
            repo.git("submodule", "status", "--recursive"),
            repo.git("worktree", "list"),
        )

    before = all_of()
    calls: list[Path] = []
    write = restore.write_into_worktree

    def fail(worktree: Path, **given: Any) -> tuple[str, ...]:
        calls.append(worktree)
        done = write(worktree, **given)
        if len(calls) == (2 if when == "first" else 6):
            raise OSError(28, "No space left on device")
        return done

    monkeypatch.setattr(restore, "write_into_worktree", fail)
    with pytest.raises(OSError, match="No space left"):
        check_out(RecordedCode.of(find_run(RUN)), repo=repo.top, worktree=tmp_path / "tree/deep" if linked else None)
    assert all_of() == before
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    check_out(RecordedCode.of(find_run(RUN)), repo=repo.top, worktree=tmp_path / "tree/deep" if linked else None)


@pytest.mark.parametrize("obstacle", ["file", "symlink", "folder"])
def test_what_is_in_the_way_of_a_repository_inside_is_named_and_kept(
    obstacle: str, origin: Repo, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = cloned(origin, tmp_path / "clone")
    make_repo(repo.top / "own", {"a": "1\n"})
    track_whole(store, RUN, repo.top)
    repo = cloned(origin, tmp_path / "fresh", whole=False)
    monkeypatch.chdir(repo.top)
    repo.write(".git/info/exclude", "own\n")
    (tmp_path / "outside").mkdir()
    if obstacle == "file":
        repo.write("own", "precious")
    elif obstacle == "symlink":
        repo.link("own", str(tmp_path / "outside"))
    else:
        repo.write("own/notes.txt", "precious")
    before = state(repo)
    assert f"{repo.top}/own is in the way" in refusal("restore", RUN)
    assert state(repo) == before
    assert list((tmp_path / "outside").iterdir()) == []
