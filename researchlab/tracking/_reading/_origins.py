"""Is a file the program's own, or one of the interpreter, of installed packages, of the system, of a tool?"""

from __future__ import annotations

import functools as ft
import os
import sys
from pathlib import Path

_INSTALLED = frozenset({"site-packages", "dist-packages", "__pycache__"})
_METADATA = (".dist-info", ".egg-info")
#: Folders, in a work tree, of tools that keep a state of their own there.
_TOOLS = frozenset(
    {".git", ".hg", ".svn", ".hypothesis", ".ipynb_checkpoints", ".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache"}
    | {".tox", "node_modules"}
)
#: What marks the root of an environment.
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")

_SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr", "/var"),
    *("/System", "/Library", "/Applications", "/opt/homebrew", "/opt/local", "/opt/nvidia"),
    *("/private/etc", "/private/var", "/snap", "/nix/store", "/gnu/store"),
)
#: Places below those where people keep data.
_NOT_SYSTEM = ("/run/media", "/var/tmp", "/var/folders", "/private/var/folders", "/private/var/tmp")  # noqa: S108

#: Folders of the home directory that start with a dot and hold data sets and weights; all others are configuration.
_DATA_AT_HOME = frozenset(
    {".astropy", ".cache", ".chainer", ".deepchem", ".fastai", ".insightface", ".keras", ".medmnist", ".mne", ".mxnet"}
    | {".surprise_data", ".torch"}
)
#: What in the user's cache is no data: everything else (huggingface, torch, pooch, kagglehub, ...) may be.
_CACHES_OF_TOOLS = frozenset(
    {"Homebrew", "black", "ccache", "conda", "fontconfig", "gstreamer-1.0", "ipython", "jax", "jax_cache", "jedi"}
    | {"jupyter", "matplotlib", "mesa_shader_cache", "mesa_shader_cache_db", "mypy", "nix", "numba", "nvidia", "nv"}
    | {"parso", "pip", "pip-tools", "pocl", "poetry", "pre-commit", "pyright-python", "pypoetry", "researchlab"}
    | {"ruff", "sccache", "torch_extensions", "torchinductor", "triton", "uv", "virtualenv", "wandb", "xla", "yarn"}
)

#: researchlab itself, which may run from its checkout: its version is recorded.
OWN = (str(Path(__file__).parents[2]), str(Path(__file__).parents[3] / "pytest_researchlab"))


def is_of_tools(path: str, top: str) -> bool:
    """Return whether a file in a work tree belongs to an environment inside of it, or is the state of a tool.

    Args:
        path: Absolute path below ``top``.
        top: Root of the work tree.
    """
    parts = path[len(top) + 1 :].split("/")
    folders = parts[:-1]
    if any(part in _INSTALLED or part.lower() in _TOOLS or part.endswith(_METADATA) for part in folders):
        return True
    if any(_is_below(path, prefix) and _is_below(prefix, top) for prefix in _prefixes()):
        return True
    return any(_is_environment(os.path.join(top, *folders[:count])) for count in range(1, len(folders) + 1))  # noqa: PTH118


def is_foreign(path: str) -> bool:
    """Return whether a file outside of the work tree belongs to interpreter, packages, system, or a tool's own files.

    Args:
        path: Absolute path.
    """
    parts = path.split("/")[:-1]
    if any(part in _INSTALLED or part == ".git" or part.endswith(_METADATA) for part in parts):
        return True
    if any(_is_below(path, prefix) for prefix in (*_prefixes(), *OWN)):
        return True
    if any(_is_below(path, folder) for folder in _SYSTEM) and not any(_is_below(path, data) for data in _NOT_SYSTEM):
        return True
    return any(_is_below(path, folder) for folder in jax_caches()) or _is_tool_at_home(path)


def _is_tool_at_home(path: str) -> bool:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    if _is_below(path, cache):
        return path[len(cache) + 1 :].partition("/")[0] in _CACHES_OF_TOOLS
    config = os.environ.get("XDG_CONFIG_HOME")
    if config and _is_below(path, config):
        return True
    home = os.path.expanduser("~")  # noqa: PTH111
    if not _is_below(path, home):
        return False
    first = path[len(home) + 1 :].partition("/")[0]
    return first.startswith(".") and first not in _DATA_AT_HOME


def jax_caches() -> tuple[str, ...]:
    """Return the folders that jax keeps compiled programs in."""
    # Asked of a loaded jax, because a program may set it there.
    config = getattr(sys.modules.get("jax"), "config", None)
    folders = (getattr(config, "jax_compilation_cache_dir", None), os.environ.get("JAX_COMPILATION_CACHE_DIR"))
    return tuple(os.path.abspath(folder) for folder in folders if folder)  # noqa: PTH100


@ft.cache
def _prefixes() -> tuple[str, ...]:
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    return tuple(found | {os.path.realpath(prefix) for prefix in found})


@ft.lru_cache(maxsize=10_000)
def _is_environment(folder: str) -> bool:
    return any(os.path.lexists(os.path.join(folder, name)) for name in _ENVIRONMENT)  # noqa: PTH118


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder) and (len(path) == len(folder) or path[len(folder)] == "/" or folder.endswith("/"))
