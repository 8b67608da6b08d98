"""The user's repository is only read: killed at any moment, ten at a time, with all locks held, in git's hooks."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.repos import Repo, isolated_git, make_repo
from helpers.worktrees import come_back, differences, footprint, work_files

from researchlab.tracking.snapshot import capture

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures(isolated_git.__name__)

TESTS = Path(__file__).parents[1]


@pytest.fixture
def repo(tmp_path: Path, isolated_git: Path) -> Repo:
    """A repository in the middle of work, with a submodule, a repository that nobody knows, and large files."""
    isolated_git.write_text('[protocol "file"]\n\tallow = always\n')
    library = make_repo(tmp_path / "library", {"text": "x\n", "folder/text": "y\n"})
    repo = make_repo(tmp_path / "repo", {f"folder/{number}.py": f"print({number})\n" for number in range(10)})
    repo.write("large", os.urandom((1 << 20) + 1))
    repo.commit()
    repo.git("submodule", "--quiet", "add", library.top, "lib")
    repo.commit()
    other = make_repo(repo.top / "nested", {"a": "1\n"})
    for place in (repo.top, repo.top / "lib", other.top):
        work = Repo(place)
        work.write("staged", "staged")
        work.git("add", "staged")
        work.write("staged", "and edited")
        work.write("new", os.urandom(1000))
        work.write("intended", "x")
        work.git("add", "--intent-to-add", "intended")
    repo.write("large", os.urandom((1 << 20) + 1))
    repo.write("new large", os.urandom((1 << 20) + 2))
    (repo.top / "folder" / "3.py").unlink()
    # A stat cache that does not fit any more, which git would like to refresh.
    for path in repo.top.glob("folder/*.py"):
        os.utime(path, (1, 1))
    return repo


# Forks so that Python and this package start only once. A git that was left alone has to end by itself.
KILLED = """
import os, signal, sys, time
from researchlab.tracking.snapshot import capture
top, count = sys.argv[1], int(sys.argv[2])
capture(top)
start = time.perf_counter()
tree = capture(top).tree
duration = time.perf_counter() - start
killed = 0
for number in range(count):
    child = os.fork()
    if child == 0:
        os.setsid()
        capture(top)
        os._exit(0)
    time.sleep(duration * 1.2 * (number + 0.5) / count)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        sys.exit("git went on for a minute after its parent was killed")
    print(tree, killed, flush=True)
    sys.stdin.readline()
assert capture(top).tree == tree
"""


@pytest.mark.slow
def test_a_capture_that_is_killed_at_any_moment_leaves_the_repository_as_it_was(repo: Repo, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = footprint(repo.top)
    arguments = [sys.executable, "-c", KILLED, str(repo.top), "50"]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(scratch)}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        killed = 0
        for _ in range(50):
            line = process.stdout.readline()
            assert line, process.wait()
            killed = int(line.split()[1])
            changed = differences(footprint(repo.top), before)
            assert not changed
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0
    assert killed > 25  # the rest was faster than its signal
    # What stays of a killed one is its scratch folder in TMPDIR, and nothing that goes on growing.
    assert len(list(scratch.iterdir())) <= killed
    assert all(path.name.startswith("rlab-snapshot-") for path in scratch.iterdir())


TOGETHER = """
import os, sys
import mlflow
from researchlab import ExperimentTracker
uri, count = sys.argv[1], int(sys.argv[2])
with ExperimentTracker("together", tracking_uri=uri):  # makes the database, which takes the longest
    pass
read, write = os.pipe()
children = []
for number in range(count):
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        code = 1
        try:
            with ExperimentTracker("together", tracking_uri=uri) as tracker:
                tree = tracker.active_run.data.tags["rlab.tree"]
            os.write(1, f"{tree}\\n".encode())  # whole, beside what the others write
            code = 0
        finally:
            os._exit(code)
    children.append(child)
os.write(write, b"x" * count)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.mark.slow
def test_ten_trackers_that_start_at_once_record_the_same_and_touch_nothing(repo: Repo, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"
    (tmp_path / "store").mkdir()
    expected = capture(repo.top).tree
    before = footprint(repo.top)
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, uri, "10"], cwd=repo.top, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == [expected] * 10
    assert differences(footprint(repo.top), before) == {}


def test_locks_that_others_hold_are_no_obstacle(repo: Repo, tmp_path: Path) -> None:
    expected = capture(repo.top)
    git_dir = repo.top / ".git"
    for name in ("index", "HEAD", "config", "packed-refs", "shallow", "refs/heads/main", "modules/lib/index"):
        (git_dir / f"{name}.lock").touch()
    assert capture(repo.top) == expected
    come_back(repo.top, tmp_path / "restored")


# Inside git's hooks

HOOK = """
import json, os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from helpers.worktrees import differences, footprint
from researchlab.tracking.snapshot import capture
top = Path({top!r})
before = footprint(top), footprint(Path({also!r}))
snapshot = capture({at!r} or os.getcwd())
after = footprint(top), footprint(Path({also!r}))
said = {{
    "top": str(snapshot.repository.top),
    "tree": snapshot.tree,
    "changed": [repr(path) for one, other in zip(before, after) for path in differences(one, other)],
    "variables": sorted(name for name in os.environ if name.startswith("GIT_")),
}}
with open({out!r}, "a") as file:
    file.write(json.dumps(said) + "\\n")
"""


def program(tmp_path: Path, *, top: Path, also: Path | None = None, at: Path | None = None) -> tuple[str, Path]:
    """Return the command that captures, and the file in which it says what it saw."""
    out, script = tmp_path / "said", tmp_path / "hook.py"
    script.write_text(
        HOOK.format(tests=str(TESTS), top=str(top), also=str(also or top), at=str(at or ""), out=str(out))
    )
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}", out


def said_in(out: Path) -> list[dict[str, object]]:
    assert out.exists(), "the hook did not run, or failed"
    return [json.loads(line) for line in out.read_text().splitlines()]


def install(git_dir: Path, name: str, command: str) -> None:
    hook = git_dir / "hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec {command}\n")
    hook.chmod(0o755)


def _commit(repo: Repo, command: str) -> None:
    install(_common_dir(repo), "pre-commit", command)
    repo.git("commit", "--quiet", "-m", "x")


def _commit_all(repo: Repo, command: str) -> None:
    install(_common_dir(repo), "pre-commit", command)
    repo.git("commit", "--quiet", "-a", "-m", "x")


def _commit_one_file(repo: Repo, command: str) -> None:
    install(_common_dir(repo), "pre-commit", command)
    repo.git("commit", "--quiet", "-m", "x", "--", "a")


def _commit_from_below(repo: Repo, command: str) -> None:
    install(_common_dir(repo), "post-commit", command)
    Repo(repo.top / "folder").git("commit", "--quiet", "-m", "x")


def _switch(repo: Repo, command: str) -> None:
    install(_common_dir(repo), "post-checkout", command)
    repo.git("switch", "--quiet", "-c", "other")


def _push(repo: Repo, command: str) -> None:
    install(_common_dir(repo), "pre-push", command)
    repo.git("init", "--quiet", "--bare", repo.top.parent / "remote.git")
    repo.git("push", "--quiet", repo.top.parent / "remote.git", "HEAD:main")


def _index_change(repo: Repo, command: str) -> None:
    install(_common_dir(repo), "post-index-change", command)
    repo.git("update-index", "--chmod=+x", "a")


def _transaction(repo: Repo, command: str) -> None:
    install(_common_dir(repo), "reference-transaction", command)
    repo.git("branch", "another")


def _alias(repo: Repo, command: str) -> None:
    repo.git("config", "alias.run", f"!{command}")
    Repo(repo.top / "folder").git("run")


def _rebase_exec(repo: Repo, command: str) -> None:
    repo.git(
        "-c", "rebase.autoStash=true", "rebase", "--exec", f"cd {shlex.quote(str(repo.top))} && {command}", "HEAD~1"
    )


def _common_dir(repo: Repo) -> Path:
    return Path(repo.git("rev-parse", "--path-format=absolute", "--git-common-dir"))


HOOKS: list[Callable[[Repo, str], None]] = [
    _commit,
    _commit_all,
    _commit_one_file,
    _commit_from_below,
    _switch,
    _push,
    _index_change,
    _transaction,
    _alias,
]


def _project(top: Path) -> Repo:
    made = make_repo(top, {"a": "1\n", "b": "1\n", "folder/c": "1\n"})
    made.write("a", "2\n")
    made.commit()
    return made


def _edit(work: Repo) -> None:
    work.write("a", "staged\n")
    work.git("add", "a")
    work.write("a", "staged and edited\n")
    work.write("b", "edited\n")
    work.write("new", "untracked\n")


@pytest.mark.parametrize("linked", [False, True], ids=["main", "linked"])
@pytest.mark.parametrize("run", HOOKS, ids=lambda run: run.__name__.strip("_"))
def test_inside_a_hook_it_is_the_right_repository_and_nothing_is_written(
    tmp_path: Path,
    run: Callable[[Repo, str], None],
    linked: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    main = _project(tmp_path / "main")
    work = main
    if linked:
        main.git("worktree", "add", "--quiet", tmp_path / "linked")
        work = Repo(tmp_path / "linked")
        main.write("b", "edited in the main work tree, which is another one\n")
    _edit(work)
    expected = capture(work.top).tree
    command, out = program(tmp_path, top=work.top, also=main.top)
    run(work, command)
    calls = said_in(out)
    assert calls
    for said in calls:
        assert said["top"] == str(work.top)
        assert said["tree"] == expected
        assert said["changed"] == []
    if run in {_commit, _commit_all, _commit_one_file}:
        assert all("GIT_INDEX_FILE" in said["variables"] for said in calls)  # type: ignore[operator]
    if run is _commit and linked:
        assert all("GIT_DIR" in said["variables"] for said in calls)  # type: ignore[operator]


def test_inside_a_hook_of_one_repository_another_one_is_captured_as_itself(tmp_path: Path) -> None:
    here, there = _project(tmp_path / "here"), _project(tmp_path / "there")
    _edit(here)
    there.write("only there", "x")
    expected = capture(there.top).tree
    command, out = program(tmp_path, top=here.top, also=there.top, at=there.top)
    _commit(here, command)
    (said,) = said_in(out)
    assert (said["top"], said["tree"], said["changed"]) == (str(there.top), expected, [])


def test_inside_a_hook_of_a_submodule_it_is_the_submodule(repo: Repo, tmp_path: Path) -> None:
    inner = Repo(repo.top / "lib")
    expected = capture(inner.top).tree
    command, out = program(tmp_path, top=inner.top, also=repo.top)
    _commit(inner, command)
    (said,) = said_in(out)
    assert (said["top"], said["tree"], said["changed"]) == (str(inner.top), expected, [])


def test_inside_a_rebase_it_is_the_commit_that_is_replayed(tmp_path: Path) -> None:
    work = _project(tmp_path / "repo")
    command, out = program(tmp_path, top=work.top)
    _rebase_exec(work, command)
    (said,) = said_in(out)
    assert (said["top"], said["tree"], said["changed"]) == (str(work.top), work.git("rev-parse", "HEAD^{tree}"), [])


# Where the scratch store lies


def test_a_temporary_folder_inside_the_repository_is_not_captured(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = capture(repo.top).tree
    (repo.top / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(repo.top / "tmp"))
    before = work_files(repo.top)
    assert capture(repo.top).tree == expected
    assert work_files(repo.top) == before
    assert list((repo.top / "tmp").iterdir()) == []
