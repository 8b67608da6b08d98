"""How is a State taken apart into the arrays that a compiled step changes, and put together again?"""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any, Generic, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from researchlab.design._typevars import S
from researchlab.errors import ArgumentError, StepError
from researchlab.numerics.leaves import path_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jax import Array

_NUMBERS = (bool, int, float, complex)
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
_SHOWN = 60
_ARRAY = object()


class StateLayout(Generic[S]):
    """Splits States of one structure into arrays, once, instead of at each step.

    Arrays are what a step changes, and those Python numbers that it does change (a counter): they become weakly typed
    arrays inside of a compiled step, as they would in an expression, and come back as the type they were. A number that
    a step returns as it was (the rate of a dropout layer, a flag that its code branches on) stays a number. Everything
    else (functions, text, the static fields of modules) is part of the structure, which a step leaves alone.

    Attributes:
        paths: the paths of the arrays, in the order of ``arrays``.
        moved: the leaves of numbers that the traced step turned out to change.
    """

    def __init__(self, state: S) -> None:
        """Read the structure off ``state``, which is not changed."""
        found, self._treedef = jax.tree_util.tree_flatten_with_path(state)
        for keys, leaf in found:
            if isinstance(leaf, _GENERATORS):
                msg = (
                    f"leaf {path_text(keys)} is a {type(leaf).__module__}.{type(leaf).__name__}, from which a compiled"
                    " step would draw once, while it is traced: keep a key of jax.random in the State instead"
                )
                raise StepError(msg)
        # Without the arrays: a State of the caller's may be let go while the steps are taken.
        self._like = [_ARRAY if _is_array(leaf) else leaf for _, leaf in found]
        self._all_paths = [path_text(keys) or "(the State itself)" for keys, _ in found]
        self._dynamic = [index for index, (_, leaf) in enumerate(found) if _is_array(leaf)]
        self.paths = tuple(self._all_paths[index] for index in self._dynamic)
        self.moved: set[int] = set()
        self._kinds: list[tuple[tuple[int, ...], Any]] = []
        self._strong: set[int] = set()

    def make_strong(self, indices: Sequence[int]) -> None:
        """Let ``arrays`` give these arrays without the weak type that they started with."""
        self._strong.update(self._dynamic[index] for index in indices)

    def with_moved(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Add the numbers that have moved to the arrays."""
        known = dict(zip(self._dynamic, arrays, strict=True))
        self._dynamic = sorted({*self._dynamic, *self.moved})
        self.paths = tuple(self._all_paths[index] for index in self._dynamic)
        self.moved.clear()
        every = tuple(
            known[index] if index in known else self._as_array(index, self._like[index]) for index in self._dynamic
        )
        self._kinds = [(array.shape, array.dtype) for array in every]
        return every

    def forget_moved(self) -> None:
        """Hold all numbers for unchanged again."""
        self._dynamic = [index for index, leaf in enumerate(self._like) if leaf is _ARRAY]
        self.paths = tuple(self._all_paths[index] for index in self._dynamic)
        self.moved.clear()
        self._kinds = []

    def numbers(self) -> tuple[str, ...]:
        """Return the paths of the Python numbers that are arrays in a compiled step."""
        return tuple(self._all_paths[index] for index in self._dynamic if self._like[index] is not _ARRAY)

    def arrays(self, state: S) -> tuple[Array, ...]:
        """Return copies of what a step changes: the caller's own arrays are never donated, and no two share a buffer.

        Raises:
            StepError: ``state`` is not of the structure, shapes and dtypes of the first State, or a number does not fit
                into an array.
        """
        leaves, treedef = jax.tree_util.tree_flatten(state)
        if treedef != self._treedef:
            raise _other_state(self._structure_change(state))
        for index, leaf in enumerate(leaves):
            if not (is_dynamic(leaf) if index in self._dynamic else _same(self._like[index], leaf)):
                before = "an array" if index in self._dynamic else _shown(self._like[index])
                raise _other_state(_change(self._all_paths[index], before, _shown(leaf)))
        arrays = tuple(self._as_array(index, leaves[index]) for index in self._dynamic)
        kinds = [(array.shape, array.dtype) for array in arrays]
        self._kinds = self._kinds or kinds
        for path, array, (shape, dtype) in zip(self.paths, arrays, self._kinds, strict=True):
            if (array.shape, array.dtype) != (shape, dtype):
                before = _shown(jax.ShapeDtypeStruct(shape, dtype))
                raise _other_state(_change(path, before, _shown(array)))
        return arrays

    def has_numbers_of(self, state: S) -> bool:
        """Return whether the Python numbers of ``state``, which has the same structure, are where those here are."""
        like = [self._like[index] for index in self._dynamic]
        leaves = jax.tree_util.tree_leaves(state)
        return all(
            type(leaves[index]) is type(old) or (old is _ARRAY and _is_array(leaves[index]))
            for index, old in zip(self._dynamic, like, strict=True)
        )

    def check_replicas(self, arrays: Sequence[Array], count: int) -> None:
        """Check that each array has a leading axis of one entry a replica.

        Raises:
            ArgumentError: one has not; names its leaf.
        """
        for path, array, index in zip(self.paths, arrays, self._dynamic, strict=True):
            like = self._like[index]
            if array.shape[:1] != (count,):
                found = _shown(array) if like is _ARRAY else f"{like!r}, a Python {type(like).__name__}"
                msg = (
                    f"replicas={count} needs a State whose arrays have a leading axis of length {count}; leaf {path} is"
                    f" {found}. Make one State a replica with jax.vmap or equinox.filter_vmap, which stacks them"
                )
                raise ArgumentError(msg)
        if not arrays:
            msg = f"replicas={count} needs a State with arrays, and this one has none"
            raise ArgumentError(msg)

    def state(self, arrays: Sequence[Array], *, copy: bool) -> S:
        """Put a State together outside of a compiled step.

        Args:
            arrays: as ``arrays`` gives them.
            copy: copy them, because a later step will donate them.
        """
        leaves = list(self._like)
        for index, array in zip(self._dynamic, arrays, strict=True):
            like = self._like[index]
            if like is not _ARRAY:
                leaves[index] = cast("Any", type(like))(array.item())
            else:
                leaves[index] = array.copy() if copy else array
        return cast("S", jax.tree_util.tree_unflatten(self._treedef, leaves))

    def abstract(self, arrays: Sequence[Array]) -> S:
        """Put a State together of arrays that may be gone: without their values."""
        leaves = list(self._like)
        for index, array in zip(self._dynamic, arrays, strict=True):
            if leaves[index] is _ARRAY:
                leaves[index] = jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
        return cast("S", jax.tree_util.tree_unflatten(self._treedef, leaves))

    def traced(self, arrays: Sequence[Array]) -> S:
        """Put a State together inside of a compiled step."""
        leaves = list(self._like)
        for index, array in zip(self._dynamic, arrays, strict=True):
            leaves[index] = array
        return cast("S", jax.tree_util.tree_unflatten(self._treedef, leaves))

    def taken_apart(self, state: object, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Return the arrays of the State that a step returned, checked to be as those that it was given.

        Args:
            state: the State that the step function returned.
            arrays: what it was given.

        Raises:
            StepError: the structure, a dtype, a shape or what is static differs; names the leaf, before and after.
        """
        leaves, treedef = jax.tree_util.tree_flatten(state)
        if treedef != self._treedef:
            raise _other_structure(self._structure_change(state))
        for index, leaf in enumerate(leaves):
            if index in self._dynamic or _same(self._like[index], leaf):
                continue
            if isinstance(self._like[index], _NUMBERS) and is_dynamic(leaf):
                self.moved.add(index)
            else:
                where = f"{self._all_paths[index]}, which is static"
                raise _changed(where, before=_shown(self._like[index]), after=_shown(leaf))
        checked: list[Array] = []
        for path, before, index in zip(self.paths, arrays, self._dynamic, strict=True):
            after = leaves[index]
            array = jnp.asarray(after) if is_dynamic(after) else None
            if array is None or (array.shape, array.dtype) != (before.shape, before.dtype):
                like = self._like[index]
                was = f"{_shown(before)} (a Python {type(like).__name__})" if type(like) in _NUMBERS else _shown(before)
                raise _changed(path, before=was, after=_shown(after if array is None else array))
            # A loop on the device carries what it was given; a step a call must not do otherwise.
            is_weakened = is_weak(array) and not is_weak(before)
            checked.append(jax.lax.convert_element_type(array, array.dtype) if is_weakened else array)
        return tuple(checked)

    def _as_array(self, index: int, leaf: Any) -> Array:
        try:
            if not isinstance(leaf, jax.Array):
                # A copy: on a CPU, jax may use the memory of a numpy array, which is the caller's.
                array = jnp.asarray(np.array(leaf) if isinstance(leaf, np.ndarray) else leaf)
                is_narrowed = isinstance(leaf, (np.ndarray, np.generic)) and array.dtype != leaf.dtype
            else:
                array, is_narrowed = leaf.copy(), False
        except OverflowError as error:
            msg = (
                f"leaf {self._all_paths[index]} is {leaf!r}, which does not fit into a compiled step's 32 bits:"
                " set JAX_ENABLE_X64=1, or keep it in an array of another dtype"
            )
            raise StepError(msg) from error
        if is_narrowed:
            msg = (
                f"leaf {self._all_paths[index]} is a numpy array of {leaf.dtype}, which a compiled step would narrow to"
                f" {array.dtype}: convert it yourself, or set JAX_ENABLE_X64=1"
            )
            raise StepError(msg)
        return jax.lax.convert_element_type(array, array.dtype) if index in self._strong else array

    def _structure_change(self, state: object) -> str:
        after = [path_text(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
        before = [path if path != "(the State itself)" else "" for path in self._all_paths]
        parts = [f"leaf {path} is new" for path in after if path not in before]
        parts += [f"leaf {path} is gone" for path in before if path not in after]
        if not parts:
            like = jax.tree_util.tree_unflatten(self._treedef, self._like)
            parts = list(_static_changes(like, state, ""))
        return "; ".join(parts[:8]) or f"before {self._treedef}, after {jax.tree_util.tree_structure(state)}"


def is_weak(array: object) -> bool:
    """Return whether an array is of a weak type, as a Python number would be."""
    return bool(getattr(array, "weak_type", False))  # typed keys have no such thing


def is_dynamic(leaf: object) -> bool:
    """Return whether a compiled step takes the leaf as an array."""
    return _is_array(leaf) or isinstance(leaf, _NUMBERS)


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def _change(path: str, before: str, now: str) -> str:
    return f"leaf {path}: before {before}, now {now}"


def _other_state(what: str) -> StepError:
    return StepError(
        f"the State is not of the structure, shapes and dtypes that the step was compiled for. {what}. Set it to one"
        " that is, or set it between two runs, where the step is compiled anew; a number that changes now and then can"
        " be an array"
    )


def _changed(where: str, *, before: str, after: str) -> StepError:
    return _other_structure(f"{where}: before {before}, after {after}")


def _other_structure(what: str) -> StepError:
    return StepError(
        f"a compiled step must return a State of the structure, shapes and dtypes that it was given. {what}."
        " Convert it in the step function (`.astype(...)`), or make the initial State so."
    )


def _static_changes(before: Any, after: Any, path: str) -> Iterator[str]:
    """Yield what differs between two trees whose leaves have the same paths."""
    where = path or "the State"
    if type(before) is not type(after):
        yield f"{where} is a {type(after).__name__} and was a {type(before).__name__}"
    elif isinstance(before, eqx.Module) and dataclasses.is_dataclass(before):
        for field in dataclasses.fields(before):
            inner = f"{path}.{field.name}" if path else field.name
            old, new = getattr(before, field.name, None), getattr(after, field.name, None)
            if not field.metadata.get("static", False):
                yield from _static_changes(old, new, inner)
            elif not _same(old, new):
                yield f"{inner}, which is static: before {_shown(old)}, after {_shown(new)}"
    elif isinstance(before, dict):
        for key in cast("dict[Any, Any]", before):
            yield from _static_changes(before[key], cast("dict[Any, Any]", after).get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(before, (list, tuple)):
        for index, (old, new) in enumerate(zip(cast("list[Any]", before), cast("list[Any]", after), strict=False)):
            yield from _static_changes(old, new, f"{path}.{index}".lstrip("."))


def _same(before: object, after: object) -> bool:
    if before is after:
        return True
    if isinstance(before, _NUMBERS):
        return type(before) is type(after) and repr(before) == repr(after)  # tells -0.0 from 0.0
    try:
        return type(before) is type(after) and bool(before == after)
    except Exception:  # noqa: BLE001 - whatever a foreign __eq__ raises
        return False


def _shown(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if callable(value) and hasattr(value, "__qualname__"):  # jax.nn.relu's repr does not name it
        return f"{value.__module__}.{value.__qualname__}"
    return f"{value!r:.{_SHOWN}} of type {type(value).__name__}"
