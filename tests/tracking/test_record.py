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
    RECORD_VERSION,
    CommandRecord,
    EnvironmentRecord,
    Record,
    ResultRecord,
    SnapshotRecord,
    read_record,
)

_TEXT = st.text(st.characters(codec=None), max_size=8)  # lone surrogates too: paths that are not UTF-8


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


@example(path="a\udcff", reason="\udc80", argv=[])
@given(path=_TEXT, reason=_TEXT, argv=st.lists(_TEXT, max_size=3))
def test_a_record_is_the_same_after_json(path: str, reason: str, argv: list[str]) -> None:
    record = _record(
        snapshot=SnapshotRecord(
            base_commit="1" * 40, tree="2" * 40, repository=path, changed=(path,), left_out={path: reason}
        ),
        command=CommandRecord(kind="module", target=path, argv=tuple(argv), folder=path),
        result=ResultRecord(status="FAILED", error=reason, metrics=1, points=2, states=3),
        ended_at=2.0,
        not_recorded=(reason,),
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
        ({"version": "1"}, "names no version"),
        ({"command": {"kind": "unheard-of", "folder": "/"}}, r"broken at 'command\.kind'"),
        ({"pid": None}, "broken at 'pid'"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(change: dict[str, Any], said: str) -> None:
    data = json.loads(_record().to_json()) | change
    with pytest.raises(RecordError, match=said) as caught:
        read_record(json.dumps(data), where="run 'x'")
    assert "run 'x'" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "1", "null", b"\xff\xfe"])
def test_what_is_no_record_is_refused(text: str | bytes) -> None:
    with pytest.raises(RecordError, match=re.escape("run 'x'")):
        read_record(text, where="run 'x'")


def test_a_record_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        _record().pid = 2  # type: ignore[misc]


@pytest.mark.parametrize("field", ["base_commit", "tree"])
@pytest.mark.parametrize("oid", ["sha1", "HEAD", "1" * 39, "1" * 40 + "\n", ""])
def test_what_is_no_object_id_is_in_no_record(field: str, oid: str) -> None:
    with pytest.raises(ValueError, match=field):
        SnapshotRecord(**{"base_commit": None, "tree": "0" * 40, "repository": "/repo", field: oid})
