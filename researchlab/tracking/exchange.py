"""How does a run get to somebody who has neither our store nor our repository, and how is what comes back checked?

``export_run`` writes one self-contained file, ``import_run`` takes it into another store, ``inspect_file`` says what is
in it. A file is believed in nothing: everything in it is checked before the store is touched, and nothing of it is ever
run by an import.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from researchlab.errors import ExchangeError
from researchlab.tracking._alive import is_alive
from researchlab.tracking._exchange import _summary
from researchlab.tracking._exchange._archive import ArchiveReader, Part, write_archive
from researchlab.tracking._exchange._check import check_record
from researchlab.tracking._exchange._contents import INPUTS_LIMIT, Contents, collect
from researchlab.tracking._exchange._format import (
    ARTIFACTS,
    LARGEST_MANIFEST,
    MANIFEST_FILE,
    RECORD,
    Manifest,
    Member,
    NotExported,
    read_manifest,
)
from researchlab.tracking._exchange._store import IMPORTED_TAG, check_tags_and_params, exported_tags, store_run
from researchlab.tracking._exchange._trace import check_trace
from researchlab.tracking._signals import TerminationWatch
from researchlab.tracking._wording import store_option
from researchlab.tracking.record import RECORD_FILE, RECORD_FOLDER, Record
from researchlab.tracking.runs import TrackedRun, default_root, find_run, the_run
from researchlab.tracking.store import quiet_mlflow, resolve_store
from researchlab.tracking.trace import METRICS_FILE, STATE_FILE

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "IMPORTED_TAG",
    "INPUTS_LIMIT",
    "ExportedRun",
    "Imported",
    "Member",
    "NotExported",
    "export_run",
    "import_run",
    "inspect_file",
]

# What the checks look into; the other members only have to be what the manifest says.
_READ = frozenset({RECORD, f"{RECORD_FOLDER}/{METRICS_FILE}", f"{RECORD_FOLDER}/{STATE_FILE}"})


@dataclasses.dataclass(frozen=True, slots=True)
class ExportedRun:
    """A run in a file, checked.

    Attributes:
        file: The file.
        sha256: Hex digest of it.
        size: Number of its bytes.
        manifest: What it says of itself: members, tags, parameters, what it does not hold.
        record: The record of the run.
    """

    file: Path
    sha256: str
    size: int
    manifest: Manifest
    record: Record

    @property
    def run_id(self) -> str:
        """The readable id of the run."""
        return self.manifest.run_id

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.manifest.experiment

    @property
    def status(self) -> str:
        """MLflow's status of the run."""
        return self.manifest.status

    @property
    def members(self) -> tuple[Member, ...]:
        """The artifacts in the file."""
        return self.manifest.members

    @property
    def left_out(self) -> tuple[NotExported, ...]:
        """Inputs and artifacts that belong to the run and that the file does not hold."""
        return self.manifest.left_out

    def summary(self) -> str:
        """Return in a few lines what would be run: command, code, environment, inputs. Safe to print."""
        return _summary.summary(self.manifest, self.record)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the record's own details, as plain values for JSON."""
        return {
            "file": str(self.file),
            "sha256": self.sha256,
            "size": self.size,
            **self.manifest.model_dump(mode="python"),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file.

    Attributes:
        exported: The file and the run in it.
        mlflow_run_id: MLflow's id of the run in the store.
        store: Name of the store.
        already_there: Whether the store had the run before; then nothing was changed.
    """

    exported: ExportedRun
    mlflow_run_id: str
    store: str
    already_there: bool

    @property
    def run_id(self) -> str:
        """The readable id of the run."""
        return self.exported.run_id


def export_run(
    run_id: str,
    file: str | os.PathLike[str],
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    repo: str | os.PathLike[str] = ".",
    inputs_limit: int | None = None,
    overwrite: bool = False,
) -> ExportedRun:
    """Write a run into one self-contained file, from which it can be executed again without our store or repository.

    The file is a zip: the manifest, the run's documents as they are stored, each base commit with all its files and
    without its history, and the files that the run read. The same run gives the same bytes. What the record says of the
    machine (folders, host name) and MLflow's tags (the user's name) are in it; files that look like secrets are not
    taken in. That the code comes back from base commit and patch is proven before anything is written.

    Args:
        run_id: The run: its readable id, or MLflow's own id.
        file: The file, written whole or not at all.
        tracking_uri: The store that holds the run; by default what MLflow was told, else the store of ``repo``.
        repo: A repository that has the base commit, and the files that the run read.
        inputs_limit: Bytes that the files which the run read may take together, the smallest first; by default
            ``INPUTS_LIMIT``, and for each the setting ``largest-input``. Those beyond are named in the result.
        overwrite: Replace a file that is there.

    Returns:
        What was written.

    Raises:
        ExchangeError: The file is there already or cannot be written, the run still goes on, its base commit is not
            here, or its documents are damaged.
        RunNotFoundError: There is no such run.
        RecordError: The run has no record, or one that cannot be read.
        StoreError: The store does not answer.
    """
    target = Path(file).absolute()
    _check_target(target, overwrite=overwrite)
    run = find_run(run_id, tracking_uri=tracking_uri, repo=repo)
    record = run.record()
    if record.result is None and is_alive(host=record.host, pid=record.pid, started_at=record.started_at):
        message = f"The run '{run.run_id}' is still going on (process {record.pid}). Export it when it has ended."
        raise ExchangeError(message)
    with _terminable(), tempfile.TemporaryDirectory(prefix="rlab-export-") as folder:
        scratch = Path(folder)
        contents = collect(run, record, repo=Path(repo), scratch=scratch, inputs_limit=inputs_limit)
        manifest = _manifest(run, record, contents)
        with _draft_of(target) as (stream, draft):
            data = manifest.to_json()
            members = [(dataclasses.replace(part, name=ARTIFACTS + part.name), path) for part, path in contents.parts()]
            write_archive(stream, [(Part.of(MANIFEST_FILE, data), data), *members])
            stream.close()
            # What an import would refuse is not written: a file that helps nobody.
            exported = _check_file(draft, scratch / "check", what=f"The run '{run.run_id}' cannot be exported")
            _publish(draft, target, overwrite=overwrite)
    return dataclasses.replace(exported, file=target)


def inspect_file(file: str | os.PathLike[str]) -> ExportedRun:
    """Check an exported run as an import does, and say what is in it. Nothing is stored and nothing is run.

    Args:
        file: The file.

    Returns:
        What is in it.

    Raises:
        ExchangeError: It is not a whole, honest export, or one of a newer version.
    """
    with tempfile.TemporaryDirectory(prefix="rlab-import-") as scratch:
        return _check_file(Path(file).absolute(), Path(scratch))


def import_run(
    file: str | os.PathLike[str],
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    repo: str | os.PathLike[str] = ".",
) -> Imported:
    """Take an exported run into a store, so that it can be listed, restored and reproduced. Nothing of it is run.

    Everything is checked before the store is touched, and a run that cannot be stored whole is deleted again.

    Args:
        file: The file.
        tracking_uri: The store; by default what MLflow was told, else the store of ``repo``, made when missing.
        repo: The repository, or any folder, whose own store is the default.

    Returns:
        What became of it.

    Raises:
        ExchangeError: The file is not a whole, honest export or one of a newer version; or the store has another run of
            the same id.
        StoreError: The store does not answer.
    """
    with _terminable(), tempfile.TemporaryDirectory(prefix="rlab-import-") as folder:
        scratch = Path(folder)
        exported = _check_file(Path(file).absolute(), scratch, unpack=True)
        store = resolve_store(tracking_uri, default_root(repo))
        client = store.open()
        present = the_run(client, exported.run_id, store)
        if present is not None:
            tracked = TrackedRun(exported.run_id, present, store, client)
            if _record_bytes(tracked) != (scratch / RECORD).read_bytes():
                message = (
                    f"{store.name} has another run '{exported.run_id}' than {exported.file}: their records differ. "
                    f"Import into another store ({store_option()}), or delete that run first: "
                    f"mlflow runs delete --run-id {present.info.run_id}"
                )
                raise ExchangeError(message)
            return Imported(exported, str(present.info.run_id), store.name, already_there=True)
        number = store_run(
            exported.manifest, exported.record, scratch, sha256=exported.sha256, store=store, client=client
        )
        return Imported(exported, number, store.name, already_there=False)


def _check_file(file: Path, scratch: Path, *, unpack: bool = False, what: str | None = None) -> ExportedRun:
    """Check everything that can be known of a file.

    Args:
        file: The file.
        scratch: Where its artifacts are put.
        unpack: Whether to put all of them there, or only what the checks look into.
        what: How the message of an error begins.
    """

    def refuse(why: str) -> NoReturn:
        message = f"{what or f'{file} cannot be imported'}: {why.rstrip('.')}. Nothing was stored."
        raise ExchangeError(message)

    with _opened(file) as stream, _disk_errors("unpacked", file):
        hashing = _Hashing(stream)
        size = os.fstat(stream.fileno()).st_size
        reader = ArchiveReader(hashing, size, refuse)
        manifest = read_manifest(reader.read_first(MANIFEST_FILE, limit=LARGEST_MANIFEST), refuse)
        reader.check_size((ARTIFACTS + member.name, member.size) for member in manifest.members)
        check_tags_and_params(manifest, refuse)
        for member in manifest.members:
            with _place(scratch / member.name if unpack or member.name in _READ else None) as to:
                reader.read(ARTIFACTS + member.name, size=member.size, sha256=member.sha256, to=to)
        reader.finish()
        record = check_record((scratch / RECORD).read_bytes(), manifest, refuse)
        check_trace(scratch / RECORD_FOLDER, record, refuse)
    return ExportedRun(file, hashing.sha256, size, manifest, record)


class _Hashing:
    """A stream whose bytes are hashed as they are read, so that what was checked and what is named are the same."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def _opened(file: Path) -> Generator[IO[bytes]]:
    try:
        # Not to wait for a FIFO that nobody writes to.
        number = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}."
        raise ExchangeError(message) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        message = f"{file} is not a file. Name one that `rlab export` wrote."
        raise ExchangeError(message)
    with os.fdopen(number, "rb") as stream:
        yield stream


@contextlib.contextmanager
def _disk_errors(verb: str, file: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        message = f"{file} could not be {verb}: {error.strerror or error}."
        raise ExchangeError(message) from error


@contextlib.contextmanager
def _place(path: Path | None) -> Generator[IO[bytes]]:
    if path is None:
        with Path(os.devnull).open("wb") as stream:
            yield stream
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        yield stream


def _manifest(run: TrackedRun, record: Record, contents: Contents) -> Manifest:
    info, data = run.run.info, run.run.data
    with quiet_mlflow():
        experiment = str(run.client.get_experiment(info.experiment_id).name)
    status = str(info.status)
    try:
        version = importlib.metadata.version("researchlab")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return Manifest.model_validate(
        {
            "run_id": record.run_id,
            "researchlab": version,
            "experiment": experiment,
            # A run that its process never ended was killed outright.
            "status": status if status in {"FINISHED", "FAILED", "KILLED"} else "KILLED",
            "started": int(info.start_time or 0),
            "ended": None if info.end_time is None else int(info.end_time),
            "tags": exported_tags(data.tags),
            "params": dict(data.params),
            "members": [Member(name=part.name, sha256=part.sha256, size=part.size) for part, _ in contents.parts()],
            "left_out": contents.left_out,
        }
    )


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not target.parent.is_dir():
        message = f"There is no folder {target.parent} to write {target.name} into. Make it first."
        raise ExchangeError(message)
    if target.is_dir():
        message = f"{target} is a folder. Name the file to write, as in {target / 'run.rlab'}."
        raise ExchangeError(message)
    if not overwrite and os.path.lexists(target):
        force = "--force" if store_option().startswith("-") else "overwrite=True"
        message = f"{target} is there already. Name another file, or replace this one with {force}."
        raise ExchangeError(message)


@contextlib.contextmanager
def _draft_of(target: Path) -> Generator[tuple[IO[bytes], Path]]:
    """Give a file beside the target that is gone when the block ends, unless it became the target."""
    draft = target.with_name(f".rlab-export-{secrets.token_hex(8)}.part")
    with _disk_errors("written", target):
        try:
            with draft.open("xb") as stream:
                yield stream, draft
        finally:
            draft.unlink(missing_ok=True)


def _publish(draft: Path, target: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(draft, target)  # unlike a rename, it never replaces what came in between
        except FileExistsError:
            _check_target(target, overwrite=False)
        except OSError:  # a file system without hard links
            _check_target(target, overwrite=False)
        else:
            return
    draft.replace(target)


def _record_bytes(run: TrackedRun) -> bytes | None:
    with run.documents() as folder:
        path = folder / RECORD_FILE
        return path.read_bytes() if path.is_file() else None


@contextlib.contextmanager
def _terminable() -> Generator[None]:
    """Let SIGTERM, too, run the clauses that clean up."""
    watch = TerminationWatch()
    watch.start()
    try:
        yield
    finally:
        watch.stop()
