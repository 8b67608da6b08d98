"""Which stored runs are asked for, in which store, and how are they to be executed?"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

from researchlab.errors import ResearchlabError, ResearchlabWarning
from researchlab.tracking._wording import with_store_option
from researchlab.tracking.runs import default_root, resolve_references
from researchlab.tracking.store import resolve_store

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

#: The option that names the store, for messages.
STORE_OPTION = "--rlab-tracking-uri"

_SQLITE = "sqlite:///"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs of one session; made once, so that `latest` means the same run in every worker of pytest-xdist.

    Attributes:
        run_ids: The runs, each once.
        tracking_uri: Their store. Fixed here: a test of the same session may tell MLflow another one.
        repo: A folder of the repository that has the base commits.
        timeout: Limit of one re-execution in seconds, or None.
        keep: Whether the scratch folders stay.
    """

    run_ids: tuple[str, ...]
    tracking_uri: str
    repo: str
    timeout: float | None
    keep: bool

    @classmethod
    def from_options(cls, config: pytest.Config) -> Self:
        """Read the options and ask the store.

        Args:
            config: The session's configuration.

        Returns:
            The plan.

        Raises:
            pytest.UsageError: An option makes no sense, the store does not answer, or a run is not in it.
        """
        timeout = _timeout(config)
        repo = config.invocation_params.dir
        try:
            with calm_imports(), with_store_option(STORE_OPTION):
                store = resolve_store(_tracking_uri(config), default_root(repo))
                references: list[str] = config.option.rlab_reproduce
                run_ids = resolve_references(
                    references,
                    tracking_uri=store.tracking_uri,
                    experiment=config.getoption("rlab_experiment") or config.getini("rlab_experiment") or None,
                    repo=repo,
                )
        except ResearchlabError as error:
            raise pytest.UsageError(str(error)) from error
        return cls(tuple(run_ids), store.tracking_uri, str(repo), timeout, bool(config.getoption("rlab_keep")))

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Take over the plan that the controller of pytest-xdist sent."""
        return cls(**message)

    def to_message(self) -> dict[str, Any]:
        """Return the plan in builtin types, which is all that pytest-xdist can send."""
        return dataclasses.asdict(self)

    def describe(self) -> str:
        """Return the plan in a line, without the credentials of the store."""
        parts = urlsplit(self.tracking_uri)
        store = self.tracking_uri
        if "@" in parts.netloc:
            store = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        runs = "1 stored run" if len(self.run_ids) == 1 else f"{len(self.run_ids)} stored runs"
        return f"{runs} of {store}"


@contextlib.contextmanager
def calm_imports() -> Generator[None]:
    """Keep the suite's `filterwarnings = error` away from what MLflow and its dependencies warn about; show ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ResearchlabWarning)
        yield


def _tracking_uri(config: pytest.Config) -> str | None:
    """Return the chosen URI with a relative path made absolute: from where pytest was started, or from the ini file."""
    option: str | None = config.getoption("rlab_tracking_uri")
    ini: str = config.getini("rlab_tracking_uri")
    start = config.invocation_params.dir if option else (config.inipath or config.rootpath / "pytest.ini").parent
    uri = option or ini
    path = uri.removeprefix(_SQLITE)
    if uri.startswith(_SQLITE) and not path.startswith(":memory:") and not Path(path).is_absolute():
        return _SQLITE + str(start / path)
    return uri or None


def _timeout(config: pytest.Config) -> float | None:
    text: str = config.getoption("rlab_timeout") or config.getini("rlab_timeout")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        message = f"--rlab-timeout (ini rlab_timeout) is '{text}', and has to be a number of seconds greater than 0."
        raise pytest.UsageError(message)
    return seconds
