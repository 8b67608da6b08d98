"""What is said of an input that cannot be had as the run read it?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from researchlab.tracking._wording import counted, printable, size, some
from researchlab.tracking.record import RECORD_FOLDER
from researchlab.tracking.store import local_path

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from researchlab.tracking._guard import Touched
    from researchlab.tracking._reading._digests import Digest
    from researchlab.tracking.record import InputRecord, Record
    from researchlab.tracking.runs import TrackedRun

_SHORT = 12


class ChangedInputsError(Exception):
    """Inputs are not what the run read, or cannot be put in their place.

    Attributes:
        findings: A line for each of them.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        """Say what is wrong.

        Args:
            problems: Path to what is wrong with it.
        """
        self._paths = tuple(problems)
        self.findings = tuple(f"'{printable(path)}' {problem}" for path, problem in problems.items())
        super().__init__(self.reason())

    def reason(self) -> str:
        """Return all in one sentence."""
        if len(self.findings) == 1:
            return f"the input {self.findings[0]}"
        return f"{counted(len(self.findings), 'input')} cannot be had as the run read them: {some(self._paths)}"


def changed(item: InputRecord, others: Sequence[tuple[Path, Digest]], places: Sequence[Path]) -> str:
    """Say that an input is missing, or is another file now.

    Args:
        item: The input.
        others: Files that are at its places, and their digests.
        places: Where it was looked for.
    """
    where = some([str(place) for place in places])
    if item.sealed is not None:
        found = f"{printable(str(others[0][0]))} is another file" if others else f"there is no such file at {where}"
        return (
            f"{'changed' if others else 'is missing'}: {found}. It looks like a secret, so that only a salted digest "
            "of it is kept with the run. Put the file there that the run read, or track the run again"
        )
    recorded = f"sha256 {str(item.sha256)[:_SHORT]}, {size(item.size)}"
    lost = "" if item.stored is None else "is not in the store, or damaged there, and "
    if not others:
        return f"{lost}is missing (the run read {recorded}): there is no such file at {where}"
    place, digest = others[0]
    found = f"sha256 {digest.sha256[:_SHORT]}, {size(digest.size)}"
    return f"{lost}changed: the run read {recorded}; {printable(str(place))} has {found}"


def unknown_secret() -> str:
    """Say that nothing is known of the bytes of a file that looks like a secret."""
    return (
        "looks like a secret, and the run recorded nothing that tells its bytes again. Allow it with allow-secrets in "
        "[tool.researchlab], or take the secret out of it, and track the run again"
    )


def how_to_put(tracked: TrackedRun, item: InputRecord) -> str:
    """Say how an input comes to its absolute path, of which the run's artifacts have the bytes.

    Args:
        tracked: The run.
        item: The input.
    """
    name = f"{RECORD_FOLDER}/inputs/{item.sha256}"
    local = local_path(str(tracked.run.info.artifact_uri))
    if local is None:
        source = f"mlflow artifacts download --run-id {tracked.run.info.run_id} --artifact-path {name}"
        command = f"{source}, and copy the file to {shlex.quote(item.path)}"
    else:
        folder, file = shlex.quote(str(Path(item.path).parent)), shlex.quote(item.path)
        command = f"mkdir -p {folder} && cp {shlex.quote(str(local / name))} {file}"
    return f"its bytes are among the run's artifacts. Put them there: {printable(command)}"


def lost_program(record: Record, known: Container[str]) -> dict[str, str]:
    """Return what is to be said where the program itself was left out of the snapshot, and is no input either.

    Args:
        record: The run's record.
        known: Paths of the inputs.

    Returns:
        Path of the program -> what is wrong with it, or nothing.
    """
    target, snapshot = record.command.target, record.snapshot
    if record.command.kind != "script" or target is None or snapshot is None or target in known:
        return {}
    for prefix, part in (("", snapshot), *((f"{inner.path}/", inner) for inner in snapshot.nested)):
        reason = part.left_out.get(target.removeprefix(prefix)) if target.startswith(prefix) else None
        if reason is not None:
            return {target: f"is the program itself and {reason}: nothing is known of what ran. Track the run again"}
    return {}


def why_escaped(
    foreign: Sequence[str], touched: Touched, *, tracked: TrackedRun, record: Record, checkouts: str
) -> str | None:
    """Say why a re-execution was not one of the restored tree alone, or None where it was.

    Args:
        foreign: Modules that came from a checkout.
        touched: Files of a checkout that it opened.
        tracked: The run.
        record: Its record.
        checkouts: The checkouts, in words.
    """
    if foreign:
        return (
            f"{some(foreign)} came from {checkouts}, not from the restored tree. An import hook of an editable install "
            "does that, or an absolute path that the program puts on sys.path. Install the project without -e, or in a "
            "mode that puts its folder on sys.path (for setuptools: --config-settings editable_mode=compat), and let "
            "the program find its own folders from Path(__file__)"
        )
    advice = "Name it from Path(__file__).parent or relative to the working directory, and track the run again"
    if touched.written:
        return (
            f"the program writes to {some(touched.written)}, by an absolute path, which a re-execution does not do in "
            f"{checkouts}. {advice}"
        )
    if touched.read:
        return (
            f"the program reads {some(touched.read)}, by an absolute path, from {checkouts}, and not from the restored "
            f"tree. {advice}"
        )
    if touched.absent:
        absent = {item.path: item for item in record.inputs}.get(touched.absent[0])
        how = "" if absent is None else f": {how_to_put(tracked, absent)}"
        return f"the program opens {some(touched.absent)} by an absolute path, where it is not as the run read it{how}"
    return None
