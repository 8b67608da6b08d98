"""Which configurations can be logged, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_param_name

from researchlab.design import Config
from researchlab.errors import ConfigError
from researchlab.tracking._params import check_unchanged, flatten, read_config

if TYPE_CHECKING:
    from pathlib import Path


def test_names_are_joined_and_values_become_text() -> None:
    class Inner(Config):
        rate: float = 0.5

    nested = {"a": {"b": {1: True}}, "c": None, "d": [1, {"x": 2}], "e": {}, "f": (1, "x"), "g": Inner(), "h": "é\n"}
    assert flatten(nested) == {
        "a.b.1": "True",
        "c": "None",
        "d": "[1, {'x': 2}]",
        "e": "{}",
        "f": "[1, 'x']",
        "g.rate": "0.5",
        "h": "é\n",
    }
    assert flatten({"a": 1}, prefix="p.q") == {"p.q.a": "1"}
    assert flatten({}) == {}


@pytest.mark.parametrize(
    "name",
    ["a@b", "a'b", 'a"b', "a[0]", "a=b", "a,b", "a#b", "a(b)", "a\\b", "a\nb", "a%b", "/a", "a//b", "a/", "..", "a/."],
)
def test_what_mlflow_refuses_is_refused_before_it(name: str) -> None:
    with pytest.raises(MlflowException):
        _validate_param_name(name)
    with pytest.raises(ConfigError, match="Nothing was logged"):
        flatten({name: 1})


@given(st.text(min_size=1, max_size=8) | st.text("ab./: -_", min_size=1, max_size=8))
def test_exactly_the_names_that_mlflow_takes_are_taken(name: str) -> None:
    try:
        _validate_param_name(name)
    except MlflowException:
        with pytest.raises(ConfigError):
            flatten({name: 1})
    else:
        assert flatten({name: 1}) == {name: "1"}


def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"same parameter 'a\.b'"):
        flatten({"a": {"b": 1}, "a.b": 1})
    with pytest.raises(ConfigError, match="same parameter '1'"):
        flatten({1: "x", "1": "y"})


def test_a_value_that_was_cut_is_the_same_value() -> None:
    check_unchanged({"a": "x" * 7000}, {"a": "x" * 6000})
    with pytest.raises(ConfigError, match="cannot become"):
        check_unchanged({"a": "2"}, {"a": "1"})


def _read(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "conf.yaml"
    path.write_bytes(data)
    content, name, kept = read_config(path)
    assert (name, kept) == ("conf.yaml", data)
    return content


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"a: 1\nb:\n  c: [1, 2]\n", {"a": 1, "b": {"c": [1, 2]}}),
        (b"", {}),
        (b"# only a comment\n", {}),
        ("\ufeffa: \u00e9\n".encode(), {"a": "\u00e9"}),
    ],
)
def test_yaml_is_read(tmp_path: Path, data: bytes, content: dict[str, Any]) -> None:
    assert _read(tmp_path, data) == content


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", r"conf\.yaml, line 3, column 2: not valid YAML"),
        (b"a: 'x\n", r"conf\.yaml, line 2, column 1: not valid YAML"),
        (b"a:\n\t- 1\n", r"conf\.yaml, line 2, column 1"),
        (b"a: !!python/object:os.system x\n", r"line 1, column 4"),
        (b"a: 2026-02-31\n", r"not valid YAML: day"),
        (b"a: \x00\n", "not valid YAML"),
        (b"- 1\n- 2\n", "holds a list"),
        (b"just text", "holds a str"),
        (b"a: \xff\xfe\n", r"not UTF-8 text \(byte 3\)"),
        (b"a: " + b"[" * 5000, "not valid YAML"),
    ],
)
def test_broken_yaml_says_where(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _read(tmp_path, data)


def test_a_missing_file_or_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{tmp_path}/none.yaml cannot be read: No such file"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_config(str(tmp_path))


def test_any_pydantic_model_is_a_configuration() -> None:
    class Thing:
        def __str__(self) -> str:
            return "a thing"

    class Odd(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        thing: object = Thing()
        limit: float = float("inf")

    content, name, kept = read_config(Odd())
    assert flatten(content) == {"thing": "a thing", "limit": "inf"}
    assert name == "config.json"
    assert b'"thing": "a thing"' in kept


@pytest.mark.parametrize("config", [None, 3, [1, 2], b"a.yaml"])
def test_anything_else_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match=f"not a {type(config).__name__}"):
        read_config(config)
