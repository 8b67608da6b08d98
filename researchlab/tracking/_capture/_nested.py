"""Which repositories lie inside a work tree, and inside each other?"""

from __future__ import annotations

import functools as ft
from dataclasses import dataclass
from typing import TYPE_CHECKING

from researchlab.errors import SnapshotError
from researchlab.tracking._capture._survey import KEPT_IN_MEMORY, UNREADABLE, Memory, Survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from researchlab.tracking._capture._scratch import Scratch
    from researchlab.tracking._git import Repository
    from researchlab.tracking.settings import Settings


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A repository and where it lies.

    Attributes:
        path: Its root, relative to the root of the outermost work tree; empty for the outermost.
        name: Its root, relative to the root of the repository around it.
        around: What differs in the repository around it; None for the outermost.
        survey: What differs in it.
    """

    path: bytes
    name: bytes
    around: Survey | None
    survey: Survey

    @property
    def is_submodule(self) -> bool:
        """Whether the repository around it knows it as a submodule."""
        return self.around is not None and self.around.inner[self.name].is_submodule

    def holds(self, other: Place) -> bool:
        """Whether another repository is this one or lies inside it."""
        return not self.path or other.path == self.path or other.path.startswith(self.path + b"/")


def survey_all(repository: Repository, *, exclude: Sequence[str], settings: Settings, scratch: Scratch) -> list[Place]:
    """List a repository and all that lie inside its work tree, each after the one around it; no file is read yet.

    One that cannot be listed is left out of the one around it.

    Args:
        repository: The outermost one.
        exclude: Files and folders to skip, in any of them.
        settings: What may be captured.
        scratch: Where stores of our own go; it has to last as long as the surveys.

    Raises:
        SnapshotError: git cannot list the outermost one.
    """
    memory = Memory(KEPT_IN_MEMORY)
    survey_at = ft.partial(Survey, exclude=exclude, settings=settings, memory=memory, scratch=scratch)
    outermost = survey_at(repository)
    places: list[Place] = []
    pending = [Place(b"", b"", None, outermost)]
    while pending:
        around = pending.pop()
        places.append(around)
        for name, inner in sorted(around.survey.inner.items(), reverse=True):
            path = around.path + b"/" + name if around.path else name
            try:
                survey = survey_at(inner.repository, prefix=path + b"/")
            except SnapshotError as error:
                around.survey.disown(name, f"{UNREADABLE}: {error}")
            else:
                pending.append(Place(path, name, around.survey, survey))
    return places


__all__ = ["Place", "survey_all"]
