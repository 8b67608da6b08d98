"""Real git repositories in every state, and an independent look at what lies on disk."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = {
    "GIT_AUTHOR_NAME": "A. Researcher",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A. Researcher",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


@pytest.fixture
def isolated_git(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the configuration of whoever runs the tests out; return the (empty) global configuration of this test."""
    home = tmp_path_factory.mktemp("home")
    config = home / "gitconfig"
    config.touch()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    return config


@dataclass(frozen=True)
class Repo:
    """A git work tree of a test."""

    top: Path

    def git(self, *args: str | bytes | Path, check: bool = True) -> str:
        """Run the user's git."""
        done = subprocess.run(["git", *args], cwd=self.top, check=False, capture_output=True)
        if check:
            assert done.returncode == 0, (args, done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="surrogateescape").strip()

    def write(self, name: str | bytes, content: str | bytes = b"", *, executable: bool = False) -> Path:
        """Write a file, its folders included."""
        path = self.top / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o755 if executable else 0o644)
        return path

    def link(self, name: str, target: str) -> Path:
        """Make a symlink."""
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        return path

    def commit(self, message: str = "c") -> str:
        """Commit everything and return the id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


def make_repo(top: Path, files: dict[str, str | bytes] | None = None, *, object_format: str = "sha1") -> Repo:
    """Make a repository; with files, they are its first commit."""
    top.mkdir(parents=True, exist_ok=True)
    repo = Repo(top)
    repo.git("init", "--quiet", "--initial-branch=main", f"--object-format={object_format}", "--template=")
    if files is not None:
        for name, content in files.items():
            repo.write(name, content)
        repo.commit()
    return repo


def contents(top: Path) -> dict[bytes, tuple[str, bytes]]:
    """Return everything below ``top`` but ``.git``: path -> (kind, bytes); executables and symlinks are own kinds."""
    found: dict[bytes, tuple[str, bytes]] = {}
    for path in top.rglob("*"):
        relative = path.relative_to(top)
        mode = path.lstat().st_mode
        if relative.parts[0] == ".git" or stat.S_ISDIR(mode):
            continue
        if stat.S_ISLNK(mode):
            entry = ("symlink", os.fsencode(path.readlink()))
        elif stat.S_ISREG(mode):
            entry = ("executable" if mode & 0o100 else "file", path.read_bytes())
        else:
            entry = ("special", b"")
        found[os.fsencode(relative)] = entry
    return found


def footprint(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return everything below ``top``, ``.git`` included, with mode, time stamp and bytes: what must not change."""
    found: dict[str, tuple[int, int, bytes]] = {}
    for path in [top, *top.rglob("*")]:
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK) else b""
        found[str(path.relative_to(top))] = (status.st_mode, status.st_mtime_ns, data)
    return found
