"""What is the user told of the inputs of a run, when it ends?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from researchlab.tracking._wording import some
from researchlab.tracking.record import CHANGED, STALE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from researchlab.tracking.record import InputRecord


def warnings_of(records: Sequence[InputRecord]) -> Iterator[str]:
    """Yield a line for each kind of input that the user should know of.

    Args:
        records: What the record says of the inputs.
    """
    stale = [record.path for record in records if record.why == STALE]
    if stale:
        yield (
            f"Ran from compiled files that their sources do not give: {some(stale)}. The recorded code is not what "
            "ran, so that the run cannot be executed again. Delete the __pycache__ folders and run again."
        )
    changed = [record.path for record in records if record.sha256 is None and record.required and CHANGED in record.why]
    if changed:
        yield (
            f"Read, and then changed or deleted while the run lasted: {some(changed)}. The bytes that were read are "
            "not known, so that the run cannot be executed again. For data that a run reads and then overwrites: keep "
            "a copy, and declare it with tracker.log_input(path) before it changes."
        )
    records = [record for record in records if record.path not in {*stale, *changed} and record.required]
    code = [record for record in records if record.role == "code"]
    edited = [record.path for record in records if "was edited" in record.why]
    outside = [record.path for record in records if record.path.startswith("/") and record.role != "declared"]
    apart = {*edited, *outside}
    ignored = [record.path for record in code if record.path not in apart]
    if ignored:
        kept = {record.path for record in code if record.stored is not None}
        lost = [path for path in ignored if path not in kept]
        tail = "their bytes are kept with the run" if not lost else f"the bytes of {some(lost)} are not kept"
        yield f"Imported, but not part of the recorded code: {some(ignored)}; {tail}."
    if edited:
        yield (
            f"Edited after the code was captured, or before and after it was read: {some(edited)}. "
            "What ran is not exactly the snapshot; the record of the run says more."
        )
    if outside:
        yield (
            f"Read from outside of the repository, and recorded by hash only: {some(outside)}. "
            "A re-execution needs the same files there."
        )
