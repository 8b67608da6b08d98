"""Which commands tell what was tracked? `rlab runs` and `rlab show`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from researchlab.tracking._cli._common import (
    AsJson,
    Experiment,
    Repo,
    RunId,
    TrackingUri,
    find,
    print_json,
    print_table,
)
from researchlab.tracking._wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.tracking._cli._shown import Section

_INDENT = 2
_WIDTH = 14  # the longest label and two spaces


def list_tracked(
    experiment: Experiment = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most so many, the newest.")] = 50,
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
    as_json: AsJson = False,  # noqa: FBT002 (how typer declares a flag)
) -> None:
    """List the tracked runs, the newest first.

    `dirty` is the number of files that differed from the base commit, captured or left out. A status `gone` is that of
    a run whose process was killed outright. `verdict` is what `rlab reproduce --tag` found last.
    """
    from researchlab.tracking._cli._listing import COLUMNS, describe_runs
    from researchlab.tracking.runs import FIRST_RUN, existing_store, list_runs, missing_default_store

    missing = missing_default_store(tracking_uri, repo=repo)
    if missing is not None:  # a new project, and no error
        if as_json:
            print_json([])
        else:
            typer.echo(f"No run was tracked here yet: there is no {printable(str(missing))}.\n{FIRST_RUN}")
        return
    store = existing_store(tracking_uri, repo=repo)
    found = list_runs(tracking_uri=store.tracking_uri, experiment=experiment, repo=repo, limit=limit + 1)
    entries = describe_runs(found[:limit])
    if as_json:
        print_json([dataclasses.asdict(entry) for entry in entries])
    elif not entries:
        typer.echo(f"No tracked runs in {store.name}.")
    else:
        print_table(COLUMNS, [entry.row() for entry in entries])
    if len(found) > limit:
        typer.echo("Older ones are not shown (--limit).", err=True)


def show_run(
    run: RunId,
    everything: Annotated[bool, typer.Option("--all", help="Cut no list short, and list the packages.")] = False,  # noqa: FBT002
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Show what was recorded of RUN: command, code, what was left out, inputs, environment, results.

    With --json, the record as it is stored.
    """
    from researchlab.tracking._cli._shown import sections_of

    tracked = find(run, tracking_uri, repo)
    record = tracked.record()
    if as_json:
        typer.echo(record.to_json())
        return
    _print_sections(sections_of(tracked, record, everything=everything))


def _print_sections(sections: Sequence[Section]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(markup=False, highlight=False, emoji=False)
    text = Text()
    for number, section in enumerate(sections):
        text.append(("\n" if number else "") + printable(section.title) + "\n", style="bold")
        for fact in section.facts:
            for place, line in enumerate(fact.lines):
                label = printable(fact.label) if place == 0 else ""
                text.append(f"{'':<{_INDENT}}{label:<{_WIDTH}}", style="dim")
                text.append(printable(line) + "\n", style=fact.style)
    if console.is_terminal:
        console.print(text, end="", soft_wrap=True)
    else:
        typer.echo(text.plain, nl=False)
