"""JAX with 64 bits for a block, under the name that each of its versions has for it."""

from __future__ import annotations

import importlib

import jax

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
