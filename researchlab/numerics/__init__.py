"""Are these two trees of numbers the same, bit for bit, and if not, where? Knows neither MLflow nor pytest.

``researchlab.numerics.compare_metrics`` compares metric histories, ``researchlab.numerics.fingerprint`` has the
fingerprints of leaves; the names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from researchlab._lazy import lazy_names

if TYPE_CHECKING:
    from researchlab.numerics.compare import LeafDifference as LeafDifference
    from researchlab.numerics.compare import compare_leaves as compare_leaves
    from researchlab.numerics.history import MetricHistory as MetricHistory
    from researchlab.numerics.leaves import Leaf as Leaf
    from researchlab.numerics.leaves import leaves_of as leaves_of
    from researchlab.numerics.leaves import structure_text as structure_text
    from researchlab.numerics.scalars import decode_scalar as decode_scalar
    from researchlab.numerics.scalars import encode_scalar as encode_scalar
    from researchlab.numerics.ulp import ulp_distance as ulp_distance

__all__ = [
    "Leaf",
    "LeafDifference",
    "MetricHistory",
    "compare_leaves",
    "decode_scalar",
    "encode_scalar",
    "leaves_of",
    "structure_text",
    "ulp_distance",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Leaf": "researchlab.numerics.leaves",
        "LeafDifference": "researchlab.numerics.compare",
        "MetricHistory": "researchlab.numerics.history",
        "compare_leaves": "researchlab.numerics.compare",
        "decode_scalar": "researchlab.numerics.scalars",
        "encode_scalar": "researchlab.numerics.scalars",
        "leaves_of": "researchlab.numerics.leaves",
        "structure_text": "researchlab.numerics.leaves",
        "ulp_distance": "researchlab.numerics.ulp",
    },
)
