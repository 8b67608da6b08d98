"""How was this process started, so that it can be started again?"""

from __future__ import annotations

import dataclasses
import functools as ft
import multiprocessing
import os
import site
import stat
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab import _start
from researchlab.tracking.record import CommandRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from researchlab.tracking.record import CommandKind, StandardInput

_FIRST_FOLDER = Path(_start.FOLDER)

_WITH_VALUE = frozenset("WX")
_LONG_WITH_VALUE = frozenset({"--check-hash-based-pycs"})


@dataclasses.dataclass(frozen=True)
class Invocation:
    """The parts of an interpreter's command line.

    Attributes:
        kind: What the interpreter was given.
        flags: Its own flags.
        target: Script, module or code; None for standard input.
        argv: What stood behind the target.
    """

    kind: CommandKind
    flags: tuple[str, ...]
    target: str | None
    argv: tuple[str, ...]


def parse_invocation(orig_argv: Sequence[str]) -> Invocation:  # noqa: C901 (one branch a rule of CPython's grammar)
    """Split ``sys.orig_argv`` into interpreter flags, target and arguments.

    Follows the grammar of CPython's command line: flags may be clustered (``-Im``), ``-c``, ``-m``, ``-W`` and ``-X``
    take the rest of their cluster or the next argument, and ``-c`` and ``-m`` end the flags.

    Args:
        orig_argv: The interpreter first, then what it was given.

    Returns:
        The parts.
    """
    arguments = list(orig_argv[1:])
    flags: list[str] = []
    while arguments:
        argument = arguments.pop(0)
        if argument == "-" or not argument.startswith("-"):
            kind: CommandKind = "stdin" if argument == "-" else "script"
            return Invocation(kind, tuple(flags), None if kind == "stdin" else argument, tuple(arguments))
        if argument == "--":  # a script whose name begins with a dash follows
            script = arguments.pop(0) if arguments else None
            return Invocation("script" if script else "stdin", (*flags, argument), script, tuple(arguments))
        if argument.startswith("--"):
            flags.append(argument)
            if argument in _LONG_WITH_VALUE and arguments:
                flags.append(arguments.pop(0))
            continue
        for position, letter in enumerate(argument[1:], start=1):
            rest = argument[position + 1 :]
            if letter in "cm":
                if position > 1:
                    flags.append(argument[:position])
                target = rest or (arguments.pop(0) if arguments else "")
                return Invocation("code" if letter == "c" else "module", tuple(flags), target, tuple(arguments))
            if letter in _WITH_VALUE:
                flags.append(argument)
                if not rest and arguments:
                    flags.append(arguments.pop(0))
                break
        else:
            flags.append(argument)
    return Invocation("stdin", tuple(flags), None, ())


def current_test() -> str | None:
    """Return the node id of the pytest test that runs now in this very process, or None."""
    if "_pytest.runner" not in sys.modules:  # a script that a test started inherits the variable
        return None
    value = os.environ.get("PYTEST_CURRENT_TEST")
    return value.rpartition(" (")[0] or None if value else None


def main_script() -> Path | None:
    """Return the file that runs as ``__main__``, or None where it is no file of the user's own."""
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    if not name:
        return None
    path = (start_folder() / name).absolute()
    return None if is_environment(path) else path


def start_folder() -> Path:
    """Return the working directory that the process was started in.

    A program may change its directory before it imports researchlab; the place of its main module then tells where it
    began.
    """
    main = sys.modules.get("__main__")
    invocation = parse_invocation(sys.orig_argv)
    file = getattr(main, "__file__", None)
    if not file or not Path(file).is_absolute():
        return _FIRST_FOLDER
    if invocation.kind == "module":
        # `python -m` looks in the working directory first.
        name = getattr(getattr(main, "__spec__", None), "name", None) or ""
        folder = Path(file).parents[name.count(".")]
        return folder if sys.path[:1] == [str(folder)] else _FIRST_FOLDER
    if invocation.kind != "script" or not invocation.target or _is_same(_FIRST_FOLDER / invocation.target, Path(file)):
        return _FIRST_FOLDER
    parts = Path(os.path.normpath(invocation.target)).parts
    return Path(*Path(file).parts[: -len(parts)]) if Path(file).parts[-len(parts) :] == parts else _FIRST_FOLDER


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def is_environment(path: Path) -> bool:
    """Return whether ``path`` belongs to the interpreter or to installed packages, not to the user's code."""
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return True
    return any(path.is_relative_to(root) for root in _environment_roots())


@ft.cache
def _environment_roots() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    roots = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    roots.update(site.getsitepackages())
    return tuple(Path(root) for root in roots)


def source_roots(repository: Path) -> tuple[str, ...]:
    """Return the folders of ``repository`` that modules are imported from, in the order of the search.

    An editable install names the checkout in ways that no search path shows (an import hook), so that the modules
    which were imported are asked too.

    Args:
        repository: Root of the work tree.

    Returns:
        Folders relative to the root, ``.`` for the root itself.
    """
    roots: dict[str, None] = {}
    for entry in sys.path:
        if entry:
            _add_root(roots, Path(entry), repository)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__main__" or not isinstance(file, str):
            continue
        path = _place_in(repository, file)
        if path is None:
            continue
        parts = name.split(".")
        if path.stem == "__init__":
            path = path.parent
        if path.parts[-len(parts) :][:-1] == tuple(parts[:-1]) and path.name.partition(".")[0] == parts[-1]:
            _add_root(roots, Path(*path.parts[: -len(parts)]), repository)
    return tuple(roots)


def _add_root(roots: dict[str, None], folder: Path, repository: Path) -> None:
    place = _place_in(repository, str(folder))
    if place is not None and place.is_dir():
        roots.setdefault(place.relative_to(repository).as_posix())


def _place_in(root: Path, file: str) -> Path | None:
    """Return where a file lies below ``root``, also when it is named through a symlink; None for installed packages."""
    absolute = Path(file).absolute()
    for place in (absolute, _resolved(absolute)):
        if place.is_relative_to(root) and not is_environment(place):
            return place
    return None


def _resolved(path: Path) -> Path:
    place = _resolved_folder(path.parent) / path.name
    return Path(os.path.realpath(place)) if place.is_symlink() else place


@ft.cache
def _resolved_folder(folder: Path) -> Path:
    return Path(os.path.realpath(folder))  # of hundreds of modules, most share a folder


def modules_under(root: Path, *, but: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the names of the modules that were imported from below ``root``, installed packages apart.

    Args:
        root: The folder to look for.
        but: Folders below it that do not count.

    Returns:
        Module names in alphabetic order.
    """
    excluded = tuple(but)
    found: list[str] = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        place = _place_in(root, file) if isinstance(file, str) else None
        if place is not None and not any(place.is_relative_to(folder) for folder in excluded):
            found.append(name)
    return tuple(sorted(found))


_opened: dict[str | None, int] = {}


def next_ordinal() -> int:
    """Count a tracker that opens now, and return which of its process (of its test, under pytest) it is, from 0."""
    test = current_test()
    ordinal = _opened.get(test, 0)
    _opened[test] = ordinal + 1
    return ordinal


def describe_command(repository: Path | None, *, ordinal: int) -> CommandRecord:
    """Describe how this process was started.

    Args:
        repository: Root of the work tree, or None outside of one.
        ordinal: Which tracker of the process this is.

    Returns:
        The command, with paths relative to the repository where they lie inside it.
    """
    folder = start_folder()
    invocation = parse_invocation(sys.orig_argv)
    kind, target, argv = invocation.kind, invocation.target, invocation.argv
    test = current_test()
    if multiprocessing.parent_process() is not None:
        kind = "worker"
    elif test is not None:
        kind, target, argv = "pytest", test, ()
        folder = _pytest_root(test, folder)
    elif "ipykernel" in sys.modules or hasattr(sys, "ps1"):
        kind = "interactive"
    elif kind == "script" and target is not None:
        script = (folder / target).absolute()
        # The command of an installed package, perhaps of a virtual environment inside of the repository, is no code of
        # it.
        target = str(script) if is_environment(script) else _inside(script, repository) or str(script)
    return CommandRecord(
        kind=kind,
        flags=invocation.flags if test is None else _flags_of_test(invocation),
        target=target,
        argv=argv,
        cwd=_inside(folder, repository),
        folder=str(folder),
        ordinal=ordinal,
        source_roots=source_roots(repository) if repository else (),
        stdin=standard_input(),
    )


def standard_input() -> StandardInput:
    """Return what the standard input of this process is, and of a file whether it was read from until now."""
    try:
        status = os.fstat(0)
        if stat.S_ISREG(status.st_mode):
            return "file" if os.lseek(0, 0, os.SEEK_CUR) else "unread file"
        if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
            return "pipe"
        if os.isatty(0):
            return "terminal"
        return "null" if status.st_rdev == os.stat(os.devnull).st_rdev else "other"  # noqa: PTH116
    except OSError:
        return "other"  # closed


def is_test_outside(repository: Path, command: CommandRecord) -> bool:
    """Return whether the command is a test that does not lie in the repository, as one that works in a temporary one.

    Args:
        repository: Root of the work tree.
        command: The command.
    """
    if command.kind != "pytest" or command.target is None:
        return False
    return command.cwd is None or not (repository / command.cwd / command.target.partition("::")[0]).is_file()


def _flags_of_test(invocation: Invocation) -> tuple[str, ...]:
    # A worker of pytest-xdist is started with flags of execnet's own.
    return () if "PYTEST_XDIST_WORKER" in os.environ else invocation.flags


def _pytest_root(test: str, folder: Path) -> Path:
    """Return the folder that the node id is relative to: the working directory or one above it."""
    file = test.partition("::")[0]
    return next((root for root in (folder, *folder.parents) if (root / file).is_file()), folder)


def _inside(path: Path, repository: Path | None) -> str | None:
    if repository is None:
        return None
    absolute = Path(os.path.normpath(path.absolute()))
    for candidate in (absolute, Path(os.path.realpath(absolute))):
        if candidate.is_relative_to(repository):
            return candidate.relative_to(repository).as_posix()
    return None
