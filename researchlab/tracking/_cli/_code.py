"""Which commands bring the code of runs back, and compare it? `rlab restore`, `list`, `delete` and `diff`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from researchlab.tracking._cli._common import AsJson, Repo, RunId, TrackingUri, find, print_json, print_table
from researchlab.tracking._cli._completion import complete_restored, complete_run
from researchlab.tracking._wording import counted, printable, some

if TYPE_CHECKING:
    from researchlab.tracking.record import Record, SnapshotRecord

_SHORT = 7
_NAMED = 20


def restore_run(
    run: RunId,
    worktree: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", show_default=False, help="Leave the checkout alone, and make a work tree in this folder."
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
) -> None:
    """Check the code of RUN out, on a new branch experiment/RUN.

    The branch starts at the base commit of the run; what was modified or untracked then is modified or untracked again.
    So it is in submodules and in repositories inside the work tree.

    Nothing is mixed: with uncommitted work (untracked files included; ignored ones stay and do not count) it refuses.
    When something fails on the way, or on Ctrl-C, the checkout goes back to where it was and the branch is deleted.
    """
    from researchlab.tracking._checkouts import _checkout
    from researchlab.tracking._restoring._recorded_code import RecordedCode

    tracked = find(run, tracking_uri, repo)
    code = RecordedCode.of(tracked)
    done = _checkout.check_out(code, repo=repo, own=tracked.store.files(), worktree=worktree)
    changes = f"{counted(done.changed, 'changed file')} (uncommitted, as in the run)"
    place = "" if done.worktree is None else f" in {printable(str(done.worktree))}"
    typer.echo(f"Restored {code.run_id}{place}: branch {done.branch} at {done.base_commit[:_SHORT]}, {changes}.")
    if done.nested:
        typer.echo(f"With the repositories inside: {some(done.nested)}.")
    if done.created:
        typer.echo(f"Of them, not checked out before: {some(done.created)}.")
    if done.fetched is not None:
        typer.echo(f"The base commit was brought into the repository from {printable(done.fetched)}.")
    missing = _not_captured(code.snapshot)
    if missing:
        typer.echo(f"The run had more, which was not captured: {some(missing)}")
    if done.submodules:
        typer.echo(f"Submodules at another commit than the run's: {some(done.submodules)}. See `git submodule update`.")
    typer.echo(f"{'To go back' if done.worktree is None else 'To remove it'}: {printable(done.way_back)}")


def list_restored(repo: Repo = Path(), as_json: AsJson = False) -> None:  # noqa: FBT002 (how typer declares a flag)
    """List the runs that are restored in this repository: its branches experiment/*."""
    from researchlab.tracking._checkouts._branches import list_branches

    branches = list_branches(repo)
    if as_json:
        print_json([dataclasses.asdict(branch) for branch in branches])
        return
    if not branches:
        typer.echo("No restored runs: there is no branch experiment/* here. `rlab restore RUN` makes one.")
        return
    rows = [
        (
            printable(branch.run_id),
            (branch.base_commit or "?")[:_SHORT],
            branch.date[:10],
            printable(branch.checked_out_at or "-"),
            printable(branch.subject)
            + ("" if branch.base_commit in {None, branch.commit} else " (has commits of its own)"),
        )
        for branch in branches
    ]
    print_table(("run", "base", "date", "checked out", "subject"), rows)


def delete_restored(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Id of a restored run (`rlab list` lists them).", autocompletion=complete_restored
        ),
    ],
    repo: Repo = Path(),
    force: Annotated[bool, typer.Option("--force", help="Also when its commits are nowhere else.")] = False,  # noqa: FBT002
) -> None:
    """Delete the branch experiment/RUN. The tracked run itself stays as it is.

    It refuses when the branch is checked out, and, without --force, when it has commits that no other branch, remote or
    tag has.
    """
    from researchlab.tracking._checkouts._branches import delete_branch

    branch = delete_branch(run, repo=repo, force=force)
    commit = branch.commit[:_SHORT]
    name = printable(branch.branch)
    typer.echo(f"Deleted branch {name} (was {commit}). To undo: git branch {name} {commit}")


def diff_runs(
    run1: Annotated[str, typer.Argument(metavar="RUN1", help="Id of a run.", autocompletion=complete_run)],
    run2: Annotated[str, typer.Argument(metavar="RUN2", help="Id of another run.", autocompletion=complete_run)],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", show_default=False, help="Only these paths, behind `--`: pathspecs as git has them."
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
) -> None:
    """Show how the code of RUN1 and RUN2 differs, as git does: from RUN1 to RUN2, whatever their base commits.

    On a terminal with your colours and your pager, else as plain text. Files of submodules and of repositories inside
    the work tree stand under their paths. The exit code is 0 also when they differ.
    """
    from researchlab.tracking._restoring._difference import show_difference
    from researchlab.tracking._restoring._recorded_code import RecordedCode

    found = [find(run, tracking_uri, repo) for run in (run1, run2)]
    codes = [RecordedCode.of(run) for run in found]
    records = [run.record() for run in found]
    to = None if sys.stdout.isatty() else sys.stdout.buffer
    differ = show_difference(*codes, repo=repo, to=to, paths=paths or ())
    unknown = [_may_differ(one, other) for one, other in (records, records[::-1])]
    if not differ:
        same = "same code, as far as it was captured" if any(unknown) else "same code"
        typer.echo(f"{same}: {run1} and {run2} ran tree {codes[0].snapshot.tree[:12]}", err=True)
    for code, missing in zip(codes, unknown, strict=True):
        apart = [nested.path for nested in code.snapshot.nested if nested.object_format != code.snapshot.object_format]
        if apart:
            typer.echo(f"not compared, as {code.run_id} has it with another hash function: {some(apart)}", err=True)
        if missing:
            text = some(missing, most=_NAMED)
            typer.echo(f"not compared, as {code.run_id} did not capture it: {text}", err=True)


def _may_differ(one: Record, other: Record) -> tuple[str, ...]:
    """Return what the snapshot of one run lacks and another run may have had with other bytes: what ran comes first.

    The same hash is the same file; of what looks like a secret there is none that could be compared.
    """
    if one.snapshot is None:
        return ()
    ours, theirs = _hashes(one), _hashes(other)
    missing = [path for path in _not_captured(one.snapshot) if path not in ours or ours[path] != theirs.get(path)]
    roles = {item.path: item.role for item in one.inputs}
    return tuple(sorted(missing, key=lambda path: (roles.get(path) != "code", path not in roles)))


def _hashes(record: Record) -> dict[str, str]:
    snapshot = record.snapshot
    found = {item.path: item.sha256 for item in record.inputs if item.sha256 is not None}
    if snapshot is not None:
        for prefix, part in (("", snapshot), *((f"{inner.path}/", inner) for inner in snapshot.nested)):
            found |= {prefix + path: file.sha256 for path, file in part.large.items()}
    return found


def _not_captured(snapshot: SnapshotRecord) -> tuple[str, ...]:
    """Return what the snapshot lacks, the MLflow store aside, which is not code."""
    from researchlab.tracking.store import default_files

    store = {str(path) for path in default_files(Path())}
    inside = (f"{nested.path}/{path}" for nested in snapshot.nested for path in nested.left_out)
    return (*(path for path in snapshot.left_out if path not in store), *inside)
