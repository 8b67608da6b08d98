"""What does a re-execution cost against the run itself, and what does the unused plugin cost at pytest's start?

python benchmarks/reproduce.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = """
import sys
import mlflow
import numpy as np
from researchlab import ExperimentTracker

with ExperimentTracker("benchmark", sys.argv[1]) as tracker:
    matrix = np.random.default_rng(0).standard_normal((256, 256)) / 16
    x = np.ones(256)
    number = int(sys.argv[2])
    for step in range(number):
        for _ in range(200):
            x = np.tanh(matrix @ x)
        if step % max(1, number // 100) == 0:
            mlflow.log_metric("norm", float(x @ x), step=step)
"""
LONG = 60  # seconds of the run that the budget is about
FACTOR, OFFSET = 1.05, 3.0  # the budget of its re-execution: times the run, plus seconds
START = 0.020  # the budget of the unused plugin in seconds


def timed(*words: str, cwd: Path) -> float:
    """Return how long a Python process took, in seconds; it has to succeed."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return taken


def make_repository(folder: Path) -> None:
    """Make a repository with the script and a file that is not committed."""
    (folder / "run.py").write_text(SCRIPT)
    identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.org")
    for words in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "start"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    (folder / "notes.txt").write_text("not committed\n")


def measure_runs(folder: Path, lengths: list[float]) -> None:
    """Print a line a run: itself, its re-execution, and what the budget allows."""
    print(f"{'run':>6} {'itself':>9} {'again':>9} {'ratio':>7} {'extra':>8} {'budget':>9}")
    timed("run.py", "warm-up", "1", cwd=folder)  # makes the store, and byte code
    timed("-m", "pytest", "--rlab-reproduce", "warm-up", "-q", cwd=folder)
    start = timed("run.py", "start", "1", cwd=folder)
    speed = 400 / (timed("run.py", "speed", "401", cwd=folder) - start)
    for length in lengths:
        run_id = f"{length:g}-seconds"
        itself = timed("run.py", run_id, str(max(1, round(length * speed))), cwd=folder)
        again = timed("-m", "pytest", "--rlab-reproduce", run_id, "-q", cwd=folder)
        budget = f"{FACTOR * itself + OFFSET:.2f} s" if length == LONG else "-"
        times = f"{length:>4g} s {itself:>7.2f} s {again:>7.2f} s {again / itself:>7.2f} {again - itself:>+6.2f} s"
        print(f"{times} {budget:>9}", flush=True)


def measure_start(folder: Path, rounds: int) -> None:
    """Print pytest's start with and without the plugin, taken in turns."""
    suite = folder / "suite"
    suite.mkdir()
    (suite / "test_one.py").write_text("def test_one():\n    pass\n")
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    taken: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(rounds + 1):
        with_plugin = timed(*words, cwd=suite)
        without = timed(*words, "-p", "no:researchlab", cwd=suite)
        if number:  # the first ones compile byte code
            taken["with"].append(with_plugin)
            taken["without"].append(without)
    with_plugin, without = (statistics.median(taken[name]) for name in ("with", "without"))
    extra = statistics.median(a - b for a, b in zip(taken["with"], taken["without"], strict=True))
    print(
        f"\npytest's start, median of {rounds}: {with_plugin * 1e3:.0f} ms with the plugin, "
        f"{without * 1e3:.0f} ms without, ratio {with_plugin / without:.2f}, "
        f"{extra * 1e3:+.0f} ms (budget +{START * 1e3:.0f} ms)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave out the run of 60 s, and take fewer rounds")
    quick = parser.parse_args().quick
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "GIT_"))]:
        del os.environ[name]
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for a core would be measured, too
    with tempfile.TemporaryDirectory(prefix="rlab-benchmark-") as name:
        folder = Path(name)
        make_repository(folder)
        measure_runs(folder, [1, 10] if quick else [1, 10, LONG])
        measure_start(folder, 5 if quick else 15)


if __name__ == "__main__":
    main()
