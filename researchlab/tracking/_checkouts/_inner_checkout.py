"""How do the repositories inside a checkout come to the state that they had in a run, and back?"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import GitError, RestoreError
from researchlab.tracking import _git, restore
from researchlab.tracking._checkouts._obstacles import operation_in
from researchlab.tracking._checkouts._uncommitted import stash_command, switch_back_command, uncommitted
from researchlab.tracking._checkouts._way_back import WayBack, switch
from researchlab.tracking._restoring._parts import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from researchlab.tracking._checkouts._journal import Former
    from researchlab.tracking._git import Repository
    from researchlab.tracking._restoring._parts import RepositoryCode


class InnerCheckout:
    """One repository inside the work tree at ``top``, and what it has to become.

    Attributes:
        part: Its code in the run.
        before: The repository that is there now, or None.
        place: Where it is, or is to be.
    """

    def __init__(self, part: RepositoryCode, top: Path, store: Path) -> None:
        self.part = part
        self.before = _repository_at(top / place_of(part))
        self._top = top
        self.place = top / place_of(part)
        self._store = store
        self._way_back: WayBack | None = None
        self._missing: list[Path] | None = None
        self._configuration: tuple[Path, bytes] | None = None

    def check(self) -> None:
        """Refuse where work would be mixed or lost.

        Raises:
            RestoreError: There is uncommitted work, or no commit to come back to.
        """
        inner, part = self.before, self.part
        if inner is None:
            return
        self._check_way()
        where = printable(part.path)
        if inner.head is None or part.base_commit is None or inner.object_format != part.object_format:
            why = "it has no commit, so that there would be no way back"
            if inner.head is not None:
                why = "that one had no commit" if part.base_commit is None else "that one names objects differently"
            message = f"{inner.top} cannot become the repository that the run had in {where}: {why}. Move it away."
            raise RestoreError(message)
        in_the_middle = operation_in(inner)
        if in_the_middle is not None:
            raise RestoreError(in_the_middle)
        paths = uncommitted(inner)
        if paths:
            stash = "git -C " + shlex.quote(str(inner.top)) + stash_command(inner).removeprefix("git")
            message = (
                f"{inner.top} has uncommitted work, which must not be mixed with the code of the run: "
                f"{printable(paths[0])}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}\n"
                f"Commit it, or put it aside and try again: {stash}"
            )
            raise RestoreError(message)
        files = _git.list_tree(part.tree, git_dir=self._store).keys()
        files |= _git.list_tree(part.base_commit, git_dir=self._store).keys()
        self._way_back = WayBack.planned(inner, None, files, own=())

    @property
    def former(self) -> Former | None:
        """Where it was; None where it was not checked out."""
        return None if self._way_back is None else self._way_back.former

    @property
    def is_free(self) -> bool:
        """Whether nothing is at its place."""
        return not os.path.lexists(self.place) or (self.place.is_dir() and not any(self.place.iterdir()))

    def go(self, *, around: Repository) -> None:
        """Bring the repository to the state of the run.

        Args:
            around: The repository around it, where a submodule is set up.

        Raises:
            RestoreError: Something is in the way, or what was written does not read back.
            GitError: git failed.
        """
        part = self.part
        self._check_way()
        inner = _repository_at(self.place)
        if inner is None:
            inner = self._make(around)
        elif part.base_commit is not None:
            bring(part.base_commit, inner, store=self._store)
            switch(inner, part.base_commit, "--no-overwrite-ignore", "--detach", part.base_commit)
        restore.write_into_worktree(
            inner.top, base_commit=part.base_commit, tree=part.tree, patch=part.patch, store=self._store
        )

    def go_back(self, *, because: BaseException) -> None:
        """Put everything back.

        Raises:
            RestoreError: That failed, too.
        """
        if self._way_back is not None:
            self._way_back.go(because=because)
        if self._missing is not None:
            clear_folder(self.place)
            for path in self._missing:
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
        if self._configuration is not None:
            path, data = self._configuration
            if path.read_bytes() != data:
                fresh = path.with_name(path.name + ".rlab")
                fresh.write_bytes(data)
                shutil.copymode(path, fresh)
                fresh.replace(path)

    def leave_command(self) -> str | None:
        """Return the command that goes back to where it was and keeps uncommitted work in a stash, or None."""
        if self.before is None or self._way_back is None:
            return None
        inner = _git.find_repository(self.place)
        here = "git -C " + shlex.quote(str(inner.top))
        go = here + switch_back_command(inner).removeprefix("git")
        return f"{here}{stash_command(inner).removeprefix('git')} && {go}" if uncommitted(inner) else go

    def removal_command(self) -> str:
        """Return the command that removes it again, with all that is in it."""
        place = shlex.quote(str(self.place))
        return f"rm -rf {place}" + ("" if self._missing else f" && mkdir {place}")

    def _make(self, around: Repository) -> Repository:
        """Make the repository where there is none: HEAD at the base commit, no files yet."""
        part, place = self.part, self.place
        if place.is_dir() and any(place.iterdir()):
            name = printable(min(entry.name for entry in place.iterdir()))
            message = f"{place} is in the way of a repository of the run: it has {name}. Move it away and try again."
            raise RestoreError(message)
        self._missing = [path for path in (place, *place.parents) if not path.exists()]
        place.mkdir(parents=True, exist_ok=True)
        _git.run_git(
            ("init", "--quiet", "--template=", f"--object-format={part.object_format}", "--initial-branch=main", "."),
            cwd=place,
        )
        with (place / ".git" / "config").open("a", encoding="utf-8", errors="surrogateescape") as file:
            for name, url in part.remotes.items():
                fetch = _git.quote_config(f"+refs/heads/*:refs/remotes/{name}/*")
                file.write(f"[remote {_git.quote_config(name)}]\n\turl = {_git.quote_config(url)}\n\tfetch = {fetch}\n")
        if part.base_commit is None:
            if part.branch is not None:
                _git.run_git(("check-ref-format", f"refs/heads/{part.branch}"), cwd=place)
                _git.run_git(("symbolic-ref", "HEAD", f"refs/heads/{part.branch}"), cwd=place)
        else:
            made = _git.find_repository(place)
            bring(part.base_commit, made, store=self._store, may_be_cut=True)
            _git.run_git(("update-ref", "--no-deref", "HEAD", part.base_commit), cwd=place)
            _git.run_git(("read-tree", part.base_commit), cwd=place)
        if part.is_submodule:
            config = around.common_dir / "config"
            self._configuration = (config, config.read_bytes())
            # A submodule that .gitmodules does not know stays one that git calls unknown.
            path = os.fsdecode(os.path.relpath(place, around.top))
            _git.call_git(("submodule", "--quiet", "init", "--", path), cwd=around.top)
        return _git.find_repository(place)

    def _check_way(self) -> None:
        """Refuse to write through a symlink, or over a file."""
        for path in (self.place, *self.place.parents):
            if path == self._top:
                return
            if os.path.lexists(path) and not stat.S_ISDIR(path.lstat().st_mode):
                message = f"{path} is in the way of a repository of the run. Move it away and try again."
                raise RestoreError(message)


def clear_folder(folder: Path) -> None:
    """Remove everything in a folder, if it is there."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()


def place_of(part: RepositoryCode) -> Path:
    """Return where a repository stands, relative to the root of the outermost one."""
    return Path(os.fsdecode(part.path.encode("utf-8", "surrogateescape")))


def bring(commit: str, repository: Repository, *, store: Path, may_be_cut: bool = False) -> None:
    """Bring a commit with its history from a scratch store into a repository; no reference changes.

    Args:
        commit: Id of the commit.
        repository: The repository.
        store: A git folder that has the commit.
        may_be_cut: Whether the repository may become a shallow one, because it is new.

    Raises:
        RestoreError: The store has no history before the commit, and the repository would be damaged.
        GitError: git failed.
    """
    question = ("cat-file", "-e", f"{commit}^{{commit}}")
    # Never asked of a server: what is to be fetched is in the store.
    env = {"GIT_ALLOW_PROTOCOL": "file"}
    if _git.call_git(question, git_dir=repository.git_dir, env=env).returncode == 0:
        return
    ends = _ends(store) - _ends(repository.common_dir)
    if ends and not may_be_cut:
        reached = _git.run_git(("rev-list", commit), git_dir=store, isolated=True).decode().split()
        if ends.intersection(reached):
            message = (
                f"The history before {commit} is not known, because the run was exported without it: as a commit of "
                f"{repository.top} it would damage the repository. Fetch it from a clone that has it: "
                f"git -C {shlex.quote(str(repository.top))} fetch <clone> {commit}\n"
                "(`rlab reproduce` needs no history.)"
            )
            raise RestoreError(message)
    shallow = ("--update-shallow",) if may_be_cut else ()
    fetch = ("-c", "protocol.version=2", *_git.FETCH, *shallow)
    _git.run_git((*fetch, str(store), commit), git_dir=repository.git_dir, env=env)


def fetched(brought: Mapping[str, str]) -> str | None:
    """Say where base commits were brought from."""
    return ", ".join(dict.fromkeys(brought.values())) or None


def _ends(git_dir: Path) -> set[str]:
    shallow = git_dir / "shallow"
    return set(shallow.read_text().split()) if shallow.is_file() else set()


def _repository_at(place: Path) -> Repository | None:
    """Return the repository whose root is exactly here."""
    if not os.path.lexists(place / ".git"):
        return None
    repository = _git.find_repository(place)
    if repository.top.resolve() != place.resolve():
        message = f"{place} has a .git that is no repository. Move it away and try again."
        raise GitError(message)
    return repository
