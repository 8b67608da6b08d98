"""Does a re-execution keep its hands off the original checkout, and is it known what it reached for?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from researchlab.tracking._guard import Touched, read_touched

GUARDED = """
import json, os, pathlib, shutil, sqlite3, sys
from researchlab.tracking._guard import guard
top = pathlib.Path("checkout").resolve()
guard(json.loads(pathlib.Path("request.json").read_text()))
{code}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A work tree with code, data, an environment, git's own files and a store; links to it lie beside it."""
    top = tmp_path / "checkout"
    for name in (
        "code.py",
        "data/in.csv",
        "data/checked.csv",
        "venv/pyvenv.cfg",
        "venv/x",
        ".git/config",
        "store.db",
        "cache/x",
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("1")
    (tmp_path / "link").symlink_to(top)
    (tmp_path / "input.csv").write_text("1")
    (tmp_path / "to_input").symlink_to("input.csv")
    return top


def guarded(checkout: Path, code: str) -> Touched:
    """Run a program that is guarded from the checkout in the folder around it, and return what it touched."""
    folder = checkout.parent
    request = {
        "original": checkout,
        "free": [checkout / "store.db", checkout / "scratch", folder],
        "checked": [checkout / "data" / "checked.csv"],
        "read_only": [folder / "input.csv"],
        "absent": ["/elsewhere/absent.csv"],
        "touched": folder / "touched.txt",
    }
    (folder / "request.json").write_text(json.dumps(request, default=str))
    program = GUARDED.format(code=textwrap.dedent(code))
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read_touched(folder / "touched.txt")


def files(folder: Path) -> dict[str, str]:
    """Return what lies below a folder."""
    return {str(path): path.read_text() if path.is_file() else "" for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "reading",
    [
        "open(top / 'code.py')",
        "os.open(os.fsencode(top / 'code.py'), os.O_RDONLY)",
        "open('link/code.py')",
        "os.chdir(top) or open('code.py')",
        "sqlite3.connect(f'file:{top}/code.py?mode=ro', uri=True)",
        "[open(top / 'code.py') for _ in range(2)]",
    ],
)
def test_reading_in_the_checkout_is_told_once_by_whatever_name(checkout: Path, reading: str) -> None:
    (path,) = guarded(checkout, reading).read
    assert Path(path).samefile(checkout / "code.py")


def test_a_file_that_is_gone_there_is_told_too(checkout: Path) -> None:
    touched = guarded(
        checkout,
        """
        try:
            open(top / "gone.csv")
        except FileNotFoundError:
            os._exit(0)
        """,
    )
    assert touched == Touched(read=(str(checkout / "gone.csv"),))


def test_what_is_no_part_of_the_code_or_was_checked_may_be_read(checkout: Path) -> None:
    touched = guarded(
        checkout,
        """
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(top / "cache")
        for name in ("data/checked.csv", "venv/x", ".git/config", "store.db", "cache/x"):
            open(top / name)
        open("input.csv"), open("to_input"), open(os.devnull, "w")
        from researchlab.tracking._reading import _opened
        with _opened.paused():
            open(top / "code.py")
        """,
    )
    assert touched == Touched()


def test_an_input_that_is_elsewhere_now_is_told(checkout: Path) -> None:
    code = "import contextlib\nwith contextlib.suppress(OSError):\n    open('/elsewhere/absent.csv')"
    assert guarded(checkout, code) == Touched(absent=("/elsewhere/absent.csv",))


@pytest.mark.parametrize(
    "writing",
    [
        "open(top / 'data/in.csv', 'a')",
        "open(top / 'data/in.csv', 'r+')",
        "open('link/data/new.csv', 'w')",
        "os.open(top / 'data/in.csv', os.O_RDWR)",
        "os.makedirs(top / 'new')",
        "os.remove(top / 'data/in.csv')",
        "os.rename(top / 'data/in.csv', 'mine')",
        "os.replace('input.csv', top / 'data/in.csv')",
        "os.truncate(top / 'data/in.csv', 0)",
        "os.symlink('input.csv', top / 'new')",
        "os.rmdir(top / 'data')",
        "shutil.rmtree(top / 'data')",
        "sqlite3.connect(top / 'data.db')",
        "open('to_input', 'w')",
        "open('input.csv', 'r+')",
    ],
)
def test_writing_in_the_checkout_and_to_inputs_is_refused_and_told(checkout: Path, writing: str) -> None:
    before = files(checkout.parent)

    touched = guarded(
        checkout,
        f"""
        try:
            {writing}
        except PermissionError as error:
            assert "does not write to the checkout" in str(error) and error.filename
        else:
            raise AssertionError
        """,
    )

    after = files(checkout.parent)
    assert {name: text for name, text in after.items() if name in before} == before
    assert len(touched.written) == ("to_input" not in writing and "open('input" not in writing)
    assert {Path(name).name for name in set(after) - set(before)} <= {"request.json", "touched.txt"}


def test_what_changes_nothing_or_is_elsewhere_is_allowed(checkout: Path) -> None:
    touched = guarded(
        checkout,
        """
        os.makedirs(top / "data", exist_ok=True)
        (top / "gone").unlink(missing_ok=True)
        for place in (top / "scratch", top / "venv" / "lib", pathlib.Path("beside")):
            place.mkdir()
            (place / "x").write_text("1")
            (place / "x").rename(place / "y")
            shutil.rmtree(place)
        os.symlink(top / "code.py", "pointing")
        os.remove("pointing")
        sqlite3.connect(":memory:"), sqlite3.connect(top / "store.db")
        """,
    )
    assert touched == Touched()


def test_what_a_re_execution_opens_is_not_noted_as_input(checkout: Path) -> None:
    guarded(
        checkout,
        """
        from researchlab.tracking._reading import _opened
        _opened.install()
        open("input.csv")
        assert not any("input.csv" in path for path in _opened.reads())
        """,
    )


def test_two_processes_tell_in_one_file(checkout: Path) -> None:
    touched = guarded(
        checkout,
        """
        child = os.fork()
        open(top / ("code.py" if child else "data/in.csv"))
        if child:
            os.waitpid(child, 0)
        else:
            os._exit(0)
        """,
    )
    assert sorted(touched.read) == sorted(os.fspath(checkout / name) for name in ("code.py", "data/in.csv"))
