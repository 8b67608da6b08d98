"""Does every difference become a verdict with the right place, and nothing else?"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from researchlab.numerics.history import MetricHistory
from researchlab.numerics.leaves import leaves_of
from researchlab.reproduce._environment import environment_differences
from researchlab.reproduce._loops import execution_differences
from researchlab.reproduce.judge import Judgement, judge
from researchlab.reproduce.verdict import Divergence, EnvironmentDifference, Verdict, VerdictKind
from researchlab.tracking.record import CommandRecord, EnvironmentRecord, ExecutionRecord, Record, ResultRecord
from researchlab.tracking.trace import Trace

Values = "Sequence[tuple[str, int, Any]]"
States = "Mapping[tuple[str, int | None], Any]"

FINISHED = ResultRecord(status="FINISHED")
KILLED = ResultRecord(status="KILLED")


def failed(error: str) -> ResultRecord:
    return ResultRecord(status="FAILED", error=error)


def record(result: ResultRecord | None = FINISHED, *, volatile: tuple[str, ...] = ()) -> Record:
    return Record(
        run_id="a-run",
        experiment="e",
        researchlab="0",
        started_at=0.0,
        host="h",
        pid=1,
        snapshot=None,
        command=CommandRecord(kind="script", folder="/"),
        environment=EnvironmentRecord(),
        result=result,
        volatile=volatile,
    )


def trace(values: Values = (), states: States | None = None) -> Trace:
    leaves = {name: tuple(leaves_of(tree)) for name, tree in (states or {}).items()}
    return Trace(MetricHistory.from_values(values), leaves, truncated=False)


def judged(
    stored: Trace,
    received: Trace,
    *,
    before: ResultRecord | None = FINISHED,
    now: ResultRecord | None = FINISHED,
    volatile: tuple[str, ...] = (),
) -> Judgement:
    return judge(record(before, volatile=volatile), stored, record(now), received)


LOSSES = [("loss", step, 1.0 / (step + 1)) for step in range(5)]


def test_equal_bits_are_reproduced_and_counted() -> None:
    state = {"w": np.arange(3.0), "n": 2}
    found = judged(trace(LOSSES, {("loop", None): state}), trace(LOSSES, {("loop", None): state}))
    assert found.kind is VerdictKind.REPRODUCED
    assert found.compared == "1 metric (5 values), 1 State (2 leaves)"
    assert found.first is None
    assert found.not_compared == ()


NAN_WITH_PAYLOAD = np.frombuffer(struct.pack("<Q", 0x7FF8_0000_0000_0001), np.float64)[0]


@pytest.mark.parametrize(
    ("stored", "received", "ulp"),
    [
        (0.0, -0.0, None),
        (math.nan, NAN_WITH_PAYLOAD, None),
        (math.inf, -math.inf, None),
        (math.inf, 1.7976931348623157e308, 1),
        (1.0, math.nextafter(1.0, 2.0), 1),
        (np.float32(1.0), 1.0, None),
        (1, 1.0, None),
        (True, 1, None),
        (2**70, 2**70 + 1, None),
    ],
)
def test_one_other_bit_or_dtype_is_found_at_its_step(stored: Any, received: Any, ulp: int | None) -> None:
    found = judged(trace([*LOSSES, ("x", 3, stored)]), trace([*LOSSES, ("x", 3, received)]))
    assert found.kind is VerdictKind.DIVERGED
    assert found.first is not None
    assert (found.first.step, found.first.name, found.first.kind) == (3, "x", "metric")
    assert found.first.stored != found.first.received
    if ulp is not None:
        assert found.first.ulp == ulp
    assert found.reason == "the bits differ first at step 3, metric 'x'"


def test_a_missing_and_an_extra_metric_diverge() -> None:
    more, less = trace([*LOSSES, ("x", 2, 1.0)]), trace(LOSSES)
    for before, now in ((less, more), (more, less)):
        found = judged(before, now)
        assert found.kind is VerdictKind.DIVERGED
        assert found.first is not None
        assert (found.first.step, found.first.name) == (2, "x")


def test_the_smallest_step_comes_first_whoever_differs_there() -> None:
    before = trace([("a", 5, 1.0), ("b", 3, 1.0)], {("loop", 4): {"w": 1.0}, ("loop", None): {"w": 1.0}})
    now = trace([("a", 5, 2.0), ("b", 3, 2.0)], {("loop", 4): {"w": 2.0}, ("loop", None): {"w": 2.0}})
    first = judged(before, now).first
    assert first is not None
    assert (first.step, first.name) == (3, "b")
    only_states = judged(trace((), before.states and {("loop", 4): {"w": 1.0}}), trace((), {("loop", 4): {"w": 2.0}}))
    assert only_states.first is not None
    assert (only_states.first.step, only_states.first.kind, only_states.first.name) == (4, "leaf", "loop: w")


def test_a_leaf_is_named_with_its_index_both_values_and_ulps() -> None:
    weights = np.ones((2, 3), np.float32)
    other = weights.copy()
    other[1, 2] = np.nextafter(np.float32(1), np.float32(2))
    found = judged(trace((), {("state", None): {"w": weights}}), trace((), {("state", None): {"w": other}}))
    assert found.first is not None
    assert found.first.name == "state: w[1, 2]"
    assert found.first.ulp == 1
    assert "0x3f800000" in found.first.stored
    assert "0x3f800001" in found.first.received
    assert found.reason == "the bits differ in the final State, leaf 'state: w[1, 2]'"


def test_a_whole_state_that_is_missing_or_extra_diverges() -> None:
    with_state, without = trace(LOSSES, {("s", 2): {"w": 1.0}}), trace(LOSSES)
    for before, now in ((with_state, without), (without, with_state)):
        assert judged(before, now).kind is VerdictKind.DIVERGED


def test_volatile_metrics_are_named_and_not_judged() -> None:
    before, now = trace([*LOSSES, ("seconds", 0, 1.0)]), trace([*LOSSES, ("seconds", 0, 2.0)])
    found = judged(before, now, volatile=("sec*",))
    assert found.kind is VerdictKind.REPRODUCED
    assert found.not_compared == ("metric 'seconds': volatile",)
    assert judged(before, now).kind is VerdictKind.DIVERGED


def test_where_everything_is_volatile_nothing_can_be_compared() -> None:
    one = trace([("seconds", 0, 1.0)])
    assert judged(one, one, volatile=("*",)).kind is VerdictKind.NOT_COMPARABLE
    assert judged(trace(), trace()).kind is VerdictKind.NOT_COMPARABLE


@pytest.mark.parametrize("before", [KILLED, None])
def test_a_killed_run_is_compared_as_far_as_it_came(before: ResultRecord | None) -> None:
    final = {("loop", None): {"w": 1.0}}
    found = judged(trace(LOSSES[:3]), trace(LOSSES, final), before=before)
    assert found.kind is VerdictKind.REPRODUCED
    assert found.compared == "1 metric (3 values)"
    assert found.not_compared == ("what comes after the point at which the run was killed (2 values)",)
    assert judged(trace(LOSSES), trace(LOSSES), before=before).not_compared == (
        "what comes after the point at which the run was killed",
    )
    other = [("loss", 1, 7.0) if point[1] == 1 else point for point in LOSSES]
    diverged = judged(trace(LOSSES[:3]), trace(other), before=before)
    assert diverged.kind is VerdictKind.DIVERGED
    assert diverged.first is not None
    assert diverged.first.step == 1
    early = judged(trace(LOSSES[:3]), trace(LOSSES[:2]), before=before, now=failed("ValueError: no"))
    assert early.kind is VerdictKind.FAILED
    assert "raised ValueError: no before the point" in early.reason


def test_a_killed_run_needs_the_states_that_it_had_recorded() -> None:
    before = trace(LOSSES[:3], {("loop", 2): {"w": 1.0}})
    assert judged(before, trace(LOSSES, {("loop", 2): {"w": 1.0}}), before=KILLED).kind is VerdictKind.REPRODUCED
    assert judged(before, trace(LOSSES), before=KILLED).kind is VerdictKind.DIVERGED


def test_a_run_that_kills_itself_does_so_again() -> None:
    assert judged(trace(LOSSES), trace(LOSSES), before=KILLED, now=KILLED).kind is VerdictKind.REPRODUCED


@pytest.mark.parametrize(
    ("before", "now", "kind", "reason"),
    [
        (failed("ValueError: in /a"), failed("ValueError: in /b"), VerdictKind.REPRODUCED, "every bit is equal"),
        (
            failed("ValueError: a"),
            failed("OSError: b"),
            VerdictKind.FAILED,
            "raised OSError: b; the run raised ValueError: a",
        ),
        (FINISHED, failed("OSError: b"), VerdictKind.FAILED, "raised OSError: b; the run finished"),
        (
            failed("ValueError: a"),
            FINISHED,
            VerdictKind.DIVERGED,
            "the run raised ValueError: a; the re-execution finished",
        ),
        (FINISHED, KILLED, VerdictKind.FAILED, "was stopped; the run finished"),
        (FINISHED, None, VerdictKind.FAILED, "was stopped; the run finished"),
    ],
)
def test_how_the_two_ended_counts(
    before: ResultRecord, now: ResultRecord | None, kind: VerdictKind, reason: str
) -> None:
    found = judged(trace(LOSSES), trace(LOSSES), before=before, now=now)
    assert found.kind is kind
    assert reason in found.reason


def test_facts_that_change_bits_come_first_and_the_same_fact_once() -> None:
    before = EnvironmentRecord(
        packages={"aaa": "1", "jaxlib": "1", "same": "1"},
        jax={"jax": "1", "jaxlib": "1", "backend": "cpu"},
        python={"executable": "/a", "version": "3.11.1"},
        platform={"cores": "2"},
    )
    now = EnvironmentRecord(
        packages={"aaa": "2", "jaxlib": "2", "same": "1", "zzz": "1"},
        jax={"jax": "1", "jaxlib": "2", "backend": "gpu"},
        python={"executable": "/b", "version": "3.12.1"},
        platform={"cores": "8"},
    )
    found = environment_differences(before, now)
    assert [difference.name for difference in found] == [
        "jax.backend",
        "packages.jaxlib",
        "python.version",
        "platform.cores",
        "packages.aaa",
        "packages.zzz",
    ]
    assert found[-1] == EnvironmentDifference("packages.zzz", "(none)", "1")


def loops(*ways: tuple[str, dict[str, str]], result: ResultRecord | None = FINISHED) -> Record:
    executions = tuple(ExecutionRecord(source=source, facts=facts) for source, facts in ways)
    return record(result).model_copy(update={"executions": executions})


JIT = {"mode": "jit", "scan": "none", "devices": "1"}
SCAN = {"mode": "scan 100", "scan": "100", "devices": "1"}


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        (loops(("loop", JIT)), loops(("loop", JIT)), ()),
        (
            loops(("loop", JIT), ("loop-2", JIT)),
            loops(("loop", JIT), ("loop-2", SCAN)),
            ("loop-2: mode 'jit' -> 'scan 100'", "loop-2: scan 'none' -> '100'"),
        ),
        # What only one of two versions of researchlab records says nothing.
        (loops(("loop", {"mode": "jit", "old": "1"})), loops(("loop", {"mode": "jit", "new": "2"})), ()),
        (loops(), loops(("loop", JIT)), ()),
        (loops(("loop", JIT)), loops(), ()),
        (
            loops(("loop", JIT), ("loop", JIT)),
            loops(("loop", JIT), ("loop", {**JIT, "devices": "2"})),
            ("loop, way 2: devices '1' -> '2'",),
        ),
        (loops(("loop", JIT), ("loop", SCAN)), loops(("loop", JIT)), ("loop: ran in 2 modes -> in 1",)),
        (loops(("loop", JIT)), loops(("loop", JIT), ("loop", SCAN)), ("loop: ran in 1 mode -> in 2",)),
        (loops(("loop", JIT), result=KILLED), loops(("loop", JIT), ("loop", SCAN)), ()),
        (
            loops(("a\x1b", {"m\n": "x" * 200})),
            loops(("a\x1b", {"m\n": "\x1b[31m"})),
            ("a\\x1b: m\\n '" + "x" * 100 + "...' -> '\\x1b[31m'",),
        ),
    ],
)
def test_another_way_of_execution_is_named(before: Record, now: Record, lines: tuple[str, ...]) -> None:
    assert execution_differences(before, now) == lines


@pytest.mark.parametrize("kind", [VerdictKind.REPRODUCED, VerdictKind.DIVERGED])
def test_another_way_of_execution_stands_beside_every_verdict(kind: VerdictKind) -> None:
    verdict = dataclasses.replace(VERDICT, kind=kind, execution=("loop: mode 'jit' -> 'scan 100'",))
    assert "  execution     loop: mode 'jit' -> 'scan 100'" in verdict.report().splitlines()
    assert json.loads(json.dumps(verdict.to_json()))["execution"] == ["loop: mode 'jit' -> 'scan 100'"]


VERDICT = Verdict(
    kind=VerdictKind.DIVERGED,
    run_id="2026-02-15_radiant-octopus",
    reason="the bits differ first at step 17, metric 'loss'",
    code="commit a012345678, tree 8123123123",
    started="python train.py",
    first=Divergence(17, "loss", "metric", "0.5 (0x3f000000)", "0.75 (0x3f400000)", 3),
    differences=tuple(f"metric m{number}: differs" for number in range(20)),
    compared="20 metrics (100 values)",
    environment=tuple(EnvironmentDifference(f"packages.p{number}", "1", "2") for number in range(30)),
    executions=2,
    seconds=12.0,
    recorded_seconds=11.0,
    store="sqlite:////home/a b/mlflow.db",
)


def test_a_report_says_what_differs_where_and_how_to_repeat_it_on_one_screen() -> None:
    lines = VERDICT.report().splitlines()
    assert lines[0] == "DIVERGED  2026-02-15_radiant-octopus"
    rows = {line[2:16].strip(): line[16:] for line in lines[3:] if line[2:16].strip()}
    assert rows["first"] == "step 17, metric 'loss'"
    assert rows["stored"] == "0.5 (0x3f000000)"
    assert rows["received"] == "0.75 (0x3f400000)"
    assert rows["apart"] == "3 ULP"
    assert rows["time"] == "12.0 s (the run itself: 11.0 s)"
    assert rows["again"] == (
        "pytest --rlab-reproduce 2026-02-15_radiant-octopus --rlab-tracking-uri 'sqlite:////home/a b/mlflow.db'"
    )
    assert sum("differs" in line for line in lines) == 12
    assert "and 8 more" in VERDICT.report()
    assert "and 18 more" in VERDICT.report()
    assert len(lines) <= 45


@pytest.mark.parametrize(
    ("stored", "received", "ulp", "text"),
    [
        ("0.5 (0x3f000000)", "0.75 (0x3f400000)", 3, "3 ULP"),
        ("1.0 (0x3ff0000000000000)", "1.00003 (0x3ff0001f75104d55)", 128849018880, "relative difference 3e-05"),
        ("(1+1j) (0x..)", "(2+2j) (0x..)", 2**52, "relative difference 1"),
        ("0.0 (0x0000000000000000)", "1.0 (0x3ff0000000000000)", 2**61, "over a million ULP"),
        ("1.0 (0x3ff0000000000000)", "inf (0x7ff0000000000000)", 2**61, "over a million ULP"),
        ("1 (0x1)", "2 (0x2)", None, ""),
    ],
)
def test_a_distance_is_in_ulps_where_that_says_something(
    stored: str, received: str, ulp: int | None, text: str
) -> None:
    assert Divergence(0, "x", "metric", stored, received, ulp).distance() == text


def test_a_verdict_is_json() -> None:
    document = json.loads(json.dumps(dataclasses.replace(VERDICT, kept=Path("/scratch")).to_json()))
    assert {name: document[name] for name in ("run_id", "verdict", "ok", "reason", "executions", "kept")} == {
        "run_id": "2026-02-15_radiant-octopus",
        "verdict": "DIVERGED",
        "ok": False,
        "reason": "the bits differ first at step 17, metric 'loss'",
        "executions": 2,
        "kept": "/scratch",
    }
    assert document["first"]["step"] == 17
    assert document["environment"][0] == {"name": "packages.p0", "recorded": "1", "now": "2"}
    assert "kind" not in document


def test_a_report_of_a_run_that_came_back_is_short() -> None:
    report = dataclasses.replace(VERDICT, kind=VerdictKind.REPRODUCED, first=None, differences=()).report()
    assert len(report.splitlines()) <= 9
    assert "30 recorded facts differ" in report
    assert "again" not in report


def test_further_lines_of_a_reason_stand_under_its_first() -> None:
    verdict = dataclasses.replace(
        VERDICT, kind=VerdictKind.NOT_RESTORED, first=None, differences=(), reason="not here. Fetch it:\ngit fetch a"
    )
    lines = verdict.report().splitlines()
    at = lines.index("  reason        not here. Fetch it:")
    assert lines[at + 1] == " " * 16 + "git fetch a"
