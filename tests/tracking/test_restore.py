"""Capture, restore, and the same bytes again."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.repos import Repo, contents, footprint, isolated_git, make_repo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from researchlab.errors import RestoreError
from researchlab.tracking import restore as restore_module
from researchlab.tracking.restore import restore, tree_of, write_into_worktree
from researchlab.tracking.snapshot import Snapshot, capture

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures(isolated_git.__name__)

NASTY_NAMES = [
    b"sp ace",
    b"tab\tline\nfeed\r",
    b"quote\"back\\slash'",
    b":*?[x]",
    b"-dash",
    b"--help",
    b"\xff\xfe latin \xe9",
    "\N{LATIN SMALL LETTER U WITH DIAERESIS} u\N{COMBINING DIAERESIS}".encode(),
    b"\x01\x7f\x1b[31m",
    b" lead and trail ",
    b"a/ b /c\n",
    b"dev/null",
    b"folder /empty",
    b" /x /y",
    b"{a => b}",
    b"$HOME `x` ;#&",
]
NASTY_CONTENTS = [
    b"",
    b"\n",
    b"no end of line",
    b"trailing \t \n\n\n",
    b"dos\r\nlines\r\n",
    b"lone\rcr and \x00 nul",
    b"mixed\nlines\r\n",
    b"\xff\xfe\x00utf16",
    b"latin \xe9\n",
    b"$Id$ and $Id: old $\n",
    b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n",
    b"-- \n2.39.5\n",
    bytes(range(256)) * 8,
]


def restored(repo: Repo, into: Path, snapshot: Snapshot | None = None) -> Repo:
    """Capture, restore, and compare everything there is."""
    before = footprint(repo.top)
    snapshot = snapshot or capture(repo.top)
    top = restore(
        into,
        base_commit=snapshot.base_commit,
        tree=snapshot.tree,
        patch=snapshot.patch,
        source=repo.top,
        object_format=snapshot.repository.object_format,
        branch=snapshot.repository.branch,
    )
    assert contents(top) == contents(repo.top)
    after = footprint(repo.top)
    # Objects that the snapshot uses may get a new time stamp, and so does a shared index whenever git reads it; nothing
    # else changes in any way.
    assert {path: (mode, data) for path, (mode, _, data) in after.items()} == {
        path: (mode, data) for path, (mode, _, data) in before.items()
    }
    renewed = ("objects", "sharedindex")
    assert {path: entry for path, entry in after.items() if not any(name in path for name in renewed)} == {
        path: entry for path, entry in before.items() if not any(name in path for name in renewed)
    }
    return Repo(top)


STATES: dict[str, Callable[[Repo], object]] = {}


def state(function: Callable[[Repo], object]) -> Callable[[Repo], object]:
    STATES[function.__name__] = function
    return function


@state
def clean(_: Repo) -> None:
    pass


@state
def edited(repo: Repo) -> None:
    repo.write("text", "one\nTWO\nthree\n")


@state
def staged(repo: Repo) -> None:
    edited(repo)
    repo.git("add", "text")


@state
def staged_and_edited(repo: Repo) -> None:
    staged(repo)
    repo.write("text", "one\nTWO\nTHREE\n")


@state
def staged_and_reverted(repo: Repo) -> None:
    staged(repo)
    repo.write("text", "one\ntwo\nthree\n")


@state
def binary_edited(repo: Repo) -> None:
    repo.write("binary", bytes(range(255, -1, -1)) * 3)


@state
def truncated(repo: Repo) -> None:
    repo.write("text")
    repo.write("binary")


@state
def untracked(repo: Repo) -> None:
    repo.write("new/deep/er/text", "x\n")
    repo.write("new/binary", b"\0\1\2")
    repo.write("new/empty")
    repo.write("new/tool", "#!/bin/sh\n", executable=True)


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
def untracked_again(repo: Repo) -> None:
    repo.git("rm", "--quiet", "--cached", "text")


@state
def renamed(repo: Repo) -> None:
    repo.git("mv", "text", "moved")
    (repo.top / "binary").rename(repo.top / "folder" / "moved")


@state
def made_executable(repo: Repo) -> None:
    (repo.top / "text").chmod(0o755)
    (repo.top / "tool").chmod(0o644)


@state
def symlinks(repo: Repo) -> None:
    (repo.top / "link").unlink()
    repo.link("link", "folder/b")
    repo.link("dangling", "/nowhere/at all")
    repo.link("to_folder", "folder")
    repo.link("long", "x" * 3000)
    repo.link("new/line", "a\nb")


@state
def file_to_symlink_and_back(repo: Repo) -> None:
    (repo.top / "text").unlink()
    repo.link("text", "binary")
    (repo.top / "link").unlink()
    repo.write("link", "text")  # the bytes of the symlink's target


@state
def file_to_folder_and_back(repo: Repo) -> None:
    (repo.top / "text").unlink()
    repo.write("text/a/b", "x")
    shutil.rmtree(repo.top / "folder")
    repo.write("folder", "y")


@state
def folder_to_symlink(repo: Repo) -> None:
    (repo.top / "folder").rename(repo.top / "real")
    repo.link("folder", "real")


@state
def nasty_names(repo: Repo) -> None:
    for name in NASTY_NAMES:
        repo.write(name, b"content of " + name)


@state
def nasty_names_edited(repo: Repo) -> None:
    nasty_names(repo)
    repo.commit()
    for name in NASTY_NAMES[::2]:
        repo.write(name, b"other")
    for name in NASTY_NAMES[1::2]:
        (repo.top / os.fsdecode(name)).unlink()


@state
def nasty_names_without_content(repo: Repo) -> None:
    for name in NASTY_NAMES:
        repo.write(name)
    repo.commit()
    for name in NASTY_NAMES:
        (repo.top / os.fsdecode(name)).chmod(0o755)
        repo.write(b"new/" + name)
        repo.write(b"blob/" + name, b"\0")


@state
def nasty_contents(repo: Repo) -> None:
    for number, content in enumerate(NASTY_CONTENTS):
        repo.write(f"nasty/{number}", content)
    repo.commit()
    for number, content in enumerate(NASTY_CONTENTS):
        repo.write(f"nasty/{number}", content[::-1] + NASTY_CONTENTS[number - 1])
        repo.write(f"new/{number}", content)


@state
def conflict(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "-b", "theirs")
    repo.write("text", "theirs\n")
    repo.commit()
    repo.git("checkout", "--quiet", "main")
    repo.write("text", "ours\n")
    repo.commit()
    repo.git("merge", "theirs", check=False)
    assert repo.git("ls-files", "--unmerged")


@state
def intent_to_add(repo: Repo) -> None:
    repo.write("intended", "x")
    repo.write("intended and gone", "y")
    repo.git("add", "--intent-to-add", ".")
    (repo.top / "intended and gone").unlink()


@state
def attributes(repo: Repo) -> None:
    repo.git("config", "filter.upper.clean", "tr a-z A-Z")
    repo.git("config", "filter.upper.smudge", "tr A-Z a-z")
    repo.git("config", "filter.gone.clean", "false")
    repo.git("config", "filter.gone.required", "true")
    rules = (
        "*.crlf eol=crlf",
        "*.auto text=auto",
        "*.id ident",
        "*.up filter=upper",
        "*.enc working-tree-encoding=UTF-16",
    )
    repo.write(".gitattributes", "\n".join([*rules, "*.nodiff -diff", "*.bin binary", ""]))
    for suffix in ("crlf", "auto", "id", "up", "nodiff", "bin"):
        repo.write(f"f.{suffix}", "Mixed\r\nlines $Id$\nend")
    repo.commit()
    for suffix in ("crlf", "auto", "id", "up", "nodiff", "bin"):
        repo.write(f"f.{suffix}", "Other\nmixed\r\nlines $Id: 1 $\n")
        repo.write(f"new.{suffix}", "New\r\n $Id: 2 $\n")
    repo.write("f.enc", b"\xff\xfea\0")
    repo.write(".gitattributes", "\n".join([*rules, "*.nodiff -diff", "* filter=gone", ""]))


@state
def detached(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "--detach")
    edited(repo)


@state
def file_mode_off(repo: Repo) -> None:
    repo.git("config", "core.fileMode", "false")
    edited(repo)


@state
def split_index(repo: Repo) -> None:
    repo.git("update-index", "--split-index")
    edited(repo)
    untracked(repo)


@state
def replaced_commit(repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    repo.write("text", "replaced\n")
    repo.git("replace", first, repo.commit())
    repo.git("reset", "--quiet", "--soft", first)
    repo.write("text", "after\n")


@state
def large(repo: Repo) -> None:
    repo.write("large/random", os.urandom(1 << 20) + b"1")
    repo.write("large/text", b"line\n" * 300_000)
    repo.commit()
    repo.write("large/text", b"line\n" * 299_999 + b"end\n")
    repo.write("large/random", os.urandom(1 << 20) + b"2")
    repo.write("large/new", os.urandom((1 << 20) + 5))


def filled(top: Path, object_format: str = "sha1") -> Repo:
    files = {"text": "one\ntwo\nthree\n", "binary": bytes(range(256)), "folder/b": "b\n", "folder/c": "c\n"}
    repo = make_repo(top, object_format=object_format)
    for name, content in files.items():
        repo.write(name, content)
    repo.write("tool", "#!/bin/sh\n", executable=True)
    repo.link("link", "text")
    repo.commit()
    return repo


@pytest.mark.parametrize("name", STATES)
def test_a_state_comes_back_to_the_byte(name: str, tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    STATES[name](repo)
    again = restored(repo, tmp_path / "restored")
    # What is dirty, and what was untracked, is so again (what was staged is not staged).
    assert again.git("rev-parse", "HEAD") == repo.git("rev-parse", "HEAD")
    if name != "attributes":  # git looks at these through a filter that fails
        repo.git("reset", "--quiet")
        assert again.git("status", "--short") == repo.git("status", "--short")
    # What was restored is captured as the same snapshot.
    first, second = capture(repo.top), capture(again.top)
    assert (second.tree, second.patch, second.changed) == (first.tree, first.patch, first.changed)


@pytest.mark.parametrize("name", ["untracked", "file_to_folder_and_back", "nasty_names_edited", "nasty_contents"])
def test_a_state_of_a_sha256_repository_comes_back(name: str, tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo", "sha256")
    STATES[name](repo)
    restored(repo, tmp_path / "restored")


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_repository_without_a_commit_comes_back(tmp_path: Path, object_format: str) -> None:
    repo = make_repo(tmp_path / "repo", object_format=object_format)
    restored(repo, tmp_path / "empty")
    untracked(repo)
    again = restored(repo, tmp_path / "restored")
    assert again.git("status", "--short", "--branch") == repo.git("status", "--short", "--branch")


@pytest.mark.parametrize("name", ["line\nfeed", '"quoted"', "#comment", "\udcff", "a:b"])
def test_a_repository_comes_back_wherever_it_lies(tmp_path: Path, name: str) -> None:
    repo = filled(tmp_path / name / "repo")
    edited(repo)
    restored(repo, tmp_path / name / "restored")


def test_a_linked_work_tree_comes_back(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    repo.git("worktree", "add", "--quiet", tmp_path / "linked")
    linked = Repo(tmp_path / "linked")
    edited(linked)
    untracked(linked)
    again = restored(linked, tmp_path / "restored")
    assert again.git("branch", "--show-current") == "linked"


def test_a_repository_that_borrows_objects_comes_back(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    repo.git("clone", "--quiet", "--shared", repo.top, tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    edited(clone)
    restored(clone, tmp_path / "restored")
    # A restored tree is a repository like any other.
    (tmp_path / "restored" / "text").write_text("again")
    restored(Repo(tmp_path / "restored"), tmp_path / "restored again")


@pytest.mark.parametrize("depth", ["--depth=1", "--filter=blob:none"])
def test_an_incomplete_clone_comes_back(tmp_path: Path, depth: str) -> None:
    repo = filled(tmp_path / "repo")
    edited(repo)
    repo.commit()
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("clone", "--quiet", depth, f"file://{repo.top}", tmp_path / "clone")
    clone = Repo(tmp_path / "clone")
    clone.write("text", "mine\n")
    untracked(clone)
    restored(clone, tmp_path / "restored")


def test_an_empty_submodule_folder_comes_back(tmp_path: Path) -> None:
    library, repo = filled(tmp_path / "library"), filled(tmp_path / "repo")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.top, "lib")
    repo.commit()
    repo.git("submodule", "deinit", "--quiet", "--force", "lib")
    edited(repo)
    assert (restored(repo, tmp_path / "restored").top / "lib").is_dir()
    # The submodule is removed; then a file has its place.
    repo.git("rm", "--quiet", "--force", "lib")
    restored(repo, tmp_path / "removed")
    repo.write("lib", "a file now")
    restored(repo, tmp_path / "replaced")
    (repo.top / "lib").unlink()
    repo.write("lib/a", "a folder now")
    restored(repo, tmp_path / "replaced by a folder")


# Hostile configuration

HOSTILE = {
    "core.autocrlf": ["true", "input"],
    "core.eol": ["crlf"],
    "core.safecrlf": ["true"],
    "core.quotePath": ["true"],
    "core.bigFileThreshold": ["1"],
    "core.whitespace": ["cr-at-eol,trailing-space,tab-in-indent"],
    "core.symlinks": ["false"],
    "core.precomposeUnicode": ["true"],
    "core.fsmonitor": ["/bin/false"],
    "core.untrackedCache": ["true"],
    "core.pager": ["false"],
    "core.compression": ["9"],
    "diff.noprefix": ["true"],
    "diff.mnemonicPrefix": ["true"],
    "diff.external": ["false"],
    "diff.context": ["0"],
    "diff.interHunkContext": ["20"],
    "diff.algorithm": ["patience", "histogram"],
    "diff.renames": ["copies"],
    "diff.suppressBlankEmpty": ["true"],
    "diff.submodule": ["diff"],
    "diff.ignoreSubmodules": ["all"],
    "diff.relative": ["true"],
    "diff.wsErrorHighlight": ["all"],
    "diff.colorMoved": ["zebra"],
    "diff.py.textconv": ["false"],
    "color.ui": ["always"],
    "apply.whitespace": ["fix", "error-all"],
    "apply.ignoreWhitespace": ["change"],
    "commit.gpgSign": ["true"],
    "fastimport.unpackLimit": ["1000"],
    "feature.manyFiles": ["true"],
    "submodule.recurse": ["true"],
    "filter.odd.clean": ["tr a-z A-Z"],
    "filter.odd.smudge": ["false"],
    "filter.odd.required": ["true"],
}
NAMES = st.one_of(
    st.sampled_from(["a", "b", "a.py", "b.txt", "d"]),
    st.sampled_from(NASTY_NAMES).map(os.fsdecode).filter(lambda name: "/" not in name),
    st.binary(min_size=1, max_size=6)
    .map(os.fsdecode)
    .filter(lambda name: not {"/", "\0"} & set(name) and name.lower() not in {".", "..", ".git"}),
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.one_of(
    st.sampled_from(NASTY_CONTENTS),
    st.binary(max_size=40),
    st.lists(st.sampled_from([b"a\n", b"b\r\n", b" \t\n", b"c\r", b"\n", b"$Id$\n"]), max_size=30).map(b"".join),
)
ENTRIES = st.one_of(
    st.tuples(st.sampled_from(["file", "executable"]), CONTENTS),
    st.tuples(st.just("symlink"), NAMES.map(os.fsencode)),
)
TREES = st.dictionaries(PATHS, ENTRIES, max_size=6)
ATTRIBUTES = st.lists(
    st.sampled_from(
        [
            "* text=auto",
            "* text",
            "* eol=crlf",
            "* ident",
            "* filter=odd",
            "* -diff",
            "* binary",
            "* diff=py",
            "* export-subst",
        ]
    ),
    max_size=3,
)


def lay(repo: Repo, tree: dict[str, tuple[str, bytes]]) -> None:
    """Write a tree over what is there, as far as it goes."""
    for name, (kind, data) in tree.items():
        path = repo.top / name
        for parent in path.relative_to(repo.top).parents:
            if (repo.top / parent).is_symlink() or (repo.top / parent).is_file():
                (repo.top / parent).unlink()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if kind == "symlink":
            repo.link(name, os.fsdecode(data))
        else:
            repo.write(name, data, executable=kind == "executable")


def change(
    repo: Repo, before: dict[str, tuple[str, bytes]], after: dict[str, tuple[str, bytes]], gone: set[int]
) -> None:
    """Commit one tree, write another over it, and delete some of the first."""
    lay(repo, before)
    repo.commit()
    lay(repo, after)
    for number in gone:
        for name in sorted(before)[number : number + 1]:
            path = repo.top / name
            if path.is_symlink() or path.is_file():
                path.unlink()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=TREES,
    after=TREES,
    gone=st.sets(st.integers(0, 5)),
    staged=st.booleans(),
    rules=ATTRIBUTES,
    hostile=st.dictionaries(st.sampled_from(sorted(HOSTILE)), st.integers(0, 1), max_size=6),
    object_format=st.sampled_from(["sha1", "sha1", "sha256"]),
)
def test_any_tree_under_any_configuration_comes_back(
    isolated_git: Path,
    before: dict[str, tuple[str, bytes]],
    after: dict[str, tuple[str, bytes]],
    gone: set[int],
    staged: bool,  # noqa: FBT001 - drawn by Hypothesis
    rules: list[str],
    hostile: dict[str, int],
    object_format: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = make_repo(Path(folder) / "repo", object_format=object_format)
        isolated_git.write_text("")
        change(repo, before, after, gone)
        if staged:
            repo.git("add", "--all")
        if rules:
            repo.write(".gitattributes", "\n".join([*rules, ""]))
        for key, number in hostile.items():
            values = HOSTILE[key]
            repo.git("config", "--global", key, values[number % len(values)])
        restored(repo, Path(folder) / "restored")


# Refusals


def arguments(repo: Repo) -> dict[str, object]:
    snapshot = capture(repo.top)
    return {"base_commit": snapshot.base_commit, "tree": snapshot.tree, "patch": snapshot.patch, "source": repo.top}


def refused(into: Path, match: str, **given: object) -> None:
    """Restoring must fail and leave the folder as it was."""
    with pytest.raises(RestoreError, match=match):
        restore(into, **given)  # type: ignore[arg-type]
    assert not into.exists() or contents(into) == {}


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    with pytest.raises(RestoreError, match=r"empty folder, and .*repo is not one"):
        restore(repo.top, **arguments(repo))  # type: ignore[arg-type]


def test_a_missing_base_commit_names_all_that_was_tried_and_the_commands_that_fetch_it(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    repo.git("remote", "add", "origin", "http://user:secret@127.0.0.1:9/no.git")
    repo.git("remote", "add", "lab", f"{tmp_path}/gone code.git")
    missing = "0123456789" * 4
    remotes = {"lab": f"{tmp_path}/gone code.git", "mirror": "ext::sh -c touch%20" + str(tmp_path / "ran")}
    given = arguments(repo) | {"base_commit": missing, "remotes": remotes}
    with pytest.raises(RestoreError, match=missing) as error:
        restore(tmp_path / "into", **given, bundle=tmp_path / "bundle")  # type: ignore[arg-type]
    lines = str(error.value).splitlines()
    assert lines[0] == f"The base commit {missing} of the repository is nowhere to be had. Tried:"
    assert lines[1:3] == [
        f"  {repo.top}: it is not there",
        f"  {tmp_path}/bundle: it is not among the artifacts of the run",
    ]
    assert lines[3].startswith("  the remote origin (http://127.0.0.1:9/no.git): unable to access")
    assert lines[4].startswith(f"  the remote lab ({tmp_path}/gone code.git): '{tmp_path}/gone code.git' does not")
    assert lines[5].startswith("  the remote mirror (ext::sh -c touch%20")
    assert "not allowed" in lines[5]
    assert lines[6:8] == [
        "Fetch it from a clone that has it, and try again:",
        f"  git -C {repo.top} fetch lab {missing}",
    ]
    assert "secret" not in str(error.value)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "into").exists()
    refused(tmp_path / "into", "fetch '<a clone>'", **given | {"remotes": {}, "source": filled(tmp_path / "x").top})
    refused(tmp_path / "into", "Name a clone that has it with --repo", **given | {"remotes": {}, "source": None})


def test_a_base_commit_that_is_no_commit_is_refused(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    blob = repo.git("rev-parse", "HEAD:text")
    refused(tmp_path / "into", "it is a blob there, not a commit", **arguments(repo) | {"base_commit": blob})
    refused(tmp_path / "into", "is not the id of a commit", **arguments(repo) | {"base_commit": "--help"})


def test_a_repository_of_the_other_object_format_is_refused(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    given = arguments(repo) | {"object_format": "sha256", "base_commit": "0" * 64, "tree": "1" * 64}
    refused(tmp_path / "into", "names objects by sha1, and the run's repository by sha256", **given)


def test_a_base_commit_with_missing_files_is_refused(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    given = arguments(repo)
    blob = repo.git("rev-parse", "HEAD:text")
    (repo.top / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    refused(tmp_path / "into", blob, **given)


def test_a_damaged_patch_is_refused_with_the_words_of_git(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    edited(repo)
    given = arguments(repo)
    patch = capture(repo.top).patch
    refused(tmp_path / "into", r"does not apply to .*(.|\n)*corrupt patch", **given | {"patch": patch[:-3]})
    refused(tmp_path / "into", r"does not apply to .*(.|\n)*No valid patches", **given | {"patch": b"hello"})
    refused(tmp_path / "into", "was recorded", **given | {"patch": b""})
    refused(tmp_path / "into", "was recorded", **given | {"patch": patch.replace(b"TWO", b"ZWO")})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../outside", "x"),
        ("/tmp/rlab-outside", "x"),
        (".git/hooks/post-checkout", "x"),
        (".GIT/config", "x"),
        ("a/../../outside", "x"),
        ("a/.git/config", "x"),
        ("sub/./x", "x"),
    ],
)
def test_a_patch_cannot_write_outside_of_the_work_tree(tmp_path: Path, name: str, content: str) -> None:
    repo = filled(tmp_path / "repo")
    given = arguments(repo)
    hostile = (
        f"diff --git a/{name} b/{name}\nnew file mode 100755\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{content}\n"
    )
    before = sorted(tmp_path.rglob("*"))
    refused(tmp_path / "into", "does not apply|was recorded|cannot be built", **given | {"patch": hostile.encode()})
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/rlab-outside").exists()


def test_a_patch_cannot_write_through_a_symlink_that_it_brings(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    (tmp_path / "outside").mkdir()
    given = arguments(repo)
    hostile = (
        f"diff --git a/d b/d\nnew file mode 120000\n--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+{tmp_path}/outside\n"
        "\\ No newline at end of file\n"
        "diff --git a/d/x b/d/x\nnew file mode 100644\n--- /dev/null\n+++ b/d/x\n@@ -0,0 +1 @@\n+evil\n"
    )
    refused(tmp_path / "into", "does not apply|was recorded", **given | {"patch": hostile.encode()})
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_restored_repository_runs_no_hook_and_no_template_of_the_user(tmp_path: Path, isolated_git: Path) -> None:
    hooks = tmp_path / "template" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "post-index-change", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    isolated_git.write_text(f"[init]\n\ttemplateDir = {tmp_path}/template\n[core]\n\thooksPath = {hooks}\n")
    repo = filled(tmp_path / "repo")
    (tmp_path / "ran").unlink(missing_ok=True)
    edited(repo)
    again = restored(repo, tmp_path / "restored")
    assert not (tmp_path / "ran").exists()
    assert not (again.top / ".git" / "hooks").exists()


def test_the_remotes_are_those_of_the_record(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    remotes = {"origin": "https://example.org/x.git", 'a "b"\\': "/srv/sp ace;#"}
    again = Repo(restore(tmp_path / "into", **arguments(repo), remotes=remotes))  # type: ignore[arg-type]
    assert {name: again.git("config", f"remote.{name}.url") for name in remotes} == remotes


def test_an_impossible_branch_name_is_refused(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    refused(tmp_path / "into", "check-ref-format", **arguments(repo), branch="../../x")


def test_what_does_not_read_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = filled(tmp_path / "repo")
    given = arguments(repo)
    write = restore_module._checkout

    def write_badly(top: Path) -> None:
        write(top)
        (top / "text").write_text("one\ntwo\nthree")
        (top / "tool").chmod(0o644)
        (top / "link").unlink()
        (top / "extra").touch()

    monkeypatch.setattr(restore_module, "_checkout", write_badly)
    refused(tmp_path / "into", "4 files in .* are not what the snapshot holds .*: extra, link, text, tool", **given)


# Trees without a work tree


def test_two_snapshots_are_compared_in_one_store(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    edited(repo)
    first = capture(repo.top)
    untracked(repo)
    second = capture(repo.top)
    before = footprint(repo.top)
    trees = [
        tree_of(shot.base_commit, shot.patch, source=repo.top, scratch=tmp_path / "scratch") for shot in (first, second)
    ]
    assert [tree for _, tree in trees] == [first.tree, second.tree]
    names = Repo(trees[0][0]).git("diff-tree", "-r", "--name-only", first.tree, second.tree)
    assert names.split() == ["new/binary", "new/deep/er/text", "new/empty", "new/tool"]
    assert {path: data for path, (_, _, data) in footprint(repo.top).items()} == {
        path: data for path, (_, _, data) in before.items()
    }


# Into the user's own checkout


def wipe(repo: Repo) -> None:
    repo.git("add", "--all")
    repo.git("reset", "--quiet", "--hard")
    assert repo.git("status", "--short") == ""


@pytest.mark.parametrize("name", [name for name in STATES if name not in {"attributes", "replaced_commit"}])
def test_a_state_comes_back_into_the_checkout(name: str, tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    STATES[name](repo)
    snapshot, expected = capture(repo.top), contents(repo.top)
    wipe(repo)
    index = (repo.top / ".git" / "index").read_bytes()
    written = write_into_worktree(repo.top, base_commit=snapshot.base_commit, tree=snapshot.tree, patch=snapshot.patch)
    assert contents(repo.top) == expected
    assert (repo.top / ".git" / "index").read_bytes() == index
    assert sorted(written) == sorted(change.path for change in snapshot.changed)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=TREES, after=TREES, gone=st.sets(st.integers(0, 5)), autocrlf=st.sampled_from(["false", "true", "input"]))
def test_any_tree_comes_back_into_the_checkout(
    isolated_git: Path,
    before: dict[str, tuple[str, bytes]],
    after: dict[str, tuple[str, bytes]],
    gone: set[int],
    autocrlf: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        isolated_git.write_text("")
        repo = make_repo(Path(folder))
        change(repo, before, after, gone)
        snapshot, expected = capture(repo.top), contents(repo.top)
        wipe(repo)
        repo.git("config", "core.autocrlf", autocrlf)
        repo.git("rm", "-r", "--quiet", "--force", "--ignore-unmatch", ".")
        repo.git("reset", "--quiet", "--hard")
        write_into_worktree(repo.top, base_commit=snapshot.base_commit, tree=snapshot.tree, patch=snapshot.patch)
        assert contents(repo.top) == expected


def test_the_checkout_is_exact_whatever_git_converts(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    repo.write(".gitattributes", "*.id ident\n")
    repo.write("x.id", "$Id$\n")
    repo.commit()
    repo.write("text", "one\r\ntwo\nthree")
    snapshot, expected = capture(repo.top), contents(repo.top)
    repo.git("config", "core.autocrlf", "true")
    for name in ("text", "x.id", "folder/b"):
        (repo.top / name).unlink()
    repo.git("reset", "--quiet", "--hard")
    assert (repo.top / "folder" / "b").read_bytes() == b"b\r\n"
    write_into_worktree(repo.top, base_commit=snapshot.base_commit, tree=snapshot.tree, patch=snapshot.patch)
    assert contents(repo.top) == expected


def test_what_a_sparse_checkout_leaves_out_stays_out(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    repo.git("sparse-checkout", "set", "--no-cone", "/text")
    edited(repo)
    snapshot, expected = capture(repo.top), contents(repo.top)
    repo.git("reset", "--quiet", "--hard")
    write_into_worktree(repo.top, base_commit=snapshot.base_commit, tree=snapshot.tree, patch=snapshot.patch)
    assert contents(repo.top) == expected


@pytest.mark.parametrize(
    "obstacle", ["new", "new/deep/er/text", "new/empty/file", "new/deep/er/text/below", "link_away"]
)
def test_a_file_in_the_way_is_not_overwritten(tmp_path: Path, obstacle: str) -> None:
    repo = filled(tmp_path / "repo")
    untracked(repo)
    snapshot = capture(repo.top)
    shutil.rmtree(repo.top / "new")
    if obstacle == "link_away":
        (tmp_path / "outside").mkdir()
        repo.link("new", "../outside")
        obstacle = "new"
    else:
        repo.write(obstacle, "precious")
    before = contents(repo.top)
    with pytest.raises(RestoreError, match=rf"1 files in .* in the way .*{obstacle}\. Nothing was written"):
        write_into_worktree(repo.top, base_commit=snapshot.base_commit, tree=snapshot.tree, patch=snapshot.patch)
    assert contents(repo.top) == before


def test_a_file_in_the_way_with_the_same_content_is_fine(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    untracked(repo)
    snapshot, expected = capture(repo.top), contents(repo.top)
    assert "new/empty" not in write_into_worktree(
        repo.top, base_commit=snapshot.base_commit, tree=snapshot.tree, patch=snapshot.patch
    )
    assert contents(repo.top) == expected


def test_a_wrong_tree_writes_nothing_into_the_checkout(tmp_path: Path) -> None:
    repo = filled(tmp_path / "repo")
    snapshot = capture(repo.top)
    edited(repo)
    patch = capture(repo.top).patch
    wipe(repo)
    with pytest.raises(RestoreError, match=f"{snapshot.tree} was recorded"):
        write_into_worktree(repo.top, base_commit=snapshot.base_commit, tree=snapshot.tree, patch=patch)
    assert not capture(repo.top).is_dirty
