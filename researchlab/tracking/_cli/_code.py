"""Which commands bring the code of runs back, and compare it? `rlab restore`, `list`, `delete` and `diff`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from researchlab.tracking._cli._common import AsJson, Repo, RunId, TrackingUri, find, meant, print_json, print_table
from researchlab.tracking._cli._completion import complete_restored, complete_run
from researchlab.tracking._wording import changed_files, printable, some

if TYPE_CHECKING:
    from researchlab.tracking._checkouts._checkout import CheckedOut
    from researchlab.tracking._restoring._recorded_code import RecordedCode
    from researchlab.tracking.record import Record

_SHORT = 7
_NAMED = 20

_One: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN1", help="Id of a run, or `latest`.", autocompletion=complete_run)
]
_Other: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN2", help="Id of another run, or `latest`.", autocompletion=complete_run)
]


def restore_run(
    run: RunId,
    worktree: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", show_default=False, help="Leave the checkout alone, and make a work tree in this folder."
        ),
    ] = None,
    abort: Annotated[bool, typer.Option("--abort", help="Take back a restoration of RUN that was cut off.")] = False,  # noqa: FBT002
    tracking_uri: TrackingUri = None,
    repo: Repo = Path(),
    as_json: AsJson = False,  # noqa: FBT002 (how typer declares a flag)
) -> None:
    """Check the code of RUN out, on a new branch experiment/RUN.

    The branch starts at the base commit of the run; what was modified or untracked then is modified or untracked again.
    So it is in submodules and in repositories inside the work tree.

    Nothing is mixed: with uncommitted work (untracked files included; ignored ones stay and do not count) it refuses.
    When something fails on the way, or on Ctrl-C, the checkout goes back to where it was and the branch is deleted.
    After a kill or a power failure, --abort does that.
    """
    from researchlab.tracking._checkouts import _checkout
    from researchlab.tracking._git import find_repository
    from researchlab.tracking._restoring._recorded_code import RecordedCode

    if abort:
        taken_back = _checkout.take_back(meant(run, tracking_uri, repo), repo=repo)
        if as_json:
            print_json({"run_id": taken_back.run_id, "back": taken_back.top})
        else:
            where = printable(taken_back.top)
            typer.echo(f"Back to where {where} was before the restoration of {taken_back.run_id}.")
        return
    tracked = find(run, tracking_uri, repo)
    code = RecordedCode.of(tracked)
    done = _checkout.check_out(code, repo=repo, own=tracked.store.files(), worktree=worktree)
    absent, stale = _left_out(code, find_repository(repo).top if done.worktree is None else done.worktree)
    if as_json:
        facts = dataclasses.asdict(done) | {"worktree": None if done.worktree is None else str(done.worktree)}
        print_json({"run_id": code.run_id, **facts, "not_captured": absent, "as_in_the_base_commit": stale})
        return
    _tell(code, done, absent, stale)


def _tell(code: RecordedCode, done: CheckedOut, absent: tuple[str, ...], stale: tuple[str, ...]) -> None:
    changes = f"{changed_files(code.snapshot, 'changed file')} (uncommitted, as in the run)"
    place = "" if done.worktree is None else f" in {printable(str(done.worktree))}"
    typer.echo(f"Restored {code.run_id}{place}: branch {done.branch} at {done.base_commit[:_SHORT]}, {changes}.")
    if done.nested:
        typer.echo(f"With the repositories inside: {some(done.nested)}.")
    if done.created:
        typer.echo(f"Of them, not checked out before: {some(done.created)}.")
    if done.removal is not None:
        typer.echo(f"Going back leaves those there. To remove them with all that is in them: {printable(done.removal)}")
    if done.fetched is not None:
        typer.echo(f"The base commit was brought into the repository from {printable(done.fetched)}.")
    if absent:
        typer.echo(f"The run had more, which was not captured: {some(absent)}")
    if stale:
        typer.echo(f"Not as in the run, which did not capture them, but as in the base commit: {some(stale)}")
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
            + ("" if branch.base_commit in {None, branch.commit} else " (has commits of its own)")
            + (f" (was cut off: rlab restore {branch.run_id} --abort)" if branch.is_unfinished else ""),
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
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Delete the branch experiment/RUN. The tracked run itself stays as it is.

    It refuses when the branch is checked out, and, without --force, when it has commits that no other branch, remote or
    tag has.
    """
    from researchlab.tracking._checkouts._branches import delete_branch

    branch = delete_branch(run, repo=repo, force=force)
    if as_json:
        print_json(dataclasses.asdict(branch))
        return
    commit = branch.commit[:_SHORT]
    name = printable(branch.branch)
    typer.echo(f"Deleted branch {name} (was {commit}). To undo: git branch {name} {commit}")


def diff_runs(
    run1: _One,
    run2: _Other,
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
        ids = f"{codes[0].run_id} and {codes[1].run_id}"
        typer.echo(f"{same}: {ids} ran tree {codes[0].snapshot.tree[:12]}", err=True)
    for code, missing in zip(codes, unknown, strict=True):
        apart = [nested.path for nested in code.snapshot.nested if nested.object_format != code.snapshot.object_format]
        if apart:
            typer.echo(f"not compared, as {code.run_id} has it with another hash function: {some(apart)}", err=True)
        if missing:
            text = some(missing, most=_NAMED)
            typer.echo(f"not compared, as {code.run_id} did not capture it: {text}", err=True)


def _left_out(code: RecordedCode, top: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the run had and did not capture: what is absent now, and what stands there as the base commit has it.

    Args:
        code: The code of the run.
        top: Root of the work tree that it was restored into.
    """
    from researchlab.tracking import _git

    absent: list[str] = []
    stale: list[str] = []
    for path, record in (("", code.snapshot), *((nested.path, nested) for nested in code.snapshot.nested)):
        if not record.missing:
            continue
        here = _git.find_repository(top / path)
        base = _git.list_tree(record.base_commit, git_dir=here.git_dir) if record.base_commit is not None else {}
        for name in record.missing:
            known = name.encode("utf-8", "surrogateescape") in base
            (stale if known else absent).append(f"{path}/{name}" if path else name)
    return tuple(absent), tuple(stale)


def _may_differ(one: Record, other: Record) -> tuple[str, ...]:
    """Return what the snapshot of one run lacks and another run may have had with other bytes: what ran comes first.

    The same hash is the same file; of what looks like a secret there is none that could be compared.
    """
    if one.snapshot is None:
        return ()
    ours, theirs = _hashes(one), _hashes(other)
    missing = [path for path in one.snapshot.missing_everywhere if path not in ours or ours[path] != theirs.get(path)]
    roles = {item.path: item.role for item in one.inputs}
    return tuple(sorted(missing, key=lambda path: (roles.get(path) != "code", path not in roles)))


def _hashes(record: Record) -> dict[str, str]:
    snapshot = record.snapshot
    found = {item.path: item.sha256 for item in record.inputs if item.sha256 is not None}
    if snapshot is not None:
        for prefix, part in (("", snapshot), *((f"{inner.path}/", inner) for inner in snapshot.nested)):
            found |= {prefix + path: file.sha256 for path, file in part.large.items()}
    return found
