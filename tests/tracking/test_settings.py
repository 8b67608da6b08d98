"""The table [tool.researchlab] of pyproject.toml."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from helpers.repos import make_repo

from researchlab.errors import SettingsError
from researchlab.tracking.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def table(top: Path, *lines: str) -> Path:
    """Write the table; return the folder."""
    (top / "pyproject.toml").write_text("\n".join(["[tool.researchlab]", *lines, ""]), encoding="utf-8")
    return top


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("7", 7),
        ("0", 0),
        ('"7"', 7),
        ('"7 B"', 7),
        ('"10 MiB"', 10 << 20),
        ('"10MiB"', 10 << 20),
        ('" 10 mib "', 10 << 20),
        ('"1.5 GiB"', 3 << 29),
        ('"2 GB"', 2_000_000_000),
        ('"1.5 kB"', 1500),
        ('"0.1 kB"', 100),
        ('"3 KiB"', 3072),
        ('"123456789012345678"', 123_456_789_012_345_678),
    ],
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(tmp_path: Path, written: str, size: int) -> None:
    assert read_settings(table(tmp_path, f"largest-file = {written}")).largest_file == size


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('largest-file = "10 potatoes"', "'10 potatoes' is no size: write a number of bytes, or one with a unit"),
        ('largest-file = "MiB"', "is no size"),
        ('largest-file = "-1 MiB"', "is no size"),
        (f'largest-file = "{"9" * 400}"', "is no size"),
        ("largest-file = -1", "greater than or equal to 0"),
        ("largest-file = true", "true or false"),
        ("largest-file = 1.5", "valid integer"),
        ("largest-file = nan", "finite"),
        ("largest-file = []", "valid integer"),
        ('most-files = "10"', "valid integer"),
        ("most-files = true", "valid integer"),
        ("most-files = -1", "greater than or equal to 0"),
        ('allow-secrets = "*.pem"', "valid array"),
        ("allow-secrets = [1]", "valid string"),
    ],
)
def test_a_wrong_value_is_refused_with_the_place_and_what_is_wanted(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(table(tmp_path, line))
    message = str(caught.value)
    assert str(tmp_path / "pyproject.toml") in message
    assert f"tool.researchlab.{line.partition(' = ')[0]}" in message
    assert says in message


@pytest.mark.parametrize("key", ["largest-fil", "exclude", "Largest-File", '"a b"'])
def test_an_unknown_key_is_refused_with_those_that_are_known(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match="no such setting") as caught:
        read_settings(table(tmp_path, f"{key} = 1"))
    message = str(caught.value)
    assert f"tool.researchlab.{key.strip(chr(34))}" in message
    for name in Settings.model_fields:
        assert name.replace("_", "-") in message


def test_every_setting_can_be_written(tmp_path: Path) -> None:
    top = table(
        tmp_path,
        "largest-file = 1",
        "largest-snapshot = 2",
        "most-files = 3",
        "largest-bundle = 4",
        "largest-input = 5",
        'allow-secrets = ["tests/*", "*.pem"]',
    )
    expected = Settings(
        largest_file=1,
        largest_snapshot=2,
        most_files=3,
        largest_bundle=4,
        largest_input=5,
        allow_secrets=("tests/*", "*.pem"),
    )
    assert read_settings(top) == expected
    assert expected.model_fields_set == Settings.model_fields.keys()


def test_what_is_not_written_has_its_default(tmp_path: Path) -> None:
    assert read_settings(table(tmp_path, "most-files = 3")) == Settings(most_files=3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[project]\nname = 'researchlab'\n",
        "[tool]\n",
        "tool = 'researchlab'\n",
        "[tool.other]\nlargest-file = 1\n",
        "[tool.researchlab]\n",
        "this is no TOML, and says nothing of us",
        "\ufeff",
    ],
)
def test_without_a_table_everything_has_its_default(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    assert read_settings(tmp_path) == Settings()


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings()
    assert read_settings(tmp_path / "gone") == Settings()
    (tmp_path / "pyproject.toml").mkdir()
    assert read_settings(tmp_path) == Settings()


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyproject.toml")
    assert read_settings(tmp_path) == Settings()


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"\xef\xbb\xbf[tool.researchlab]\r\nmost-files = 3\r\n")
    assert read_settings(tmp_path) == Settings(most_files=3)


def _latin(place: Path) -> None:
    place.write_bytes(b"# caf\xe9\n[tool.researchlab]\n")


def _loop(place: Path) -> None:
    place.symlink_to(place.name)


def _conflict(place: Path) -> None:
    place.write_text("<<<<<<< HEAD\n[tool.researchlab]\n=======\n>>>>>>> theirs\n")


def _deep(place: Path) -> None:
    place.write_text("[tool.researchlab]\na = " + "[" * 5000)


@pytest.mark.parametrize(
    ("make", "says"),
    [(_latin, "cannot be read"), (_loop, "cannot be read"), (_conflict, "is no TOML"), (_deep, "is no TOML")],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    make(tmp_path / "pyproject.toml")
    with pytest.raises(SettingsError, match=says) as caught:
        read_settings(tmp_path)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)


def test_a_table_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\nresearchlab = 3\n")
    with pytest.raises(SettingsError, match=r"'tool\.researchlab'"):
        read_settings(tmp_path)


def test_the_settings_of_a_repository_bind_its_snapshots(tmp_path: Path) -> None:
    from researchlab.tracking.snapshot import capture

    repo = make_repo(tmp_path, {"a": "x"})
    repo.write("id_rsa", "k")
    repo.write("large", "x" * 2000)
    table(repo.top, 'largest-file = "1 KiB"', 'allow-secrets = ["id_*"]')
    snapshot = capture(repo.top)
    assert {change.path for change in snapshot.changed} == {"id_rsa", "pyproject.toml"}
    (large,) = snapshot.left_out
    assert (large.path, large.size) == ("large", 2000)
