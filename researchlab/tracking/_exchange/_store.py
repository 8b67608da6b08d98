"""How does an imported run get into an MLflow store, whole or not at all?"""

from __future__ import annotations

import contextlib
import itertools
import posixpath
import re
import shutil
from typing import TYPE_CHECKING

from researchlab.errors import ExchangeError, StoreError
from researchlab.tracking import _params
from researchlab.tracking._exchange._trace import metric_points
from researchlab.tracking._files import RunFiles
from researchlab.tracking._tags import TREE_TAG, start_tags
from researchlab.tracking.record import RECORD_FOLDER
from researchlab.tracking.runs import the_run
from researchlab.tracking.store import first_line, quiet_mlflow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from researchlab.tracking._exchange._archive import Refuse
    from researchlab.tracking._exchange._format import Manifest
    from researchlab.tracking._exchange._trace import MetricPoint
    from researchlab.tracking.record import Record
    from researchlab.tracking.store import Store

#: Which file a run was imported from: its sha256.
IMPORTED_TAG = "rlab.imported_from"

_NAME_TAG = "mlflow.runName"
_OUR_TAGS = "rlab."
# The limits of MLflow's store (mlflow/utils/validation.py).
_LONGEST_NAME = 250
_LONGEST_TAG = 8000
_LONGEST_PARAM = 6000
_REFUSED = re.compile(r"[^\w\-. /:]")
_TAGS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000


def exported_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that go with a run: the user's and MLflow's, and of ours the one that seals the code.

    The others follow from the record. Where the run was imported from, which process it was and what re-executions
    found are facts of this store; a verdict that came with a file would be somebody else's word.
    """
    return {name: value for name, value in tags.items() if not name.startswith(_OUR_TAGS) or name == TREE_TAG}


def check_tags_and_params(manifest: Manifest, refuse: Refuse) -> None:
    """Check that MLflow takes the tags and parameters.

    Args:
        manifest: The manifest of the file.
        refuse: Raises the error that says what is wrong.
    """
    for what, items, longest in (("tag", manifest.tags, _LONGEST_TAG), ("parameter", manifest.params, _LONGEST_PARAM)):
        for name, value in items.items():
            if not _is_name(name):
                refuse(f"it has a {what} of the name {name[:80]!r}, which MLflow does not take")
            if len(value) > longest or not _is_text(value):
                refuse(f"its {what} {name!r} has a value that MLflow does not take")
    if not _is_text(manifest.experiment):
        refuse("its experiment has a name that MLflow does not take")


def store_run(
    manifest: Manifest, record: Record, artifacts: Path, *, sha256: str, store: Store, client: MlflowClient
) -> str:
    """Make a run of an exported one that was checked. It gets its run id last, so that nobody finds half of it.

    Args:
        manifest: The manifest of the file.
        record: The record in it.
        artifacts: Folder that holds the members.
        sha256: Digest of the file.
        store: Where it goes.
        client: A client of the store.

    Returns:
        MLflow's id of the run.

    Raises:
        ExchangeError: The store refused a part of it, or got a run of the same id meanwhile; the run was deleted.
        StoreError: The store failed; nothing was made.
    """
    experiment = store.experiment_id(client, manifest.experiment)
    name = manifest.tags.get(_NAME_TAG) or manifest.run_id
    try:
        with quiet_mlflow():
            run = client.create_run(experiment, start_time=manifest.started, run_name=name)
    except Exception as error:
        message = f"The run '{manifest.run_id}' cannot be made in {store.name}: {first_line(error)}."
        raise StoreError(message) from error
    number = str(run.info.run_id)
    files: list[RunFiles] = []
    try:
        files.append(RunFiles(client, run))
        _fill(manifest, artifacts, client=client, run=run, files=files[0])
        ours = start_tags(manifest.run_id, record.command, record.snapshot) | {IMPORTED_TAG: sha256}
        theirs = exported_tags(manifest.tags)
        _log_tags(client, number, theirs)
        _log_tags(client, number, {key: value for key, value in ours.items() if key not in theirs})
        the_run(client, manifest.run_id, store)  # another import of the same run at the same time: one too many
    except BaseException as error:
        _remove(client, number, files)
        if not isinstance(error, Exception):
            raise
        message = (
            f"The run '{manifest.run_id}' could not be imported whole into {store.name}, and what was there of it was "
            f"deleted: {first_line(error)}."
        )
        raise ExchangeError(message) from error
    files[0].discard()
    return number


def _fill(manifest: Manifest, artifacts: Path, *, client: MlflowClient, run: Run, files: RunFiles) -> None:
    number = str(run.info.run_id)
    for member in manifest.members:
        files.keep(member.name, artifacts / member.name)
    files.send()
    with quiet_mlflow():
        _params.log_params_of(client, number, manifest.params)
        _log_metrics(client, number, metric_points(artifacts / RECORD_FOLDER))
        client.set_terminated(number, manifest.status, manifest.ended or manifest.started)


def _log_metrics(client: MlflowClient, number: str, points: Iterable[MetricPoint]) -> None:
    from mlflow.entities import Metric

    metrics: Iterable[Metric] = (
        Metric(point.name, point.value, point.time, point.step) for point in points if _is_name(point.name)
    )
    while batch := list(itertools.islice(metrics, _METRICS_AT_ONCE)):
        client.log_batch(number, metrics=batch)


def _log_tags(client: MlflowClient, number: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    items = [RunTag(name, value) for name, value in tags.items()]
    with quiet_mlflow():
        for start in range(0, len(items), _TAGS_AT_ONCE):
            client.log_batch(number, tags=items[start : start + _TAGS_AT_ONCE])


def _remove(client: MlflowClient, number: str, files: list[RunFiles]) -> None:
    """Delete a run that was half made; the artifacts of a local store go too, as MLflow keeps them."""
    for made in files:
        shutil.rmtree(made.root, ignore_errors=True)
    with contextlib.suppress(Exception), quiet_mlflow():
        client.delete_run(number)


def _is_name(name: str) -> bool:
    """Return whether MLflow takes the name of a metric, parameter or tag: it has to be a path in normal form, too."""
    is_path = posixpath.normpath(name) == name and name != "." and not name.startswith(("..", "/"))
    return 0 < len(name) <= _LONGEST_NAME and is_path and _REFUSED.search(name) is None and _is_text(name)


def _is_text(text: str) -> bool:
    try:
        return "\0" not in text.encode().decode()
    except UnicodeEncodeError:
        return False
