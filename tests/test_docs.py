from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<options>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block of code in a page.

    A Python block runs, with the names of the blocks above it on the page, unless its fence says ``no-run``.
    """

    page: Path
    line: int
    language: str
    options: str
    code: str

    @property
    def runs(self) -> bool:
        return "no-run" not in self.options


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            match["options"],
            re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE),
        )
        for match in FENCE.finditer(text)
    ]


PYTHON = {page: [block for block in blocks_of(page) if block.language == "python"] for page in PAGES}


def compiled(block: Block) -> object:
    # The empty lines make a traceback show the line of the page.
    return compile("\n" * block.line + block.code, str(block.page), "exec", dont_inherit=True)


def test_there_are_pages_with_python_in_them() -> None:
    assert sum(map(len, PYTHON.values())) > 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_compiles(page: Path) -> None:
    for block in PYTHON[page]:
        compiled(block)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.runs for block in PYTHON[page])],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "start"]):
        subprocess.run(["git", *command], check=True)
    (tmp_path / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    names: dict[str, object] = {"__name__": "page"}
    for block in PYTHON[page]:
        if block.runs:
            exec(compiled(block), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_links_to_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
