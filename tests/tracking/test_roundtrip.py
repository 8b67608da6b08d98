"""Any repository, any edits, any configuration: captured, restored, and every byte is the same.

The number of examples is 300, and another one with `RLAB_EXAMPLES=5000` in the environment.
"""

# ruff: noqa: PTH104, PTH211 (bytes, and pathlib knows text only)
from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import pytest
from helpers.repos import isolated_git
from helpers.worktrees import (
    ANYTHING,
    Entry,
    Handmade,
    Staged,
    Tree,
    come_back,
    differences,
    lay,
    place,
    remove,
    work_files,
)
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures(isolated_git.__name__)

T = TypeVar("T")
EXAMPLES = int(os.environ.get("RLAB_EXAMPLES", "300"))

# Trees


def consistent(tree: Tree) -> Tree:
    """Drop what lies below a file of the same tree."""
    parents = {path for path in tree for other in tree if other.startswith(path + b"/")}
    return {path: entry for path, entry in tree.items() if path not in parents}


def likely(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """Draw from one of some strategies, each as often as its number says; ``one_of`` makes them equal."""
    weighted = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.sampled_from(weighted).flatmap(lambda strategy: strategy)


_GIT_NAMES = (b".git", b"git~")
_ODD_NAMES = [
    b"A",
    b"a.LOG",
    b"-",
    b"--help",
    b":",
    b":(top)a",
    b'"',
    b"\\",
    b"sp ace",
    b" lead",
    b"trail ",
    b"tab\t",
    b"line\nfeed",
    b"return\r",
    b"\xff\xfe",
    b"caf\xe9",
    "\N{LATIN SMALL LETTER U WITH DIAERESIS}".encode(),
    b"u\xcc\x88",
    b"*?[x]",
    b"{a => b}",
    b"\x01\x1b\x7f",
    b"dev",
    b"null",
    b"con",
    b"a" * 200,
    b".gitkeep",
    b".hidden",
]
_ANY_NAME = st.binary(min_size=1, max_size=5).filter(
    lambda name: not {0, 47} & set(name) and name not in {b".", b".."} and not name.lower().startswith(_GIT_NAMES)
)
NAMES = likely(
    (4, st.sampled_from([b"a", b"b", b"c", b"A", b"a ", b" "])), (2, st.sampled_from(_ODD_NAMES)), (1, _ANY_NAME)
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
_TEXTS = st.sampled_from(
    [
        b"",
        b"\n",
        b"no end of line",
        b"one\ntwo\nthree\n",
        b"one\r\ntwo\r\nthree\r\n",
        b"mixed\r\nlines\nand\rreturns",
        b"latin \xe9\n",
        b"\xff\xfeu\0t\0f\0",
        b"\xef\xbb\xbfmark\n",
        b"$Id$ $Id: old $\n",
        b"<<<<<<< ours\n=======\n>>>>>>> theirs\n",
        b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n",
        b"-- \n2.39.5\n",
        b"trailing \t \n\n\n",
        bytes(range(256)),
        b"long line " * 3000,
    ]
)
_BINARIES = st.one_of(
    st.sampled_from([b"\0", bytes(range(256)), bytes(range(255, -1, -1)) * 20, b"\0" * 9000]),
    st.binary(min_size=1, max_size=30).map(lambda data: data + b"\0" + data[::-1]),
)
_LINES = st.lists(st.sampled_from([b"a\n", b"b\r\n", b" \n", b"\n", b"c\r", b"d"]), max_size=12).map(b"".join)
CONTENTS = likely((2, _TEXTS), (2, _BINARIES), (1, st.binary(max_size=30)), (2, _LINES))
_TARGETS = st.one_of(NAMES, st.sampled_from([b"..", b"/nowhere", b"a/b", b"x" * 300]))
ENTRIES = likely(
    (4, st.builds(Entry, st.just("file"), CONTENTS)),
    (2, st.builds(Entry, st.just("executable"), CONTENTS)),
    (1, st.builds(Entry, st.just("symlink"), _TARGETS)),
)
TREES = st.dictionaries(PATHS, ENTRIES, min_size=1, max_size=7).map(consistent)


# Edits: what is done to the work tree, and to the index

_WHICH = st.integers(0, 5)
EDITS = st.lists(
    likely(
        (3, st.tuples(st.just("write"), PATHS, ENTRIES)),
        (4, st.tuples(st.just("over"), _WHICH, ENTRIES)),
        (2, st.tuples(st.just("append"), _WHICH, CONTENTS)),
        (1, st.tuples(st.just("truncate"), _WHICH, st.just(b""))),
        (2, st.tuples(st.just("chmod"), _WHICH, st.just(b""))),
        (2, st.tuples(st.just("delete"), _WHICH, st.just(b""))),
        (2, st.tuples(st.just("rename"), _WHICH, PATHS)),
        (1, st.tuples(st.just("case"), _WHICH, st.just(b""))),
        (2, st.tuples(st.just("into folder"), _WHICH, NAMES)),
        (1, st.tuples(st.just("out of folder"), _WHICH, st.just(b""))),
        (3, st.tuples(st.just("behind symlink"), _WHICH, NAMES)),
    ),
    min_size=1,
    max_size=8,
)
STAGINGS = st.lists(
    st.tuples(
        st.sampled_from(
            ["as on disk", "other", "remove", "conflict", "intend", "assume", "skip", "skip absent", "add all"]
        ),
        _WHICH,
        ENTRIES,
    ),
    max_size=4,
)
IGNORED = [b"*.log", b"/a", b"b/", b"c", b"!*.log", b"/nothing", b"*"]


@dataclass(frozen=True)
class Work:
    """A repository and what was done to it."""

    base: Tree | None
    edits: list[tuple[str, object, object]]
    stagings: list[tuple[str, int, Entry]]


WORKS = st.builds(
    Work,
    base=likely((12, TREES), (1, st.just({})), (1, st.none())),
    edits=EDITS,
    stagings=likely((1, st.just([])), (2, STAGINGS)),
)


def edit(top: Path, edits: list[tuple[str, object, object]]) -> None:  # noqa: C901 - one branch an edit
    """Do the edits to the files on disk."""
    for what, where, how in edits:
        if what == "write":
            assert isinstance(where, bytes)
            assert isinstance(how, Entry)
            lay(top, where, how)
            continue
        files = {path: entry for path, entry in work_files(top).items() if isinstance(entry, Entry)}
        if not files:
            continue
        assert isinstance(where, int)
        path = sorted(files)[where % len(files)]
        entry = files[path]
        folder, _, name = path.rpartition(b"/")
        if isinstance(how, Entry):
            lay(top, path, how)
        elif what in {"append", "truncate"} and entry.kind != "symlink":
            assert isinstance(how, bytes)
            lay(top, path, Entry(entry.kind, entry.data + how if what == "append" else b""))
        elif what == "chmod" and entry.kind != "symlink":
            lay(top, path, Entry("file" if entry.kind == "executable" else "executable", entry.data))
        elif what == "delete":
            remove(top, path)
        elif what in {"rename", "case"}:
            assert isinstance(how, bytes)
            remove(top, path)
            lay(top, how if what == "rename" else (folder + b"/" if folder else b"") + name.swapcase(), entry)
        elif what == "into folder":
            assert isinstance(how, bytes)
            lay(top, path + b"/" + how, entry)
        elif what == "out of folder" and folder:
            lay(top, folder, entry)
        elif what == "behind symlink" and folder:
            assert isinstance(how, bytes)
            if how.split(b"/")[0] != folder.split(b"/")[0]:
                remove(top, how)
                os.rename(place(top, folder.split(b"/")[0]), place(top, how))
                os.symlink(how, place(top, folder.split(b"/")[0]))


def stage(  # noqa: C901 - one branch a state
    repo: Handmade, base: Tree, stagings: list[tuple[str, int, Entry]]
) -> list[Staged]:
    """Return an index: that of the base commit, with things done to it."""
    index = {path: [Staged(path, entry)] for path, entry in base.items()}
    for what, which, entry in stagings:
        files = {path: found for path, found in work_files(repo.top).items() if isinstance(found, Entry)}
        if what == "add all":
            index = {path: [Staged(path, found)] for path, found in files.items()}
            continue
        paths = sorted(files.keys() | index.keys())
        if not paths:
            continue
        path = paths[which % len(paths)]
        if what == "remove":
            index.pop(path, None)
            continue
        # An index cannot hold a file and something below it.
        for other in [other for other in index if other.startswith(path + b"/") or path.startswith(other + b"/")]:
            del index[other]
        if what == "skip absent":
            remove(repo.top, path)
        now = files.get(path)
        held = index[path][0].entry if path in index else entry
        if what == "as on disk" and now is not None:
            index[path] = [Staged(path, now)]
        elif what == "other":
            index[path] = [Staged(path, entry)]
        elif what == "conflict":
            index[path] = [Staged(path, held, stage=1), Staged(path, entry, stage=2), Staged(path, held, stage=3)]
        elif what == "intend":
            index[path] = [Staged(path, entry, intent_to_add=True)]
        elif what == "assume":
            index[path] = [Staged(path, held, assume_unchanged=True)]
        elif what in {"skip", "skip absent"}:
            index[path] = [Staged(path, held, skip_worktree=True)]
    return [item for items in index.values() for item in items]


# Hostile surroundings: {evil} is a program that must not be started

HOSTILE = """
core.autocrlf=true core.autocrlf=input core.eol=crlf core.safecrlf=true core.quotePath=true core.bigFileThreshold=1
core.whitespace=cr-at-eol,tab-in-indent core.symlinks=false core.precomposeUnicode=true core.fsmonitor={evil}
core.fsmonitor=true core.untrackedCache=true core.splitIndex=true core.pager={evil} core.compression=0
core.looseCompression=9 core.hooksPath={hooks} core.sshCommand={evil} core.askPass={evil} core.editor={evil}
core.gitProxy={evil} core.attributesFile={attributes} core.checkStat=minimal core.trustctime=false
core.preloadIndex=true core.ignoreStat=true core.protectHFS=true core.logAllRefUpdates=always core.abbrev=4
core.commentChar=- core.createObject=rename core.packedGitWindowSize=1 core.deltaBaseCacheLimit=1
core.sharedRepository=world core.sparseCheckout=true core.fsync=all core.commitGraph=true core.multiPackIndex=true
core.warnAmbiguousRefs=true core.filesRefLockTimeout=0 diff.noprefix=true diff.mnemonicPrefix=true
diff.external={evil} diff.context=0 diff.interHunkContext=20 diff.algorithm=patience diff.renames=copies
diff.renameLimit=1 diff.suppressBlankEmpty=true diff.submodule=log diff.submodule=diff diff.ignoreSubmodules=all
diff.relative=true diff.wsErrorHighlight=all diff.colorMoved=zebra diff.orderFile={attributes} diff.dirstat=lines,0
diff.indentHeuristic=false diff.statGraphWidth=3 diff.wordRegex=. diff.evil.textconv={evil} diff.evil.command={evil}
diff.evil.binary=true diff.tool=evil diff.autoRefreshIndex=true color.ui=always color.diff=always column.ui=always
status.showUntrackedFiles=no status.relativePaths=false status.short=true apply.whitespace=fix
apply.whitespace=error-all apply.ignoreWhitespace=change commit.gpgSign=true gpg.program={evil}
fastimport.unpackLimit=1000 transfer.unpackLimit=1 transfer.fsckObjects=true feature.manyFiles=true
feature.experimental=true index.version=4 index.sparse=true index.threads=9 index.recordEndOfIndexEntries=true
submodule.recurse=true submodule.active=nothing filter.odd.clean={evil} filter.odd.smudge={evil}
filter.odd.process={evil} filter.odd.required=true filter.lfs.clean={evil} filter.lfs.smudge={evil}
filter.lfs.process={evil} filter.lfs.required=true merge.evil.driver={evil} credential.helper={evil}
alias.ls-files=!{evil} alias.rev-parse=!{evil} alias.diff-tree=!{evil} pack.threads=9 pack.writeBitmaps=true
pack.window=0 pack.depth=0 pack.packSizeLimit=1m gc.auto=1 maintenance.auto=true i18n.commitEncoding=latin1
i18n.logOutputEncoding=utf-16 log.showSignature=true checkout.workers=9 checkout.defaultRemote=x
advice.detachedHead=true user.useConfigOnly=true init.defaultBranch=odd init.templateDir={hooks} protocol.allow=never
clone.defaultRemoteName=odd blame.ignoreRevsFile={attributes} interactive.diffFilter={evil} sequence.editor={evil}
http.proxy=x url.x.insteadOf=y remote.origin.url=https://user:word@example.org/x remote.origin.vcs=evil
safe.bareRepository=explicit
""".split()  # noqa: SIM905 - a hundred lines otherwise
# `ignoreCase` belongs here, too, and is a row of the table of states: git itself does not list some files then.
VARIABLES = """
GIT_DIR={other}/.git GIT_WORK_TREE={other} GIT_INDEX_FILE={other}/.git/index GIT_INDEX_FILE=/nowhere/index
GIT_OBJECT_DIRECTORY={other}/.git/objects GIT_ALTERNATE_OBJECT_DIRECTORIES={other}/.git/objects
GIT_COMMON_DIR={other}/.git GIT_NAMESPACE=odd GIT_PREFIX=a/ GIT_QUARANTINE_PATH=/nowhere GIT_CEILING_DIRECTORIES=/
GIT_LITERAL_PATHSPECS=1 GIT_GLOB_PATHSPECS=1 GIT_ICASE_PATHSPECS=1 GIT_NOGLOB_PATHSPECS=1 GIT_EXTERNAL_DIFF={evil}
GIT_DIFF_OPTS=-u0 GIT_TRACE=1 GIT_TRACE=2 GIT_TRACE2=1 GIT_TRACE_SETUP=1 GIT_TRACE_PACKET=1 GIT_TRACE2_EVENT=1
GIT_CONFIG=/nowhere GIT_CONFIG_PARAMETERS='core.bare=true' GIT_REPLACE_REF_BASE=refs/odd GIT_GRAFT_FILE={attributes}
GIT_SHALLOW_FILE=/nowhere GIT_ATTR_SOURCE=HEAD GIT_DEFAULT_HASH=sha256 GIT_FLUSH=0 GIT_REF_PARANOIA=1 GIT_PAGER={evil}
GIT_EDITOR={evil} GIT_SSH={evil} GIT_ASKPASS={evil} GIT_PROXY_COMMAND={evil} GIT_PROTOCOL=version=2
GIT_OPTIONAL_LOCKS=1 GIT_AUTHOR_DATE=odd GIT_COMMITTER_NAME= GIT_TEMPLATE_DIR={hooks} GIT_INTERNAL_SUPER_PREFIX=a/
GIT_TEST_ASSUME_DIFFERENT_OWNER=0 GIT_ICASE_PATHSPECS=true GIT_ADVICE=1 LANG=de_DE.UTF-8 LC_ALL=tr_TR.UTF-8
LANGUAGE=de TZ=Pacific/Chatham COLUMNS=1 PAGER={evil} EDITOR={evil} SSH_ASKPASS={evil} POSIXLY_CORRECT=1 DISPLAY=
TERM=dumb LESS=-x
""".split()  # noqa: SIM905 - a hundred lines otherwise
ATTRIBUTES = [
    "* text=auto",
    "* text",
    "* eol=crlf",
    "* eol=lf",
    "* -text",
    "* ident",
    "* filter=odd",
    "* filter=lfs diff=lfs merge=lfs -text",
    "* -diff",
    "* binary",
    "* diff=evil",
    "* merge=evil",
    "* working-tree-encoding=UTF-16",
    "* export-subst",
    "* export-ignore",
    "* whitespace=cr-at-eol",
    "* crlf",
    "[attr]x text",
    "* x",
    "* conflict-marker-size=1",
]


@dataclass(frozen=True)
class Surroundings:
    """What the user, the system and the repository say of git."""

    settings: dict[str, Literal["user", "system", "repository", "variable"]]
    variables: frozenset[str]
    attributes: list[str]
    attributes_in: Literal["tree", "info", "user"]
    ignored: list[bytes]
    ignored_in: Literal["tree", "info", "user"]


SURROUNDINGS = st.builds(
    Surroundings,
    settings=st.dictionaries(
        st.sampled_from(HOSTILE), st.sampled_from(["user", "system", "repository", "variable"]), max_size=8
    ),
    variables=st.frozensets(st.sampled_from(VARIABLES), max_size=5),
    attributes=st.lists(st.sampled_from(ATTRIBUTES), max_size=3),
    attributes_in=st.sampled_from(["tree", "info", "user"]),
    ignored=st.lists(st.sampled_from(IGNORED), max_size=2),
    ignored_in=st.sampled_from(["tree", "info", "user"]),
)


@contextlib.contextmanager
def surrounded(by: Surroundings, home: Path, git_dir: Path) -> Iterator[Path]:
    """Set everything up for a block; give the file that exists where something of the user's was run."""
    ran, evil, hooks = home / "ran", home / "evil", home / "hooks"
    evil.write_text(f'#!/bin/sh\necho "$0 $@" >> {ran}\nexit 1\n')
    evil.chmod(0o755)
    hooks.mkdir()
    for name in ("post-checkout", "post-index-change", "reference-transaction", "pre-applypatch", "pre-auto-gc"):
        (hooks / name).symlink_to(evil)
        (git_dir / "hooks").mkdir(exist_ok=True)
        (git_dir / "hooks" / name).symlink_to(evil)
    other = Handmade(home / "other")
    other.make()
    other.commit({b"other": Entry("file", b"other")})
    other.write_index([])
    fill = {"evil": evil, "hooks": hooks, "attributes": home / "attributes", "other": other.top}
    places = {"user": home / "user", "system": home / "system", "repository": git_dir / "config"}
    patch = pytest.MonkeyPatch()
    count = 0
    for file in ("user", "system"):
        places[file].write_text("[core]\n")
    (home / "attributes").write_text("\n".join([*(by.attributes if by.attributes_in == "user" else ()), ""]))
    (home / "ignored").write_bytes(b"\n".join([*(by.ignored if by.ignored_in == "user" else ()), b""]))
    with places["user"].open("a") as file:
        file.write(f"excludesFile = {home}/ignored\nattributesFile = {home}/attributes\n")
    for setting, where in by.settings.items():
        key, _, value = setting.format(**fill).partition("=")
        section, _, name = key.rpartition(".")
        if where == "variable":
            patch.setenv(f"GIT_CONFIG_KEY_{count}", key)
            patch.setenv(f"GIT_CONFIG_VALUE_{count}", value)
            count += 1
            continue
        first, _, rest = section.partition(".")
        with places[where].open("a") as file:
            file.write(f'[{first} "{rest}"]\n' if rest else f"[{first}]\n")
            file.write(f"\t{name} = {value}\n")
    if count:
        patch.setenv("GIT_CONFIG_COUNT", str(count))
    patch.setenv("GIT_CONFIG_GLOBAL", str(places["user"]))
    patch.setenv("GIT_CONFIG_SYSTEM", str(places["system"]))
    patch.delenv("GIT_CONFIG_NOSYSTEM")
    for variable in sorted(by.variables):
        name, _, value = variable.format(**fill).partition("=")
        patch.setenv(name, value)
    try:
        yield ran
    finally:
        patch.undo()


def is_ignored(path: bytes, patterns: list[bytes]) -> bool:
    """Return whether git ignores an untracked file, for the few patterns that are drawn here; the last one decides."""
    parts = path.split(b"/")
    for count in range(1, len(parts) + 1):
        name, is_folder = parts[count - 1], count < len(parts)
        verdict = False
        for pattern in patterns:
            if pattern in {b"*.log", b"!*.log"} and name.endswith(b".log"):
                verdict = pattern == b"*.log"
            elif (
                (pattern == b"/a" and parts[:count] == [b"a"])
                or (pattern == b"b/" and name == b"b" and is_folder)
                or pattern == b"*"
                or pattern == name == b"c"
            ):
                verdict = True
        if verdict:
            return True
    return False


_SPARSE = "[core]\n\tsparseCheckout = true\n"


def expected_files(repo: Handmade, base: Tree, index: list[Staged], ignored: list[bytes]) -> dict[bytes, Entry | str]:
    """Return what must come back: an independent and slow answer."""
    staged = {item.path for item in index}
    found = {
        path: entry
        for path, entry in work_files(repo.top).items()
        if path in base or path in staged or not is_ignored(path, ignored)
    }
    # What a sparse checkout leaves out is as in the base commit, unless a file is where its folder was.
    skipped = {item.path for item in index if item.skip_worktree and item.path in base}
    absent = {path for path in skipped if not os.path.lexists(place(repo.top, path))}
    left_out = {path for path in absent if not any(path.startswith(file + b"/") for file in found)}
    return found | {path: base[path] for path in left_out}


def set_up(repo: Handmade, work: Work, around: Surroundings) -> list[Staged]:
    """Make a repository and do the work; return its index."""
    repo.make(config=_SPARSE)
    base = work.base or {}
    for path, entry in base.items():
        lay(repo.top, path, entry)
    if work.base is not None:
        repo.commit(base)
    edit(repo.top, work.edits)
    attributes = "\n".join([*around.attributes, ""]).encode()
    ignored = b"\n".join([*around.ignored, b""])
    if around.attributes and around.attributes_in == "tree":
        lay(repo.top, b".gitattributes", Entry("file", attributes))
    elif around.attributes_in == "info":
        (repo.git_dir / "info" / "attributes").write_bytes(attributes)
    if around.ignored and around.ignored_in == "tree":
        lay(repo.top, b".gitignore", Entry("file", ignored))
    elif around.ignored_in == "info":
        (repo.git_dir / "info" / "exclude").write_bytes(ignored)
    index = stage(repo, base, work.stagings)
    if around.ignored and around.ignored_in == "tree":
        lay(repo.top, b".gitignore", Entry("file", ignored))  # staging may have taken it away
    if work.base is not None or index:
        repo.write_index(index)
    return index


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(work=WORKS, around=SURROUNDINGS, object_format=st.sampled_from(["sha1", "sha1", "sha1", "sha256"]))
def test_whatever_was_captured_comes_back(
    work: Work, around: Surroundings, object_format: Literal["sha1", "sha256"]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        repo = Handmade(home / "repo", object_format)
        index = set_up(repo, work, around)
        with surrounded(around, home, repo.git_dir) as ran:
            expected = expected_files(repo, work.base or {}, index, around.ignored)
            snapshot = come_back(repo.top, home / "restored", settings=ANYTHING)
            assert not ran.exists(), ran.read_text()
        note(f"{snapshot.changed} {snapshot.left_out}")
        event("changed" if snapshot.changed else "clean")
        assert snapshot.left_out == ()
        assert differences(work_files(home / "restored"), expected) == {}


@dataclass(frozen=True)
class Inner:
    """A repository inside another one."""

    work: Work
    depth: int
    known: Literal["submodule", "submodule that moved", "added submodule", "unknown"]
    git_file: bool


INNERS = st.lists(
    st.builds(
        Inner,
        work=WORKS,
        depth=st.integers(0, 2),
        known=st.sampled_from(["submodule", "submodule that moved", "added submodule", "unknown"]),
        git_file=st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.slow
@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    work=WORKS,
    inners=INNERS,
    around=SURROUNDINGS,
    object_format=st.sampled_from(["sha1", "sha1", "sha1", "sha256"]),
    chained=st.booleans(),
)
def test_repositories_inside_repositories_come_back(
    work: Work,
    inners: list[Inner],
    around: Surroundings,
    object_format: Literal["sha1", "sha256"],
    chained: bool,  # noqa: FBT001 - drawn by Hypothesis
) -> None:
    around = Surroundings(around.settings, around.variables, around.attributes, "user", [], "user")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        outer = Handmade(home / "repo", object_format)
        # Where each repository lies, relative to the one around it; with `chained` each is inside the one before.
        made = [outer]
        places: list[bytes] = []
        for number, inner in enumerate(inners):
            path = b"/".join([b"inner %d" % number] * (inner.depth + 1))
            around_it = made[-1] if chained else outer
            made.append(Handmade(Path(os.fsdecode(place(around_it.top, path))), object_format))
            places.append(path)
        expected: dict[bytes, Entry | str] = {}
        # From the inside out, since the outer ones name the commits of the inner ones.
        for number in reversed(range(len(inners) + 1)):
            repo = made[number]
            its_work = inners[number - 1].work if number else work
            below = (
                [number] if chained and number < len(inners) else [] if chained or number else list(range(len(inners)))
            )
            gitlinks: Tree = {}
            added: Tree = {}
            for child in below:
                commit = _head(made[child + 1])
                if commit is None or inners[child].known == "unknown":
                    continue
                known = commit if inners[child].known != "submodule that moved" else "1" * len(commit)
                (added if inners[child].known == "added submodule" else gitlinks)[places[child]] = Entry(
                    "gitlink", known.encode()
                )
            base = {**(its_work.base or {}), **gitlinks} if its_work.base is not None or gitlinks else None
            kept = Work(base, its_work.edits, [step for step in its_work.stagings if step[0] != "add all"])
            index = _set_up_around(
                repo, kept, home / f"git {number}" if number and inners[number - 1].git_file else None, added
            )
            prefix = os.fsencode(repo.top.relative_to(outer.top)) + b"/" if number else b""
            inside = {place_ + b"/" for child, place_ in enumerate(places) if child in below}
            its_files = expected_files(repo, base or {}, index, [])
            expected.update(
                {
                    prefix + path: entry
                    for path, entry in its_files.items()
                    if entry != "gitlink"
                    and not (isinstance(entry, Entry) and entry.kind == "gitlink")
                    and not any(path.startswith(start) for start in inside)
                }
            )
        with surrounded(around, home, outer.git_dir) as ran:
            snapshot = come_back(outer.top, home / "restored", settings=ANYTHING)
            assert not ran.exists(), ran.read_text()
        note(f"{snapshot.changed} {snapshot.left_out} {snapshot.nested}")
        assert snapshot.left_out == ()
        assert len(snapshot.nested) == len(inners)
        assert all(not inner.snapshot.left_out for inner in snapshot.nested)
        assert differences(work_files(home / "restored"), expected) == {}


def _head(repo: Handmade) -> str | None:
    branch = repo.git_dir / "refs" / "heads" / "main"
    return branch.read_text().strip() if branch.exists() else None


def _set_up_around(repo: Handmade, work: Work, git_dir: Path | None, added: Tree) -> list[Staged]:
    """Make a repository around those that lie in its folder already."""
    repo.make(git_dir=git_dir, config=_SPARSE)
    base = work.base or {}
    for path, entry in base.items():
        if entry.kind != "gitlink":
            lay(repo.top, path, entry)
    if work.base is not None:
        repo.commit(base)
    for step in work.edits:
        if step[0] == "write":  # the other edits choose among the files of the inner repositories, too
            edit(repo.top, [step])
    index = [Staged(path, entry) for path, entry in {**base, **added}.items()]
    repo.write_index(index)
    return index
