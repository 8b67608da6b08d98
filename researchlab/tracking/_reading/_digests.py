"""What identifies the bytes of many files, some of them large, as fast as the machine reads?"""

from __future__ import annotations

import concurrent.futures
import hashlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from researchlab.tracking._reading import _opened
from researchlab.tracking._reading._opened import Signature  # noqa: TC001 (a NamedTuple below holds it)

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

_CHUNK = 1 << 20
_RACY_NS = 2 * 10**9
_SLOW = 2.0
_logger = logging.getLogger(__name__)


class Digest(NamedTuple):
    """What identifies the bytes of a file: their sha256, the id of git's blob, and their number."""

    sha256: str
    oid: str
    size: int


class _Task(NamedTuple):
    path: str
    state: Signature
    is_sha256: bool


_known: dict[tuple[str, Signature, bool], Digest] = {}
_MOST_KNOWN = 100_000


def digest_all(files: Mapping[str, Signature | None], *, sha256_ids: Container[str] = ()) -> dict[str, Digest]:
    """Hash files, several at a time; a file that is hashed again in the same state is not read again.

    Args:
        files: Absolute path to the state that the file should be in, or None for any.
        sha256_ids: Those of them whose id in git is a sha256, and not a sha1.

    Returns:
        The digests of those files that could be read and were in that state before and after.
    """
    found: dict[str, Digest] = {}
    missing: list[_Task] = []
    for path, seen in files.items():
        state = seen or _opened.signature(path)
        if state is None:
            continue
        task = _Task(path, state, path in sha256_ids)
        known = _known.get(task)
        if known is not None and _opened.signature(path) == state:
            found[path] = known
        else:
            missing.append(task)
    started = time.perf_counter()
    for task, digest in zip(missing, _digests(missing), strict=True):
        if digest is None:
            continue
        found[task.path] = digest
        # A file that was written this moment may be written again without a trace in its times.
        if max(task.state.ctime_ns, task.state.mtime_ns) < time.time_ns() - _RACY_NS and len(_known) < _MOST_KNOWN:
            _known[task] = digest
    seconds = time.perf_counter() - started
    if seconds > _SLOW:
        size = sum(task.state.size for task in missing)
        _logger.info("Hashed %.1f GB of inputs in %.1f s (%.0f MB/s).", size / 1e9, seconds, size / 1e6 / seconds)
    return found


def digest_of(path: str) -> Digest | None:
    """Hash one file; None where there is no regular file, or it changes meanwhile."""
    return digest_all({path: None}).get(path)


def _digests(tasks: Sequence[_Task]) -> list[Digest | None]:
    stop = threading.Event()
    workers = min(8, os.cpu_count() or 1)
    if len(tasks) > 1 and sum(task.state.size for task in tasks) > _CHUNK:
        try:
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                try:
                    return list(pool.map(lambda task: _digest(task, stop), tasks))
                except BaseException:  # Ctrl-C: at once, and not after the hundred GB that a thread is at
                    stop.set()
                    pool.shutdown(cancel_futures=True)
                    raise
        except RuntimeError:  # the interpreter is about to end, and starts no thread any more
            pass
    return [_digest(task, stop) for task in tasks]


def _digest(task: _Task, stop: threading.Event) -> Digest | None:
    size = task.state.size
    sha256 = hashlib.sha256()
    blob = (hashlib.sha256 if task.is_sha256 else hashlib.sha1)(b"blob %d\0" % size)
    seen = 0
    try:
        with _opened.paused():
            descriptor = os.open(task.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123
            while chunk := file.read(_CHUNK):
                if stop.is_set():
                    return None
                sha256.update(chunk)
                blob.update(chunk)
                seen += len(chunk)
    except OSError:
        return None
    if seen != size or _opened.signature(task.path) != task.state:
        return None
    return Digest(sha256.hexdigest(), blob.hexdigest(), size)
