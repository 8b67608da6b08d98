"""What does a run store so that it can be executed again and judged?

The record is one versioned JSON document, `rlab/record.json` among the run's artifacts, beside `run.patch`. It is
written when the run starts and again, with its result, when the run ends, so that a run which was killed can still be
executed again.
"""

from __future__ import annotations

import reprlib
from typing import Annotated, Literal

import pydantic

from researchlab.errors import RecordError
from researchlab.tracking._json import parse_json

#: The version of the document. A reader takes documents of its own version and older ones.
RECORD_VERSION = 2

#: Where the documents of a run stand among its artifacts.
RECORD_FOLDER = "rlab"
RECORD_FILE = "record.json"
PATCH_FILE = "run.patch"
BUNDLE_FILE = "base.bundle"

#: Seconds since the epoch that no run reaches: the year 9999, behind which no calendar goes in every time zone.
END_OF_TIME = 253_370_764_800

#: Numbers beyond these were not counted by anybody.
LARGEST_COUNT = 2**63 - 1
_LARGEST_PID = 2**31 - 1

#: Why the local store is not in a snapshot.
STORE_FILE = "belongs to the MLflow store"

CommandKind = Literal["script", "module", "pytest", "code", "stdin", "interactive", "worker"]
StandardInput = Literal["terminal", "null", "pipe", "file", "unread file", "other"]

#: What a standard input may be whose content a program can have read, and that no record holds.
UNRECORDED_STDIN = ("pipe", "file")

#: Why the bytes of an input are not known: what `InputRecord.why` says then, or holds.
SECRET = "looks like a secret, so that neither its bytes nor a plain hash of them are kept"  # noqa: S105 (no password)
CHANGED = "changed during the run"
STALE = "ran from a compiled file that its source does not give"

ObjectId = Annotated[str, pydantic.StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
"""How git names an object."""


def _native(text: str) -> str:
    problem = "it holds a NUL" if "\0" in text else None
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        problem = "it holds a lone surrogate that stands for no byte"
    if problem is not None:
        raise ValueError(problem)
    return text


#: Text that the operating system or git gave, and that goes back to it: paths, arguments, variables, names. Bytes that
#: are not UTF-8 are lone surrogates in it. Other text of a record is words to show, which may hold anything.
NativeText = Annotated[str, pydantic.AfterValidator(_native)]

#: How many there are of something.
Count = Annotated[int, pydantic.Field(ge=0, le=LARGEST_COUNT)]

#: Seconds since the epoch.
Time = Annotated[float, pydantic.Field(ge=0, lt=END_OF_TIME, allow_inf_nan=False)]


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
    size: Count


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

    base_commit: ObjectId | None
    tree: ObjectId
    object_format: Literal["sha1", "sha256"] = "sha1"
    branch: NativeText | None = None
    remotes: dict[NativeText, NativeText] = {}
    changed: tuple[NativeText, ...] = ()
    left_out: dict[NativeText, str] = {}
    large: dict[NativeText, FileRecord] = {}
    pointers: tuple[NativeText, ...] = ()
    ignored: tuple[NativeText, ...] = ()
    bundle: NativeText | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The code that was left out: all of ``left_out`` but the MLflow store."""
        return tuple(path for path, reason in self.left_out.items() if reason != STORE_FILE)


class NestedRecord(RepositoryRecord):
    """A repository inside the work tree, a submodule or one of its own; its paths are relative to its own root.

    Attributes:
        path: Its root, relative to the root of the outermost work tree.
        is_submodule: Whether the repository around it knows it as a submodule.
        patch: Artifact that holds its patch, or None where nothing differs from its base commit.
    """

    path: NativeText
    is_submodule: bool
    patch: NativeText | None = None


class SnapshotRecord(RepositoryRecord):
    """Which working tree ran.

    Attributes:
        repository: Root of the work tree on the machine of the run.
        nested: The repositories inside it, each after the one around it.
    """

    repository: NativeText
    nested: tuple[NestedRecord, ...] = ()

    @property
    def missing_everywhere(self) -> tuple[str, ...]:
        """What is ``missing`` here and in the repositories inside, relative to the outermost root."""
        inside = (f"{nested.path}/{path}" for nested in self.nested for path in nested.missing)
        return (*self.missing, *inside)


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

    path: NativeText
    role: Literal["code", "data", "declared"]
    why: str
    sha256: str | None
    size: Count
    stored: NativeText | None = None
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
    flags: tuple[NativeText, ...] = ()
    target: NativeText | None = None
    argv: tuple[NativeText, ...] = ()
    cwd: NativeText | None = None
    folder: NativeText
    ordinal: Count = 0
    source_roots: tuple[NativeText, ...] = ()
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
    variables: dict[NativeText, NativeText] = {}
    jax: dict[str, str] = {}


class ExecutionRecord(_Document):
    """How a Loop was executed, which can change the bits that it gives.

    Attributes:
        source: The Loop, as its States are called: ``loop``, ``loop-2``.
        facts: Name to value: mode, scan length, metrics with their dtypes, devices. Only what two runs both name is
            compared.
    """

    source: str
    facts: dict[str, str] = {}


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
    metrics: Count = 0
    points: Count = 0
    states: Count = 0


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
        executions: How its Loops were executed, each way of each Loop once, in the order of their first runs.
        result: How it ended, or None while it lives.
        volatile: Globs of metrics that are not judged.
        not_recorded: What could not be recorded, in words.
    """

    version: int = RECORD_VERSION
    run_id: str
    experiment: str
    researchlab: str
    started_at: Time
    ended_at: Time | None = None
    host: str
    pid: Annotated[int, pydantic.Field(gt=0, le=_LARGEST_PID)]
    snapshot: SnapshotRecord | None
    command: CommandRecord
    environment: EnvironmentRecord
    inputs: tuple[InputRecord, ...] = ()
    folders: tuple[NativeText, ...] = ()
    executions: tuple[ExecutionRecord, ...] = ()
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
        RecordError: The document is not JSON, is of a newer version, lacks a field, or holds what no run has.
    """
    try:
        data = parse_json(text)
    except ValueError as error:
        message = f"The record of {where} is not JSON ({error}). The artifact was damaged: fetch it again."
        raise RecordError(message) from error
    version = data.get("version") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        message = (
            f"The record of {where} names no version (found {reprlib.repr(version)}), so that it was not written by "
            "researchlab."
        )
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
        message = f"The record of {where} is broken at {first_problem(error)}. The artifact was damaged or edited."
        raise RecordError(message) from error


def first_problem(error: pydantic.ValidationError) -> str:
    """Return which field of a document is wrong first, why, and what was found there."""
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    if parts[-1:] == ["[key]"]:  # of a name in a mapping, which is what was found
        del parts[-2:]
    found = "" if first["type"] == "missing" else f", found {reprlib.repr(first['input'])}"
    return f"{'.'.join(parts)!r}: {first['msg'].removeprefix('Value error, ')}{found}"
