"""One row for each state that a work tree can be in: it comes back to the byte, or is named with the reason.

A row is a function that brings a repository into its state and returns what is not to be expected to come back.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from helpers.repos import Repo, isolated_git, make_repo
from helpers.worktrees import Entry, as_nobody, come_back, differences, footprint, work_files

from researchlab.errors import GitError, ResearchlabError
from researchlab.tracking.settings import Settings
from researchlab.tracking.snapshot import capture
from researchlab.tracking.store import default_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from researchlab.tracking.snapshot import Snapshot

# What is git's work is the same on every Python: it runs on one.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures(isolated_git.__name__)]


@pytest.fixture(autouse=True)
def _submodules_from_folders(isolated_git: Path) -> None:
    isolated_git.write_text('[protocol "file"]\n\tallow = always\n')


@dataclass(frozen=True)
class Expected:
    """What is not to come back as it is on disk.

    Attributes:
        named: Path in ``left_out`` -> what the reason says, as a regular expression. Exactly these are named.
        instead: Path -> what comes back in place of what is on disk, None for nothing.
        refused: What the error says, where nothing can be captured.
        at: Folder that is captured, where it is not the repository's root.
        nested: Paths of the repositories inside, in any order.
        pointers: Files that are kept as pointers.
        dirty: Whether anything counts as modified.
        settings: Budgets.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, Entry | None] = field(default_factory=dict)
    refused: str | None = None
    at: Path | None = None
    nested: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()
    dirty: bool = True
    settings: Settings | None = Settings()  # noqa: RUF009 (frozen)


State: TypeAlias = "Callable[[Repo], Expected | None]"
STATES: dict[str, State] = {}
ELSEWHERE: dict[str, Callable[[Path], tuple[Repo, Expected]]] = {}


def state(function: State) -> State:
    STATES[function.__name__] = function
    return function


def elsewhere(function: Callable[[Path], tuple[Repo, Expected]]) -> Callable[[Path], tuple[Repo, Expected]]:
    ELSEWHERE[function.__name__] = function
    return function


def filled(top: Path, object_format: str = "sha1") -> Repo:
    repo = make_repo(top, object_format=object_format)
    for name, content in {
        "text": "one\ntwo\nthree\n",
        "binary": bytes(range(256)),
        "folder/b": "b\n",
        "folder/c": "c\n",
        "dos": "one\r\ntwo\r\n",
        "latin": b"caf\xe9\n",
        "no end": "no end of line",
        ".gitignore": "*.log\n/build/\n",
    }.items():
        repo.write(name, content)
    repo.write("tool", "#!/bin/sh\n", executable=True)
    repo.link("link", "text")
    repo.commit()
    return repo


def file(data: str | bytes) -> Entry:
    return Entry("file", data.encode() if isinstance(data, str) else data)


# Edits of files


@state
def nothing(_: Repo) -> Expected:
    return Expected(dirty=False)


@state
def text_edited(repo: Repo) -> None:
    repo.write("text", "one\nTWO\nthree\n")


@state
def staged(repo: Repo) -> None:
    text_edited(repo)
    repo.git("add", "text")


@state
def staged_and_edited(repo: Repo) -> None:
    staged(repo)
    repo.write("text", "one\nTWO\nTHREE\n")


@state
def staged_and_reverted(repo: Repo) -> Expected:
    staged(repo)
    repo.write("text", "one\ntwo\nthree\n")
    return Expected(dirty=False)


@state
def staged_and_deleted(repo: Repo) -> None:
    repo.write("new", "x")
    staged(repo)
    repo.git("add", "new")
    (repo.top / "new").unlink()
    (repo.top / "text").unlink()


@state
def binary_edited_and_new(repo: Repo) -> None:
    repo.write("binary", bytes(range(255, -1, -1)) * 3)
    repo.write("new", b"\0\1\2")


@state
def untracked(repo: Repo) -> None:
    repo.write("new/deep/er/text", "x\n")
    repo.write("new/empty")
    repo.write("new/tool", "#!/bin/sh\n", executable=True)


@state
def truncated(repo: Repo) -> None:
    repo.write("text")
    repo.write("binary")


@state
def ends_of_lines(repo: Repo) -> None:
    repo.write("text", "one\ntwo\nthree")
    repo.write("no end", "no end of line\n")
    repo.write("dos", "one\ntwo\r\n\r")
    repo.write("trailing", "a \t \n \n\n\n\n")


@state
def encodings(repo: Repo) -> None:
    repo.write("latin", b"caf\xe9s\n")
    repo.write("utf16", "text\n".encode("utf-16"))
    repo.write("mark", b"\xef\xbb\xbftext\n")
    repo.write("mixed", b"\xff\xc3\xa9\r\n\r\n\0\n\r")


@state
def made_executable(repo: Repo) -> None:
    (repo.top / "text").chmod(0o755)
    (repo.top / "tool").chmod(0o644)


@state
def symlinks(repo: Repo) -> None:
    (repo.top / "link").unlink()
    repo.link("link", "folder/b")
    repo.link("dangling", "/nowhere")
    repo.link("loop", "loop")
    repo.link("to folder", "folder")


@state
def file_to_symlink_and_back(repo: Repo) -> None:
    (repo.top / "text").unlink()
    repo.link("text", "binary")
    (repo.top / "link").unlink()
    repo.write("link", "text")


@state
def file_to_folder(repo: Repo) -> None:
    (repo.top / "text").unlink()
    repo.write("text/a/b", "x")


@state
def file_to_folder_and_back(repo: Repo) -> Expected:
    content = (repo.top / "text").read_bytes()
    file_to_folder(repo)
    repo.git("add", "--all")
    shutil.rmtree(repo.top / "text")
    repo.write("text", content)
    return Expected(dirty=False)


@state
def folder_to_file(repo: Repo) -> None:
    shutil.rmtree(repo.top / "folder")
    repo.write("folder", "y")


@state
def folder_to_symlink(repo: Repo) -> None:
    (repo.top / "folder").rename(repo.top / "real")
    repo.link("folder", "real")


@state
def deleted(repo: Repo) -> None:
    (repo.top / "text").unlink()
    repo.git("rm", "--quiet", "folder/b")


@state
def deleted_everything(repo: Repo) -> None:
    for path in repo.top.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@state
def untracked_again(repo: Repo) -> Expected:
    repo.git("rm", "--quiet", "--cached", "text")
    return Expected(dirty=False)


@state
def renamed(repo: Repo) -> None:
    repo.git("mv", "text", "moved")
    (repo.top / "binary").rename(repo.top / "folder" / "moved")


@state
def renamed_by_case(repo: Repo) -> None:
    repo.git("mv", "text", "TEXT")
    (repo.top / "folder").rename(repo.top / "Folder")
    repo.write("Both", "1")
    repo.write("both", "2")


@state
def renamed_by_case_where_git_ignores_case(repo: Repo) -> None:
    repo.git("config", "core.ignoreCase", "true")
    (repo.top / "text").rename(repo.top / "TEXT")
    repo.write("BINARY", "another file")
    repo.write("FOLDER/b", "another file")
    repo.write("build2/A.LOG", "not ignored")


@state
def empty_folder(repo: Repo) -> Expected:
    (repo.top / "empty" / "er").mkdir(parents=True)
    return Expected(dirty=False)


@state
def hard_links_and_holes(repo: Repo) -> None:
    os.link(repo.top / "text", repo.top / "same")
    with (repo.top / "sparse").open("wb") as sparse:
        sparse.truncate(3 << 20)


@state
def odd_permissions(repo: Repo) -> None:
    repo.write("read only", "x").chmod(0o444)
    repo.write("set-uid", "x").chmod(0o4755)
    repo.write("for others", "x").chmod(0o611)


NAMES = [
    b"sp ace",
    b"tab\t",
    b"line\nfeed",
    b"return\r",
    b'quote"',
    b"apostrophe'",
    b"back\\slash",
    b":*?[x]",
    b":(top)text",
    b"-",
    b"--help",
    b"\xff\xfe",
    b"latin \xe9",
    "\N{LATIN SMALL LETTER U WITH DIAERESIS}".encode(),
    "u\N{COMBINING DIAERESIS}".encode(),
    b"\x01\x1b[31m\x7f",
    b" lead and trail ",
    b"a/ b /c ",
    b"dev/null",
    b"a/dev/null",
    b"{a => b}",
    b"$HOME `x` ;#&",
    b"#comment",
    b"!bang",
    b"...",
    b"con.txt.",
    b"x" * 255,
    b"y" * 200 + b"/" + b"z" * 200,
    b"HEAD",
    b"refs/heads/main",
    b"a.git/config",
    b".gitkeep",
    b".gitfoo",
]


@state
def names(repo: Repo) -> None:
    for name in NAMES:
        repo.write(name, b"content of " + name)


@state
def names_edited(repo: Repo) -> None:
    names(repo)
    repo.commit()
    for name in NAMES[::2]:
        repo.write(name, b"other")
    for name in NAMES[1::2]:
        (repo.top / os.fsdecode(name)).unlink()


@state
def names_without_content(repo: Repo) -> None:
    # git's patches name such files in their first line only, which it does not quote enough.
    for name in NAMES:
        repo.write(name)
        repo.write(b"folder with a space at the end /" + name)
    repo.commit()
    for name in NAMES:
        (repo.top / os.fsdecode(name)).chmod(0o755)
        (repo.top / "folder with a space at the end " / os.fsdecode(name)).unlink()
        repo.write(b"another one /" + name)


@state
def every_byte_that_a_name_may_have(repo: Repo) -> None:
    for byte in range(1, 256):
        if byte != ord("/"):
            name = b"n%c" % byte
            repo.write(name, name)
            repo.write(b"%c folder/%c" % (byte, byte) if byte != ord(".") else b"dot", name)


@state
def very_long_path(repo: Repo) -> None:
    folder = repo.top
    for _ in range(12):
        folder = folder / ("d" * 250)
        folder.mkdir()
    (folder / "file").write_bytes(b"far away")


@state
def names_that_git_refuses_elsewhere(repo: Repo) -> None:
    # Windows would take them for `.git`; here they are names like any other.
    for name in ("git~1", "x\\.git", ".git ", ".git...", "git~1x/y", ".g\N{ZERO WIDTH NON-JOINER}it"):
        repo.write(name, "x")


@state
def names_that_git_cannot_hold(repo: Repo) -> Expected:
    repo.write(".GIT/config", "x")
    repo.write("deep/.Git", "x")
    repo.link(".gitmodules", "text")
    repo.write("fine", "x")
    named = [".GIT/config", "deep/.Git", ".gitmodules"]
    return Expected(named=dict.fromkeys(named, "name|git"), instead=dict.fromkeys(named))


# What git was told


@state
def intent_to_add(repo: Repo) -> None:
    repo.write("intended", "x")
    repo.write("intended and gone", "y")
    repo.git("add", "--intent-to-add", ".")
    (repo.top / "intended and gone").unlink()


@state
def assume_unchanged_and_skip_worktree(repo: Repo) -> None:
    repo.git("update-index", "--assume-unchanged", "text")
    repo.git("update-index", "--skip-worktree", "folder/b")
    repo.write("text", "edited")
    repo.write("folder/b", "edited")


@state
def skip_worktree_and_deleted(repo: Repo) -> None:
    repo.git("update-index", "--skip-worktree", "folder/b", "text")
    (repo.top / "folder" / "b").unlink()
    (repo.top / "text").unlink()


@state
def same_size_and_time(repo: Repo) -> None:
    path = repo.top / "text"
    before = path.stat()
    repo.write("text", "ONE\ntwo\nthree\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@state
def lying_fsmonitor(repo: Repo) -> None:
    hook = repo.write(".git/lies", "#!/bin/sh\nprintf 'token\\0'\n", executable=True)
    repo.git("config", "core.fsmonitor", str(hook))
    repo.git("status")
    text_edited(repo)
    untracked(repo)


@state
def lying_untracked_cache(repo: Repo) -> None:
    repo.git("update-index", "--force-untracked-cache")
    repo.git("status")
    times = repo.top.stat()
    untracked(repo)
    os.utime(repo.top, ns=(times.st_atime_ns, times.st_mtime_ns))


@state
def split_index(repo: Repo) -> None:
    repo.git("update-index", "--split-index")
    text_edited(repo)
    untracked(repo)


@state
def no_index(repo: Repo) -> None:
    (repo.top / ".git" / "index").unlink()
    text_edited(repo)


@state
def index_version_4(repo: Repo) -> None:
    repo.git("update-index", "--index-version", "4")
    names(repo)


@state
def held_lock(repo: Repo) -> None:
    text_edited(repo)
    (repo.top / ".git" / "index.lock").touch()


@state
def file_mode_off(repo: Repo) -> Expected:
    repo.git("config", "core.fileMode", "false")
    text_edited(repo)
    repo.write("new", "x", executable=True)
    (repo.top / "text").chmod(0o755)
    return Expected(instead={"new": file("x"), "text": file("one\nTWO\nthree\n")})


@state
def attributes(repo: Repo) -> None:
    repo.git("config", "filter.upper.clean", "tr a-z A-Z")
    repo.git("config", "filter.upper.smudge", "tr A-Z a-z")
    repo.git("config", "diff.odd.textconv", "false")
    rules = [
        "*.crlf eol=crlf",
        "*.auto text=auto",
        "*.id ident",
        "*.up filter=upper",
        "*.nodiff -diff",
        "*.odd diff=odd",
        "*.bin binary",
    ]
    suffixes = ("crlf", "auto", "id", "up", "nodiff", "odd", "bin")
    repo.write(".gitattributes", "\n".join([*rules, ""]))
    for suffix in suffixes:
        repo.write(f"f.{suffix}", "Mixed\r\nlines $Id$\nend")
    repo.commit()
    for suffix in suffixes:
        repo.write(f"f.{suffix}", "Other\nmixed\r\nlines $Id: 1 $\n")
        repo.write(f"new.{suffix}", "New\r\n $Id: 2 $\n")
    repo.write(".gitattributes", "\n".join([*rules, "*.enc working-tree-encoding=UTF-16", ""]))
    repo.write("f.enc", "text\n".encode("utf-16"))


@state
def required_filter_that_is_missing(repo: Repo) -> None:
    repo.git("config", "filter.gone.clean", "/nowhere/gone")
    repo.git("config", "filter.gone.required", "true")
    repo.write(".gitattributes", "* filter=gone\n")
    text_edited(repo)
    repo.write("new", "x")


@state
def converted_at_checkout(repo: Repo) -> None:
    repo.git("config", "core.autocrlf", "true")
    repo.git("rm", "-r", "--quiet", "--cached", ".")
    repo.git("reset", "--quiet", "--hard")
    assert b"\r\n" in (repo.top / "text").read_bytes()


@state
def edited_gitignore(repo: Repo) -> Expected:
    repo.write("was ignored.log", "now it is not")
    repo.write("new.tmp", "now ignored")
    repo.write(".gitignore", "*.tmp\n")
    return Expected(instead={"new.tmp": None})


@state
def ignored(repo: Repo) -> Expected:
    repo.write("run.log", "x")
    repo.write("build/lib/module.py", "x")
    return Expected(instead={"run.log": None, "build/lib/module.py": None}, dirty=False)


@state
def tracked_and_ignored(repo: Repo) -> None:
    repo.write("kept.log", "1")
    repo.write("build/kept", "1")
    repo.git("add", "--force", "kept.log", "build/kept")
    repo.commit()
    repo.write("kept.log", "2")
    repo.write("build/kept", "2")


@state
def staged_and_ignored(repo: Repo) -> None:
    repo.write("kept.log", "1")
    repo.git("add", "--force", "kept.log")


@state
def ignored_by_the_user(repo: Repo) -> Expected:
    excludes = repo.write(".git/mine", "*.mine\n")
    repo.git("config", "--global", "core.excludesFile", str(excludes))
    repo.write("x.mine", "x")
    return Expected(instead={"x.mine": None}, dirty=False)


# What HEAD is


@state
def detached(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "--detach")
    text_edited(repo)


@state
def unborn(repo: Repo) -> None:
    repo.git("switch", "--quiet", "--orphan", "new")
    repo.write("text", "x")
    untracked(repo)


def _diverge(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "theirs")
    repo.write("text", "theirs\n")
    repo.write("theirs", "x")
    repo.commit()
    repo.git("checkout", "--quiet", "main")
    repo.write("text", "ours\n")
    repo.commit()


@state
def merge_in_conflict(repo: Repo) -> None:
    _diverge(repo)
    repo.git("merge", "theirs", check=False)
    assert repo.git("ls-files", "--unmerged")
    assert "<<<<<<<" in (repo.top / "text").read_text()


@state
def merge_before_its_commit(repo: Repo) -> None:
    _diverge(repo)
    repo.git("merge", "--no-commit", "-s", "ours", "theirs")
    repo.write("text", "resolved\n")


@state
def deleted_in_one_and_edited_in_the_other(repo: Repo) -> None:
    _diverge(repo)
    repo.git("rm", "--quiet", "text")
    repo.commit()
    repo.git("merge", "theirs", check=False)
    assert repo.git("ls-files", "--unmerged")


@state
def rebase_in_conflict(repo: Repo) -> None:
    _diverge(repo)
    repo.git("rebase", "theirs", check=False)
    assert (repo.top / ".git" / "rebase-merge").is_dir()
    untracked(repo)


@state
def cherry_pick_in_conflict(repo: Repo) -> None:
    _diverge(repo)
    repo.git("cherry-pick", "theirs", check=False)
    assert (repo.top / ".git" / "CHERRY_PICK_HEAD").is_file()


@state
def revert_in_conflict(repo: Repo) -> None:
    _diverge(repo)
    repo.write("text", "more\n")
    repo.commit()
    repo.git("revert", "--no-edit", "HEAD~1", check=False)


@state
def bisect_in_progress(repo: Repo) -> None:
    _diverge(repo)
    repo.git("bisect", "start", "HEAD", "HEAD~1", check=False)
    untracked(repo)


@state
def stashed(repo: Repo) -> None:
    text_edited(repo)
    repo.git("stash", "--quiet")
    untracked(repo)


@state
def settings_in_conflict(repo: Repo) -> Expected:
    repo.write("pyproject.toml", "<<<<<<< ours\n[tool.researchlab]\n=======\n>>>>>>> theirs\n")
    return Expected(refused=r"pyproject\.toml is no TOML", settings=None)


@state
def replaced_commit(repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    repo.write("text", "replaced\n")
    repo.git("replace", first, repo.commit())
    repo.git("reset", "--quiet", "--soft", first)
    repo.write("text", "after\n")


@state
def many_stores(repo: Repo) -> None:
    for number in range(3):
        repo.write("text", f"{number}\n")
        repo.commit()
        repo.git("repack", "-d", "--quiet")
    repo.git("multi-pack-index", "write", "--bitmap", check=False)
    repo.git("commit-graph", "write", "--reachable")
    repo.git("pack-refs", "--all")
    repo.git("config", "core.bigFileThreshold", "1")
    text_edited(repo)


@state
def shallow_grafts(repo: Repo) -> None:
    repo.write("text", "second\n")
    repo.commit()
    repo.git("replace", "--graft", "HEAD")
    text_edited(repo)


@state
def configuration_in_pieces(repo: Repo) -> None:
    more = repo.write(".git/more", "[core]\n\tautocrlf = true\n\tquotePath = true\n[diff]\n\tnoprefix = true\n")
    repo.git("config", "include.path", str(more))
    repo.git("config", "extensions.worktreeConfig", "true")
    repo.git("config", "--worktree", "core.eol", "crlf")
    names(repo)
    encodings(repo)


# Git LFS


def _pointer(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()


@state
def lfs_files(repo: Repo) -> Expected:
    repo.git("config", "filter.lfs.process", "git-lfs-is-not-here")
    repo.git("config", "filter.lfs.required", "true")
    repo.git("-c", "filter.lfs.required=false", "-c", "filter.lfs.process=", "status")
    known, edited = b"weights" * 1000, b"images" * 1000
    repo.write("known.bin", _pointer(known))
    repo.write("edited.bin", _pointer(edited))
    repo.write("not fetched.bin", _pointer(b"x"))
    repo.commit()
    repo.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    repo.write("known.bin", known)
    repo.write("edited.bin", edited + b"!")
    return Expected(pointers=("known.bin",), instead={"known.bin": file(_pointer(known))})


# Repositories inside


def _library(repo: Repo) -> Repo:
    return filled(repo.top.parent / "library")


def _add_submodule(repo: Repo, path: str = "lib") -> Repo:
    library = _library(repo)
    repo.git("submodule", "--quiet", "add", library.top, path)
    repo.commit()
    return Repo(repo.top / path)


@state
def submodule_clean(repo: Repo) -> Expected:
    _add_submodule(repo)
    return Expected(nested=("lib",), dirty=False)


@state
def submodule_edited(repo: Repo) -> Expected:
    inner = _add_submodule(repo)
    for change in (text_edited, untracked, made_executable, encodings, names):
        change(inner)
    return Expected(nested=("lib",))


@state
def submodule_with_a_local_commit(repo: Repo) -> Expected:
    inner = _add_submodule(repo)
    inner.write("text", "committed here")
    inner.commit()
    inner.write("text", "and edited")
    return Expected(nested=("lib",))


@state
def submodule_staged_elsewhere(repo: Repo) -> Expected:
    inner = _add_submodule(repo)
    first = inner.git("rev-parse", "HEAD")
    inner.write("text", "second")
    inner.commit()
    repo.git("add", "lib")
    inner.git("checkout", "--quiet", first)
    return Expected(nested=("lib",), dirty=False)


@state
def submodule_not_committed(repo: Repo) -> Expected:
    library = _library(repo)
    repo.git("submodule", "--quiet", "add", library.top, "lib")
    return Expected(nested=("lib",))


@state
def submodules_in_submodules(repo: Repo) -> Expected:
    inner = _add_submodule(repo, "outer")
    deep = filled(repo.top.parent / "deep")
    inner.git("submodule", "--quiet", "add", deep.top, "in ner")
    inner.commit()
    text_edited(Repo(inner.top / "in ner"))
    untracked(Repo(inner.top / "in ner"))
    text_edited(repo)
    return Expected(nested=("outer", "outer/in ner"))


@state
def submodule_in_conflict(repo: Repo) -> Expected:
    inner = _add_submodule(repo)
    first = inner.git("rev-parse", "HEAD")
    repo.git("checkout", "--quiet", "-b", "theirs")
    inner.write("text", "theirs")
    inner.commit()
    repo.git("add", "lib")
    repo.git("commit", "--quiet", "-m", "theirs")
    repo.git("checkout", "--quiet", "main")
    inner.git("checkout", "--quiet", first)
    inner.write("text", "ours")
    inner.commit()
    repo.git("add", "lib")
    repo.git("commit", "--quiet", "-m", "ours")
    repo.git("merge", "theirs", check=False)
    assert repo.git("ls-files", "--unmerged")
    return Expected(nested=("lib",), dirty=False)  # the file system is as HEAD has it


@state
def submodule_not_checked_out(repo: Repo) -> Expected:
    _add_submodule(repo)
    repo.git("submodule", "--quiet", "deinit", "--force", "lib")
    return Expected(dirty=False)


@state
def submodule_removed(repo: Repo) -> None:
    _add_submodule(repo)
    repo.git("rm", "--quiet", "lib")
    repo.write("lib", "a file now")


@state
def submodule_became_a_folder(repo: Repo) -> None:
    _add_submodule(repo)
    repo.git("rm", "--quiet", "lib")
    repo.write("lib/text", "a folder now")


@state
def folder_became_a_submodule(repo: Repo) -> Expected:
    library = _library(repo)
    repo.git("rm", "-r", "--quiet", "folder")
    repo.git("submodule", "--quiet", "add", library.top, "folder")
    return Expected(nested=("folder",))


@state
def submodule_with_its_own_git_folder(repo: Repo) -> Expected:
    inner = filled(repo.top / "lib")
    repo.git("add", "lib")
    repo.git("commit", "--quiet", "-m", "no .gitmodules")
    text_edited(inner)
    return Expected(nested=("lib",))


@state
def nested_repository(repo: Repo) -> Expected:
    inner = filled(repo.top / "deep" / "nested")
    text_edited(inner)
    untracked(inner)
    return Expected(nested=("deep/nested",))


@state
def nested_repository_without_a_commit(repo: Repo) -> Expected:
    inner = make_repo(repo.top / "nested")
    inner.write("text", "x")
    return Expected(nested=("nested",))


@state
def nested_repository_without_anything(repo: Repo) -> Expected:
    make_repo(repo.top / "nested")
    return Expected(nested=("nested",))


@state
def nested_sha256_repository(repo: Repo) -> Expected:
    text_edited(filled(repo.top / "nested", "sha256"))
    return Expected(nested=("nested",))


@state
def nested_repository_that_is_ignored(repo: Repo) -> Expected:
    filled(repo.top / "build" / "nested")
    return Expected(instead=dict.fromkeys(f"build/nested/{name}" for name in FILES), dirty=False)


FILES = ("text", "binary", "folder/b", "folder/c", "dos", "latin", "no end", ".gitignore", "tool", "link")


@state
def linked_worktree_inside(repo: Repo) -> Expected:
    repo.git("worktree", "add", "--quiet", "trees/one")
    text_edited(Repo(repo.top / "trees" / "one"))
    repo.git("-C", "trees/one", "worktree", "add", "--quiet", "two")
    untracked(Repo(repo.top / "trees" / "one" / "two"))
    return Expected(nested=("trees/one", "trees/one/two"))


@state
def nested_repository_that_is_none_any_more(repo: Repo) -> None:
    # git takes it for a folder like any other: its files are untracked ones, and `.git` is never one.
    inner = filled(repo.top / "nested")
    (inner.top / ".git" / "HEAD").write_text("nonsense")


@state
def bare_repository_inside(repo: Repo) -> None:
    repo.git("clone", "--quiet", "--bare", repo.top, "bare.git")


# What is left out


@state
def special_files(repo: Repo) -> Expected:
    os.mkfifo(repo.top / "fifo")
    (repo.top / "text").unlink()
    os.mkfifo(repo.top / "text")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(repo.top)  # the path of a socket has at most 108 bytes
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    return Expected(
        named={"text": "is a FIFO", "fifo": "is a FIFO", "socket": "is a socket"},
        instead={"fifo": None, "socket": None, "text": file("one\ntwo\nthree\n")},
    )


@state
def secrets(repo: Repo) -> Expected:
    block = "-----BEGIN PRIVATE " + "KEY-----\n" + "A" * 64 + "\n"
    for name in (".env", ".env.local", "id_rsa", "deep/.netrc", "kaggle.json"):
        repo.write(name, "x")
    repo.write("text", "TOKEN = 'ghp" + "_" + "A1" * 18 + "'\n")
    repo.write("server.pem", block)
    repo.write("allowed.pem", block)
    repo.write(".env.example", "KEY=")
    left = [".env", ".env.local", "id_rsa", "deep/.netrc", "kaggle.json", "server.pem"]
    return Expected(
        named=dict.fromkeys([*left, "text"], r"^looks like a secret \(.+\); allow it with allow-secrets"),
        instead={**dict.fromkeys(left), "text": file("one\ntwo\nthree\n")},
        settings=Settings(allow_secrets=("allowed.*",)),
    )


@state
def too_large(repo: Repo) -> Expected:
    repo.write("large", b"x" * 3000)
    repo.write("text", b"y" * 3000)
    repo.write("small", b"z" * 1000)
    return Expected(
        named={"large": "has .* no more than", "text": "has .* no more than"},
        instead={"large": None, "text": file("one\ntwo\nthree\n")},
        settings=Settings(largest_file=2000),
    )


@state
def too_large_together(repo: Repo) -> Expected:
    repo.write("a", b"x" * 3000)
    repo.write("b", b"x" * 2000)
    repo.write("c", b"x" * 1000)
    return Expected(named={"a": "together"}, instead={"a": None}, settings=Settings(largest_snapshot=3500))


@state
def too_many(repo: Repo) -> Expected:
    for number in range(20):
        repo.write(f"data/{number}", "x")
    repo.write("new.py", "x")
    return Expected(
        named={"data/": "20 untracked files"},
        instead=dict.fromkeys(f"data/{number}" for number in range(20)),
        settings=Settings(most_files=10),
    )


# Repositories of other kinds


@elsewhere
def sha256(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo", "sha256")
    for change in (text_edited, untracked, names, encodings, made_executable, folder_to_file):
        change(repo)
    return repo, Expected()


@elsewhere
def no_commit(folder: Path) -> tuple[Repo, Expected]:
    repo = make_repo(folder / "repo")
    untracked(repo)
    repo.git("add", "new/empty")
    return repo, Expected()


@elsewhere
def nothing_at_all(folder: Path) -> tuple[Repo, Expected]:
    return make_repo(folder / "repo"), Expected(dirty=False)


@elsewhere
def empty_commit(folder: Path) -> tuple[Repo, Expected]:
    repo = make_repo(folder / "repo", {})
    untracked(repo)
    return repo, Expected()


@elsewhere
def from_a_folder_below(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    text_edited(repo)
    untracked(repo)
    return repo, Expected(at=repo.top / "new" / "deep")


@elsewhere
def below_a_symlink(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "real")
    text_edited(repo)
    (folder / "link").symlink_to("real")
    return repo, Expected(at=folder / "link" / "folder")


@elsewhere
def linked_worktree(folder: Path) -> tuple[Repo, Expected]:
    filled(folder / "repo").git("worktree", "add", "--quiet", folder / "linked")
    linked = Repo(folder / "linked")
    text_edited(linked)
    untracked(linked)
    return linked, Expected()


@elsewhere
def linked_worktree_of_a_bare_repository(folder: Path) -> tuple[Repo, Expected]:
    filled(folder / "repo").git("clone", "--quiet", "--bare", folder / "repo", folder / "bare.git")
    Repo(folder / "bare.git").git("worktree", "add", "--quiet", folder / "linked")
    linked = Repo(folder / "linked")
    text_edited(linked)
    untracked(linked)
    return linked, Expected()


@elsewhere
def linked_worktree_with_its_own_configuration(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    repo.git("config", "extensions.worktreeConfig", "true")
    repo.git("worktree", "add", "--quiet", folder / "linked")
    linked = Repo(folder / "linked")
    linked.git("config", "--worktree", "core.autocrlf", "true")
    linked.git("config", "--worktree", "core.sparseCheckout", "true")
    text_edited(linked)
    return linked, Expected()


@elsewhere
def git_folder_elsewhere(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    (repo.top / ".git").rename(folder / "git dir")
    (repo.top / ".git").write_text("gitdir: ../git dir\n")
    text_edited(repo)
    untracked(repo)
    return repo, Expected()


@elsewhere
def git_folder_behind_a_symlink(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    (repo.top / ".git").rename(folder / "git dir")
    (repo.top / ".git").symlink_to("../git dir")
    text_edited(repo)
    untracked(repo)
    return repo, Expected()


@elsewhere
def sparse(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    repo.git("sparse-checkout", "set", "--no-cone", "/*", "!/folder/")
    assert not (repo.top / "folder").exists()
    text_edited(repo)
    return repo, Expected(instead={"folder/b": file("b\n"), "folder/c": file("c\n")})


@elsewhere
def sparse_cone_with_a_sparse_index(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    repo.git("sparse-checkout", "set", "--cone", "--sparse-index")
    assert not (repo.top / "folder").exists()
    repo.write("folder/b", "came back and was edited\n")
    text_edited(repo)
    return repo, Expected(instead={"folder/c": file("c\n")})


@elsewhere
def sparse_folder_that_is_a_file(folder: Path) -> tuple[Repo, Expected]:
    repo, _ = sparse(folder)
    repo.write("folder", "a file now\n")
    return repo, Expected()


@elsewhere
def sparse_folder_that_is_a_symlink(folder: Path) -> tuple[Repo, Expected]:
    repo, _ = sparse(folder)
    repo.link("folder", "/tmp")
    return repo, Expected()


@elsewhere
def sparse_file_that_is_a_folder(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    repo.git("sparse-checkout", "set", "--no-cone", "/*", "!/text")
    repo.write("text/new", "in a folder now\n")
    return repo, Expected()


@elsewhere
def folder_of_a_sparse_index_that_is_a_file(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    repo.write("folder/deep/d", "d\n")
    repo.commit()
    repo.git("sparse-checkout", "set", "--cone", "--sparse-index")
    repo.write("folder", "a file now\n")
    return repo, Expected()


@elsewhere
def shallow_clone(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    text_edited(repo)
    repo.commit()
    repo.git("clone", "--quiet", "--depth=1", f"file://{repo.top}", folder / "clone")
    clone = Repo(folder / "clone")
    clone.write("text", "mine\n")
    untracked(clone)
    return clone, Expected()


@elsewhere
def partial_clone(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    repo.git("config", "uploadpack.allowFilter", "true")
    text_edited(repo)
    repo.commit()
    repo.git("clone", "--quiet", "--filter=blob:none", f"file://{repo.top}", folder / "clone")
    clone = Repo(folder / "clone")
    clone.write("text", "mine\n")
    untracked(clone)
    return clone, Expected()


@elsewhere
def partial_and_sparse_clone(folder: Path) -> tuple[Repo, Expected]:
    # The blobs of what is not checked out are not here, and no remote is asked while a run starts.
    repo = filled(folder / "repo")
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("clone", "--quiet", "--filter=blob:none", "--sparse", f"file://{repo.top}", folder / "clone")
    clone = Repo(folder / "clone")
    clone.write("text", "mine\n")
    return clone, Expected(instead={"folder/b": file("b\n"), "folder/c": file("c\n")})


def treeless(folder: Path) -> Repo:
    """Return a clone whose HEAD is a commit that was never checked out: its tree is not here."""
    repo = filled(folder / "repo")
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    text_edited(repo)
    repo.commit()
    repo.git("clone", "--quiet", "--filter=tree:0", f"file://{repo.top}", folder / "clone")
    clone = Repo(folder / "clone")
    clone.git("reset", "--quiet", "--soft", "HEAD~1")
    return clone


@elsewhere
def treeless_clone_reset_to_another_commit(folder: Path) -> tuple[Repo, Expected]:
    clone = treeless(folder)
    clone.write("folder/b", "mine\n")
    return clone, Expected()


@elsewhere
def treeless_clone_as_a_submodule(folder: Path) -> tuple[Repo, Expected]:
    clone = treeless(folder)
    around = filled(folder / "around")
    clone.top.rename(around.top / "inner")
    around.git("add", "inner")
    around.git("commit", "--quiet", "--message", "submodule")
    return around, Expected(nested=("inner",))


@elsewhere
def a_branch_and_a_tag_called_head(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    repo.git("update-ref", "refs/heads/HEAD", "HEAD")
    repo.git("update-ref", "refs/tags/HEAD", "HEAD")
    text_edited(repo)
    repo.commit()
    untracked(repo)
    return repo, Expected()


@elsewhere
def clone_that_borrows(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "re po")
    repo.git("clone", "--quiet", "--shared", repo.top, folder / "clo\nne")
    clone = Repo(folder / "clo\nne")
    text_edited(clone)
    return clone, Expected()


@elsewhere
def restored_tree(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    text_edited(repo)
    come_back(repo.top, folder / "again")
    untracked(Repo(folder / "again"))
    return Repo(folder / "again"), Expected()


@elsewhere
def read_only(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    text_edited(repo)
    for path in [*repo.top.rglob("*"), repo.top]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    return repo, Expected()


@elsewhere
def no_repository(folder: Path) -> tuple[Repo, Expected]:
    folder.joinpath("plain").mkdir()
    return Repo(folder / "plain"), Expected(refused="not inside a git repository")


@elsewhere
def bare(folder: Path) -> tuple[Repo, Expected]:
    filled(folder / "repo").git("clone", "--quiet", "--bare", folder / "repo", folder / "bare.git")
    return Repo(folder / "bare.git"), Expected(refused="bare repository")


@elsewhere
def inside_the_git_folder(folder: Path) -> tuple[Repo, Expected]:
    return filled(folder / "repo"), Expected(refused="git folder|bare", at=folder / "repo" / ".git" / "refs")


@elsewhere
def broken_index(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    (repo.top / ".git" / "index").write_bytes(b"nonsense")
    return repo, Expected(refused="index")


@elsewhere
def broken_head(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    (repo.top / ".git" / "refs" / "heads" / "main").write_text("")
    return repo, Expected(refused="HEAD|main")


@elsewhere
def broken_configuration(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    (repo.top / ".git" / "config").write_text("[core\n")
    return repo, Expected(refused="config")


@elsewhere
def git_file_to_nowhere(folder: Path) -> tuple[Repo, Expected]:
    folder.joinpath("plain").mkdir()
    (folder / "plain" / ".git").write_text("gitdir: /nowhere\n")
    return Repo(folder / "plain"), Expected(refused="not inside a git repository|not a git repository")


@elsewhere
def lost_commit(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    (repo.top / ".git" / "refs" / "heads" / "main").write_text("1" * 40 + "\n")
    return repo, Expected(refused="1111111|HEAD|main")


@elsewhere
def ignore_rules_in_a_fifo(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    (repo.top / ".gitignore").unlink()
    os.mkfifo(repo.top / ".gitignore")
    return repo, Expected(refused=r"repo/\.gitignore is a FIFO.*wait.*rm ")


@elsewhere
def private_ignore_rules_in_a_fifo(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    (repo.top / ".git" / "info").mkdir()
    os.mkfifo(repo.top / ".git" / "info" / "exclude")
    return repo, Expected(refused=r"info/exclude is a FIFO")


@elsewhere
def attributes_in_a_fifo(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    os.mkfifo(repo.top / ".gitattributes")
    return repo, Expected(named={".gitattributes": "FIFO"}, instead={".gitattributes": None})


@elsewhere
def unknown_repository_format(folder: Path) -> tuple[Repo, Expected]:
    repo = filled(folder / "repo")
    repo.git("config", "core.repositoryFormatVersion", "1")
    repo.git("config", "extensions.fromTheFuture", "true")
    return repo, Expected(refused="fromthefuture|extension")


def is_accounted_for(path: str, snapshot: Snapshot) -> bool:
    """Whether a file is in the snapshot, or is named as left out or as ignored, itself or with the folder around it."""
    states = {"": snapshot, **{f"{inner.path}/": inner.snapshot for inner in snapshot.nested}}
    for prefix, state in states.items():
        inside = path.removeprefix(prefix)
        named = [item.path for item in state.left_out] + [name.removesuffix("*") for name in state.ignored]
        if path.startswith(prefix) and (
            os.fsencode(inside) in state.entries
            or any(inside == name or inside.startswith(f"{name.rstrip('/')}/" if name else "") for name in named)
        ):
            return True
    return False


def check(repo: Repo, expected: Expected, into: Path) -> None:
    """Capture and restore; everything is as expected, and the original as it was."""
    at = expected.at or repo.top
    if expected.refused is not None:
        before = footprint(repo.top)
        with pytest.raises(ResearchlabError, match=expected.refused):
            capture(at, settings=expected.settings)
        assert differences(footprint(repo.top), before) == {}
        return
    snapshot = come_back(repo.top, into, settings=expected.settings, repo_path=at)
    named = {item.path: item.reason for item in snapshot.left_out}
    assert named.keys() == expected.named.keys(), named
    for path, reason in expected.named.items():
        assert re.search(reason, named[path]), (path, named[path])
    assert sorted(inner.path for inner in snapshot.nested) == sorted(expected.nested)
    assert not any(inner.snapshot.left_out for inner in snapshot.nested)
    assert snapshot.pointers == expected.pointers
    assert snapshot.is_dirty == expected.dirty
    files = work_files(repo.top)
    for path, entry in expected.instead.items():
        files.pop(os.fsencode(path), None)
        if entry is not None:
            files[os.fsencode(path)] = entry
    assert differences(work_files(into), files) == {}
    assert [path for path in work_files(repo.top) if not is_accounted_for(os.fsdecode(path), snapshot)] == []
    heads = {"": snapshot, **{inner.path: inner.snapshot for inner in snapshot.nested}}
    for path, inner in heads.items():
        head = Repo(into / path).git("rev-parse", "--verify", "--quiet", "HEAD", check=False)
        assert head == (inner.base_commit or "")
        assert (into / path / ".git").exists()
        listing = os.fsencode(Repo(into / path).git("ls-tree", "-r", "-z", inner.tree)).split(b"\0")[:-1]
        assert listing == [
            b"%b %b %b\t%b" % (mode, b"commit" if mode == b"160000" else b"blob", oid.encode(), name)
            for name, (mode, oid) in sorted(inner.entries.items())
        ]


@pytest.mark.parametrize("name", STATES)
def test_a_state_comes_back_or_is_named(name: str, tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    check(repo, STATES[name](repo) or Expected(), tmp_path / "restored")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_repository_of_any_kind_comes_back_or_is_refused(name: str, tmp_path: Path) -> None:
    repo, expected = ELSEWHERE[name](tmp_path)
    check(repo, expected, tmp_path / "restored")


def test_the_local_store_is_left_out_and_named(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    for name in ("mlflow.db", "mlflow.db-journal", "mlartifacts/1/a", "mlruns/0/meta.yaml", "new.py"):
        repo.write(name, "x")
    snapshot = capture(repo.top, exclude=default_files(repo.top))
    assert [change.path for change in snapshot.changed] == ["new.py"]
    named = {item.path: item.reason for item in snapshot.left_out}
    assert named.keys() == {"mlflow.db", "mlflow.db-journal", "mlartifacts", "mlruns"}
    assert set(named.values()) == {"excluded by the caller"}


def test_what_may_not_be_read_is_named() -> None:
    def states(folder: Path) -> None:
        repo = filled(folder / "repo")
        repo.write("locked", "x").chmod(0)
        repo.write("hidden/x", "x")
        repo.write("it': odd/x", "x")
        repo.write("listed only/x", "x")
        (repo.top / "text").chmod(0o200)
        for name, mode in {"hidden": 0, "it': odd": 0, "listed only": 0o600, "folder": 0}.items():
            (repo.top / name).chmod(mode)
        snapshot = capture(repo.top)
        named = {item.path: item.reason for item in snapshot.left_out}
        expected = {"locked", "text", "hidden", "it': odd", "folder", "folder/b", "folder/c"}
        assert {path for path in named if not path.startswith("listed only")} == expected, named
        assert any(path.startswith("listed only") for path in named), named
        assert all(re.search("cannot be (read|listed|entered)", reason) for reason in named.values()), named
        assert not snapshot.changed

    as_nobody(states)


def test_another_users_repository_is_refused_with_the_command_that_helps() -> None:
    def refused(folder: Path) -> None:
        with pytest.raises(GitError, match=r"git config --global --add safe\.directory"):
            capture(folder / "repo")

    def owned_by_root(folder: Path) -> None:
        filled(folder / "repo")

    as_nobody(refused, before=owned_by_root)
