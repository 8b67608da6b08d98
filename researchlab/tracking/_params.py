"""How does a nested configuration become MLflow parameters, with nothing lost and nothing half logged?"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from researchlab.errors import ConfigError
from researchlab.tracking._warning import warn
from researchlab.tracking.store import first_line, quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The limits of MLflow's store (mlflow/utils/validation.py).
_MAX_KEY = 250
_MAX_VALUE = 6000
_BATCH = 100
_REFUSED = re.compile(r"[^\w\-. /:]")


def flatten(d: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """Flatten a nested mapping to names ``a.b.c`` and texts, and check that MLflow takes them.

    Args:
        d: The mapping.
        prefix: Put before each name, with a dot between.

    Returns:
        Name to text.

    Raises:
        ConfigError: A name is refused by MLflow, or two entries come to the same name.
    """
    flat: dict[str, str] = {}
    _flatten_into(flat, d, prefix)
    for name in flat:
        _check(name)
    return flat


def _flatten_into(flat: dict[str, str], d: Mapping[Any, Any], prefix: str) -> None:
    for key, value in d.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        inside = _inside(value)
        if inside:
            _flatten_into(flat, inside, name)
        elif name in flat:
            message = f"Two entries of the configuration come to the same parameter '{name}'. Rename one of them."
            raise ConfigError(message)
        else:
            # As a YAML file's reader would see it, so that a Config's tuple and a file's list agree.
            is_tuple = isinstance(value, tuple) and not hasattr(value, "_fields")
            flat[name] = str(list(value) if is_tuple else value)


def _check(name: str) -> None:
    refused = sorted(set(_REFUSED.findall(name)))
    if refused:
        found = " ".join(repr(character) for character in refused)
        message = (
            f"The configuration key '{name}' holds {found}, which MLflow refuses in a parameter name. "
            "Letters, digits, '_', '-', '.', ' ', ':' and '/' are allowed; rename the key. Nothing was logged."
        )
        raise ConfigError(message)
    # MLflow's names are paths, too: they have to be in normal form.
    is_path = posixpath.normpath(name) == name and name != "." and not name.startswith(("..", "/"))
    if len(name) > _MAX_KEY or not is_path:
        message = (
            f"The configuration key '{name[:80]}' cannot be a parameter name of MLflow: it has to have 1 to {_MAX_KEY} "
            "characters and to be no path with an empty part, '.' or '..' in it. Rename the key. Nothing was logged."
        )
        raise ConfigError(message)


def log_params(flat: Mapping[str, str]) -> None:
    """Log flat parameters to MLflow's active run.

    Args:
        flat: Name to text.

    Raises:
        ConfigError: MLflow refused, for instance because a parameter has another value already.
    """
    warn_of_long(flat)
    with quiet_mlflow():
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            mlflow.log_params({name: value[:_MAX_VALUE] for name, value in flat.items()})
        except MlflowException as error:
            message = f"MLflow refused the parameters: {first_line(error)}. A parameter of a run keeps its first value."
            raise ConfigError(message) from error


def log_params_of(client: MlflowClient, mlflow_run_id: str, flat: Mapping[str, str]) -> None:
    """Log flat parameters to a run, in batches.

    Args:
        client: A client of the run's store.
        mlflow_run_id: MLflow's id of the run.
        flat: Name to text.

    Raises:
        MlflowException: The store failed.
    """
    from mlflow.entities import Param

    items = [Param(name, value[:_MAX_VALUE]) for name, value in flat.items()]
    for start in range(0, len(items), _BATCH):
        client.log_batch(mlflow_run_id, params=items[start : start + _BATCH])


def check_unchanged(flat: Mapping[str, str], logged: Mapping[str, str]) -> None:
    """Check that no parameter was logged with another value before.

    Args:
        flat: What is to be logged.
        logged: What the run has.

    Raises:
        ConfigError: One was; MLflow's parameters never change.
    """
    for name, value in flat.items():
        if logged.get(name, value[:_MAX_VALUE]) != value[:_MAX_VALUE]:
            message = (
                f"The parameter '{name}' of this run is {logged[name]!r:.80} already and cannot become {value!r:.80}: "
                "MLflow keeps the first value. Put the second one under a name of its own. Nothing was logged."
            )
            raise ConfigError(message)


def warn_of_long(flat: Mapping[str, str]) -> None:
    """Warn of values that MLflow cuts short."""
    long = [name for name, value in flat.items() if len(value) > _MAX_VALUE]
    if long:
        warn(
            f"MLflow keeps the first {_MAX_VALUE} characters of a parameter; cut short: {', '.join(long)}. "
            "ExperimentTracker.log_config keeps the whole configuration as an artifact."
        )


def read_config(config: Any) -> tuple[dict[str, Any], str, bytes]:
    """Read what a user calls a configuration.

    Args:
        config: A YAML file, a pydantic model, or a mapping.

    Returns:
        The nested mapping, and name and bytes of the artifact that keeps the whole.

    Raises:
        ConfigError: It is none of these, or the file is missing or no YAML mapping (line and column are named).
    """
    if isinstance(config, (str, os.PathLike)):
        path = Path(config)
        try:
            data = path.read_bytes()
        except OSError as error:
            message = f"The configuration file {path.absolute()} cannot be read: {error.strerror}."
            raise ConfigError(message) from error
        return _parse_yaml(data, path), path.name, data
    if isinstance(config, pydantic.BaseModel):
        content = config.model_dump()
    elif isinstance(config, Mapping):
        content = dict(config)
    else:
        message = f"log_config takes the path of a YAML file, a Config or a mapping, and not a {type(config).__name__}."
        raise ConfigError(message)
    return content, "config.json", json.dumps(_plain(content), indent=2, default=str).encode()


def _plain(value: Any) -> Any:
    """Return nested mappings with text as keys, which is all that JSON takes."""
    inside = _inside(value)
    return value if inside is None else {str(key): _plain(item) for key, item in inside.items()}


def _inside(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, pydantic.BaseModel) and not isinstance(value, pydantic.RootModel):
        return value.model_dump()
    return value if isinstance(value, Mapping) else None


def _parse_yaml(data: bytes, path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        message = f"The configuration file {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        raise ConfigError(message) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        message = f"{path}{where}: not valid YAML: {error.problem or error.context}."
        raise ConfigError(message) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-02-31
        message = f"{path}: not valid YAML: {first_line(error)}."
        raise ConfigError(message) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = type(content).__name__
        message = f"{path}: a configuration has to be a mapping of names to values, and this file holds a {kind}."
        raise ConfigError(message)
    return content
