"""Which repository is this?"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from researchlab.errors import GitError
from researchlab.tracking._git._calls import call_git, git_error, run_git, start_git

if TYPE_CHECKING:
    from collections.abc import Mapping

ObjectFormat: TypeAlias = Literal["sha1", "sha256"]

_PLACES = (
    "--path-format=absolute",
    "--show-toplevel",
    "--absolute-git-dir",
    "--git-common-dir",
    "--show-object-format",
)


_FORMATS = frozenset({b"sha1", b"sha256"})
_NAMES = re.compile(rb"([0-9a-f]{40,64})\n([0-9a-f]{40,64})\n(HEAD|refs/.+)")  # commit, tree, branch
# What git takes for HEAD where that has no commit, in the order in which it looks.
_CALLED_HEAD = frozenset(
    {b"refs/HEAD", b"refs/tags/HEAD", b"refs/heads/HEAD", b"refs/remotes/HEAD", b"refs/remotes/HEAD/HEAD"}
)
# A partial clone fetches nothing: it would be written into the clone. Before git 2.45 only the second is understood.
_OFFLINE = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}


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
        promisor: The remote that has the objects that a partial clone left there; None where the clone is whole.
        is_sparse: Whether a sparse checkout may leave files out (``core.sparseCheckout``).
        sparse_index: Whether the index may hold folders in place of what a sparse checkout leaves out.
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
    promisor: str | None = None
    is_sparse: bool = False
    sparse_index: bool = False

    @property
    def objects(self) -> Path:
        """Folder of the object store."""
        return self.common_dir / "objects"


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
    args = ("rev-parse", *_PLACES, "HEAD", "HEAD^{tree}", "--symbolic-full-name", "HEAD")
    with (
        start_git(("config", "--list", "-z"), cwd=folder) as configuration,
        start_git(args, cwd=folder, env=_OFFLINE) as parsing,
    ):
        result, configured = parsing.wait(), configuration.wait()
    lines = result.stdout.split(b"\n")[:-1]
    if lines[:1] == [_PLACES[0].encode()]:
        message = "This git is too old: it knows no rev-parse --path-format. git 2.31 or newer is needed."
        raise GitError(message)
    end = max((number for number, line in enumerate(lines, 1) if line in _FORMATS), default=0)
    if not end:
        raise git_error(result, args, folder)
    if configured.returncode != 0:
        raise git_error(configured, ("config", "--list", "-z"), folder)
    places, names = lines[:end], _NAMES.fullmatch(b"\n".join(lines[end:]))
    if len(places) != 4:  # noqa: PLR2004 - one line for each of the flags that ask, unless a path holds a line feed
        places = [run_git(("rev-parse", _PLACES[0], flag), cwd=folder)[:-1] for flag in _PLACES[1:]]
    top, git_dir, common_dir = (Path(os.fsdecode(place)) for place in places[:3])
    if result.returncode == 0 and names is not None and names[3] not in _CALLED_HEAD:
        head, head_tree, branch = (name.decode(errors="surrogateescape") for name in names.groups())
    else:
        head, head_tree, branch = _read_head(folder)
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
        file_mode=_is_true(settings.get("core.filemode", ["true"])[-1]),
        promisor=_promisor(settings),
        is_sparse=_is_true(settings.get("core.sparsecheckout", ["false"])[-1]),
        sparse_index=_is_true(settings.get("index.sparse", ["false"])[-1]),
    )


def without_credentials(url: str) -> str:
    """Cut user, password, query and fragment out of a URL; ``ssh://user@`` and ``user@host:path`` keep the user."""
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


def _read_head(folder: Path) -> tuple[str | None, str | None, str | None]:
    """Return commit, tree and branch of HEAD where ``rev-parse`` does not tell them.

    There is no commit yet, or another ref is called HEAD too, or a partial clone lacks the tree.
    """
    found = call_git(("show-ref", "--verify", "--hash", "HEAD"), cwd=folder, env=_OFFLINE)
    if found.returncode != 0:
        return None, None, _unborn_branch(folder)
    head = found.stdout.decode().strip()
    commit = run_git(("cat-file", "commit", head), cwd=folder, env=_OFFLINE)
    branch = call_git(("symbolic-ref", "-q", "HEAD"), cwd=folder).stdout.decode(errors="surrogateescape").rstrip("\n")
    return head, commit.partition(b"\n")[0].removeprefix(b"tree ").decode(), branch or None


def _unborn_branch(folder: Path) -> str | None:
    result = call_git(("symbolic-ref", "-q", "HEAD"), cwd=folder)
    branch = result.stdout.decode(errors="surrogateescape").rstrip("\n")
    # A ref file that was cut to nothing (power loss) looks like a branch without commits, and is not.
    broken = call_git(("for-each-ref", branch), cwd=folder).stderr
    if result.returncode != 0 or broken:
        said = (result.stderr + broken).decode(errors="backslashreplace").strip()
        message = f"HEAD of the repository at {folder} is broken: {said}\nSee: git -C {shlex.quote(str(folder))} fsck"
        raise GitError(message)
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


def _promisor(settings: Mapping[str, list[str]]) -> str | None:
    if "extensions.partialclone" in settings:
        return settings["extensions.partialclone"][-1]
    for key, values in settings.items():
        if key.startswith("remote.") and key.endswith(".promisor") and _is_true(values[-1]):
            return key[len("remote.") : -len(".promisor")]
    return None


def _is_true(value: str) -> bool:
    return value.lower() not in {"false", "no", "off", "0", ""}


def _main_worktree(top: Path, common_dir: Path, settings: Mapping[str, list[str]]) -> Path:
    if common_dir.name == ".git":
        return common_dir.parent
    # A submodule's git folder says where its work tree is; one that was put elsewhere by hand, or is bare, does not.
    worktree = settings.get("core.worktree")
    return Path(os.path.normpath(common_dir / worktree[-1])) if worktree else top
