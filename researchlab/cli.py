"""What is `rlab`? The commands of `researchlab.tracking.cli`, and `reproduce`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from researchlab.tracking._cli._common import (
    EXIT_CODES,
    EXIT_OTHER_VERDICT,
    Experiment,
    Group,
    Repo,
    TrackingUri,
    find,
)
from researchlab.tracking._cli._completion import complete_reference
from researchlab.tracking._wording import printable_lines
from researchlab.tracking.cli import app as tracking_app

if TYPE_CHECKING:
    from researchlab.reproduce.verdict import Verdict

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tracked runs: find them, get their code back, and run them again to see whether the same bits come back.",
    epilog=EXIT_CODES,
)
app.add_typer(tracking_app)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (how typer calls it)
    if wanted:
        import importlib.metadata

        typer.echo(f"researchlab {importlib.metadata.version('researchlab')}")
        raise typer.Exit


@app.callback()
def take_options(
    version: Annotated[  # noqa: FBT002
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command("reproduce", epilog=EXIT_CODES)
def reproduce_runs(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Ids of runs; also `latest` and `all`.", autocompletion=complete_reference
        ),
    ],
    experiment: Experiment = None,
    timeout: Annotated[float | None, typer.Option(min=0.0, metavar="SECONDS", help="Limit for each execution.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch folder, and name it.")] = False,  # noqa: FBT002
    tag: Annotated[  # noqa: FBT002
        bool, typer.Option("--tag", help="Write the verdict onto the run: the tags rlab.verdict and rlab.verified_at.")
    ] = False,
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
) -> None:
    """Run RUN again from its base commit and patch, and say whether the same bits came back.

    Nothing of the repository changes, nor of the stored run, but for the tags that --tag asks for.
    """
    from researchlab.reproduce import reproduce
    from researchlab.tracking.runs import existing_store, resolve_references

    store = existing_store(tracking_uri, repo=repo)
    run_ids = resolve_references(runs, tracking_uri=store.tracking_uri, experiment=experiment, repo=repo)
    verdicts: list[bool] = []
    for run_id in run_ids:
        verdict = reproduce(run_id, tracking_uri=store.tracking_uri, repo=repo, timeout=timeout, keep=keep)
        typer.echo(printable_lines(verdict.report()))
        if tag:
            _note(verdict, run_id, store.tracking_uri, repo)
        verdicts.append(verdict.ok)
    if len(verdicts) > 1:
        typer.echo(f"{sum(verdicts)} of {len(verdicts)} runs reproduced.")
    if not all(verdicts):
        raise typer.Exit(EXIT_OTHER_VERDICT)


def _note(verdict: Verdict, run_id: str, tracking_uri: str, repo: Path) -> None:
    find(run_id, tracking_uri, repo).note_verdict(verdict.kind.value, at=datetime.now(UTC))


def main() -> None:
    """Run `rlab`."""
    app(prog_name="rlab")
