"""Checkouts that runs were tracked in, and everything that a restoration must leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.repos import Repo, contents, make_repo

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.tracked_runs import RunStore

RUN = "2026-02-15_radiant-octopus"


@pytest.fixture(name="repo")
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository with two commits, the working directory."""
    made = make_repo(tmp_path / "repo", {"train.py": "print(1)\n", "data/in.txt": "1\n", "gone.txt": "x\n"})
    made.write(".gitignore", "*.log\n")
    made.commit("second")
    monkeypatch.chdir(made.top)
    return made


def state(repo: Repo) -> tuple[Any, ...]:
    """Everything that a refused or failed restore must leave alone."""
    refs = repo.git("for-each-ref", "--format=%(refname) %(objectname)")
    return (
        contents(repo.top),
        (repo.top / ".git/HEAD").read_text(),
        refs,
        repo.git("status", "--porcelain", "--ignored"),
    )


def tracked_dirty(repo: Repo, store: RunStore, run_id: str = RUN) -> tuple[dict[bytes, tuple[str, bytes]], str]:
    """Track a run in a dirty checkout, then clean it and go on; return what the checkout held, and its status."""
    repo.write("train.py", "print(2)\r\nno end")
    repo.write("data/in.txt", "1\n", executable=True)
    repo.write("new/deep/weights.bin", bytes(range(256)))
    repo.write("new/empty")
    repo.write(b"caf\xe9 \t.txt", "latin")
    repo.link("link", "nowhere")
    (repo.top / "gone.txt").unlink()
    before = contents(repo.top), repo.git("status", "--porcelain")
    store.track(run_id, repo.top)
    repo.git("stash", "push", "--include-untracked")
    repo.git("stash", "drop")
    repo.write("train.py", "print('later')\n")
    repo.write("later.py", "")
    repo.commit("later")
    return before


def cloned(origin: Repo, to: Path, *, whole: bool = True) -> Repo:
    """Clone, on request with all submodules."""
    origin.git("clone", "--quiet", origin.top, to)
    clone = Repo(to)
    if whole:
        clone.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    return clone
