"""What code did a run record, and how does it come back?"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.errors import MissingPatchError, RestoreError
from researchlab.tracking import _git
from researchlab.tracking._restoring._bundle import PACK_FILE
from researchlab.tracking._restoring._parts import KeptFile, RepositoryCode, check_parts, printable
from researchlab.tracking.record import RECORD_FOLDER, NestedRecord
from researchlab.tracking.restore import build, restore_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.tracking._git import Repository
    from researchlab.tracking.record import SnapshotRecord
    from researchlab.tracking.runs import TrackedRun

_ARTIFACT = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


@dataclass(frozen=True, slots=True)
class RecordedCode:
    """The code that a run recorded.

    Attributes:
        run_id: The readable id of the run.
        mlflow_run_id: MLflow's id of the run.
        snapshot: What the record says about the working tree.
        parts: The repositories of the run: the one that ran, then those inside it, each after the one around it.
            Patches are here; bundles are fetched when they are needed.
        store: Tracking URI of the store that has the run.
    """

    run_id: str
    mlflow_run_id: str
    snapshot: SnapshotRecord
    parts: tuple[RepositoryCode, ...]
    store: str

    @classmethod
    def of(cls, run: TrackedRun) -> RecordedCode:
        """Fetch the code of a run.

        Raises:
            MissingPatchError: A patch is missing.
            RecordError: The record is missing or broken.
            RestoreError: The run recorded no code, or the record names places outside of the work tree.
        """
        snapshot = run.record().snapshot
        if snapshot is None:
            why = " ".join(run.record().not_recorded)
            message = f"The run '{run.run_id}' recorded no code, so that there is nothing to bring back. {why}".rstrip()
            raise RestoreError(message)
        outermost = _part(run, snapshot, patch=run.patch(), folder=RECORD_FOLDER)
        nested = tuple(
            _part(run, record, patch=_nested_patch(run, record), folder=f"{RECORD_FOLDER}/nested/{number}")
            for number, record in enumerate(snapshot.nested, start=1)
        )
        check_parts((outermost, *nested))
        return cls(run.run_id, str(run.run.info.run_id), snapshot, (outermost, *nested), run.store.name)

    @property
    def patch(self) -> bytes:
        """The patch of the repository that ran."""
        return self.parts[0].patch

    def restore(self, into: Path, *, repo: Path | None) -> Path:
        """Write the code into an empty folder, proven, as git repositories.

        Args:
            into: An empty folder, or one that does not exist yet.
            repo: A folder in a work tree that may have the base commit. The place where the run was made is asked next,
                then what was kept with the run, then the remotes.

        Returns:
            ``into``, resolved.

        Raises:
            RestoreError: The code cannot be brought back exactly; ``into`` is left as it was.
        """
        return restore_parts(into, self.parts, sources=self._sources(repo))

    def build(self, repository: Repository, scratch: Path) -> Path:
        """Build the trees of this code in a scratch object store, which proves that it can be brought back.

        Args:
            repository: Where the base commit is looked for first; nothing is written there.
            scratch: Folder of the store; several codes of one repository may share it.

        Returns:
            The git folder that has the tree of each part that names objects as the outermost does.

        Raises:
            RestoreError: A base commit is nowhere to be had, or base commit and patch do not give the recorded tree.
        """
        return build(self.parts, sources=(repository.top,), scratch=scratch)[""]

    def build_all(
        self, source: Path | None, scratch: Path, *, brought: dict[str, str] | None = None, history: bool = False
    ) -> dict[str, Path]:
        """Do what ``build`` does with a repository that may not exist.

        Args:
            source: A folder in a work tree that may have the base commit, or None.
            scratch: Folder of the stores.
            brought: Gets the path of each part whose base commit was not in ``source`` -> where it came from.
            history: Whether the commits before the base commits are wanted, too.

        Returns:
            Path of each part -> the git folder that has its base commit, with all files, and its tree.

        Raises:
            RestoreError: As ``build``.
        """
        return build(
            self.parts, sources=() if source is None else (source,), scratch=scratch, brought=brought, history=history
        )

    def whole_tree(self, git_dir: Path) -> str:
        """Return the id of one tree that holds the files of all parts, each at its place.

        Args:
            git_dir: What ``build`` returned; the tree is added to it.

        Returns:
            The id. Parts that name objects in another way than the outermost are not in it.
        """
        outermost, *nested = self.parts
        with tempfile.TemporaryDirectory(prefix="rlab-index-") as scratch:
            # `read-tree --prefix` wants a work tree, which it does not look at.
            env = {"GIT_INDEX_FILE": str(Path(scratch) / "index"), "GIT_WORK_TREE": scratch}

            def call(*args: str | bytes, stdin: bytes | None = None) -> bytes:
                return _git.run_git(args, git_dir=git_dir, env=env, stdin=stdin, isolated=True)

            call("read-tree", outermost.tree)
            for part in nested:
                if part.object_format != outermost.object_format:
                    continue
                path = part.path.encode("utf-8", "surrogateescape")
                # A submodule is an entry of its own; mode 0 takes it out.
                call("update-index", "-z", "--index-info", stdin=b"0 %s\t%s\0" % (part.tree.encode(), path))
                call("read-tree", b"--prefix=" + path + b"/", part.tree)
            return call("write-tree").decode().strip()

    def _sources(self, repo: Path | None) -> Sequence[Path]:
        original = Path(self.snapshot.repository)
        return (original,) if repo is None else (repo, original)


def _part(run: TrackedRun, record: SnapshotRecord | NestedRecord, *, patch: bytes, folder: str) -> RepositoryCode:
    inside = record if isinstance(record, NestedRecord) else None
    # An imported run brings its base commit along, and its record stays as it was.
    kept = [_kept_file(run, f"{folder}/{PACK_FILE}", expected=False)]
    if record.bundle is not None:
        kept.insert(0, _kept_file(run, record.bundle, expected=True))
    return RepositoryCode(
        base_commit=record.base_commit,
        tree=record.tree,
        patch=patch,
        object_format=record.object_format,
        branch=record.branch,
        remotes=record.remotes,
        kept=tuple(kept),
        path="" if inside is None else inside.path,
        is_submodule=inside is not None and inside.is_submodule,
    )


def _kept_file(run: TrackedRun, name: str, *, expected: bool) -> KeptFile:
    _check_name(run, name)
    return KeptFile(f"the run's {name}", lambda: run.artifact(name), expected=expected)


def _nested_patch(run: TrackedRun, record: NestedRecord) -> bytes:
    if record.patch is None:
        return b""
    _check_name(run, record.patch)
    with run.artifact(record.patch) as path:
        if path is None:
            message = (
                f"The patch of {printable(record.path)} in run '{run.run_id}' is missing ({record.patch} among its "
                "artifacts), so that the code which ran cannot be brought back. "
                f"Look in {run.run.info.artifact_uri}, or restore the artifacts from a backup."
            )
            raise MissingPatchError(message)
        return path.read_bytes()


def _check_name(run: TrackedRun, name: str) -> None:
    """Refuse a name that leads out of the artifacts."""
    if not _ARTIFACT.fullmatch(name):
        message = f"The record of run '{run.run_id}' names an artifact {name!r}: it is damaged, or was made to do harm."
        raise RestoreError(message)
