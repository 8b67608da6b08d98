# ruff: noqa: RUF012 - pydantic copies mutable defaults

from __future__ import annotations

import math

import pydantic
import pytest

from researchlab.design import Config


class Optimiser(Config):
    learning_rate: float = 1
    name: str = "adam"


class Settings(Config):
    optimiser: Optimiser = Optimiser()
    widths: tuple[int, ...] = (64, 64)


def test_a_config_cannot_be_changed():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Settings().widths = (1,)


def test_an_unknown_field_is_refused():
    with pytest.raises(pydantic.ValidationError, match="learnig_rate"):
        Optimiser(learnig_rate=0.1)


def test_defaults_are_validated_like_given_values():
    assert type(Optimiser().learning_rate) is float


def test_equal_configs_hash_alike_and_nested_ones_do():
    assert hash(Settings()) == hash(Settings(widths=(64, 64)))
    assert Settings() != Settings(widths=(64,))


def test_a_config_with_a_list_cannot_be_hashed():
    class Listed(Config):
        widths: list[int] = []

    with pytest.raises(TypeError, match="unhashable"):
        hash(Listed())


def test_a_config_survives_json_with_nan_and_infinities():
    class Extremes(Config):
        low: float
        high: float
        none: float

    back = Extremes.model_validate_json(Extremes(low=-math.inf, high=math.inf, none=math.nan).model_dump_json())
    assert (back.low, back.high) == (-math.inf, math.inf)
    assert math.isnan(back.none)


def test_a_copy_with_an_update_is_validated():
    assert Optimiser().model_copy(update={"learning_rate": 3}).learning_rate == 3.0
    with pytest.raises(pydantic.ValidationError, match="learning_rate"):
        Optimiser().model_copy(update={"learning_rate": "bad"})
    with pytest.raises(pydantic.ValidationError, match="momentum"):
        Optimiser().model_copy(update={"momentum": 0.9})


def test_a_copy_keeps_what_was_set_and_what_was_not():
    copied = Optimiser(name="sgd").model_copy(update={"learning_rate": 0.5})
    assert copied == Optimiser(name="sgd", learning_rate=0.5)
    assert Settings().model_copy(update={"widths": (1,)}).model_fields_set == {"widths"}
    assert Settings(widths=(3,)).model_copy() == Settings(widths=(3,))
