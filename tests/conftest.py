"""In which surroundings do the tests run? Strict JAX, and nothing of the machine's own configuration and stores."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Variables rather than calls, so that a test without jax does not load it. They are set before collection because jax
# and mlflow read them when they are imported, which a test module may do.
_STRICT_JAX = {
    "JAX_NUM_CPU_DEVICES": "2",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
}
_NO_TELEMETRY = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
_FOREIGN = ("GIT_", "JAX_", "MLFLOW_", "XLA_")
_GIT_CONFIG = """\
[user]
    name = Researcher
    email = researcher@example.org
[init]
    defaultBranch = main
[commit]
    gpgSign = false
[gc]
    auto = 0
"""


def pytest_configure(config: pytest.Config) -> None:
    """Isolate this process and every process that a test starts, unless runs of this repository are re-executed."""
    if config.getoption("rlab_reproduce", default=None):
        return
    # A shell starts what is in the background with Ctrl-C ignored, nohup ignores the hang-up, and the tests' children
    # would wait for either in vain.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    home = Path(tempfile.mkdtemp(prefix="rlab-tests-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)  # a worker of pytest-xdist does not call the cleanups
    (home / ".gitconfig").write_text(_GIT_CONFIG)
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        patch.delenv(name)
    for name, value in {
        **_STRICT_JAX,
        **_NO_TELEMETRY,
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
    }.items():
        patch.setenv(name, value)


@pytest.fixture(autouse=True)
def _no_leaks_between_tests() -> Iterator[None]:
    # Set up before and torn down after `monkeypatch`, so that what that puts back is seen, too.
    _forget_mlflow_settings()
    folder = Path.cwd()
    yield
    assert Path.cwd() == folder, "change the directory with monkeypatch.chdir"
    if "mlflow" in sys.modules:
        import mlflow

        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri(None)
    _forget_mlflow_settings()


def _forget_mlflow_settings() -> None:
    # MLflow writes what `set_tracking_uri` and `set_experiment` are told into the environment (mlflow#7098).
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        os.environ.pop(name, None)


@pytest.fixture
def default_jax_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts have JAX as a user has it, since optax does not run under strict promotion."""
    for name in _STRICT_JAX:
        monkeypatch.delenv(name)
