"""A tree of numbers as a flat list of leaves whose bits can be stored and compared.

jax is imported when a tree is flattened, never before: whoever holds a State has loaded it already.
"""

from __future__ import annotations
