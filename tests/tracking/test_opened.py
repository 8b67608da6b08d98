"""Does the one audit hook see what is opened, and only that?"""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

WATCHED = """
import json, os, sys
from researchlab.tracking._reading import _opened
{code}
top = os.getcwd() + "/"
names = lambda paths: sorted(path.removeprefix(top) for path in paths if path.startswith(top) and "/prog" not in path)
found = {{name: names(getattr(_opened, name)()) for name in ("reads", "outputs", "reads_and_writes", "folders")}}
print(json.dumps(found))
"""


def watched(folder: Path, code: str, *, count: int = 3) -> dict[str, Any]:
    """Run a program in a folder with `count` files, and return what was noted of that folder."""
    for number in range(count):
        (folder / f"file{number}").write_bytes(b"x" * number)
    (folder / "prog.py").write_text(WATCHED.format(code=textwrap.dedent(code)))
    done = subprocess.run([sys.executable, "prog.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "opening",
    [
        "open('file1')",
        "open(b'file1', 'rb')",
        "open('file1', 'r+')",
        "os.open('file1', os.O_RDONLY)",
        "__import__('io').open_code(os.path.abspath('file1'))",
        "__import__('pathlib').Path('file1').read_bytes()",
        "__import__('numpy').fromfile('file1', 'u1')",
        "__import__('numpy').memmap('file1', 'u1', 'r')",
        "open('file1', 'a+')",
        "os.open('file1', os.O_RDWR | os.O_CREAT)",
        "__import__('sqlite3').connect('file1')",
        "__import__('sqlite3').connect(__import__('pathlib').Path('file1'))",
        "__import__('sqlite3').connect(f'file://{os.getcwd()}/file%31?mode=ro', uri=True)",
        "os.mkdir('in') or os.open('../file1', os.O_RDONLY, dir_fd=os.open('in', os.O_RDONLY))",
        "os.makedirs('in') or os.chdir('in') or open('../file1') and os.chdir('..')",
        "open('.//file1')",
        "__import__('runpy').run_path('file0') and open('file1')",
        "__import__('concurrent.futures').futures.ThreadPoolExecutor(1).submit(open, 'file1').result()",
    ],
)
def test_each_way_of_opening_a_file_for_reading_is_seen(tmp_path: Path, opening: str) -> None:
    noted = watched(tmp_path, opening)

    assert [name for name in noted["reads"] if name != "file0"] == ["file1"]
    assert noted["outputs"] == []


@pytest.mark.parametrize(
    "opening",
    [
        "open('file1', 'w').close()",
        "open('file1', 'ab').close()",
        "open('new', 'x').close()",
        "os.close(os.open('file1', os.O_WRONLY))",
        "__import__('numpy').save('new.npy', 1)",
        "open('file1', 'w+').close()",
        "open('new', 'a+').close()",
        "__import__('sqlite3').connect('new').execute('create table t(a)')",
    ],
)
def test_what_is_first_opened_for_writing_is_an_output_also_when_it_is_read_later(tmp_path: Path, opening: str) -> None:
    noted = watched(
        tmp_path, f"{opening}\nfor name in os.listdir(): os.path.isdir(name) or open(name).close()", count=2
    )

    assert noted["reads"] == ["file0"] if "file1" in opening else ["file0", "file1"]
    assert [name for name in noted["outputs"] if name != "file0"] == [
        "file1" if "file1" in opening else "new.npy" if "npy" in opening else "new"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the folder of a descriptor has no name here")
def test_a_file_below_a_descriptor_is_not_taken_for_one_of_the_same_name(tmp_path: Path) -> None:
    noted = watched(
        tmp_path,
        """
        os.mkdir("in")
        os.link("file2", "in/other")
        folder = os.open("in", os.O_RDONLY)
        os.open("other", os.O_RDONLY, dir_fd=folder)                # it is in one of them only
        os.link("file1", "in/file1")
        os.open("file1", os.O_RDONLY, dir_fd=folder)                # in both: nobody can tell
        os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=folder)     # in none
        """,
    )

    # A folder that the program made, so that this one is its product.
    assert (noted["reads"], noted["outputs"]) == ([], ["in/other"])


def test_what_is_moved_or_lies_in_a_folder_of_the_program_is_an_output(tmp_path: Path) -> None:
    noted = watched(
        tmp_path,
        """
        import subprocess, tempfile
        os.makedirs("made/deep")
        subprocess.run(["touch", "made/deep/by_child"], check=True)
        open("made/deep/by_child").close()
        with tempfile.NamedTemporaryFile(dir=".", delete=False) as file: file.write(b"1")
        os.replace(file.name, "file0")
        open("file0").close()
        os.rename("file1", "found_there")
        open("found_there").close()
        """,
    )

    assert noted["reads"] == ["found_there"]
    assert [name for name in noted["outputs"] if not name.startswith("tmp")] == ["file0", "made/deep/by_child"]


def test_folders_that_are_written_into_or_listed_are_noted_unless_the_program_made_them(tmp_path: Path) -> None:
    for name in ("written", "listed", "scanned", "entered", "database", "unused", "read"):
        (tmp_path / name).mkdir()
    (tmp_path / "read" / "file").touch()
    noted = watched(
        tmp_path,
        """
        import contextlib, sqlite3
        open("written/x", "w").close()
        os.listdir("./listed")
        list(os.scandir(b"scanned"))
        os.chdir("entered"); os.chdir("..")
        sqlite3.connect("database/x")
        open("read/file").close()
        with contextlib.suppress(OSError): open("absent/x", "w")
        os.makedirs("made/deep"); open("made/deep/x", "w").close(); os.listdir("made")
        with contextlib.suppress(OSError): os.mkdir("written")
        os.rename("made", "moved"); os.listdir("moved")
        """,
    )

    assert [name for name in noted["folders"] if not name.startswith("/")] == [
        *("database", "entered", "listed", "scanned", "written")
    ]


def test_what_is_no_reading_of_a_file_is_not_noted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    noted = watched(
        tmp_path,
        """
        import contextlib, subprocess
        os.close(os.open(".", os.O_RDONLY))                        # a folder
        os.close(os.open("fifo", os.O_RDONLY | os.O_NONBLOCK))
        os.fdopen(os.dup(0)).close()                               # a descriptor
        with contextlib.suppress(OSError): open("absent")
        with contextlib.suppress(ValueError): open("a\\0b")
        with _opened.paused():
            open("file0").close()
        subprocess.run(["cat", "file1"], check=True, stdout=subprocess.DEVNULL)
        open("/proc/self/stat").close(), open(os.__file__).close(), open("/dev/null").close()
        assert not [path for path in _opened.reads() if path.startswith(("/proc", "/dev")) or path == os.__file__]
        """,
    )

    assert noted["reads"] == noted["outputs"] == []


def test_a_file_that_could_not_be_made_because_it_is_there_counts_as_read(tmp_path: Path) -> None:
    code = """
    try:
        open("file1", "x")
    except FileExistsError:
        open("file1").close()
    """

    assert watched(tmp_path, code)["reads"] == ["file1"]


def test_a_compiled_module_stands_for_its_source_and_modules_loaded_before_count(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("X = 1\n")
    (tmp_path / "early.py").write_text("X = 1\n")
    py_compile.compile(str(tmp_path / "module.py"), doraise=True)
    (tmp_path / "both.py").write_text(f"import early\n{WATCHED.format(code='import module')}")

    done = subprocess.run([sys.executable, "both.py"], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["reads"] == ["both.py", "early.py", "module.py"]


def test_the_state_at_the_first_opening_is_kept(tmp_path: Path) -> None:
    noted = watched(
        tmp_path,
        """
        open("file2").close()
        os.truncate("file2", 1)
        open("file2").close()
        assert _opened.reads()[os.path.abspath("file2")].size == 2
        assert _opened.signature("file2").size == 1
        """,
    )

    assert noted["reads"] == ["file2"]


def test_a_forked_child_and_threads_that_pause_do_not_disturb_each_other(tmp_path: Path) -> None:
    noted = watched(
        tmp_path,
        """
        import threading
        with _opened.paused():
            child = os.fork()
            if child == 0:
                open("file0").close()
                os._exit(0 if os.path.abspath("file0") in _opened.reads() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            thread = threading.Thread(target=lambda: open("file1").close())
            thread.start(), thread.join()
            with _opened.paused():
                pass
            open("file2").close()
        open("file0").close()
        """,
    )

    assert noted["reads"] == ["file0", "file1"]


def test_more_paths_than_a_process_should_remember_are_only_counted(tmp_path: Path) -> None:
    noted = watched(
        tmp_path,
        """
        _opened.MOST_PATHS = len(_opened._watch.noted) + 1
        for _ in range(3):
            for number in range(3):
                open(f"file{number}").close()
        assert _opened.unnoted() == 6
        """,
    )

    assert noted["reads"] == ["file0"]


def test_a_path_keeps_the_links_behind_its_last_way_up(tmp_path: Path) -> None:
    for folder in ("in/deep", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to("in/deep")
    (tmp_path / "in" / "data").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "x").write_text("")

    noted = watched(tmp_path, "open('link/../data/x').close()")

    assert [name for name in noted["reads"] if "x" in name] == ["in/data/x"]


def test_a_file_that_was_named_from_another_place_is_known_as_that(tmp_path: Path) -> None:
    watched(
        tmp_path,
        """
        here = os.getcwd()
        os.makedirs("in")
        open("file0").close()
        open(here + "/in/../file1").close()
        open(here + "/file2").close()
        assert [_opened.is_relative(f"{here}/file{number}") for number in range(3)] == [True, True, False]
        """,
    )


@pytest.mark.parametrize("name", ["researchlab", "pytest_researchlab", "researchlab.design"])
def test_importing_the_package_or_the_plugin_alone_installs_no_hook(tmp_path: Path, name: str) -> None:
    code = f"import sys, {name}; print('researchlab.tracking._reading._opened' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
