"""How does a State become one ``.eqx`` file, and come back bit for bit?

The file is what ``equinox.tree_serialise_leaves`` writes: the leaves as ``.npy`` records one after the other, without
names. Two kinds of leaves that Equinox cannot bring back are written in a form that it can: typed PRNG keys as their
key data, and dtypes that NumPy does not know (float8, int4) as raw bytes.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from researchlab.design._checkpoints._persister import Persister
from researchlab.design._typevars import C, S
from researchlab.errors import CheckpointError, CheckpointNotFoundError, DamagedCheckpointError

_SHOWN_AT_MOST = 8
_NUMBERS = (bool, int, float, complex)
_USER_DEFINED = 2  # of numpy.dtype.isbuiltin


class EquinoxPersister(Persister[S, C]):
    """Keeps the State, and nothing else, in one ``.eqx`` file.

    The config and the step are not stored: ``load`` gives back the config that it was given, and step 0, so a Loop that
    loads such a checkpoint counts its steps from 0 again. Leaves that are neither arrays nor numbers (activation
    functions) are taken from ``state_structure``, and so is what the file does not tell: whether an array is of numpy
    or jax, and whether it is weakly typed.
    """

    suffix: ClassVar[str] = ".eqx"

    def save(self, state: S, config: C, step: int, path: Path | str) -> None:
        """Write the leaves of ``state`` atomically; missing parent directories are made.

        Args:
            state: its arrays and Python numbers are written.
            config: not stored.
            step: not stored.
            path: the file; one without a suffix gets ``.eqx``, as in Equinox.

        Raises:
            CheckpointError: a leaf cannot be stored so that it comes back; names the leaf.
        """
        del config, step
        target = _with_suffix(Path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, because a rename is atomic within one file system only.
        unfinished = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.tmp")
        try:
            with unfinished.open("xb") as file:
                _serialise(file, state, target)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
        _sync_folder(target.parent)

    def load(self, path: Path | str, state_structure: S, config_structure: C) -> tuple[S, C, int]:
        """Read a State back.

        Args:
            path: the file.
            state_structure: a State of the structure, shapes and dtypes that were saved; ``eqx.filter_eval_shape``
                gives one cheaply.
            config_structure: given back as it is.

        Returns:
            ``(state, config_structure, 0)``.

        Raises:
            CheckpointNotFoundError: there is no such file; says what is in the folder.
            CheckpointError: the file is damaged or holds other leaves; names the leaves that differ.
        """
        source = _existing(Path(path))
        leaves, treedef = jax.tree_util.tree_flatten(state_structure)
        with source.open("rb") as file:
            try:
                loaded = [_read_leaf(file, leaf) for leaf in leaves]
            except ValueError as error:
                raise _mismatch(source, state_structure) from error
            if file.read(1):
                raise _mismatch(source, state_structure)
        return cast("S", jax.tree_util.tree_unflatten(treedef, loaded)), config_structure, 0


def _serialise(file: BinaryIO, state: object, target: Path) -> None:
    try:
        eqx.tree_serialise_leaves(file, state, filter_spec=_write_leaf)
    except RuntimeError as error:
        where = _leaf_of(error)
        if where is None:
            raise
        reason = error.__cause__
        msg = f"leaf {where} cannot be stored in {target}: {reason}"
        raise CheckpointError(msg) from reason


def _write_leaf(file: BinaryIO, leaf: Any) -> None:
    if not eqx.is_array_like(leaf):
        return
    value = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    value = value.view(_stored_as(value.dtype))
    # An object array would be pickled, and refused when it is read.
    np.save(file, value, allow_pickle=False)


def _read_leaf(file: BinaryIO, like: Any) -> Any:
    expected = _layout(like)
    if expected is None:
        return like
    value = _read_record(file)
    if value.shape == () == expected[0] and value.dtype != expected[1]:
        return _other_number(value, like)
    if (value.shape, value.dtype) != expected:
        msg = "another shape or dtype"
        raise ValueError(msg)
    if _is_key(like):
        impl = jax.random.key_impl(jnp.zeros((), like.dtype))
        return jax.random.wrap_key_data(jnp.asarray(value), impl=impl)
    if isinstance(like, jax.ShapeDtypeStruct):
        return jnp.asarray(value.view(like.dtype))
    if isinstance(like, jax.Array):
        return _as_jax(value.view(like.dtype), like)
    if isinstance(like, np.ndarray):
        return value.view(cast("np.ndarray[Any, np.dtype[Any]]", like).dtype)
    if isinstance(like, np.generic):
        return value.view(like.dtype)[()]
    return type(like)(value.item())


def _other_number(value: np.ndarray[Any, Any], like: Any) -> Any:
    """Return a number that a step made an array, or the other way round; ValueError where it is neither."""
    is_number = type(like) in _NUMBERS
    dtypes = [np.asarray(kind()).dtype for kind in _NUMBERS]
    family = np.asarray(like).dtype.kind if is_number else getattr(getattr(like, "dtype", None), "kind", "")
    if family != value.dtype.kind or not (is_number or value.dtype in dtypes):
        msg = "another dtype"
        raise ValueError(msg)
    return jnp.asarray(value) if is_number else value.item()


def _read_record(file: BinaryIO) -> np.ndarray[Any, Any]:
    """Read one array; ValueError where there is none. Unlike ``np.load`` it does not take other kinds of files."""
    return np.lib.format.read_array(file, allow_pickle=False)


def _as_jax(value: np.ndarray[Any, Any], like: jax.Array) -> jax.Array:
    array = jnp.asarray(value)
    if like.weak_type:
        # A weakly typed leaf that came back strongly typed would promote, and so compute, differently.
        array = like.at[...].set(array)
    if len(like.sharding.device_set) > 1:
        array = jax.device_put(array, like.sharding)
    return array


def _layout(leaf: Any) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Return shape and dtype of the record of a leaf, or None where it has none."""
    if not eqx.is_array_like(leaf) and not isinstance(leaf, jax.ShapeDtypeStruct):
        return None
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        return data.shape, np.dtype(data.dtype)
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    dtype = np.dtype(leaf.dtype)
    return tuple(leaf.shape), _stored_as(dtype)


def _stored_as(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of a record: raw bytes for what other packages add to NumPy (bfloat16, float8, int4)."""
    return np.dtype(f"V{dtype.itemsize}") if dtype.isbuiltin == _USER_DEFINED else dtype


def _is_key(leaf: object) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _mismatch(path: Path, structure: object) -> CheckpointError:
    """Compare the records of a file with the leaves of a structure, for an error message."""
    leaves = jax.tree_util.tree_flatten_with_path(structure)[0]
    laid_out = [(jax.tree_util.keystr(way), _layout(leaf)) for way, leaf in leaves]
    expected = [(where, layout) for where, layout in laid_out if layout is not None]
    stored, is_damaged = _records(path)
    differences = [
        f"{where}: {_shown(*found)} in the file, {_shown(*wanted)} expected"
        for (where, wanted), found in zip(expected, stored, strict=False)
        if found != wanted
    ]
    if is_damaged:
        differences.append(f"the file is damaged or cut off after {len(stored)} leaves, {len(expected)} are expected")
    elif len(stored) != len(expected):
        without = ", ".join(where for where, _ in expected[len(stored) :][:_SHOWN_AT_MOST])
        counted = f"the file has {len(stored)} leaves, {len(expected)} are expected"
        differences.append(f"{counted} (none for {without})" if without else counted)
    listed = "\n  ".join(differences[:_SHOWN_AT_MOST])
    more = f"\n  and {len(differences) - _SHOWN_AT_MOST} more" if len(differences) > _SHOWN_AT_MOST else ""
    error = DamagedCheckpointError if is_damaged else CheckpointError
    return error(
        f"checkpoint {path} does not fit the {type(structure).__name__} it is loaded into:\n  {listed}{more}\n"
        "Load it into a State built with the code and config that saved it, or use another checkpoint."
    )


def _records(path: Path) -> tuple[list[tuple[tuple[int, ...], np.dtype[Any]]], bool]:
    """Return shape and dtype of each record of a file, and whether something unreadable follows them."""
    records: list[tuple[tuple[int, ...], np.dtype[Any]]] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            try:
                value = _read_record(file)
            except ValueError:
                return records, True
            records.append((value.shape, value.dtype))
    return records, False


def _shown(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    name = f"{dtype.itemsize}-byte raw" if dtype.kind == "V" else dtype.name
    return f"{name}[{','.join(map(str, shape))}]"


def _leaf_of(error: BaseException) -> str | None:
    path = getattr(error, "path", None)
    return None if path is None else jax.tree_util.keystr(path)


def _with_suffix(path: Path) -> Path:
    return path if path.suffix else path.with_suffix(".eqx")


def _existing(path: Path) -> Path:
    for candidate in (path, _with_suffix(path)):
        if candidate.is_file():
            return candidate
    folder = path.parent
    if not folder.is_dir():
        msg = f"no checkpoint {path}: there is no folder {folder}"
        raise CheckpointNotFoundError(msg)
    names = sorted(entry.name for entry in folder.glob("*.eqx"))
    found = ", ".join(names[-_SHOWN_AT_MOST:]) or "no .eqx file"
    before = f"{len(names) - _SHOWN_AT_MOST} others and " if len(names) > _SHOWN_AT_MOST else ""
    msg = f"no checkpoint {path}: {folder} has {before}{found}"
    raise CheckpointNotFoundError(msg)


def _sync_folder(folder: Path) -> None:
    """Make the rename last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
