"""What does the manifest of an exported run say, and which names may stand in it?"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Literal

import pydantic

from researchlab.tracking._json import parse_json
from researchlab.tracking._restoring._bundle import PACK_FILE
from researchlab.tracking.record import (
    BUNDLE_FILE,
    END_OF_TIME,
    LARGEST_COUNT,
    PATCH_FILE,
    RECORD_FILE,
    RECORD_FOLDER,
    first_problem,
)

if TYPE_CHECKING:
    from researchlab.tracking._exchange._archive import Refuse

#: The version of the file. A reader takes files of its own version and older ones.
FORMAT_VERSION = 1
FORMAT = "researchlab run"
MANIFEST_FILE = "manifest.json"

#: The folder of the file that holds the run's artifacts, each under its own name.
ARTIFACTS = "artifacts/"

INPUT_FOLDER = f"{RECORD_FOLDER}/inputs"
RECORD = f"{RECORD_FOLDER}/{RECORD_FILE}"

#: Bytes that the manifest and the record may have.
LARGEST_MANIFEST = 64 << 20
LARGEST_RECORD = 256 << 20

_CODE_FILES = "|".join(map(re.escape, (PATCH_FILE, BUNDLE_FILE, PACK_FILE)))
# A list of what is allowed: a name that leads anywhere else does not fit, however it is spelled.
_OWN = re.compile(
    rf"{RECORD_FOLDER}/(?:nested/[1-9]\d{{0,5}}/(?:{_CODE_FILES})|inputs/[0-9a-f]{{64}}|[A-Za-z0-9_][\w.-]*)"
)
_CONFIG = re.compile(r"\w[\w. -]*\.(?:ya?ml|json)")
_LONGEST_NAME = 200
_END_OF_TIME_MS = END_OF_TIME * 1000


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Member(_Part):
    """A file inside the exported file.

    Attributes:
        name: Name of the artifact.
        sha256: Hex digest of its bytes.
        size: Number of them.
    """

    name: str
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    size: int = pydantic.Field(ge=0, le=LARGEST_COUNT)


class NotExported(_Part):
    """A file that belongs to the run and that the exported file does not hold.

    Attributes:
        path: An input: relative to the repository, else absolute. An artifact: its name.
        why: The reason, in a half sentence.
        sha256: Hex digest of the bytes that the run had, where it is known.
        size: Number of them, where it is known.
    """

    path: str
    why: str
    sha256: str | None = None
    size: int | None = pydantic.Field(default=None, ge=0, le=LARGEST_COUNT)


class Manifest(_Part):
    """The first member of the file: which run it is, and what else is inside.

    Attributes:
        format: That this is an exported run.
        version: Version of the file.
        run_id: The readable id of the run.
        researchlab: Version of researchlab that exported it.
        experiment: Name of the MLflow experiment.
        status: MLflow's status of the run.
        started: MLflow's start time, in milliseconds since the epoch.
        ended: Its end time, or None where the run never said that it ended.
        tags: MLflow's tags.
        params: MLflow's parameters.
        members: The artifacts inside, sorted by name.
        left_out: What belongs to the run and is not inside.
    """

    format: Literal["researchlab run"] = FORMAT
    version: int = pydantic.Field(default=FORMAT_VERSION, ge=1, strict=True)
    run_id: str
    researchlab: str
    experiment: str = pydantic.Field(min_length=1, max_length=500)
    status: Literal["FINISHED", "FAILED", "KILLED"]
    started: int = pydantic.Field(ge=0, lt=_END_OF_TIME_MS)
    ended: int | None = pydantic.Field(default=None, ge=0, lt=_END_OF_TIME_MS)
    tags: dict[str, str] = {}
    params: dict[str, str] = {}
    members: tuple[Member, ...]
    left_out: tuple[NotExported, ...] = ()

    def to_json(self) -> bytes:
        """Return the document; the same manifest has the same bytes."""
        return (json.dumps(self.model_dump(), indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def read_manifest(data: bytes, refuse: Refuse) -> Manifest:
    """Parse a manifest.

    Args:
        data: The document.
        refuse: Raises the error that says what is wrong with it.

    Raises:
        ExchangeError: It is no manifest, of a newer version, or names a member that no export has.
    """
    try:
        content = parse_json(data)
    except ValueError as error:
        refuse(f"its {MANIFEST_FILE} cannot be read ({error})")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        refuse(f"its {MANIFEST_FILE} is not the one of an exported run")
    version = content.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        refuse(
            f"it has version {version}, and this researchlab reads up to {FORMAT_VERSION}. "
            "Upgrade it: pip install -U researchlab"
        )
    try:
        manifest = Manifest.model_validate(content)
    except pydantic.ValidationError as error:
        refuse(f"its {MANIFEST_FILE} is broken at {first_problem(error)}")
    _check_members(manifest.members, refuse)
    return manifest


def is_exportable(name: str) -> bool:
    """Return whether an artifact of that name may be a member: a document of the run, or a configuration."""
    known = name == PATCH_FILE or _OWN.fullmatch(name) is not None or _CONFIG.fullmatch(name) is not None
    return known and len(name) <= _LONGEST_NAME and name.isprintable()


def is_config(name: str) -> bool:
    """Return whether the name is the one of a configuration, rather than of a document of the run."""
    return _CONFIG.fullmatch(name) is not None


def _check_members(members: tuple[Member, ...], refuse: Refuse) -> None:
    seen: dict[str, str] = {}
    for member in members:
        name = member.name
        if not is_exportable(name):
            refuse(f"it holds a member {name!r}, which no exported run has")
        # Names that one file system takes for the same file.
        same = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if same is not name:
            refuse(f"it holds two members of one name: {same!r} and {name!r}")
        if name.startswith(f"{INPUT_FOLDER}/") and name.rpartition("/")[2] != member.sha256:
            refuse(f"the member {name!r} has the sha256 {member.sha256}")
    if list(seen.values()) != sorted(seen.values()):
        refuse("its members are not in their order")
    sizes = {member.name: member.size for member in members}
    if RECORD not in sizes:
        refuse(f"it holds no {RECORD}")
    if sizes[RECORD] > LARGEST_RECORD:
        refuse(f"its {RECORD} has {sizes[RECORD]} bytes, and {LARGEST_RECORD} are the most that one can have")
