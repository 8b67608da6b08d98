"""The record survives its way through JSON, and a broken one says what is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from researchlab.errors import RecordError
from researchlab.tracking.record import (
    END_OF_TIME,
    RECORD_VERSION,
    CommandRecord,
    EnvironmentRecord,
    ExecutionRecord,
    FileRecord,
    InputRecord,
    NestedRecord,
    Record,
    ResultRecord,
    SnapshotRecord,
    read_record,
)

# What the system hands over: any bytes but NUL, those that are not UTF-8 as lone surrogates.
_NATIVE = st.binary(max_size=8).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
# The message of an exception holds anything; JSON makes one character of a pair of surrogates.
_WORDS = st.text(st.characters(codec=None), max_size=8).map(
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
_COUNT = st.integers(0, 2**63 - 1)


_INPUT = {"path": "a", "role": "data", "why": "is ignored by git", "sha256": None, "size": 0}


def _record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "run_id": "2026-02-15_radiant-octopus",
        "experiment": "e",
        "researchlab": "0.1",
        "started_at": 1.5,
        "host": "h",
        "pid": 1,
        "snapshot": SnapshotRecord(base_commit=None, tree="0" * 40, repository="/repo"),
        "command": CommandRecord(kind="script", target="a.py", folder="/repo", cwd="."),
        "environment": EnvironmentRecord(packages={"jax": "1"}),
    }
    return Record(**(fields | changes))


@example(path="a\udcff", words="\0\ud800 \udc80", argv=["\udc80"], count=2**40, time=0.0)
@given(path=_NATIVE, words=_WORDS, argv=st.lists(_NATIVE, max_size=3), count=_COUNT, time=st.floats(0, END_OF_TIME - 1))
def test_a_record_is_the_same_after_json(path: str, words: str, argv: list[str], count: int, time: float) -> None:
    file = FileRecord(sha256="0" * 64, size=count)
    state: dict[str, Any] = {
        "base_commit": "1" * 40,
        "tree": "2" * 40,
        "branch": path,
        "remotes": {path: path},
        "changed": (path,),
        "left_out": {path: words},
        "large": {path: file},
        "pointers": (path,),
        "ignored": (path,),
    }
    nested = NestedRecord(path=path, is_submodule=True, **state)
    record = _record(
        snapshot=SnapshotRecord(repository=path, nested=(nested,), **state),
        command=CommandRecord(
            kind="module",
            flags=tuple(argv),
            target=path,
            argv=tuple(argv),
            cwd=path,
            folder=path,
            ordinal=count,
            source_roots=(path,),
        ),
        environment=EnvironmentRecord(packages={words: words}, variables={path: path}, jax={words: words}),
        inputs=(InputRecord(path=path, role="data", why=words, sha256=None, size=count),),
        executions=(ExecutionRecord(source=words, facts={words: words}),),
        result=ResultRecord(status="FAILED", error=words, metrics=count, points=count, states=count),
        started_at=time,
        ended_at=time,
        not_recorded=(words,),
        volatile=(words,),
    )
    text = record.to_json()
    assert read_record(text, where="test") == record
    assert read_record(text.encode("utf-8"), where="test") == record


def test_a_record_without_a_snapshot_is_a_record() -> None:
    record = _record(snapshot=None)
    assert read_record(record.to_json(), where="test") == record


def test_a_field_of_a_later_minor_version_is_passed_over() -> None:
    data = json.loads(_record().to_json())
    data["later"] = data["command"]["later"] = 1
    assert read_record(json.dumps(data), where="test") == _record()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": RECORD_VERSION + 1}, r"pip install -U researchlab"),
        ({"version": None}, "names no version"),
        ({"version": "1"}, r"names no version \(found '1'\)"),
        ({"version": True}, r"names no version \(found True\)"),
        ({"version": -1}, r"names no version \(found -1\)"),
        ({"command": {"kind": "unheard-of", "folder": "/"}}, r"broken at 'command\.kind'"),
        ({"pid": None}, "broken at 'pid'"),
        ({"pid": -1}, "broken at 'pid': .* greater than 0, found -1"),
        ({"pid": 0}, "broken at 'pid'"),
        ({"pid": 10**30}, "broken at 'pid'"),
        ({"started_at": float("nan")}, "broken at 'started_at': .* finite number, found nan"),
        ({"started_at": float("inf")}, "broken at 'started_at'"),
        ({"started_at": 1e300}, r"broken at 'started_at': .*, found 1e\+300"),
        ({"started_at": -1e11}, "broken at 'started_at'"),
        ({"ended_at": float("-inf")}, "broken at 'ended_at'"),
        ({"inputs": [_INPUT | {"size": -1}]}, r"broken at 'inputs\.0\.size': .*, found -1"),
        ({"inputs": [_INPUT | {"size": 10**60}]}, r"broken at 'inputs\.0\.size': .*, found 1000"),
        ({"inputs": [_INPUT | {"path": "\ud800"}]}, r"broken at 'inputs\.0\.path': it holds a lone surrogate"),
        ({"result": {"status": "FAILED", "points": -1}}, r"broken at 'result\.points'"),
        (
            {"command": {"kind": "script", "folder": "/", "argv": ["a\0b"]}},
            r"argv\.0': it holds a NUL, found 'a\\x00b'",
        ),
        ({"command": {"kind": "script", "folder": "/", "target": "\ud800"}}, r"broken at 'command\.target'"),
        ({"environment": {"variables": {"TZ": "\0"}}}, r"broken at 'environment\.variables\.TZ': it holds a NUL"),
        ({"environment": {"variables": {"\ud800": ""}}}, r"broken at 'environment\.variables': .*, found '\\ud800'"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(change: dict[str, Any], said: str) -> None:
    data = json.loads(_record().to_json()) | change
    with pytest.raises(RecordError, match=said) as caught:
        read_record(json.dumps(data), where="run 'x'")
    assert "run 'x'" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "1", "null", b"\xff\xfe", "[" * 200_000, '{"version": ' + "9" * 5000])
def test_what_is_no_record_is_refused(text: str | bytes) -> None:
    with pytest.raises(RecordError, match=re.escape("run 'x'")):
        read_record(text, where="run 'x'")


def test_a_record_that_says_two_things_is_refused() -> None:
    text = _record().to_json().replace('"pid": 1', '"pid": 1, "pid": 2')
    with pytest.raises(RecordError, match="the name 'pid' stands in an object twice"):
        read_record(text, where="run 'x'")


def test_a_record_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        _record().pid = 2  # type: ignore[misc]


@pytest.mark.parametrize("field", ["base_commit", "tree"])
@pytest.mark.parametrize("oid", ["sha1", "HEAD", "1" * 39, "1" * 40 + "\n", ""])
def test_what_is_no_object_id_is_in_no_record(field: str, oid: str) -> None:
    with pytest.raises(ValueError, match=field):
        SnapshotRecord(**{"base_commit": None, "tree": "0" * 40, "repository": "/repo", field: oid})
