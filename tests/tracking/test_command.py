"""How a process was started, judged by starting it again."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.repos import make_repo
from hypothesis import given, settings
from hypothesis import strategies as st

from researchlab.tracking import command
from researchlab.tracking.command import (
    current_test,
    describe_command,
    is_environment,
    modules_under,
    next_ordinal,
    parse_invocation,
    source_roots,
)

if TYPE_CHECKING:
    from helpers.repos import Repo

    from researchlab.tracking.command import Invocation

# --- the grammar of the interpreter's command line ------------------------------------------------

_SHOW = (
    "import json, sys; print(json.dumps([sys.orig_argv, list(map(repr, (sys.flags, sys.argv[1:], sys.warnoptions, "
    "sys._xoptions, __name__)))]))"
)


def _run(arguments: list[str], folder: Path, stdin: str = "") -> tuple[list[str], list[str]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, input=stdin, capture_output=True, text=True, check=True
    )
    orig_argv, facts = json.loads(done.stdout)
    return orig_argv, facts


def _again(invocation: Invocation) -> list[str]:
    words = list(invocation.flags)
    if invocation.kind in {"module", "code"}:
        words.append("-m" if invocation.kind == "module" else "-c")
    if invocation.target is not None:
        words.append(invocation.target)
    elif invocation.argv:
        words.append("-")
    return words + list(invocation.argv)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for name in ("show.py", "-dash.py", "package/__main__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(_SHOW)
    return folder


@pytest.mark.parametrize(
    ("arguments", "kind", "target", "argv"),
    [
        (["show.py"], "script", "show.py", ()),
        (["show.py", "-m", "x", "--", "-"], "script", "show.py", ("-m", "x", "--", "-")),
        (["-X", "dev", "-W", "error", "show.py", "a"], "script", "show.py", ("a",)),
        (["-Xdev", "-Werror", "-OO", "show.py"], "script", "show.py", ()),
        (["-Xdev", "show.py", "a"], "script", "show.py", ("a",)),
        (["-BsX", "utf8=1", "show.py"], "script", "show.py", ()),
        (["--check-hash-based-pycs", "always", "show.py"], "script", "show.py", ()),
        (["--", "-dash.py", "x"], "script", "-dash.py", ("x",)),
        (["-m", "show", "x"], "module", "show", ("x",)),
        (["-mshow"], "module", "show", ()),
        (["-Bmshow", "-c"], "module", "show", ("-c",)),
        (["-BOm", "show", "x"], "module", "show", ("x",)),
        (["-m", "package"], "module", "package", ()),
        (["-c", _SHOW, "-x"], "code", _SHOW, ("-x",)),
        (["-Oc" + _SHOW], "code", _SHOW, ()),
        (["-", "x"], "stdin", None, ("x",)),
        (["-B"], "stdin", None, ()),
        (["package"], "script", "package", ()),
    ],
    ids=lambda value: "-".join(value)[:20] if isinstance(value, list) else "",
)
def test_a_command_line_is_split_as_the_interpreter_splits_it(
    programs: Path, arguments: list[str], kind: str, target: str | None, argv: tuple[str, ...]
) -> None:
    orig_argv, facts = _run(arguments, programs, stdin=_SHOW)
    invocation = parse_invocation(orig_argv)
    assert (invocation.kind, invocation.target, invocation.argv) == (kind, target, argv)
    assert _run(_again(invocation), programs, stdin=_SHOW)[1] == facts


_CLUSTER = st.lists(st.sampled_from("bBdEOqsS"), max_size=3).map("".join)
_ONE = st.one_of(
    _CLUSTER.filter(bool).map(lambda letters: ["-" + letters]),
    st.builds(lambda letters, value: [f"-{letters}W{value}"], _CLUSTER, st.sampled_from(["error", "ignore"])),
    st.builds(lambda letters, value: [f"-{letters}X", value], _CLUSTER, st.sampled_from(["utf8", "a=b"])),
)
_END = st.one_of(
    st.just(["show.py"]),
    _CLUSTER.map(lambda letters: [f"-{letters}m", "show"]),
    _CLUSTER.map(lambda letters: [f"-{letters}mshow"]),
    _CLUSTER.map(lambda letters: [f"-{letters}c", _SHOW]),
)
_REST = st.lists(st.sampled_from(["x", "-", "--", "-m", "-c", "-X", "--flag=1"]), max_size=3)


@settings(max_examples=20, deadline=None)
@given(flags=st.lists(_ONE, max_size=3), end=_END, rest=_REST)
def test_any_command_line_started_again_is_the_same(
    programs: Path, flags: list[list[str]], end: list[str], rest: list[str]
) -> None:
    orig_argv, facts = _run([word for words in flags for word in words] + end + rest, programs)
    assert _run(_again(parse_invocation(orig_argv)), programs)[1] == facts


# --- the record of a command ----------------------------------------------------------------------

_DESCRIBE = """
import os, sys
{before}
from pathlib import Path
from researchlab.tracking.command import describe_command, next_ordinal
print(describe_command(Path({top!r}), ordinal=next_ordinal()).model_dump_json())
"""


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "repo", {"README": ""})


def _describe(repo: Repo, arguments: list[str], folder: Path, **options: Any) -> dict[str, Any]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environ["PYTHONPATH"] = str(Path(command.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _code(repo: Repo, before: str = "") -> str:
    return _DESCRIBE.format(top=str(repo.top), before=before)


def test_a_script_from_the_root_from_below_from_outside_and_through_a_link(repo: Repo, tmp_path: Path) -> None:
    script = repo.write("sub/train.py", _code(repo))
    (repo.top / "other").mkdir()
    (tmp_path / "link").symlink_to(repo.top)
    for folder, name, cwd in (
        (repo.top, "sub/train.py", "."),
        (repo.top / "sub", "train.py", "sub"),
        (repo.top / "other", "../sub/train.py", "other"),
        (tmp_path, str(script), None),
        (tmp_path, "repo/sub/train.py", None),
        (tmp_path / "link" / "sub", "./train.py", "sub"),
        (repo.top, str(tmp_path / "link" / "sub" / "train.py"), "."),
    ):
        found = _describe(repo, [name, "--lr", "1"], folder)
        assert (found["kind"], found["target"], found["cwd"]) == ("script", "sub/train.py", cwd), name
        assert found["argv"] == ["--lr", "1"]
        assert found["source_roots"] == ["sub"], (name, found)


def test_a_program_that_changes_its_directory_before_the_first_import(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere" / "sub" / "train.py").touch()
    repo.write("sub/train.py", _code(repo, before=f"os.chdir({str(tmp_path / 'elsewhere')!r})"))
    repo.write("sub/__init__.py")
    for arguments, folder, cwd in (
        (["sub/train.py"], repo.top, "."),
        (["train.py"], repo.top / "sub", "sub"),
        (["../sub/train.py"], repo.top / "sub", "sub"),
        (["-m", "sub.train"], repo.top, "."),
    ):
        found = _describe(repo, arguments, folder)
        assert found["cwd"] == cwd, arguments
        assert found["folder"] == str(repo.top / cwd)
        assert found["target"] == ("sub.train" if "-m" in arguments else "sub/train.py")


def test_modules_code_and_standard_input(repo: Repo) -> None:
    repo.write("package/__main__.py", _code(repo))
    repo.write("package/__init__.py")
    found = _describe(repo, ["-B", "-m", "package", "x"], repo.top)
    assert (found["kind"], found["target"], found["flags"], found["argv"]) == ("module", "package", ["-B"], ["x"])
    found = _describe(repo, ["-c", _code(repo), "x"], repo.top)
    assert (found["kind"], found["target"], found["argv"]) == ("code", _code(repo), ["x"])
    found = _describe(repo, ["-"], repo.top, input=_code(repo))
    assert (found["kind"], found["target"]) == ("stdin", None)


def test_standard_input_is_described(repo: Repo) -> None:
    repo.write("train.py", _code(repo))
    repo.write("reads.py", _code(repo, before="sys.stdin.read(1)"))
    data = repo.write("data.txt", "12345")
    mine, terminal = pty.openpty()
    with data.open() as file, data.open() as read, Path(os.devnull).open() as null:
        for name, kind, stdin in (
            ("train.py", "unread file", file),
            ("reads.py", "file", read),
            ("train.py", "null", null),
            ("train.py", "pipe", subprocess.PIPE),
            ("train.py", "terminal", terminal),
        ):
            assert _describe(repo, [name], repo.top, stdin=stdin)["stdin"] == kind
    os.close(mine)
    os.close(terminal)


def test_a_script_outside_of_the_repository_keeps_its_full_name(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text(_code(repo))
    found = _describe(repo, ["../outside.py"], repo.top)
    assert (found["target"], found["cwd"]) == (str(repo.top / "../outside.py"), ".")


def test_an_installed_command_is_no_code_of_the_repository(repo: Repo) -> None:
    path = repo.write(".venv/lib/python3/site-packages/tool.py", _code(repo))
    assert _describe(repo, [str(path)], repo.top)["target"] == str(path)


def test_a_worker_process_says_so(repo: Repo) -> None:
    worker = _code(repo).replace("print(", "def work():\n    print(") + (
        "\nif __name__ == '__main__':\n    import multiprocessing\n"
        "    process = multiprocessing.get_context(sys.argv[1]).Process(target=work)\n"
        "    process.start()\n    process.join()\n"
    )
    repo.write("train.py", worker)
    for method in ("spawn", "fork"):
        assert _describe(repo, ["train.py", method], repo.top)["kind"] == "worker"


def test_an_interactive_session_says_so(repo: Repo) -> None:
    found = _describe(repo, ["-i", "-q"], repo.top, input=_code(repo))
    assert found["kind"] == "interactive"


# --- pytest ---------------------------------------------------------------------------------------


def test_under_pytest_the_command_is_this_test(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> None:
    found = describe_command(pytestconfig.rootpath, ordinal=0)
    assert found.kind == "pytest"
    assert found.target == request.node.nodeid == current_test()
    assert found.argv == ()
    assert (Path(found.folder) / "tests" / "tracking" / "test_command.py").is_file()


@pytest.mark.parametrize("name", ["a (call)", "::", "b c"])
def test_odd_node_ids_are_kept_whole(request: pytest.FixtureRequest, name: str) -> None:
    del name
    assert current_test() == request.node.nodeid


@pytest.mark.parametrize("turn", [1, 2])
def test_trackers_are_counted_anew_for_each_test(turn: int) -> None:
    del turn
    assert [next_ordinal() for _ in range(3)] == [0, 1, 2]


# --- where modules come from ----------------------------------------------------------------------


def _pretend(monkeypatch: pytest.MonkeyPatch, name: str, file: Path | None) -> None:
    module = types.ModuleType(name)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, name, module)


def test_source_roots_come_from_the_search_path_and_from_what_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "repo"
    (top / "scripts").mkdir(parents=True)
    (tmp_path / "link").symlink_to(top)
    monkeypatch.syspath_prepend(str(tmp_path / "link" / "scripts"))
    _pretend(monkeypatch, "rlab_pkg", top / "src" / "rlab_pkg" / "__init__.py")
    _pretend(monkeypatch, "rlab_pkg.deep.mod", top / "src" / "rlab_pkg" / "deep" / "mod.py")
    _pretend(monkeypatch, "rlab_ns", None)
    _pretend(monkeypatch, "rlab_ns.part", top / "names" / "rlab_ns" / "part.py")
    _pretend(monkeypatch, "rlab_linked", tmp_path / "link" / "linked" / "rlab_linked.py")
    _pretend(monkeypatch, "rlab_other_name", top / "odd" / "file_of_another_name.py")
    _pretend(monkeypatch, "rlab_installed", top / ".venv" / "lib" / "site-packages" / "rlab_installed.py")
    _pretend(monkeypatch, "rlab_outside", tmp_path / "outside" / "rlab_outside.py")
    assert source_roots(top) == ("scripts", "src", "names", "linked")


def test_modules_of_the_original_checkout_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, "rlab_b", tmp_path / "repo" / "rlab_b.py")
    _pretend(monkeypatch, "rlab_a", tmp_path / "repo" / "src" / "rlab_a.py")
    _pretend(monkeypatch, "rlab_restored", tmp_path / "repo" / "scratch" / "rlab_restored.py")
    _pretend(monkeypatch, "rlab_installed", tmp_path / "repo" / ".venv" / "site-packages" / "rlab_installed.py")
    assert modules_under(tmp_path / "repo", but=(tmp_path / "repo" / "scratch",)) == ("rlab_a", "rlab_b")


def test_the_interpreters_own_folders_are_environment(tmp_path: Path) -> None:
    assert is_environment(Path(os.__file__))
    assert is_environment(Path(pytest.__file__))
    assert not is_environment(tmp_path / "train.py")
