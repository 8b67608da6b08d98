# ruff: noqa: RUF012 - pydantic copies mutable defaults

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from researchlab.design import Config, flatten_config, unflatten_config
from researchlab.design._keys import join, split
from researchlab.errors import ArgumentError


class Colour(enum.Enum):
    RED = "red"


class Sub(Config):
    c: float = 1.5
    path: Path = Path("data")


class Settings(Config):
    a: int = 1
    b: Sub = Sub()
    widths: tuple[int, ...] = (3, 4)
    empty: list[int] = []
    options: dict[str, Any] = {}
    by_layer: dict[int, float] = {}
    maybe: Sub | None = None
    colour: Colour = Colour.RED


class Free(Config):
    values: dict[str, Any] = {}


def test_nested_fields_get_dotted_keys():
    flat = flatten_config(Settings(options={"x": {"y": 2}, "z": {}}, by_layer={0: 0.5}))
    assert flat == {
        "a": 1,
        "b.c": 1.5,
        "b.path": Path("data"),
        "widths": (3, 4),
        "empty": [],
        "options.x.y": 2,
        "options.z": {},
        "by_layer": {0: 0.5},
        "maybe": None,
        "colour": Colour.RED,
    }


def test_prefix_and_separator():
    assert flatten_config(Sub(), prefix="model", separator="/") == {"model/c": 1.5, "model/path": Path("data")}
    assert flatten_config({"a": {"b": 1}}) == {"a.b": 1}


@pytest.mark.parametrize("separator", ["", "\\", ".\\"])
def test_a_separator_that_cannot_separate_is_refused(separator):
    with pytest.raises(ArgumentError, match="separator"):
        flatten_config(Sub(), separator=separator)
    with pytest.raises(ArgumentError, match="separator"):
        unflatten_config({}, Sub, separator=separator)


def test_something_that_is_no_configuration_is_refused():
    with pytest.raises(ArgumentError, match="not list"):
        flatten_config([1])


@pytest.mark.parametrize(
    "config",
    [
        Settings(),
        Settings(maybe=Sub(c=2), options={"a.b": {"c\\d": [1, {"e.f": 2}]}, "": {"": 1}, "deep": {"er": {}}}),
        Settings(empty=[1, 2], by_layer={0: 1.0, 3: 2.0}, widths=()),
    ],
)
@pytest.mark.parametrize("separator", [".", "/", "__", "::"])
def test_a_configuration_comes_back(config, separator):
    back = unflatten_config(flatten_config(config, separator=separator), Settings, separator=separator)
    assert back == config
    assert repr(back) == repr(config)


def test_values_are_validated():
    with pytest.raises(pydantic.ValidationError, match=r"b\.c"):
        unflatten_config({"b.c": "much"}, Settings)
    with pytest.raises(pydantic.ValidationError, match="unknown"):
        unflatten_config({"unknown": 1}, Settings)
    assert unflatten_config({"a": "3"}, Settings).a == 3


@pytest.mark.parametrize(
    "flat", [{"b": 1, "b.c": 2}, {"b.c": 2, "b": 1}, {"b": {}, "b.c": 1}, {"b.c.d.e": 1, "b.c.d": 2}]
)
def test_a_key_that_is_both_value_and_container_is_refused(flat):
    with pytest.raises(ValueError, match="both a value and") as caught:
        unflatten_config(flat, Settings)
    assert isinstance(caught.value, ArgumentError)
    assert not isinstance(caught.value, pydantic.ValidationError)


def test_excluded_and_computed_fields_stay_out():
    class Guarded(Config):
        token: str = pydantic.Field("secret", exclude=True)
        side: float = 2.0

        @pydantic.computed_field
        @property
        def area(self) -> float:
            return self.side**2

    assert flatten_config(Guarded()) == {"side": 2.0}
    assert unflatten_config({"side": 2.0}, Guarded) == Guarded()


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
keys = st.text(st.sampled_from("ab._\\/:-é"), max_size=5)
separators = st.sampled_from([".", "/", "__", "::", "._", "a", "_._"])


@unhurried
@given(st.lists(keys, min_size=1, max_size=4), separators)
def test_parts_survive_joining_and_splitting(parts, separator):
    assert split(join(parts, separator), separator) == tuple(parts)


@unhurried
@given(st.text(st.sampled_from("abé /:-"), min_size=1), st.sampled_from([".", "__"]))
def test_an_ordinary_key_is_written_as_it_is(key, separator):
    assert join([key, key], separator) == key + separator + key


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | keys | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@unhurried
@given(st.dictionaries(keys, nested, max_size=4), separators)
def test_any_nested_configuration_comes_back(values, separator):
    config = Free(values=values)
    flat = flatten_config(config, separator=separator)
    assert all(not isinstance(value, dict) or not value for value in flat.values())
    assert unflatten_config(flat, Free, separator=separator) == config
