"""The small tools around a tracked run: its id, its git state, its parameters, and finding it again."""

from __future__ import annotations

import copy
import datetime as dt
import functools as ft
import random
import re
from typing import TYPE_CHECKING, Any

from researchlab.errors import InvalidRunIdError
from researchlab.tracking import _params
from researchlab.tracking.store import default_files

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from mlflow.entities import Run

    from researchlab.tracking.snapshot import Snapshot

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def generate_run_id() -> str:
    """Return a new, readable run id: the date and two words, as in ``2026-02-15_radiant-octopus``.

    The program's own random numbers are not touched: the words come from the operating system's source.
    """
    date = dt.datetime.now(tz=dt.UTC).astimezone().date().isoformat()
    return f"{date}_{_slugs().generate_slug(2)}"


@ft.cache
def _slugs() -> Any:
    state = random.getstate()
    try:
        import coolname  # draws from the global `random` while it is imported

        slugs = copy.copy(coolname.generate_slug.__self__)
    finally:
        random.setstate(state)
    slugs.random = random.SystemRandom()
    return slugs


def check_run_id(run_id: str) -> str:
    """Return ``run_id`` if it can name a run, in MLflow's search, in a branch name and in a shell.

    Raises:
        InvalidRunIdError: It cannot.
    """
    if not _RUN_ID.fullmatch(run_id) or ".." in run_id or run_id.endswith((".", ".lock")):
        message = (
            f"{run_id!r} cannot be a run id: it has to start with a letter or digit and go on with letters, digits, "
            "'.', '_' and '-' (200 at most, no '..', no '.' or '.lock' at the end). "
            "`rlab runs` shows the ids that there are."
        )
        raise InvalidRunIdError(message)
    return run_id


def get_git_state(repo_path: str | os.PathLike[str] = ".") -> dict[str, Any]:
    """Return the exact state of a working tree, and change nothing in it.

    The local MLflow store at the root (``mlflow.db``, ``mlartifacts/``, ``mlruns/``) is not part of it.

    Args:
        repo_path: The repository, or any folder inside it.

    Returns:
        ``base_commit`` (hex id of HEAD, None without a commit), ``patch`` (str: staged, unstaged and untracked changes
        as a binary-safe git patch; bytes that are not UTF-8 as surrogates: ``patch.encode("utf-8", "surrogateescape")``
        gives the exact bytes) and ``is_dirty`` (bool: whether anything differs from the base commit, in the
        repositories inside the work tree too). Where there are such, ``nested`` has the same three of each, by path.

    Raises:
        NotARepositoryError: The folder is not inside a git work tree.
        GitError: git is missing or failed.
    """
    from researchlab.tracking._git import find_repository
    from researchlab.tracking.snapshot import capture_repository

    repository = find_repository(repo_path)
    snapshot = capture_repository(repository, exclude=default_files(repository.top))
    nested = {inner.path: _state_of(inner.snapshot) for inner in snapshot.nested}
    return _state_of(snapshot) | ({"nested": nested} if nested else {})


def _state_of(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "base_commit": snapshot.base_commit,
        "patch": snapshot.patch.decode("utf-8", "surrogateescape"),
        "is_dirty": snapshot.is_dirty,
    }


def log_flattened_params(d: Mapping[str, Any], prefix: str = "") -> None:
    """Log a nested mapping as parameters ``a.b.c`` of MLflow's active run, in batches.

    Args:
        d: The mapping; values that are no mappings are logged as text.
        prefix: Put before each name, with a dot between.

    Raises:
        ConfigError: A name holds characters that MLflow refuses; nothing was logged.
    """
    _params.log_params(_params.flatten(d, prefix=prefix))


def find_run_by_rlab_id(run_id: str) -> Run | None:
    """Look a run up by its tag ``rlab.run_id``, in all experiments of the store that is in use here.

    Args:
        run_id: The readable id.

    Returns:
        The run, or None when there is none.

    Raises:
        InvalidRunIdError: The id holds characters that no run id has.
        AmbiguousRunError: Several runs carry the id.
        StoreError: The store does not answer.
    """
    from researchlab.tracking.runs import default_root, the_run
    from researchlab.tracking.store import resolve_store

    check_run_id(run_id)
    store = resolve_store(None, default_root("."))
    if store.database is not None and not store.database.exists():
        return None  # nothing was tracked here yet, and looking makes no store
    client = store.open()
    return the_run(client, run_id, store)
