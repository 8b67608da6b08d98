"""Does the page on the command line tell of everything that there is?"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from researchlab.cli import app
from researchlab.tracking._cli import _common
from researchlab.tracking.settings import Settings

PAGE = (Path(__file__).parents[1] / "docs/cli.md").read_text()
EVERYWHERE = {"--repo", "--tracking-uri", "--json", "--help"}


def commands() -> dict[str, Any]:
    group: Any = get_command(app)
    return dict(group.commands)


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", commands())
def test_each_command_and_each_of_its_options_is_on_the_page(name: str) -> None:
    text = section(f"rlab {name}")
    assert f"$ rlab {name}" in text
    assert f"[`rlab {name}" in PAGE.partition("\n## ")[0]
    options = {option for it in commands()[name].params for option in it.opts if option.startswith("--")}
    for option in options - EVERYWHERE:
        assert f"- `{option}" in text, f"{option} of {name}"
    for option in options & EVERYWHERE:
        assert f"`{option}" in PAGE


def test_the_page_names_nothing_that_is_not_there() -> None:
    known = {option for command in commands().values() for it in command.params for option in it.opts}
    known |= {"--help", "--version", "--install-completion", "--show-completion", "--rlab-reproduce"}
    named = set(re.findall(r"`(?:rlab |pytest )?(--[a-z][a-z-]*)", PAGE))
    assert named <= known
    assert set(re.findall(r"(?:`|\$ )rlab ([a-z]+)\b", PAGE)) <= commands().keys()


def test_the_options_that_most_commands_take_are_taken_where_the_page_says() -> None:
    options = {name: {option for it in command.params for option in it.opts} for name, command in commands().items()}
    assert [name for name, known in options.items() if "--repo" not in known] == []
    assert {name for name, known in options.items() if "--tracking-uri" not in known} == {"list", "delete"}
    assert {name for name, known in options.items() if "--json" not in known} == {"diff"}


def test_each_exit_code_is_on_the_page() -> None:
    codes = {value for name, value in vars(_common).items() if name.startswith("EXIT_") and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)} == codes | {0}


def test_the_settings_on_the_page_are_the_defaults() -> None:
    text = re.search(r"```toml\n(.*?)```", section("Settings"), re.DOTALL)
    assert text is not None
    table = tomllib.loads(text[1])["tool"]["researchlab"]
    assert table.keys() == {name.replace("_", "-") for name in Settings.model_fields}
    assert Settings.model_validate(table) == Settings()
