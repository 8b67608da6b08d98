"""What can be done with the code of tracked runs on the command line?

`rlab restore`, `list`, `delete`, `diff` and `runs`. Everything heavy is imported inside the commands, so that
`rlab --help` answers at once. Exit codes: 0, or 2 with one `error:` on stderr for everything that researchlab refuses.
"""

from __future__ import annotations

import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from typer.core import TyperGroup

from researchlab.errors import ResearchlabError, RunNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.tracking._recorded_code import RecordedCode
    from researchlab.tracking.runs import TrackedRun
    from researchlab.tracking.store import Store

EXIT_REFUSED = 2
"""Exit code of everything that researchlab refuses, and of a command line that makes no sense."""

_SHORT = 7
_NAMED = 5


class Group(TyperGroup):
    """A group of commands whose errors are one clean message."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ResearchlabError as error:
            typer.echo(f"error: {_printable(str(error))}", err=True)
            raise typer.Exit(EXIT_REFUSED) from None


app = typer.Typer(cls=Group, no_args_is_help=True, help="Tracked runs: find them, and get their code back.")

RunId: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run (`rlab runs` lists them).")]
Repo: TypeAlias = Annotated[Path, typer.Option(metavar="DIR", help="The repository, or any folder inside it.")]
TrackingUri: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        show_default=False,
        help="The MLflow store. By default what MLFLOW_TRACKING_URI says, else mlflow.db at the repository's root.",
    ),
]
Experiment: TypeAlias = Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this experiment.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command("restore")
def restore_run(run: RunId, tracking_uri: TrackingUri = None, repo: Repo = Path()) -> None:
    """Check the code of RUN out, on a new branch experiment/RUN.

    The branch starts at the base commit of the run; what was modified or untracked then is modified or untracked again.

    Nothing is mixed: with uncommitted work (untracked files included; ignored ones stay and do not count) it refuses.
    When something fails on the way, or on Ctrl-C, the checkout goes back to where it was and the branch is deleted.
    """
    from researchlab.tracking import _checkout

    store = existing_store(tracking_uri, repo)
    code = _recorded_code(run, store, repo)
    done = _checkout.check_out(code, repo=repo, own=store.files())
    changes = f"{done.changed} changed file{'' if done.changed == 1 else 's'} (uncommitted, as in the run)"
    typer.echo(f"Restored {code.run_id}: branch {done.branch} at {done.base_commit[:_SHORT]}, {changes}.")
    missing = _not_captured(code)
    if missing:
        typer.echo(f"The run had more, which was not captured: {_some(missing)}")
    if done.submodules:
        typer.echo(
            f"Submodules at another commit than the run's: {_some(done.submodules)}. See `git submodule update`."
        )
    typer.echo(f"To go back: {done.way_back}")


@app.command("list")
def list_restored(repo: Repo = Path(), as_json: AsJson = False) -> None:  # noqa: FBT002 (how typer declares a flag)
    """List the runs that are restored in this repository: its branches experiment/*."""
    from researchlab.tracking._branches import list_branches

    branches = list_branches(repo)
    if as_json:
        _print_json([dataclasses.asdict(branch) for branch in branches])
        return
    if not branches:
        typer.echo("No restored runs: there is no branch experiment/* here. `rlab restore RUN` makes one.")
        return
    rows = [
        (
            branch.run_id,
            (branch.base_commit or "?")[:_SHORT],
            branch.date[:10],
            branch.checked_out_at or "-",
            branch.subject + ("" if branch.base_commit in {None, branch.commit} else " (has commits of its own)"),
        )
        for branch in branches
    ]
    _print_table(("run", "base", "date", "checked out", "subject"), rows)


@app.command("delete")
def delete_restored(
    run: RunId,
    repo: Repo = Path(),
    force: Annotated[bool, typer.Option("--force", help="Also when its commits are nowhere else.")] = False,  # noqa: FBT002
) -> None:
    """Delete the branch experiment/RUN. The tracked run itself stays as it is.

    It refuses when the branch is checked out, and, without --force, when it has commits that no other branch, remote or
    tag has.
    """
    from researchlab.tracking._branches import delete_branch

    branch = delete_branch(run, repo=repo, force=force)
    commit = branch.commit[:_SHORT]
    typer.echo(f"Deleted branch {branch.branch} (was {commit}). To undo: git branch {branch.branch} {commit}")


@app.command("diff")
def diff_runs(
    run1: Annotated[str, typer.Argument(metavar="RUN1", help="Id of a run.")],
    run2: Annotated[str, typer.Argument(metavar="RUN2", help="Id of another run.")],
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
) -> None:
    """Show how the code of RUN1 and RUN2 differs, as git does: from RUN1 to RUN2, whatever their base commits.

    On a terminal with your colours and your pager, else as plain text. The exit code is 0 also when they differ.
    """
    from researchlab.tracking._difference import show_difference

    store = existing_store(tracking_uri, repo)
    codes = [_recorded_code(run, store, repo) for run in (run1, run2)]
    differ = show_difference(*codes, repo=repo, to=None if sys.stdout.isatty() else sys.stdout.buffer)
    if not differ:
        typer.echo(f"same code: {run1} and {run2} ran tree {codes[0].snapshot.tree[:12]}", err=True)
    for code in codes:
        missing = _not_captured(code)
        if missing:
            typer.echo(f"not compared, as {code.run_id} did not capture it: {_some(missing)}", err=True)


@app.command("runs")
def list_tracked(
    experiment: Experiment = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most so many, the newest.")] = 50,
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """List the tracked runs, the newest first."""
    from researchlab.tracking.runs import list_runs

    store = existing_store(tracking_uri, repo)
    runs = list_runs(tracking_uri=store.tracking_uri, experiment=experiment, repo=repo)
    entries = _describe(runs[:limit])
    if as_json:
        _print_json([dataclasses.asdict(entry) for entry in entries])
        return
    if not runs:
        typer.echo(f"No tracked runs in {store.tracking_uri}.")
        return
    rows = [
        (it.run_id, it.started_at[:16], it.status, it.experiment, (it.base_commit or "-")[:_SHORT]) for it in entries
    ]
    _print_table(("run", "started", "status", "experiment", "base"), rows)
    if len(runs) > limit:
        typer.echo(f"{len(runs) - limit} older ones are not shown (--limit).", err=True)


def existing_store(tracking_uri: str | None, repo: Path) -> Store:
    """Return the store in use here; to look for a run must not make one.

    Raises:
        RunNotFoundError: There is no store yet.
        StoreError: The URI names a folder, in which MLflow keeps no runs any more.
    """
    from researchlab.tracking.runs import default_root
    from researchlab.tracking.store import resolve_store

    store = resolve_store(tracking_uri, default_root(repo))
    if store.database is not None and not store.database.exists():
        message = (
            f"There are no tracked runs: the store {store.tracking_uri} does not exist. "
            "Name another one with --tracking-uri or MLFLOW_TRACKING_URI, or another repository with --repo."
        )
        raise RunNotFoundError(message)
    return store


@dataclasses.dataclass(frozen=True)
class _Entry:
    run_id: str
    mlflow_run_id: str
    experiment: str
    status: str
    started_at: str
    ended_at: str | None
    base_commit: str | None
    tree: str | None


def _describe(runs: Sequence[TrackedRun]) -> list[_Entry]:
    from researchlab.tracking.record import BASE_COMMIT_TAG, TREE_TAG
    from researchlab.tracking.store import quiet_mlflow

    numbers = {run.run.info.experiment_id for run in runs}
    with quiet_mlflow():
        names = {number: runs[0].client.get_experiment(number).name for number in numbers}
    return [
        _Entry(
            run_id=run.run_id,
            mlflow_run_id=str(run.run.info.run_id),
            experiment=str(names[run.run.info.experiment_id]),
            status=str(run.run.info.status),
            started_at=_iso(run.run.info.start_time) or "?",
            ended_at=_iso(run.run.info.end_time),
            base_commit=run.run.data.tags.get(BASE_COMMIT_TAG),
            tree=run.run.data.tags.get(TREE_TAG),
        )
        for run in runs
    ]


def _recorded_code(run: str, store: Store, repo: Path) -> RecordedCode:
    from researchlab.tracking._recorded_code import RecordedCode
    from researchlab.tracking.runs import find_run

    return RecordedCode.of(find_run(run, tracking_uri=store.tracking_uri, repo=repo))


def _not_captured(code: RecordedCode) -> tuple[str, ...]:
    """Return what the snapshot lacks, the MLflow store aside, which is not code."""
    from researchlab.tracking.store import default_files

    store = {str(path) for path in default_files(Path())}
    return tuple(path for path in code.snapshot.left_out if path not in store)


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).astimezone().isoformat(timespec="seconds")


def _print_json(entries: Sequence[dict[str, Any]]) -> None:
    import json

    typer.echo(json.dumps(entries, indent=2))


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: fitted to a terminal, its first column never cut; with whole cells where a program reads."""
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
        table.add_column(column, no_wrap=True, overflow="fold" if number == 0 else "ellipsis")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(_printable(name) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _printable(text: str) -> str:
    """Return the text without the lone surrogates that stand for bytes which are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()
