from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools as ft
import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from researchlab.numerics.statics import static_text


class Colour(enum.Enum):
    RED = 1


class Mode(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: float
    y: object = None


class Plain:
    def method(self):
        return self


HERE = Point.__module__


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a'b", '"a\'b"'),
        (None, "None"),
        (1.5, "1.5"),
        (Colour.RED, f"{HERE}.Colour.RED"),
        (Mode.A | Mode.B, f"{HERE}.Mode.A|B"),
        (Mode(0), f"{HERE}.Mode.0"),
        (PurePosixPath("a/b"), f"{PurePosixPath.__module__}.PurePosixPath('a/b')"),
        (len, "len"),
        (json.dumps, "json.dumps"),
        (dict, "dict"),
        (np.float32, "numpy.float32"),
        (np.sin, "numpy.sin"),
        (np.dtype("f4"), "dtype('float32')"),
        (Plain, f"{HERE}.Plain"),
        (Plain.method, f"{HERE}.Plain.method"),
        ("x".upper, "'x'.upper"),
        (ft.partial(max, 1, key=len), "functools.partial(max, tuple(1), dict('key', len))"),
        (Point(0.1, [1, ("a",)]), f"{HERE}.Point(0.1, list(1, tuple('a')))"),
        (frozenset({"b", "a"}), "frozenset('a', 'b')"),
        (dt.date(2026, 2, 15), "datetime.date(2026, 2, 15)"),
        (sys, "sys"),
    ],
)
def test_a_value_has_its_stable_text(value, text):
    assert static_text(value) == text


@pytest.mark.parametrize(
    "value",
    [object(), Plain(), Plain().method, Point(1.0, object()), ft.partial(max, object()), [object()], np.zeros(2)],
)
def test_what_only_has_an_address_or_a_rounded_repr_has_no_text(value):
    assert static_text(value) is None


def test_a_container_that_holds_itself_has_no_text():
    loop: list[object] = []
    loop.append(loop)
    assert static_text(loop) is None


def test_the_text_is_the_same_under_another_hash_seed():
    code = "from researchlab.numerics.statics import static_text; print(static_text({'x', 'y', 'z', 'w', len, None}))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(texts) == 1
