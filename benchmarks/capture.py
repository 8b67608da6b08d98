"""What does it cost to capture a work tree, in time and memory, against `git status` and `git diff HEAD`?

python benchmarks/capture.py [--quick] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.tracking import get_git_state
from researchlab.tracking.settings import Settings
from researchlab.tracking.snapshot import capture

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL, LARGE = 3.0, 20.0  # the budgets against `git status`: a repository of 300 files, and 100 000 untracked ones
SECONDS = 10.0  # and the budget of those in seconds
MEMORY = 200  # MiB above the interpreter and what it has imported
STATUS = ("git", "status")
STATUS_ALL = ("git", "status", "--untracked-files=all")
DIFF = ("git", "diff", "HEAD", "--binary")
CHILD = """
import json, pathlib, resource, sys
import researchlab.tracking.utils
from researchlab.tracking.settings import Settings
from researchlab.tracking.snapshot import capture
def peak():
    try:  # what getrusage says of a process begins with the peak of the one that started it
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
capture(sys.argv[1], settings=Settings.model_validate(json.loads(sys.argv[2])))
print(peak() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
PEER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(0, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def git(top: Path, *words: str) -> None:
    """Run git in a repository of the benchmark."""
    identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.org")
    subprocess.run(["git", *identity, *words], cwd=top, check=True, capture_output=True)


def make_small(top: Path) -> None:
    """Make a clean repository of 300 files."""
    for number in range(300):
        place = top / f"package{number % 20}" / f"module{number}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"value = {number}\n" * 40)
    git(top, "init", "--quiet")
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message", "start")


def edit(top: Path) -> None:
    """Edit three files, delete one and add one."""
    for number in range(3):
        (top / f"package{number}" / f"module{number}.py").write_text("value = None\n")
    (top / "package3" / "module3.py").unlink()
    (top / "new.py").write_text("value = 1\n")


def add_untracked(top: Path, number: int) -> None:
    """Add many small text files in folders of a thousand."""
    source = random.Random(0)  # noqa: S311 - bytes that do not compress
    for index in range(number):
        place = top / "data" / f"{index // 1000:03}" / f"{index % 1000:04}.txt"
        if index % 1000 == 0:
            place.parent.mkdir(parents=True)
        place.write_text(f"{source.randbytes(60).hex()}\n")


def make_heavy(top: Path, size: int) -> None:
    """Make a repository with one large file in which one byte is another."""
    git_file = top / "weights.bin"
    source = random.Random(0)  # noqa: S311 - as above
    with git_file.open("wb") as file:
        for _ in range(size >> 20):
            file.write(source.randbytes(1 << 20))
    git(top, "init", "--quiet")
    git(top, "-c", "core.bigFileThreshold=1m", "-c", "core.compression=0", "add", "--all")
    git(top, "commit", "--quiet", "--message", "start")
    with git_file.open("r+b") as file:
        file.seek(size // 2)
        byte = file.read(1)
        file.seek(size // 2)
        file.write(bytes([byte[0] ^ 1]))


def timed(call: Callable[[], object]) -> float:
    """Return how long a call took, in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peer(top: Path, words: tuple[str, ...]) -> Callable[[], object]:
    """Return a call of git as a user makes it."""
    return lambda: subprocess.run(words, cwd=top, check=True, stdout=subprocess.DEVNULL)


def compare(
    name: str, call: Callable[[], object], others: dict[str, Callable[[], object]], rounds: int, budget: str
) -> None:
    """Print a line a peer: medians of calls in turns, and their ratio."""
    calls = {"": call, **others}
    taken: dict[str, list[float]] = {key: [] for key in calls}
    for number in range(rounds + 1):
        for key, made in calls.items():
            seconds = timed(made)
            if number or rounds == 1:  # the first ones fill the caches
                taken[key].append(seconds)
    itself = statistics.median(taken.pop(""))
    for key, seconds in taken.items():
        other = statistics.median(seconds)
        print(f"{name:<34} {itself:>8.3f} s  {key:<22} {other:>8.3f} s {itself / other:>7.1f}  {budget}", flush=True)


def memory(name: str, top: Path, settings: dict[str, int]) -> None:
    """Print the peak of a process that captures, above what it had before, and of the git processes that it starts."""
    words = [sys.executable, "-c", CHILD, str(top), json.dumps(settings)]
    own, of_git = (int(word) >> 10 for word in subprocess.check_output(words).split())
    _, other = (
        int(word) >> 10 for word in subprocess.check_output([sys.executable, "-c", PEER, *DIFF], cwd=top).split()
    )
    print(
        f"{name:<34} {own:>6} MiB (git {of_git} MiB)  git diff HEAD {other:>6} MiB           {MEMORY} MiB", flush=True
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="10 000 untracked files, a file of 50 MB, fewer rounds")
    parser.add_argument("--folder", type=Path, help="where to make the repositories (the disk is part of the figures)")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]
    rounds, untracked, size = (7, 10_000, 50 << 20) if options.quick else (25, 100_000, 500 << 20)
    print(f"{'figure':<34} {'itself':>10}  {'peer':<22} {'peer':>10} {'ratio':>7}  budget")
    with tempfile.TemporaryDirectory(prefix="rlab-benchmark-", dir=options.folder) as name:
        small, heavy = Path(name, "small"), Path(name, "heavy")
        small.mkdir()
        heavy.mkdir()
        make_small(small)
        status = {"git status": peer(small, STATUS)}
        diff = {"git diff HEAD": peer(small, DIFF)}
        compare("300 files, clean", lambda: get_git_state(small), status | diff, rounds, f"{SMALL:g}x git status")
        edit(small)
        compare("300 files, 5 dirty", lambda: get_git_state(small), status | diff, rounds, f"{SMALL:g}x git status")
        add_untracked(small, untracked)
        everything = {"git status -uall": peer(small, STATUS_ALL)}
        budget = f"{LARGE:g}x git status, {SECONDS:g} s"
        compare(f"{untracked} untracked files", lambda: get_git_state(small), status | everything, 3, budget)
        memory(f"{untracked} untracked files", small, {})
        make_heavy(heavy, size)
        megabytes = f"{size >> 20} MB file, one byte changed"
        over = {"largest_file": size - 1}
        compare(
            megabytes,
            lambda: capture(heavy, settings=Settings.model_validate(over)),
            {"git diff HEAD": peer(heavy, DIFF)},
            1,
            "-",
        )
        memory(megabytes, heavy, over)
        raised = {"largest_file": size, "largest_snapshot": size}
        memory("  the same with a raised budget", heavy, raised)


if __name__ == "__main__":
    main()
