"""Which commands move a run from one place to another as a file? `rlab export` and `rlab import`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from researchlab.tracking._cli._common import AsJson, Repo, RunId, TrackingUri, meant, print_json
from researchlab.tracking._wording import printable, size

_SHORT = 12
_NAMED = 10


def export_run(
    run: RunId,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="The file to write.")],
    inputs_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            show_default=False,
            help="How much the files that the run read may take together, as in `10 MiB`.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,  # noqa: FBT002
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Write RUN into one self-contained file, from which somebody else can execute it again.

    It holds the record, the code with its base commit, the trace, and the files that the run read, within a budget.
    """
    from researchlab.tracking import exchange

    limit = None if inputs_limit is None else _bytes(inputs_limit)
    run_id = meant(run, tracking_uri, repo)
    done = exchange.export_run(run_id, file, tracking_uri=tracking_uri, repo=repo, inputs_limit=limit, overwrite=force)
    if as_json:
        print_json(done.to_json())
        return
    digest = f"sha256 {done.sha256[:_SHORT]}"
    typer.echo(f"Exported {printable(done.run_id)} to {printable(str(file))} ({size(done.size)}, {digest}).")
    for item in done.left_out[:_NAMED]:
        typer.echo(f"Left out: {printable(item.path)} ({printable(item.why)})")
    if len(done.left_out) > _NAMED:
        typer.echo(f"Left out: {len(done.left_out) - _NAMED} more (--json names them)")
    typer.echo(f"Import it with: rlab import {printable(shlex.quote(file.name))}")


def import_run(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="What `rlab export` wrote.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it, and show what is in it.")] = False,  # noqa: FBT002
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Take the run in FILE into the store, after checking all of it. Nothing of it is run.

    It shows what `rlab reproduce` would execute.
    """
    from researchlab.tracking import exchange

    if dry_run:
        checked = exchange.inspect_file(file)
        if as_json:
            print_json(checked.to_json())
        else:
            typer.echo(checked.summary())
        return
    done = exchange.import_run(file, tracking_uri=tracking_uri, repo=repo)
    if as_json:
        stored = {"mlflow_run_id": done.mlflow_run_id, "store": done.store, "already_there": done.already_there}
        print_json({**done.exported.to_json(), **stored})
        return
    typer.echo(done.exported.summary())
    name = printable(done.run_id)
    if done.already_there:
        typer.echo(f"{name} is already in {done.store}; nothing was changed.")
    else:
        typer.echo(f"Imported {name} into {done.store}. To execute it on this machine: rlab reproduce {name}")


def _bytes(text: str) -> int:
    import pydantic

    from researchlab.tracking.settings import Size

    try:
        return pydantic.TypeAdapter(Size).validate_python(text)
    except pydantic.ValidationError as error:
        raise typer.BadParameter(str(error.errors()[0]["msg"]), param_hint="--inputs-limit") from error
