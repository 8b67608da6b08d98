"""What may stand at the place where the user pressed the Tab key?

A shell waits for the answer, so that a local store is asked directly, read-only, and MLflow is not loaded. Whatever
fails gives no suggestions, and never a word on the terminal.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from researchlab.tracking._tags import RUN_ID_TAG

if TYPE_CHECKING:
    from collections.abc import Generator

_MOST = 200
_SECONDS = 0.2  # to wait for a store that another process writes to

_RUNS = """
    SELECT tags.value FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid
    WHERE tags.key = ? AND runs.lifecycle_stage = 'active' AND substr(tags.value, 1, ?) = ?
    ORDER BY runs.start_time DESC LIMIT ?
"""
_EXPERIMENTS = """
    SELECT name FROM experiments WHERE lifecycle_stage = 'active' AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?
"""


def complete_run(ctx: Any, incomplete: str) -> list[str]:
    """Return what names one run: `latest`, and the ids of the local store's runs that begin so, the newest first."""
    return [word for word in ("latest",) if word.startswith(incomplete)] + _run_ids(ctx, incomplete)


def _run_ids(ctx: Any, incomplete: str) -> list[str]:
    return _ask(ctx, _RUNS, (RUN_ID_TAG, len(incomplete), incomplete, _MOST))


def complete_reference(ctx: Any, incomplete: str) -> list[str]:
    """Return what ``rlab reproduce`` takes: ids, and the words for more than one run."""
    words = [word for word in ("latest", "all") if word.startswith(incomplete)]
    return words + _run_ids(ctx, incomplete)


def complete_experiment(ctx: Any, incomplete: str) -> list[str]:
    """Return the names of the local store's experiments that begin so."""
    return _ask(ctx, _EXPERIMENTS, (len(incomplete), incomplete, _MOST))


def complete_restored(ctx: Any, incomplete: str) -> list[str]:
    """Return the runs that are restored in the repository: its branches experiment/*."""
    with contextlib.suppress(Exception):
        from researchlab.tracking import _git

        folder = "refs/heads/experiment/"
        lines = _git.run_git(("for-each-ref", "--format=%(refname)", folder), cwd=_repo(ctx)).decode().splitlines()
        return [line.removeprefix(folder) for line in lines if line.startswith(folder + incomplete)]
    return []


def _ask(ctx: Any, query: str, values: tuple[Any, ...]) -> list[str]:
    with contextlib.suppress(Exception), _database(ctx) as database:
        return [str(name) for (name,) in database.execute(query, values)]
    return []


@contextlib.contextmanager
def _database(ctx: Any) -> Generator[sqlite3.Connection]:
    # Not from the store's own modules: they would load half of the package.
    chosen = ctx.params.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    if chosen:
        path = Path(chosen.removeprefix("sqlite:///").partition("?")[0])
        if not chosen.startswith("sqlite:///"):
            message = "Only a local store answers at once."
            raise ValueError(message)
    else:
        path = _root(_repo(ctx)) / "mlflow.db"
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_SECONDS)) as database:
        yield database


def _repo(ctx: Any) -> Path:
    return Path(ctx.params.get("repo") or ".")


def _root(repo: Path) -> Path:
    from researchlab.tracking import _git

    return _git.find_repository(repo).main_worktree
