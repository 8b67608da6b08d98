"""What is `rlab`? The commands of `researchlab.tracking.cli`, and `reproduce`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from researchlab.tracking._cli._common import (
    EXIT_CODES,
    EXIT_OTHER_VERDICT,
    AsJson,
    Experiment,
    Group,
    Repo,
    TrackingUri,
    find,
    print_json,
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


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        message = f"{seconds:g} is no limit: give a number of seconds greater than 0."
        raise typer.BadParameter(message)
    return seconds


@app.command("reproduce", epilog=EXIT_CODES)
def reproduce_runs(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Ids of runs; also `latest` and `all`.", autocompletion=complete_reference
        ),
    ],
    experiment: Experiment = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", callback=_positive, help="Limit for each execution.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch folder, and name it.")] = False,  # noqa: FBT002
    tag: Annotated[  # noqa: FBT002
        bool, typer.Option("--tag", help="Write the verdict onto the run: the tags rlab.verdict and rlab.verified_at.")
    ] = False,
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Run RUN again from its base commit and patch, and say whether the same bits came back.

    Nothing of the repository changes, nor of the stored run, but for the tags that --tag asks for. A re-execution that
    the time limit ended writes none: it says nothing of the run.
    """
    from researchlab.reproduce import reproduce
    from researchlab.tracking.runs import existing_store, resolve_references

    store = existing_store(tracking_uri, repo=repo)
    run_ids = resolve_references(runs, tracking_uri=store.tracking_uri, experiment=experiment, repo=repo)
    verdicts: list[Verdict] = []
    try:
        for run_id in run_ids:
            verdict = reproduce(run_id, tracking_uri=store.tracking_uri, repo=repo, timeout=timeout, keep=keep)
            verdicts.append(verdict)
            if not as_json:
                typer.echo(printable_lines(verdict.report()))
            if tag:
                _note(verdict, run_id, store.tracking_uri, repo)
    finally:  # what is known is told, also when a later run cannot be read
        if as_json:
            print_json([verdict.to_json() for verdict in verdicts])
    good = sum(verdict.ok for verdict in verdicts)
    if len(verdicts) > 1 and not as_json:
        typer.echo(f"{good} of {len(verdicts)} runs reproduced.")
    if good < len(verdicts):
        raise typer.Exit(EXIT_OTHER_VERDICT)


def _note(verdict: Verdict, run_id: str, tracking_uri: str, repo: Path) -> None:
    if verdict.timed_out:
        typer.echo(f"{run_id} was not tagged: the time limit ended its re-execution.", err=True)
        return
    find(run_id, tracking_uri, repo).note_verdict(verdict.kind.value, at=datetime.now(UTC))


def main() -> None:
    """Run `rlab`."""
    app(prog_name="rlab")
