"""Tracked runs whose code is kept as a tracker keeps it: nested repositories, bundles and all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from researchlab.tracking import command
from researchlab.tracking._code import CodeState, to_record
from researchlab.tracking._files import RunFiles
from researchlab.tracking._restoring._parts import RepositoryCode
from researchlab.tracking.runs import find_run
from researchlab.tracking.snapshot import capture
from researchlab.tracking.store import default_files, local_path

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.repos import Repo
    from helpers.tracked_runs import RunStore

    from researchlab.tracking.snapshot import Snapshot


def add_submodule(repo: Repo, library: Repo, path: str) -> None:
    """Add a submodule and commit it."""
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.top, path)
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    repo.commit(f"submodule {path}")


def track_whole(store: RunStore, run_id: str, top: Path, *, bundle: bool = True) -> Path:
    """Store a run of a repository as it is now, with everything that a tracker keeps of its code.

    Args:
        store: The store.
        run_id: The run's id.
        top: A folder in the work tree.
        bundle: Whether the commits that no remote has are kept.

    Returns:
        The folder of the run's artifacts.
    """
    store.track(run_id, top)
    run = find_run(run_id, tracking_uri=store.uri)
    taken = capture(top, exclude=default_files(top))
    described = command.describe_command(top, ordinal=0)
    state = CodeState(top, taken.repository, described, captured=taken, snapshot=to_record(taken))
    kept = state.keep(RunFiles(run.client, run.run)).snapshot
    assert kept is not None
    if not bundle:
        inner = tuple(part.model_copy(update={"bundle": None}) for part in kept.nested)
        kept = kept.model_copy(update={"bundle": None, "nested": inner})
    folder = local_path(str(run.run.info.artifact_uri))
    assert folder is not None
    path = folder / "rlab" / "record.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"snapshot": kept.model_dump()}))
    return folder


def parts_of(snapshot: Snapshot) -> tuple[RepositoryCode, ...]:
    """Return the repositories inside the work tree of a snapshot as code that can be restored."""
    return tuple(
        RepositoryCode(
            base_commit=nested.snapshot.base_commit,
            tree=nested.snapshot.tree,
            patch=nested.snapshot.patch,
            object_format=nested.snapshot.repository.object_format,
            branch=nested.snapshot.repository.branch,
            remotes=nested.snapshot.repository.remotes,
            path=nested.path,
            is_submodule=nested.is_submodule,
        )
        for nested in snapshot.nested
    )
