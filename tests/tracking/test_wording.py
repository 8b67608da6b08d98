"""Facts in words, and text of others that cannot drive a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from researchlab.tracking._tags import Process, script_of, start_tags
from researchlab.tracking._wording import age, changed_files, counted, duration, printable, printable_lines, size, some
from researchlab.tracking.record import STORE_FILE, CommandRecord, NestedRecord, SnapshotRecord


@given(st.text(st.characters()))
def test_what_is_printable_has_no_control_character_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
    assert not any(unicodedata.bidirectional(c) in {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI"} for c in shown)


def test_words_of_any_language_stay_as_they_are() -> None:
    text = "caf\u00e9 \u65e5\u672c\u8a9e \u05e2\u05d1\u05e8\u05d9\u05ea \U0001f600 a\\b"
    assert printable(text) == text
    assert printable("a\tb\nc\x1b\udcff") == r"a\tb\nc\x1b\xff"
    assert printable_lines("a\nb\r") == "a\nb\\r"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "119 min"), (7200, "2 h"), (172_799, "47 h"), (172_800, "2 d")],
)
def test_an_age_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.314, "0.31 s"), (12.34, "12.3 s"), (59.96, "1 min 00 s"), (3599.7, "1 h 00 min"), (18_120, "5 h 02 min")],
)
def test_a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1400, "1.4 kB"), (999_999, "1 MB"), (5_000_000_000_000, "5 TB")]
)
def test_a_size(number: int, text: str) -> None:
    assert size(number) == text


def test_numbers_and_lists() -> None:
    assert [counted(1, "file"), counted(2, "file"), counted(2, "directory")] == ["1 file", "2 files", "2 directories"]
    assert some(["a", "b\n"], most=2) == "a, b\\n"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"


@pytest.mark.parametrize(
    ("kind", "target", "script"),
    [
        ("script", "src/train.py", "src/train.py"),
        ("script", "/opt/bin/train", "train"),
        ("module", "package.main", "-m package.main"),
        ("code", "print(1)", "-c ..."),
        ("pytest", "tests/test_a.py::test_b", "tests/test_a.py::test_b"),
        ("interactive", None, "(interactive)"),
        ("worker", None, "(worker)"),
        ("stdin", None, "(stdin)"),
    ],
)
def test_what_was_started_in_a_word_or_two(kind: str, target: str | None, script: str) -> None:
    assert script_of(CommandRecord.model_validate({"kind": kind, "target": target, "folder": "/"})) == script


def test_changed_files_of_all_repositories_are_counted_apart() -> None:
    def text(own: int, inside: int) -> str:
        nested = NestedRecord(
            path="lib", is_submodule=False, base_commit=None, tree="b" * 40, changed=("x",) * inside, left_out={}
        )
        snapshot = SnapshotRecord(
            base_commit=None, tree="a" * 40, repository="/", changed=("z",) * own, nested=(nested,)
        )
        return changed_files(snapshot, "changed file")

    assert text(10, 4) == "10 changed files and 4 in repositories inside"
    assert text(1, 0) == "1 changed file"
    assert text(0, 1) == "1 changed file in repositories inside"
    assert text(0, 0) == "0 changed files"


def test_tags_are_short_can_be_stored_and_count_nested_and_left_out_files() -> None:
    inner = NestedRecord(path="lib", is_submodule=False, base_commit=None, tree="b" * 40, changed=("x", "y"))
    left_out = {".env": "looks like a secret", "mlflow.db": STORE_FILE, "mlruns": STORE_FILE}
    snapshot = SnapshotRecord(
        base_commit=None, tree="a" * 40, repository="/", changed=("z",), left_out=left_out, nested=(inner,)
    )
    command = CommandRecord(kind="script", target="caf\udce9" + "x" * 9000, folder="/")
    tags = start_tags("run", command, snapshot, process=("my host", 12))
    assert tags["rlab.dirty"] == "4"
    assert len(tags["rlab.script"]) == 500
    assert tags["rlab.script"].startswith("caf\\xe9x")
    assert Process.of(tags) == Process("my host", 12)
    assert Process.of({}) is None
    assert Process.of({"rlab.process": "nonsense"}) is None
