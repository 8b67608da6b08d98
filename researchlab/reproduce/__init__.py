"""Does it come back? Restores a tracked run, executes it again, and gives a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from researchlab._lazy import lazy_names

if TYPE_CHECKING:
    from researchlab.reproduce._reproduce import reproduce as reproduce
    from researchlab.reproduce.verdict import Divergence as Divergence
    from researchlab.reproduce.verdict import Verdict as Verdict
    from researchlab.reproduce.verdict import VerdictKind as VerdictKind
    from researchlab.tracking._signals import Terminated as Terminated

__all__ = ["Divergence", "Terminated", "Verdict", "VerdictKind", "reproduce"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Divergence": "researchlab.reproduce.verdict",
        "Terminated": "researchlab.tracking._signals",
        "Verdict": "researchlab.reproduce.verdict",
        "VerdictKind": "researchlab.reproduce.verdict",
        "reproduce": "researchlab.reproduce._reproduce",
    },
)
