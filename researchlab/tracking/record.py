"""What does a run store so that it can be executed again and judged?

The record is one versioned JSON document, `rlab/record.json` among the run's artifacts, beside `run.patch`. It is
written when the run starts and again, with its result, when the run ends, so that a run which was killed can still be
executed again.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from researchlab.errors import RecordError

#: The version of the document. A reader takes documents of its own version and older ones.
RECORD_VERSION = 2

#: Where the documents of a run stand among its artifacts.
RECORD_FOLDER = "rlab"
RECORD_FILE = "record.json"
PATCH_FILE = "run.patch"
BUNDLE_FILE = "base.bundle"

CommandKind = Literal["script", "module", "pytest", "code", "stdin", "interactive", "worker"]
StandardInput = Literal["terminal", "null", "pipe", "file", "unread file", "other"]

#: What a standard input may be whose content a program can have read, and that no record holds.
UNRECORDED_STDIN = ("pipe", "file")

#: Why the bytes of an input are not known: what `InputRecord.why` says then, or holds.
SECRET = "looks like a secret, so that neither its bytes nor a plain hash of them are kept"  # noqa: S105 (no password)
CHANGED = "changed during the run"
STALE = "ran from a compiled file that its source does not give"


class _Document(pydantic.BaseModel):
    """A frozen part of the record; fields that a later version added are kept out of the way, not refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore")


class FileRecord(_Document):
    """Which bytes a file held.

    Attributes:
        sha256: Hex digest of them.
        size: How many they were.
    """

    sha256: str
    size: int


class RepositoryRecord(_Document):
    """The state of one repository: the one that ran, or one inside its work tree.

    Attributes:
        base_commit: Hex id of HEAD, or None in a repository without a commit.
        tree: Id of the tree that base and patch restore to.
        object_format: ``sha1`` or ``sha256``.
        branch: Name of the branch, or None when HEAD was detached.
        remotes: Name to URL, without credentials.
        changed: Paths that differ from the base commit.
        left_out: Paths that could not be captured, each with its reason.
        large: Those of them that were over a budget, with their hash, so that the same file may be put back.
        pointers: Git LFS files that were captured as their pointers: the object that each names was on disk.
        ignored: What git ignored, and what is therefore no part of the snapshot: files, folders with a slash at their
            end, and ``folder/*`` where they were many. What of it the run read is among the inputs.
        bundle: Artifact that holds the commits that no remote has, or None where there is none.
    """

    base_commit: str | None
    tree: str
    object_format: Literal["sha1", "sha256"] = "sha1"
    branch: str | None = None
    remotes: dict[str, str] = {}
    changed: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    large: dict[str, FileRecord] = {}
    pointers: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    bundle: str | None = None


class NestedRecord(RepositoryRecord):
    """A repository inside the work tree, a submodule or one of its own; its paths are relative to its own root.

    Attributes:
        path: Its root, relative to the root of the outermost work tree.
        is_submodule: Whether the repository around it knows it as a submodule.
        patch: Artifact that holds its patch, or None where nothing differs from its base commit.
    """

    path: str
    is_submodule: bool
    patch: str | None = None


class SnapshotRecord(RepositoryRecord):
    """Which working tree ran.

    Attributes:
        repository: Root of the work tree on the machine of the run.
        nested: The repositories inside it, each after the one around it.
    """

    repository: str
    nested: tuple[NestedRecord, ...] = ()


class SealedRecord(_Document):
    """What tells a file that looks like a secret again, without a hash that could be guessed back cheaply.

    Attributes:
        salt: Hex of random bytes.
        scrypt: Hex of scrypt (n=2**14, r=8, p=1, 32 bytes) with that salt over the sha256 of the file's bytes.
    """

    salt: str = pydantic.Field(pattern="^[0-9a-f]{32}$")
    scrypt: str = pydantic.Field(pattern="^[0-9a-f]{64}$")


class InputRecord(_Document):
    """A file that the run imported or read, and that the snapshot does not hold as it was.

    Attributes:
        path: Relative to the repository where it lies inside, else absolute.
        role: ``code`` was imported, ``data`` was opened for reading, ``declared`` was named by the program itself.
        why: Why the snapshot does not hold it, in a half sentence.
        sha256: Hex digest of its bytes, or None where they are not known (it was gone, or changed during the run) or
            not to be known (it looks like a secret).
        size: Number of its bytes.
        stored: Artifact that holds its bytes, or None.
        sealed: What tells the bytes again where they look like a secret, else None.
        relative: Whether a file outside of the repository was named from another place (relative to the working
            directory, or through ``..``), so that a re-execution may be given it elsewhere.
        required: Whether a re-execution needs it as it was. False where the run, or a process that it started, may have
            made it, or have written to it and not read what was there.
    """

    path: str
    role: Literal["code", "data", "declared"]
    why: str
    sha256: str | None
    size: int
    stored: str | None = None
    sealed: SealedRecord | None = None
    relative: bool = False
    required: bool = True


class CommandRecord(_Document):
    """How the process was started.

    Attributes:
        kind: What the interpreter was given.
        flags: Interpreter flags, as in ``("-X", "dev")``.
        target: The script (relative to the repository where it lies inside, else absolute), module, pytest node id or
            code.
        argv: What stood behind the target.
        cwd: Working directory relative to the repository, or None when it was outside.
        folder: Working directory on the machine of the run.
        ordinal: Which tracker of the process (of the test, under pytest) this was, from 0.
        source_roots: Folders of the repository, relative to it, that modules were imported from.
        stdin: What standard input was: a terminal, the null device, a pipe (or socket), a file that was read from, or
            one that was not; None where it was not recorded.
    """

    kind: CommandKind
    flags: tuple[str, ...] = ()
    target: str | None = None
    argv: tuple[str, ...] = ()
    cwd: str | None = None
    folder: str
    ordinal: int = 0
    source_roots: tuple[str, ...] = ()
    stdin: StandardInput | None = None


class EnvironmentRecord(_Document):
    """What the process ran on.

    Attributes:
        python: Version, implementation and compiler-independent facts of the interpreter.
        platform: Operating system and processor facts, the usable cores among them.
        packages: Distribution name to version.
        variables: Environment variables that may change bits, from an allow-list.
        jax: Facts of JAX, empty when it was not loaded: versions, backend, devices, configuration.
    """

    python: dict[str, str] = {}
    platform: dict[str, str] = {}
    packages: dict[str, str] = {}
    variables: dict[str, str] = {}
    jax: dict[str, str] = {}


class ResultRecord(_Document):
    """How the run ended.

    Attributes:
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        error: Type and message of the exception that ended the block.
        metrics: Number of distinct metrics in the trace.
        points: Number of metric values in the trace.
        states: Number of States in the trace.
    """

    status: Literal["FINISHED", "FAILED", "KILLED"]
    error: str | None = None
    metrics: int = 0
    points: int = 0
    states: int = 0


class Record(_Document):
    """The whole record of a run.

    Attributes:
        version: Version of this document.
        run_id: The readable id of the run.
        experiment: Name of the MLflow experiment.
        researchlab: Version of researchlab that wrote it.
        started_at: Start in seconds since the epoch.
        ended_at: End in seconds since the epoch, or None while the run lives (or when it was killed outright).
        host: Name of the machine.
        pid: Process id.
        snapshot: The working tree, or None when none could be recorded.
        command: How the process was started.
        environment: What it ran on.
        inputs: What it imported and read beside the snapshot, known when it has ended.
        folders: Folders of the repository, relative to it, that were there when the run wrote files into them or listed
            them, and that the snapshot does not hold, since git keeps no empty or ignored folder.
        result: How it ended, or None while it lives.
        volatile: Globs of metrics that are not judged.
        not_recorded: What could not be recorded, in words.
    """

    version: int = RECORD_VERSION
    run_id: str
    experiment: str
    researchlab: str
    started_at: float
    ended_at: float | None = None
    host: str
    pid: int
    snapshot: SnapshotRecord | None
    command: CommandRecord
    environment: EnvironmentRecord
    inputs: tuple[InputRecord, ...] = ()
    folders: tuple[str, ...] = ()
    result: ResultRecord | None = None
    volatile: tuple[str, ...] = ()
    not_recorded: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the document as indented JSON, readable in the MLflow page.

        Paths that are not UTF-8 are carried as lone surrogates, which JSON writes as escapes.
        """
        import json

        return json.dumps(self.model_dump(), indent=2, ensure_ascii=True)


def read_record(text: str | bytes, *, where: str) -> Record:
    """Parse a record.

    Args:
        text: The JSON document.
        where: What it is the record of, for the error's text.

    Returns:
        The record.

    Raises:
        RecordError: The document is not JSON, is of a newer version, or lacks a field.
    """
    import json

    try:
        data = json.loads(text)
    except ValueError as error:
        message = f"The record of {where} is not JSON ({error}). The artifact was damaged: fetch it again."
        raise RecordError(message) from error
    version = data.get("version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        message = f"The record of {where} names no version, so that it was not written by researchlab."
        raise RecordError(message)
    if version > RECORD_VERSION:
        message = (
            f"The record of {where} has version {version}; this researchlab reads up to {RECORD_VERSION}. "
            "Upgrade it: pip install -U researchlab"
        )
        raise RecordError(message)
    try:
        return Record.model_validate(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = f"The record of {where} is broken at '{field}': {first['msg']}. The artifact was damaged or edited."
        raise RecordError(message) from error
