"""How is git called, and which repository is this?

The only module that starts git. Everything is bytes in and bytes out; no ``GIT_*`` variable of the caller decides what is
read, because a git hook exports ``GIT_DIR`` and ``GIT_INDEX_FILE``, and these beat the working directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, Self, TypeAlias

from researchlab.errors import GitError, NotARepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Argument: TypeAlias = "str | bytes | os.PathLike[str]"
Entry: TypeAlias = "tuple[bytes, str]"  # mode and id
ObjectFormat: TypeAlias = Literal["sha1", "sha256"]

TIMEOUT = 900.0
"""Seconds after which a git process counts as hung."""

LIST_TREE = ("ls-tree", "-r", "-z", "--full-tree")
# -t marks what a sparse checkout skips. assume-unchanged, which would hide an edit, plays no part in a listing.
LIST_FILES = ("ls-files", "-z", "-t", "-c", "-o", "--exclude-standard")

# Where the user's configuration lies, where the search for a repository ends, and how to reach a server. Nothing that says
# which repository, index or object store it is.
_KEPT = frozenset(
    {
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CEILING_DIRECTORIES",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM",
        "GIT_EXEC_PATH",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_SSH_VARIANT",
        "GIT_ASKPASS",
        "GIT_PROXY_COMMAND",
    }
)
_FIXED = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "LC_ALL": "C",
    "LANGUAGE": "",
    "GIT_AUTHOR_NAME": "researchlab",
    "GIT_AUTHOR_EMAIL": "researchlab@localhost",
    "GIT_AUTHOR_DATE": "@0 +0000",
    "GIT_COMMITTER_NAME": "researchlab",
    "GIT_COMMITTER_EMAIL": "researchlab@localhost",
    "GIT_COMMITTER_DATE": "@0 +0000",
}
_ISOLATED = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
}
_OPTIONS = tuple(
    word
    for setting in (
        f"core.hooksPath={os.devnull}",
        f"core.attributesFile={os.devnull}",
        "core.fsmonitor=false",
        "core.untrackedCache=false",
        "core.splitIndex=false",
        "core.safecrlf=false",
        "core.quotePath=false",
        "core.pager=cat",
        "core.bigFileThreshold=512m",
        "core.compression=1",
        "fastimport.unpackLimit=0",
        "diff.suppressBlankEmpty=false",
        "diff.autoRefreshIndex=false",
        "color.ui=never",
        "submodule.recurse=false",
        "commit.gpgSign=false",
        "gc.auto=0",
        "maintenance.auto=false",
    )
    for word in ("-c", setting)
)
# Bytes on disk are the bytes of the blob: no line ending, keyword or filter comes between.
_RAW_ATTRIBUTES = "* -text -eol -crlf -filter -ident -working-tree-encoding -merge !diff\n"
_RAW_CONFIG = """\
\tautocrlf = false
\teol = lf
\tsafecrlf = false
\tfileMode = true
\tsymlinks = true
\tfsmonitor = false
\tuntrackedCache = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""


class GitResult(NamedTuple):
    """What a git process left behind."""

    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Repository:
    """One git work tree, as it was found.

    Attributes:
        top: Root of the work tree.
        git_dir: The work tree's own git folder (``.git/worktrees/<name>`` in a linked work tree).
        common_dir: The git folder that holds objects and refs.
        object_format: How objects are named: ``sha1`` or ``sha256``.
        head: Id of the commit that HEAD points to, or None before the first commit.
        head_tree: Id of that commit's tree.
        branch: Short name of the branch, or None where HEAD is detached.
        main_worktree: Root of the main work tree; ``top`` unless this is a linked work tree whose main one is known.
        remotes: URL of each remote, credentials cut out.
        file_mode: Whether the executable bit on disk means something (``core.fileMode``).
    """

    top: Path
    git_dir: Path
    common_dir: Path
    object_format: ObjectFormat
    head: str | None
    head_tree: str | None
    branch: str | None
    main_worktree: Path
    remotes: Mapping[str, str] = field(default_factory=dict[str, str])
    file_mode: bool = True

    @property
    def objects(self) -> Path:
        """Folder of the object store."""
        return self.common_dir / "objects"


def call_git(
    args: Sequence[Argument],
    *,
    cwd: Path | None = None,
    git_dir: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    isolated: bool = False,
    timeout: float = TIMEOUT,
) -> GitResult:
    """Run git and return what it said, whether it succeeded or not.

    Args:
        args: Arguments after ``git``.
        cwd: Where git runs and looks for its repository; the current folder, or ``git_dir`` where that is given.
        git_dir: The repository, where it is not to be looked for.
        stdin: Bytes for its standard input.
        env: Variables on top of the fixed environment.
        isolated: Read no configuration and no attributes of the user or the system. For our own scratch repositories.
        timeout: Seconds to wait.

    Raises:
        GitError: git is not installed, or did not end in time.
        NotARepositoryError: ``cwd`` does not exist.
    """
    with start_git(args, cwd=cwd, git_dir=git_dir, stdin=stdin, env=env, isolated=isolated) as process:
        return process.wait(timeout)


def start_git(
    args: Sequence[Argument],
    *,
    cwd: Path | None = None,
    git_dir: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    isolated: bool = False,
) -> GitProcess:
    """Start git and go on, so that two can work at a time; the arguments are those of ``call_git``.

    Returns:
        The process, to be used in a ``with`` block, which ends it.
    """
    with _starting(cwd):
        process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            _command(args, git_dir),
            cwd=cwd or git_dir,
            env=_environment(env, isolated=isolated),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    return GitProcess(process, tuple(args), cwd or git_dir, stdin)


class GitProcess:
    """A git process that was started."""

    def __init__(
        self, process: subprocess.Popen[bytes], args: tuple[Argument, ...], where: Path | None, stdin: bytes | None
    ) -> None:
        self._process = process
        self._args = args
        self._where = where
        self._stdin = stdin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._process as process:
            if process.returncode is None:
                process.kill()

    def wait(self, timeout: float = TIMEOUT) -> GitResult:
        """Return what git said, whether it succeeded or not.

        Raises:
            GitError: git did not end in time.
        """
        try:
            stdout, stderr = self._process.communicate(self._stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            message = f"git did not finish within {timeout:g} s and was stopped: {_shown(self._args)}"
            raise GitError(message) from None
        return GitResult(self._process.returncode, stdout, stderr)

    def output(self) -> bytes:
        """Return the standard output.

        Raises:
            GitError: git failed.
        """
        result = self.wait()
        if result.returncode != 0:
            raise git_error(result, self._args, self._where)
        return result.stdout


def run_git(
    args: Sequence[Argument],
    *,
    cwd: Path | None = None,
    git_dir: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    isolated: bool = False,
    timeout: float = TIMEOUT,
) -> bytes:
    """Run git and return its standard output; the arguments are those of ``call_git``.

    Raises:
        GitError: git failed; the message holds what it said.
        NotARepositoryError: there is no repository here.
    """
    result = call_git(args, cwd=cwd, git_dir=git_dir, stdin=stdin, env=env, isolated=isolated, timeout=timeout)
    if result.returncode != 0:
        raise git_error(result, args, cwd or git_dir)
    return result.stdout


@contextlib.contextmanager
def stream_git(args: Sequence[Argument], *, git_dir: Path, isolated: bool = True) -> Iterator[GitStream]:
    """Run git with pipes to write to and read from while it runs; wait for it at the end of the block.

    Raises:
        GitError: git failed, also when it stopped reading half-way.
    """
    with tempfile.TemporaryFile() as errors:
        with _starting(None):
            process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
                _command(args, git_dir),
                cwd=git_dir,
                env=_environment(None, isolated=isolated),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert process.stdin is not None  # noqa: S101 - for the type checker: both are pipes
        assert process.stdout is not None  # noqa: S101
        broken = False
        try:
            yield GitStream(process.stdin, process.stdout)
            process.stdin.close()
        except BrokenPipeError:
            broken = True
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            returncode = process.wait()
        if broken or returncode != 0:
            errors.seek(0)
            raise git_error(GitResult(returncode, b"", errors.read()), args, git_dir)


class GitStream(NamedTuple):
    """The two pipes of a running git process."""

    stdin: IO[bytes]
    stdout: IO[bytes]


def git_error(result: GitResult, args: Sequence[Argument], where: Path | None) -> GitError:
    """Say what a failed git process means for the reader, with the command that helps."""
    said = result.stderr.decode(errors="backslashreplace").strip()
    place = f"{where}" if where is not None else "."
    if "dubious ownership" in said or "unsafe repository" in said:
        found = re.search(r"safe\.directory (.+)", said)
        folder = found.group(1).strip() if found else shlex.quote(place)
        return GitError(
            f"git does not read {place}, because it belongs to another user. "
            f"If you trust it: git config --global --add safe.directory {folder}"
        )
    if "must be run in a work tree" in said:
        return NotARepositoryError(f"{place} is inside a bare repository or a .git folder: there are no files to record.")
    if "not a git repository" in said:
        return NotARepositoryError(
            f"{place} is not inside a git repository ({said}). To record the code of your runs: git init {shlex.quote(place)}"
        )
    return GitError(f"git failed with exit code {result.returncode} in {place}: {_shown(args)}\n{said}")


def find_repository(path: str | os.PathLike[str] = ".") -> Repository:
    """Return the repository whose work tree holds ``path``.

    Args:
        path: A folder, or a file, in the work tree.

    Raises:
        NotARepositoryError: there is none, or it is bare, or ``path`` does not exist.
        GitError: git is missing, or refuses the repository because another user owns it.
    """
    folder = Path(path)
    if folder.is_file():
        folder = folder.parent
    flags = ("--path-format=absolute", "--show-toplevel", "--absolute-git-dir", "--git-common-dir", "--show-object-format")
    args = ("rev-parse", *flags, "HEAD", "HEAD^{tree}", "--symbolic-full-name", "HEAD")
    with start_git(("config", "--list", "-z"), cwd=folder) as configuration, start_git(args, cwd=folder) as parsing:
        result, configured = parsing.wait(), configuration.wait()
    lines = result.stdout.split(b"\n")[:-1]
    # Without a commit rev-parse prints the flags, then the word HEAD, and fails.
    born = result.returncode == 0
    if not born and lines[-1:] != [b"HEAD"]:
        raise git_error(result, args, folder)
    if configured.returncode != 0:
        raise git_error(configured, ("config", "--list", "-z"), folder)
    names = lines[-3:] if born else lines[-1:]
    places = lines[: -len(names)]
    if len(places) != 4:  # noqa: PLR2004 - one line for each of the flags that ask, unless a path holds a line feed
        places = [run_git(("rev-parse", flags[0], flag), cwd=folder)[:-1] for flag in flags[1:]]
    top, git_dir, common_dir = (Path(os.fsdecode(place)) for place in places[:3])
    head, head_tree, branch = (name.decode() for name in names) if born else (None, None, _unborn_branch(folder))
    settings = _settings(configured.stdout)
    return Repository(
        top=top,
        git_dir=git_dir,
        common_dir=common_dir,
        object_format="sha256" if places[3] == b"sha256" else "sha1",
        head=head,
        head_tree=head_tree,
        branch=branch.removeprefix("refs/heads/") if branch is not None and branch != "HEAD" else None,
        main_worktree=top if git_dir == common_dir else _main_worktree(top, common_dir, settings),
        remotes=_remotes(settings),
        file_mode=settings.get("core.filemode", ["true"])[-1].lower() not in {"false", "no", "off", "0"},
    )


def without_credentials(url: str) -> str:
    """Cut user, password, query and fragment out of a remote's URL; ``ssh://user@`` and ``user@host:path`` keep the user."""
    found = re.fullmatch(r"((?:[\w+.-]+::)?([A-Za-z][\w+.-]*)://)(.*)", url, re.DOTALL)
    if found is None:
        return url
    prefix, scheme, rest = found.groups()
    if scheme == "file":
        return url
    host, slash, path = rest.partition("/")
    if "@" not in host and re.search(r":(?!\d*$)", host.rpartition("]")[2]) and "@" in path:
        # A slash in a password that was not escaped: the user part ends at the last @.
        host, slash, path = rest.rpartition("@")[2].partition("/")
    user, at, server = host.rpartition("@")
    if "ssh" in scheme and at:
        server = f"{user.partition(':')[0]}@{server}"
    return prefix + server + slash + re.split(r"[?#]", path, maxsplit=1)[0]


def make_git_dir(git_dir: Path, *, object_format: ObjectFormat, borrow: Path, bare: bool = True) -> None:
    """Make an empty git folder that reads the objects of ``borrow`` (a folder ``objects``) and runs no filter and no hook.

    Written by hand: it takes no process, and no template of the user gets in.
    """
    (git_dir / "objects" / "info").mkdir(parents=True)
    (git_dir / "refs").mkdir()
    (git_dir / "info").mkdir()
    sha256 = object_format == "sha256"
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    (git_dir / "config").write_text(
        f"[core]\n\trepositoryformatversion = {int(sha256)}\n\tbare = {str(bare).lower()}\n\tlogAllRefUpdates = false\n"
        + _RAW_CONFIG
        + ("[extensions]\n\tobjectFormat = sha256\n" if sha256 else "")
    )
    (git_dir / "info" / "attributes").write_text(_RAW_ATTRIBUTES)
    (git_dir / "objects" / "info" / "alternates").write_bytes(quote_path(os.fsencode(borrow)) + b"\n")


def quote_path(path: bytes) -> bytes:
    """Quote a path the way git reads it, whatever bytes it holds."""
    return b'"' + re.sub(rb'[\x00-\x1f\x7f"\\]', lambda found: b"\\%03o" % found.group()[0], path) + b'"'


def quote_config(text: str) -> str:
    """Quote a value, or the name of a subsection, for a git configuration file."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def empty_tree(object_format: ObjectFormat) -> str:
    """Return the id of the tree without entries, which every repository knows."""
    return {
        "sha1": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "sha256": "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
    }[object_format]


def list_tree(tree: str, *, git_dir: Path) -> dict[bytes, Entry]:
    """Return path -> (mode, id) of every file, symlink and submodule of a tree."""
    return parse_tree(run_git((*LIST_TREE, tree), git_dir=git_dir, isolated=True))


def parse_tree(listing: bytes) -> dict[bytes, Entry]:
    """Read what ``LIST_TREE`` printed."""
    entries: dict[bytes, Entry] = {}
    for line in listing.split(b"\0")[:-1]:
        meta, _, path = line.partition(b"\t")
        mode, _, oid = meta.split(b" ")
        entries[path] = (mode, oid.decode())
    return entries


@dataclass(frozen=True, slots=True)
class Listing:
    """The paths that git knows on disk.

    Attributes:
        files: Tracked files, whether they are there or not, and untracked ones that are not ignored.
        skipped: Those of them that a sparse checkout leaves out.
        nested: Folders that are git repositories of their own and not submodules.
    """

    files: frozenset[bytes]
    skipped: frozenset[bytes]
    nested: frozenset[bytes]


def list_files(top: Path) -> Listing:
    """List the work tree at ``top``; its index is only read."""
    return parse_files(run_git(LIST_FILES, cwd=top))


def parse_files(listing: bytes) -> Listing:
    """Read what ``LIST_FILES`` printed."""
    files: set[bytes] = set()
    skipped: set[bytes] = set()
    nested: set[bytes] = set()
    for entry in listing.split(b"\0")[:-1]:
        tag, path = entry[:1], entry[2:]
        if path.endswith(b"/"):
            nested.add(path[:-1])
            continue
        files.add(path)
        if tag == b"S":
            skipped.add(path)
    return Listing(frozenset(files), frozenset(skipped), frozenset(nested))


def _command(args: Sequence[Argument], git_dir: Path | None) -> list[Argument]:
    place: tuple[Argument, ...] = () if git_dir is None else (b"--git-dir=" + os.fsencode(git_dir),)
    return ["git", *_OPTIONS, *place, *args]


def _environment(extra: Mapping[str, str] | None, *, isolated: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return kept | _FIXED | (_ISOLATED if isolated else {}) | dict(extra or {})


@contextlib.contextmanager
def _starting(cwd: Path | None) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        if cwd is not None and not cwd.is_dir():
            raise NotARepositoryError(f"There is no folder {cwd}.") from None
        message = "git is not installed, or not on PATH: the code of a run cannot be recorded. See https://git-scm.com/downloads"
        raise GitError(message) from None
    except PermissionError as error:
        raise GitError(f"git could not be started in {cwd or '.'}: {error}") from error


def _shown(args: Sequence[Argument]) -> str:
    return shlex.join(["git", *(os.fsencode(arg).decode(errors="backslashreplace") for arg in args)])


def _unborn_branch(folder: Path) -> str | None:
    result = call_git(("symbolic-ref", "-q", "HEAD"), cwd=folder)
    branch = result.stdout.decode(errors="surrogateescape").rstrip("\n")
    # A ref file that was cut to nothing (power loss) looks like a branch without commits, and is not.
    broken = call_git(("for-each-ref", branch), cwd=folder).stderr
    if result.returncode != 0 or broken:
        said = (result.stderr + broken).decode(errors="backslashreplace").strip()
        raise GitError(f"HEAD of the repository at {folder} is broken: {said}\nSee: git -C {shlex.quote(str(folder))} fsck")
    return branch


def _settings(listing: bytes) -> dict[str, list[str]]:
    """Return every configuration key with its values, weakest first."""
    settings: dict[str, list[str]] = {}
    for entry in listing.split(b"\0")[:-1]:
        key, line_feed, value = entry.decode(errors="surrogateescape").partition("\n")
        settings.setdefault(key, []).append(value if line_feed else "true")
    return settings


def _remotes(settings: Mapping[str, list[str]]) -> dict[str, str]:
    return {
        key[len("remote.") : -len(".url")]: without_credentials(urls[0])
        for key, urls in sorted(settings.items())
        if key.startswith("remote.") and key.endswith(".url") and len(key) > len("remote..url")
    }


def _main_worktree(top: Path, common_dir: Path, settings: Mapping[str, list[str]]) -> Path:
    if common_dir.name == ".git":
        return common_dir.parent
    # A submodule's git folder says where its work tree is; one that was put elsewhere by hand says nothing, nor does a bare one.
    worktree = settings.get("core.worktree")
    return Path(os.path.normpath(common_dir / worktree[-1])) if worktree else top
