"""Are these two trees of numbers the same, bit for bit, and if not, where and by how much?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from researchlab._lazy import lazy_names

if TYPE_CHECKING:
    from researchlab.numerics.compare import LeafDifference as LeafDifference
    from researchlab.numerics.compare import compare_leaves as compare_leaves
    from researchlab.numerics.compare_metrics import compare_metrics as compare_metrics
    from researchlab.numerics.history import MetricHistory as MetricHistory
    from researchlab.numerics.leaves import Leaf as Leaf
    from researchlab.numerics.leaves import leaves_of as leaves_of
    from researchlab.numerics.ulp import ulp_distance as ulp_distance

__all__ = [
    "Leaf",
    "LeafDifference",
    "MetricHistory",
    "compare_leaves",
    "compare_metrics",
    "leaves_of",
    "ulp_distance",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Leaf": "researchlab.numerics.leaves",
        "LeafDifference": "researchlab.numerics.compare",
        "MetricHistory": "researchlab.numerics.history",
        "compare_leaves": "researchlab.numerics.compare",
        "compare_metrics": "researchlab.numerics.compare_metrics",
        "leaves_of": "researchlab.numerics.leaves",
        "ulp_distance": "researchlab.numerics.ulp",
    },
)
