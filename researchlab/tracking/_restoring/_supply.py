"""Where do the base commit's objects come from?

A scratch store borrows them from a repository on this machine, takes them out of the bundle or pack that was kept with
the run, or fetches them from a remote. No repository of the user is written to.
"""

from __future__ import annotations

import os
import re
import shlex
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from researchlab.errors import RestoreError
from researchlab.tracking import _git
from researchlab.tracking._restoring._bundle import read_header, unpack
from researchlab.tracking._restoring._fetching import fetch, said
from researchlab.tracking._restoring._parts import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from researchlab.tracking._restoring._lenders import Lender, Surroundings
    from researchlab.tracking._restoring._parts import KeptFile, RepositoryCode

_Remotes: TypeAlias = "Sequence[tuple[str, str]]"


def supply(part: RepositoryCode, around: Surroundings, *, git_dir: Path, history: bool = False) -> str | None:
    """Make a scratch store able to read the base commit of a repository with all its files.

    Args:
        part: The repository.
        around: Where it may be found on this machine.
        git_dir: The store. Repositories of one object format may share one.
        history: Whether the commits before it are wanted so much that a remote is asked before a pack without them.

    Returns:
        What the commit was brought from, for a message; None where it is borrowed, or there is no base commit.

    Raises:
        RestoreError: It is nowhere; everything that was tried is named, with the commands that help.
    """
    commit = part.base_commit
    if commit is None:
        return None
    lenders = around.lenders.get(part.path, ())
    fitting = [lender for lender in lenders if lender.object_format == part.object_format]
    tried = [] if part.path else list(around.trouble)
    tried += [
        f"{lender.place}: it names objects by {lender.object_format}, and the run's repository by {part.object_format}"
        for lender in lenders
        if lender not in fitting
    ]
    healthy: list[Lender] = []
    for lender in fitting:
        _borrow(git_dir, [lender])
        missing = _missing(commit, git_dir)
        if missing is None:
            _cut_as(lender, git_dir)
            return None
        _return(git_dir, [lender])
        tried.append(f"{lender.place}: {missing}")
        if missing == _NOT_THERE:
            healthy.append(lender)
    # Only those without the commit: in one that has it in part, git would take it for whole.
    _borrow(git_dir, healthy)
    for lender in healthy:
        _cut_as(lender, git_dir)
    remotes = tuple(_remotes(part, fitting))
    for search in _searches(part, remotes, git_dir=git_dir, tried=tried, history=history):
        came_from = search()
        if came_from is not None:
            return came_from
    _return(git_dir, healthy)
    raise RestoreError(_nowhere(part, tried, fitting))


def _searches(
    part: RepositoryCode, remotes: _Remotes, *, git_dir: Path, tried: list[str], history: bool
) -> Iterable[Callable[[], str | None]]:
    """Yield where the commit may be, the nearest first; with ``history``, what lacks it comes last."""
    assert part.base_commit is not None
    commit = part.base_commit
    waiting: list[KeptFile] = []
    for kept in part.kept:
        with kept.open() as path:
            if path is None:
                if kept.expected:
                    tried.append(f"{kept.name}: it is not among the artifacts of the run")
                continue
            lacking, is_pack = _lacking(path, git_dir)
            if lacking or (history and is_pack):
                waiting.append(kept)
                continue
        yield partial(_unpack, commit, kept, (), git_dir=git_dir, tried=tried)
    for kept in waiting if not history else ():
        yield partial(_unpack, commit, kept, remotes, git_dir=git_dir, tried=tried)
    yield partial(_fetch_from_one, commit, remotes, git_dir=git_dir, tried=tried)
    for kept in waiting if history else ():
        yield partial(_unpack, commit, kept, remotes, git_dir=git_dir, tried=tried)


def _lacking(path: Path, git_dir: Path) -> tuple[list[str], bool]:
    """Return which commits a kept file builds on and the store lacks, and whether it is a pack without any history."""
    try:
        with path.open("rb") as file:
            kept = read_header(file)
    except (RestoreError, OSError):
        return [], False  # said when it is unpacked
    return [needed for needed in kept.before if _missing(needed, git_dir) is not None], kept.offset == 0


def _unpack(commit: str, kept: KeptFile, remotes: _Remotes, *, git_dir: Path, tried: list[str]) -> str | None:
    """Unpack a kept file, with what it builds on fetched from remotes; return its name where that gives the commit."""
    with kept.open() as path:
        if path is None:
            return None
        lacking, _ = _lacking(path, git_dir)
        for _, url in remotes if lacking else ():
            if fetch(url, lacking, git_dir=git_dir) is None:
                break
        try:
            unpack(path, git_dir=git_dir)
        except (RestoreError, OSError) as error:
            tried.append(f"{kept.name}: {error}")
            return None
    missing = _missing(commit, git_dir)
    if missing is None:
        complete_history(commit, git_dir)
        return kept.name
    builds_on = f"; it builds on {', '.join(lacking)}, which no remote gave" if lacking else ""
    tried.append(f"{kept.name}: {missing}{builds_on}")
    return None


def _fetch_from_one(commit: str, remotes: _Remotes, *, git_dir: Path, tried: list[str]) -> str | None:
    for name, url in remotes:
        why = fetch(url, [commit], git_dir=git_dir) or _missing(commit, git_dir)
        if why is None:
            return f"the remote {name}"
        tried.append(f"the remote {name}: {why}")
    return None


def complete_history(commit: str, git_dir: Path) -> bool:
    """Return whether every commit before this one can be read; where not, say so in the store's file ``shallow``."""
    if _git.call_git(("rev-list", "--quiet", commit), git_dir=git_dir, isolated=True).returncode == 0:
        return not (git_dir / "shallow").exists()
    ends: list[str] = []
    pending, seen = [commit], {commit}
    with _git.stream_git(("cat-file", "--batch"), git_dir=git_dir) as pipes:

        def read(oid: str) -> bytes | None:
            pipes.stdin.write(oid.encode() + b"\n")
            pipes.stdin.flush()
            header = pipes.stdout.readline().split()
            return pipes.stdout.read(int(header[2]) + 1) if len(header) == 3 else None  # noqa: PLR2004

        known: dict[str, list[str] | None] = {}

        def parents(oid: str) -> list[str] | None:
            if oid not in known:
                text = read(oid)
                known[oid] = (
                    None
                    if text is None
                    else [
                        line[7:].decode() for line in text.partition(b"\n\n")[0].split(b"\n") if line[:7] == b"parent "
                    ]
                )
            return known[oid]

        while pending:
            oid = pending.pop()
            before = parents(oid) or []
            if any(parents(parent) is None for parent in before):
                ends.append(oid)
                continue
            fresh = [parent for parent in before if parent not in seen]
            seen.update(fresh)
            pending += fresh
    _add_shallow(git_dir, ends)
    return False


_NOT_THERE = "it is not there"


def _missing(commit: str, git_dir: Path) -> str | None:
    """Return what a store lacks of a commit and its files, or None where all can be read."""
    kind = _git.call_git(("cat-file", "-t", commit), git_dir=git_dir, isolated=True).stdout.strip().decode()
    if not kind:
        return _NOT_THERE
    if kind != "commit":
        return f"it is a {kind} there, not a commit"
    args = ("rev-list", "--objects", "--no-walk", "--no-object-names", commit)
    listed = _git.call_git(args, git_dir=git_dir, isolated=True)
    if listed.returncode != 0:
        return f"it is not there whole: {said(listed.stderr)}"
    # A loose object that a power loss left empty is "there" for rev-list.
    args = ("cat-file", "--batch-check=%(objecttype) %(objectname)", "--buffer")
    looked = _git.call_git(args, git_dir=git_dir, stdin=listed.stdout, isolated=True)
    lacking = re.search(rb"^(\w+) missing$", looked.stdout, re.MULTILINE)
    if looked.returncode != 0 or lacking is not None:
        return f"it is not there whole: {said(looked.stderr) or 'object ' + (lacking[1].decode() if lacking else '?')}"
    return None


def _borrow(git_dir: Path, lenders: Iterable[Lender]) -> None:
    """Let a store read the objects of others."""
    alternates = git_dir / "objects" / "info" / "alternates"
    lines = alternates.read_bytes().splitlines() if alternates.exists() else []
    for lender in lenders:
        line = _alternate(lender)
        if line not in lines:
            lines.append(line)
    if lines:
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_bytes(b"\n".join(lines) + b"\n")


def _return(git_dir: Path, lenders: Iterable[Lender]) -> None:
    """Undo ``_borrow``."""
    gone = {_alternate(lender) for lender in lenders}
    alternates = git_dir / "objects" / "info" / "alternates"
    lines = [line for line in alternates.read_bytes().splitlines() if line not in gone] if alternates.exists() else []
    if lines:
        alternates.write_bytes(b"\n".join(lines) + b"\n")
    else:
        alternates.unlink(missing_ok=True)


def _alternate(lender: Lender) -> bytes:
    return _git.quote_path(os.fsencode(lender.objects))


def _cut_as(lender: Lender, git_dir: Path) -> None:
    """Say in a store that the history ends where it ends in a shallow clone that it borrows from."""
    shallow = lender.git_dir / "shallow"
    if shallow.is_file():
        _add_shallow(git_dir, shallow.read_text().split())


def _add_shallow(git_dir: Path, commits: Iterable[str]) -> None:
    path = git_dir / "shallow"
    known = set(path.read_text().split()) if path.exists() else set[str]()
    if not known.issuperset(commits):
        path.write_text("".join(f"{commit}\n" for commit in sorted(known.union(commits))))


def _remotes(part: RepositoryCode, lenders: Iterable[Lender]) -> Iterable[tuple[str, str]]:
    """Yield a name for messages and the URL of each remote; as configured here first: the record has no credentials."""
    seen: set[str] = set()
    configured = [(name, url, lender.top) for lender in lenders for name, url in lender.remotes.items()]
    top = next((lender.top for lender in lenders if lender.top is not None), None)
    for name, url, place in (*configured, *((name, url, top) for name, url in part.remotes.items())):
        public = _git.without_credentials(url)
        if public in seen or url.startswith("-") or re.search(r"[\x00-\x1f]", url):
            continue
        seen.add(public)
        is_path = "://" not in url and not re.match(r"[^/]+:", url)
        yield f"{printable(name)} ({printable(public)})", str(place / url) if is_path and place is not None else url


def _nowhere(part: RepositoryCode, tried: Sequence[str], lenders: Sequence[Lender]) -> str:
    """Say that the base commit is nowhere, what was tried, and what to type."""
    lines = [f"The base commit {part.base_commit} of {part.name} is nowhere to be had. Tried:"]
    lines += [f"  {printable(entry)}" for entry in tried] or ["  nothing: no repository, bundle or remote is known"]
    known = next((lender for lender in lenders if lender.top is not None), None)
    if known is None:
        lines.append("Name a clone that has it with --repo (`repo=`), and try again.")
        return "\n".join(lines)
    fetch = f"git -C {shlex.quote(str(known.top))} fetch"
    public = {name: _git.without_credentials(url) for name, url in known.remotes.items()}
    # The local name of a remote may carry the credentials that the record does not hold.
    sources = [name if public.get(name) == url else url for name, url in part.remotes.items()] or list(public)
    lines.append("Fetch it from a clone that has it, and try again:")
    lines += [f"  {fetch} {shlex.quote(printable(source))} {part.base_commit}" for source in sources or ["<a clone>"]]
    return "\n".join(lines)
