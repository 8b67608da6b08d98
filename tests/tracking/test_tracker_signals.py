"""How a run ends when its process is told to stop, with real signals."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from helpers.repos import make_repo
from helpers.scripts import Script
from helpers.stores import points_of

from researchlab.tracking._signals import Terminated, TerminationWatch, deferred_signals
from researchlab.tracking.runs import find_run
from researchlab.tracking.trace import read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from researchlab.tracking.runs import TrackedRun

_LOOP = """
    import signal, sys, time
    import mlflow
    from researchlab import ExperimentTracker

    {before}
    with ExperimentTracker("signals", {name!r}) as tracker:
        for step in range(5):
            mlflow.log_metric("loss", step / 3, step=step)
        time.sleep({pause})
        {inside}
        print("ready", flush=True)
        time.sleep(60)
        print("survived", flush=True)
    {after}
"""
_OWN_HANDLER = """
    def handler(number, frame):
        print("own handler", flush=True)
        sys.exit(7)
    signal.signal(signal.SIGTERM, handler)
"""
_FORK = """
        import os
        child = os.fork()
        if not child:
            sys.exit(0)
        os.waitpid(child, 0)
        print(mlflow.get_run(tracker.mlflow_run_id).info.status)
"""

_PROGRAMS = {
    "interrupted": {},
    "terminated": {},
    "hung-up": {},
    "own-handler": {"before": _OWN_HANDLER.strip()},
    "nested": {"inside": 'ExperimentTracker("signals", "inner").__enter__()'},
    "killed": {"pause": 1.5},
    "never-left": {
        "before": 'ExperimentTracker("signals", "left-open").__enter__()',
        "inside": "print('ready', flush=True); sys.exit(0)",
    },
    "forked": {"inside": _FORK.strip()},
}
_SIGNALS = {
    "interrupted": signal.SIGINT,
    "terminated": signal.SIGTERM,
    "hung-up": signal.SIGHUP,
    "own-handler": signal.SIGTERM,
    "nested": signal.SIGTERM,
    "killed": signal.SIGKILL,
    "forked": signal.SIGTERM,
    "never-left": 0,
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Script, TrackedRun]]]:
    """All programs, started at once in one repository and told to stop; by name."""
    folder = tmp_path_factory.mktemp("signals")
    repo = make_repo(folder / "repo", {"data.txt": "1\n"})
    repo.write("data.txt", "2\n")
    scripts: dict[str, Script] = {}
    for name in _SIGNALS:
        code = _LOOP.format(name=name, **({"before": "", "inside": "", "after": "", "pause": 0} | _PROGRAMS[name]))
        place = repo.top / "scripts" / f"{name}.py"
        scripts[name] = Script(code, place=place, folder=repo.top, outputs=folder / "outputs")

    def find(name: str) -> tuple[Script, TrackedRun]:
        return scripts[name], find_run(name, repo=repo.top)

    try:
        for name, script in scripts.items():
            script.wait_until("ready")
            time.sleep(0.3)
            with contextlib.suppress(ProcessLookupError):  # one ends by itself
                os.killpg(script.process.pid, _SIGNALS[name])
        for script in scripts.values():
            script.wait()
        yield find
    finally:
        for script in scripts.values():
            script.kill()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("interrupted", -signal.SIGINT),
        ("terminated", 143),
        ("hung-up", 129),
        ("own-handler", 7),
        ("nested", 143),
        ("forked", 143),
    ],
)
@pytest.mark.slow
def test_a_run_that_is_told_to_stop_ends_as_killed_with_everything_stored(
    ended: Callable[[str], tuple[Script, TrackedRun]], name: str, code: int
) -> None:
    script, run = ended(name)
    assert script.process.returncode == code
    assert run.run.info.status == "KILLED"
    result = run.record().result
    assert result is not None
    assert result.status == "KILLED"
    assert [(metric, step) for metric, step, *_ in points_of(run)] == [("loss", step) for step in range(5)]
    assert "survived" not in script.stdout
    assert b"+2" in run.patch()
    with run.documents() as folder:
        assert not read_trace(folder).truncated


@pytest.mark.slow
def test_the_programs_own_handler_is_called(ended: Callable[[str], tuple[Script, TrackedRun]]) -> None:
    script, _ = ended("own-handler")
    assert script.stdout.count("own handler") == 1


@pytest.mark.slow
def test_a_forked_child_that_leaves_the_block_does_not_end_the_run(
    ended: Callable[[str], tuple[Script, TrackedRun]],
) -> None:
    script, _ = ended("forked")
    assert "RUNNING" in script.stdout.splitlines()


@pytest.mark.slow
def test_an_inner_run_that_was_never_left_is_killed_too(ended: Callable[[str], tuple[Script, TrackedRun]]) -> None:
    _, outer = ended("nested")
    inner = find_run("inner", tracking_uri=outer.store.tracking_uri)
    assert inner.run.info.status == "KILLED"
    assert inner.run.data.tags["mlflow.parentRunId"] == outer.run.info.run_id


@pytest.mark.slow
def test_a_run_whose_block_is_never_left_ends_with_the_process(
    ended: Callable[[str], tuple[Script, TrackedRun]],
) -> None:
    script, inner = ended("never-left")
    outer = find_run("left-open", tracking_uri=inner.store.tracking_uri)
    assert script.process.returncode == 0
    assert inner.run.info.status == "FINISHED"
    assert outer.run.info.status == "KILLED"
    result = outer.record().result
    assert result is not None
    assert result.status == "KILLED"


@pytest.mark.slow
def test_after_sigkill_record_patch_and_metrics_are_on_disk(
    ended: Callable[[str], tuple[Script, TrackedRun]],
) -> None:
    script, run = ended("killed")
    assert script.process.returncode == -signal.SIGKILL
    record = run.record()
    assert record.result is None
    assert record.snapshot is not None
    assert not [path for path in record.snapshot.changed if path != "data.txt" and not path.startswith("scripts/")]
    assert b"+2" in run.patch()
    assert [step for _, step, *_ in points_of(run)] == list(range(5))


# --- the parts, in this process -------------------------------------------------------------------


@pytest.fixture
def _handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    after = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


@pytest.mark.usefixtures("_handlers")
def test_watches_that_stop_in_an_odd_order_give_the_handler_back() -> None:
    first, second = TerminationWatch(), TerminationWatch()
    first.start()
    second.start()
    first.stop()
    with pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
    second.stop()
    assert (first.received, second.received) == (False, True)


@pytest.mark.usefixtures("_handlers")
def test_a_handler_that_the_program_sets_meanwhile_stays() -> None:
    def handler(number: int, frame: object) -> None:
        del number, frame

    watch = TerminationWatch()
    before = signal.getsignal(signal.SIGTERM)
    watch.start()
    signal.signal(signal.SIGTERM, handler)
    watch.stop()
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    watch = TerminationWatch()
    watch.start()
    signal.raise_signal(number)
    watch.stop()
    assert not watch.received
    assert signal.signal(number, before) is signal.SIG_IGN


@pytest.mark.usefixtures("_handlers")
def test_signals_wait_until_the_block_is_through() -> None:
    steps: list[str] = []
    watch = TerminationWatch()
    watch.start()
    try:
        with pytest.raises(Terminated), deferred_signals():  # noqa: PT012 (the block is what is tested)
            signal.raise_signal(signal.SIGTERM)
            steps.append("whole")
    finally:
        watch.stop()
    assert steps == ["whole"]
    assert watch.received


@pytest.mark.usefixtures("_handlers")
def test_a_second_ctrl_c_does_not_wait() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), deferred_signals():  # noqa: PT012 (the block is what is tested)
        signal.raise_signal(signal.SIGINT)
        steps.append("first")
        signal.raise_signal(signal.SIGINT)
        steps.append("second")
    assert steps == ["first"]
