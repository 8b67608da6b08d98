"""What stands in the ``manifest.json`` of a checkpoint, and how is a changed byte of it noticed?"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pydantic

from researchlab.errors import CheckpointError, DamagedCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_FILE = "manifest.json"
_VERSION = 1


class StoredLeaf(pydantic.BaseModel):
    """One leaf of a State, without its values.

    Attributes:
        path: where it is in the State.
        kind: "array", "key" (typed PRNG keys), "scalar" (a Python number) or "static" (anything else).
        holder: "jax", "numpy" (an array) or "numpy scalar"; "" for what is neither.
        dtype: as in ``researchlab.numerics.Leaf``.
        shape: the logical shape.
        weak_type: whether jax holds the dtype for weak.
        impl: the name of the implementation of keys.
        static: the stable text of a static leaf, None where it has none.
        size: how many bytes the values have, None for a static leaf.
        fingerprint: of the values, or of the stable text.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    path: str
    kind: str
    holder: str = ""
    dtype: str
    shape: tuple[int, ...] = ()
    weak_type: bool = False
    impl: str | None = None
    static: str | None = None
    size: int | None = None
    fingerprint: str | None = None

    def describe(self) -> str:
        """Return what the leaf is, for a reader."""
        if self.kind == "static":
            return f"static {self.static if self.static is not None else self.dtype}"
        if self.kind == "scalar":
            return f"Python {self.dtype}"
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Manifest(pydantic.BaseModel):
    """All of a checkpoint but the values of its leaves.

    Attributes:
        version: of this format.
        step: the number of completed steps.
        config: the configuration as JSON has it; None where it cannot be written so that it comes back.
        config_class: its class.
        data: the position of the data provider.
        ended: why the run was over, where it had been ended early.
        leaves_file: the file with the values.
        arrays_folder: the folder with the arrays that Orbax has written, "" where there is none.
        leaves: in the order of the State.
        static_fields: path to stable text of the fields that are part of the State's structure.
        structure: the structure as jax prints it, for a reader.
    """

    version: int = _VERSION
    step: int
    config: Any = None
    config_class: str
    data: Any = None
    ended: str | None = None
    leaves_file: str = ""
    arrays_folder: str = ""
    leaves: tuple[StoredLeaf, ...]
    static_fields: dict[str, str]
    structure: str

    def to_json(self) -> str:
        """Return the text of the file: the manifest, and a digest of it."""
        content = self.model_dump(exclude_defaults=True) | {"version": self.version}
        return json.dumps({"digest": _digest(content), "manifest": content}, indent=1)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint.

    Raises:
        DamagedCheckpointError: it is missing, or its bytes are not those that were written.
        CheckpointError: another version of researchlab wrote it.
    """
    path = folder / MANIFEST_FILE
    try:
        document: Any = json.loads(path.read_bytes())
        content, digest = document["manifest"], document["digest"]
        version = content["version"]
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"it is not a manifest ({error!r:.100})") from error
    if _digest(content) != digest:
        raise _damaged(path, "its digest is another one than that of its content")
    if version != _VERSION:
        msg = (
            f"{path} has version {version}, this researchlab reads version {_VERSION}: install the researchlab that "
            "wrote it, or use another checkpoint."
        )
        raise CheckpointError(msg)
    return Manifest.model_validate(content)


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def _damaged(path: Path, reason: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"{path} is damaged: {reason}. Use an older checkpoint.")
