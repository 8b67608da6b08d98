"""What is `rlab`? The commands of `researchlab.tracking.cli`, and `reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from researchlab.tracking.cli import Experiment, Group, Repo, TrackingUri, existing_store
from researchlab.tracking.cli import app as tracking_app

EXIT_OTHER_VERDICT = 1
"""Exit code of `rlab reproduce` when a run was not REPRODUCED."""

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Tracked runs: find them, get their code back, and run them again to see whether the same bits come back.",
)
app.add_typer(tracking_app)


@app.command("reproduce")
def reproduce_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs; also `latest` and `all`.")],
    experiment: Experiment = None,
    timeout: Annotated[float | None, typer.Option(min=0.0, metavar="SECONDS", help="Limit for each execution.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch folder, and name it.")] = False,  # noqa: FBT002
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
) -> None:
    """Run RUN again from its base commit and patch, and say whether the same bits came back.

    Nothing of the repository and of the stored run changes. Exit code 0 when all are REPRODUCED, 1 when one is not,
    2 when a run cannot be found or read.
    """
    from researchlab.reproduce import reproduce
    from researchlab.tracking.runs import resolve_references

    store = existing_store(tracking_uri, repo)
    run_ids = resolve_references(runs, tracking_uri=store.tracking_uri, experiment=experiment, repo=repo)
    verdicts: list[bool] = []
    for run_id in run_ids:
        verdict = reproduce(run_id, tracking_uri=store.tracking_uri, repo=repo, timeout=timeout, keep=keep)
        typer.echo(verdict.report())
        verdicts.append(verdict.ok)
    if len(verdicts) > 1:
        typer.echo(f"{sum(verdicts)} of {len(verdicts)} runs reproduced.")
    if not all(verdicts):
        raise typer.Exit(EXIT_OTHER_VERDICT)


def main() -> None:
    """Run `rlab`."""
    app(prog_name="rlab")
