"""What do all commands of `rlab` share: options, exit codes, errors, and how they print?"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias

import typer
from typer.core import TyperGroup

from researchlab.errors import ResearchlabError
from researchlab.tracking._cli._completion import complete_experiment, complete_run
from researchlab.tracking._wording import printable_lines, with_store_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.tracking.runs import TrackedRun

EXIT_OTHER_VERDICT = 1
"""Exit code of `rlab reproduce` when a run was not REPRODUCED."""

EXIT_REFUSED = 2
"""Exit code of everything that researchlab refuses, and of a command line that makes no sense."""

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as shells say it."""

EXIT_NOT_READ = 141
"""Exit code when who read the output went away before its end (`rlab runs | head -1`); nothing is printed."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 a run was not REPRODUCED (only `rlab reproduce`); 2 refused, or a command line that makes "
    "no sense; 130 interrupted."
)


LATEST = "latest"
"""What names the newest run, wherever a run is named."""


class Group(TyperGroup):
    """A group of commands whose errors are one clean message."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with with_store_option("--tracking-uri"):
                result = super().invoke(ctx)
            sys.stdout.flush()
        except ResearchlabError as error:
            refuse(str(error))
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _forget_output()
            raise typer.Exit(EXIT_NOT_READ) from None
        except OSError as error:  # a full disk, a folder that may not be read
            if _is_output_stuck():
                _forget_output()
                refuse(f"stdout could not be written: {error.strerror or error}")
            refuse(str(error))
        else:
            return result


def refuse(message: str) -> NoReturn:
    """Say why nothing was done, and end with the exit code for that."""
    typer.echo(f"error: {printable_lines(message)}", err=True)
    raise typer.Exit(EXIT_REFUSED) from None


def _is_output_stuck() -> bool:
    """Return whether stdout has something left that it does not get rid of."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return True
    return False


def _forget_output() -> None:
    """Let the interpreter flush what is left to nowhere when it ends: it would complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


RunId: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Id of the run (`rlab runs` lists them), or MLflow's; `latest` is the newest.",
        autocompletion=complete_run,
    ),
]
Repo: TypeAlias = Annotated[Path, typer.Option(metavar="DIR", help="The repository, or any folder inside it.")]
TrackingUri: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        show_default=False,
        help="The MLflow store. By default what MLFLOW_TRACKING_URI says, else mlflow.db at the repository's root.",
    ),
]
Experiment: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Only runs of this experiment.", autocompletion=complete_experiment),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def find(run: str, tracking_uri: str | None, repo: Path) -> TrackedRun:
    """Return the run; to look for one makes no store."""
    from researchlab.tracking.runs import find_run

    return find_run(meant(run, tracking_uri, repo), tracking_uri=tracking_uri, repo=repo)


def meant(run: str, tracking_uri: str | None, repo: Path) -> str:
    """Return the id of the run that was named, which `latest` is not."""
    if run != LATEST:
        return run
    from researchlab.tracking.runs import resolve_references

    return resolve_references([run], tracking_uri=tracking_uri, repo=repo)[0]


def print_json(document: Any) -> None:
    """Print a document as JSON in ASCII."""
    import json

    typer.echo(json.dumps(document, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole: int = 1) -> None:
    """Print a table: fitted to a terminal; with whole cells where a program reads.

    Args:
        columns: Names of the columns.
        rows: The cells, fit to be printed.
        whole: How many of the first columns are never cut.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=True, overflow="fold" if number < whole else "ellipsis")
    for row in rows:
        table.add_row(*row)
    console.print(table)
