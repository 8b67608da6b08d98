"""How does a nested configuration become MLflow parameters, with nothing lost and nothing half logged?"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from researchlab.errors import ConfigError, ResearchlabWarning
from researchlab.tracking.store import quiet_mlflow

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
        if isinstance(value, Mapping) and value:
            _flatten_into(flat, value, name)
        elif name in flat:
            message = f"Two entries of the configuration come to the same parameter '{name}'. Rename one of them."
            raise ConfigError(message)
        else:
            flat[name] = str(value)


def _check(name: str) -> None:
    refused = sorted(set(_REFUSED.findall(name)))
    if refused:
        found = " ".join(repr(character) for character in refused)
        message = (
            f"The configuration key '{name}' holds {found}, which MLflow refuses in a parameter name. "
            "Letters, digits, '_', '-', '.', ' ', ':' and '/' are allowed; rename the key. Nothing was logged."
        )
        raise ConfigError(message)
    parts = name.split("/")
    if not name or len(name) > _MAX_KEY or "" in parts or "." in parts or ".." in parts:
        message = (
            f"The configuration key '{name[:80]}' cannot be a parameter name of MLflow: it has to have 1 to {_MAX_KEY} "
            "characters and to be no path with an empty part, '.' or '..' in it. Rename the key. Nothing was logged."
        )
        raise ConfigError(message)


def log_params(flat: Mapping[str, str], *, mlflow_run_id: str | None = None) -> None:
    """Log flat parameters to a run, in batches.

    Args:
        flat: Name to text.
        mlflow_run_id: The run; MLflow's active one by default.

    Raises:
        ConfigError: MLflow refused, for instance because a parameter has another value already.
    """
    long = [name for name, value in flat.items() if len(value) > _MAX_VALUE]
    if long:
        warnings.warn(
            f"MLflow keeps the first {_MAX_VALUE} characters of a parameter; cut short: {', '.join(long)}. "
            "Pass the whole configuration to ExperimentTracker.log_config, which keeps it as an artifact too.",
            ResearchlabWarning,
            stacklevel=3,
        )
    with quiet_mlflow():
        import mlflow
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        try:
            if mlflow_run_id is None:
                mlflow.log_params(dict(flat))
                return
            items = [Param(name, value[:_MAX_VALUE]) for name, value in flat.items()]
            client = mlflow.MlflowClient()
            for start in range(0, len(items), _BATCH):
                client.log_batch(mlflow_run_id, params=items[start : start + _BATCH])
        except MlflowException as error:
            first = str(error).partition("\n")[0]
            message = f"MLflow refused the parameters: {first}. A parameter of a run cannot change its value."
            raise ConfigError(message) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.

    Returns:
        The mapping; empty for an empty file.

    Raises:
        ConfigError: The file is missing, is not YAML (with line and column), or holds no mapping.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"The configuration file {path.absolute()} cannot be read: {error.strerror}."
        raise ConfigError(message) from error
    except UnicodeDecodeError as error:
        message = f"The configuration file {path} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        raise ConfigError(message) from error
    try:
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        message = f"{path}{where}: not valid YAML: {error.problem or error.context}."
        raise ConfigError(message) from error
    except yaml.YAMLError as error:
        message = f"{path}: not valid YAML: {str(error).partition(chr(10))[0]}."
        raise ConfigError(message) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        message = f"{path}: a configuration has to be a mapping of names to values, and this file holds a {type(data).__name__}."
        raise ConfigError(message)
    return data
