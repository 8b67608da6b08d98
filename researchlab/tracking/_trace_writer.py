"""How does the trace of a run get into its files while the run lives, so that it survives a kill?"""

from __future__ import annotations

import dataclasses
import operator
import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from researchlab.errors import MetricError, RecordError, ResearchlabWarning
from researchlab.numerics.dtypes import raw_bytes
from researchlab.numerics.scalars import encode_scalar
from researchlab.tracking._trace_batches import POINTS_PER_BATCH, PointBatches, encode_block
from researchlab.tracking._trace_format import METRICS_FILE, METRICS_SCHEMA, STATE_FILE, STATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from researchlab.numerics.leaves import Leaf
    from researchlab.tracking._trace_batches import EncodedBlock, Row

#: Points that were added and not yet written; beyond, whoever adds waits.
MOST_WAITING: Final = 1 << 18


class TraceWriter:
    """Writes the trace of one run into a folder; every method may be called from any thread.

    A metric costs its caller the encoding and a list entry. One background thread does the writing, because an
    exception from a signal handler (Ctrl-C) only ever hits the main thread: no point is written half or twice. After a
    SIGKILL all but the last ``flush_interval`` is in the files.
    """

    def __init__(self, folder: Path, *, flush_interval: float = 1.0) -> None:
        """Prepare to write; a file appears when there is something in it.

        Args:
            folder: an existing folder without a trace.
            flush_interval: how many seconds a point may stay in memory.

        Raises:
            RecordError: the folder holds a trace already.
        """
        for path in (folder / METRICS_FILE, folder / STATE_FILE):
            if path.exists():
                msg = f"{path} exists: a second trace would replace it. Write to an empty folder."
                raise RecordError(msg)
        self._folder = folder
        self._flush_interval = flush_interval
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._queue: list[list[Row] | EncodedBlock] = []
        self._waiting = 0  # points in the queue
        self._names: set[str] = set()
        self._batches = PointBatches()  # it belongs to the thread
        self._added = self._written = self._wanted = 0
        self._closing = self._closed = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._metrics_stream = _Stream(folder / METRICS_FILE, METRICS_SCHEMA)
        self._state_lock = threading.Lock()
        self._state_stream = _Stream(folder / STATE_FILE, STATE_SCHEMA)
        self._final: dict[str, tuple[Leaf, ...]] = {}
        self._states = 0

    @property
    def points(self) -> int:
        """How many points were added."""
        return self._added

    @property
    def names(self) -> int:
        """How many metrics were added."""
        return len(self._names)

    @property
    def states(self) -> int:
        """How many States were written or wait for ``close``."""
        return self._states + len(self._final)

    def add_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Add one point to each metric: all of them, or none where one is refused.

        Args:
            metrics: name to value, as ``encode_scalar`` takes it.
            step: any integer of 64 bits.

        Raises:
            MetricError: a value is not one number, a name is not text, or the step is not an integer.
            RecordError: the trace is closed, or could not be written.
        """
        number, now = _checked_step(step, metrics), time.time()
        self._append([(name, number, *encode_scalar(value, name=name), now) for name, value in metrics.items()])

    def add_metric(self, name: str, value: Any, step: int) -> None:
        """Add one point; see ``add_metrics``."""
        self._append([(name, _checked_step(step, (name,)), *encode_scalar(value, name=name), time.time())])

    def add_block(
        self, steps: NDArray[np.int64], times: NDArray[np.float64], columns: Mapping[str, NDArray[Any]]
    ) -> None:
        """Add a point of each metric for each of several steps: the same rows as ``add_metrics`` for each step in turn.

        Args:
            steps: shape ``[n]``.
            times: when each step ended, in seconds since 1970, of shape ``[n]``.
            columns: name to the values, of shape ``[n]`` and any number dtype. They are copied.

        Raises:
            MetricError: a column is not of numbers, or not as long as the steps, or a name is not text.
            RecordError: the trace is closed, or could not be written.
        """
        if len(steps) and columns and not self._is_forked():
            block = encode_block(steps, times, columns)
            self._enqueue(block, block.points, block.names)

    def set_state(self, leaves: Sequence[Leaf], step: int | None, *, source: str) -> None:
        """Keep a State.

        Args:
            leaves: as ``leaves_of`` gives them.
            step: the step it belongs to, written at once; None for the final State, which is kept in memory (arrays
                that might change are copied) and written by ``close``: the last one of each source.
            source: who computed it, so that two Loops of a run do not replace each other's.

        Raises:
            MetricError: the step is not an integer.
            RecordError: the trace is closed, or could not be written.
        """
        if self._is_forked():
            return
        number = None if step is None else _checked_step(step, (f"State of {source}",))
        with self._state_lock:
            self._check_open()
            if number is None:
                self._final[source] = tuple(_unchanging(leaf) for leaf in leaves)
            else:
                self._write_state(leaves, number, source)
                self._states += 1

    def flush(self) -> None:
        """Hand every point that was added so far to the operating system.

        Raises:
            RecordError: the trace could not be written.
        """
        if self._is_forked():
            return
        with self._changed:
            self._wanted = max(self._wanted, self._added)
            self._wait_until_written(self._added)

    def close(self) -> None:
        """Write what is left and the end marks; a second call does nothing.

        Raises:
            RecordError: the trace could not be written.
        """
        if self._closed or self._pid != os.getpid():
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()  # it writes every point first, or gives up at its first failure
        try:
            self._write_rest()
        except RecordError:
            self._closed = True
            self._state_stream.abandon()
            self._metrics_stream.abandon()
            raise
        self._closed = True

    def _write_rest(self) -> None:
        with self._state_lock:
            self._check_written()
            for source in list(self._final):
                self._write_state(self._final[source], None, source)
                del self._final[source]
                self._states += 1
            self._state_stream.close()
        self._metrics_stream.close()

    def _append(self, rows: list[Row]) -> None:
        if rows and not self._is_forked():
            self._enqueue(rows, len(rows), [row[0] for row in rows])

    def _enqueue(self, piece: list[Row] | EncodedBlock, points: int, names: Iterable[str]) -> None:
        with self._changed:
            if self._added - self._written >= MOST_WAITING:
                # Whoever computes faster than the disk takes it waits here, so that memory does not grow.
                self._changed.wait_for(lambda: self._added - self._written < MOST_WAITING or self._cannot_write())
            self._check_open()
            new = set(names) - self._names
            for name in new:
                _check_name(name)
            self._names |= new
            if isinstance(piece, list) and self._queue and isinstance(self._queue[-1], list):
                self._queue[-1].extend(piece)
            else:
                self._queue.append(piece)
            was_idle, was_urgent = not self._waiting, self._waiting >= POINTS_PER_BATCH
            self._waiting += points
            self._added += points
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="researchlab-trace", daemon=True)
                self._thread.start()
            if was_idle or (not was_urgent and self._waiting >= POINTS_PER_BATCH):
                self._changed.notify_all()

    def _cannot_write(self) -> bool:
        return self._failure is not None or self._closing

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                self._changed.wait_for(self._is_urgent, timeout=self._flush_interval)
                pieces, self._queue, self._waiting = self._queue, [], 0
                if not pieces and self._closing:
                    return
            for piece in pieces:
                failure: Exception | None = None
                points = len(piece) if isinstance(piece, list) else piece.points
                try:
                    for batch in self._batches.of(piece):
                        self._metrics_stream.write(batch)
                except Exception as error:  # noqa: BLE001 - shown to whoever adds, flushes or closes next
                    failure = error
                with self._changed:
                    self._written += points
                    self._failure = failure or self._failure
                    self._changed.notify_all()
                    if failure is not None:
                        return

    def _is_urgent(self) -> bool:
        return self._closing or self._wanted > self._written or self._waiting >= POINTS_PER_BATCH

    def _wait_until_written(self, target: int) -> None:
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._written >= target or self._failure is not None)
        self._check_written()

    def _write_state(self, leaves: Sequence[Leaf], step: int | None, source: str) -> None:
        try:
            for index, leaf in enumerate(leaves):
                self._state_stream.write(_leaf_batch(leaf, index, len(leaves), step, source))
        except (OSError, pa.ArrowException) as error:
            self._failure = error
            self._check_written()

    def _check_open(self) -> None:
        self._check_written()
        if self._closing:
            msg = f"The trace in {self._folder} is closed: log inside the run's `with` block."
            raise RecordError(msg)

    def _check_written(self) -> None:
        if self._failure is not None:
            msg = (
                f"The trace in {self._folder} could not be written ({self._failure}): this run cannot be compared "
                "after a re-execution. Free space there (or set TMPDIR to a larger disk) and run again."
            )
            raise RecordError(msg) from self._failure

    def _is_forked(self) -> bool:
        """Return whether this is a child process, which has neither the writing thread nor a file of its own."""
        if self._pid == os.getpid():
            return False
        msg = (
            f"What process {os.getpid()} logs is not part of the trace of its parent {self._pid}, and is not compared "
            "after a re-execution. Log it in the parent."
        )
        warnings.warn(msg, ResearchlabWarning, stacklevel=4)
        return True


class _Stream:
    """An Arrow stream file, made by its first batch; the operating system has each batch when ``write`` returns."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._file: pa.OSFile | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        writer = self._writer
        if writer is None:
            self._file = pa.OSFile(str(self._path), "wb")  # unbuffered: straight to write(2)
            writer = self._writer = pa.ipc.new_stream(self._file, self._schema)
        writer.write_batch(batch)

    def close(self) -> None:
        if self._writer is not None and self._file is not None:
            self._writer.close()
            self._file.close()
        self._writer = self._file = None

    def abandon(self) -> None:
        """Close the file without an end mark."""
        if self._file is not None:
            self._file.close()
        self._writer = self._file = None


def _checked_step(step: Any, names: Iterable[str]) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        of = next(iter(names), None)
        msg = f"Step {step!r} of metric {of!r} is not an integer of 64 bits: log with `step=int(...)`."
        raise MetricError(msg)
    return number


def _check_name(name: Any) -> None:
    try:
        name.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        msg = f"Metric name {name!r} is not text that can be stored: use a str without lone surrogates."
        raise MetricError(msg) from error


def _unchanging(leaf: Leaf) -> Leaf:
    """Return the leaf with an array that nobody can write to: a copy unless its memory is read-only (a jax array's)."""
    array = leaf.array
    if array is None:
        return leaf
    owner: Any = array
    while isinstance(owner, np.ndarray) and not owner.flags.writeable and owner.base is not None:
        owner = owner.base
    if isinstance(owner, np.ndarray):
        read_only = not owner.flags.writeable
    else:
        read_only = isinstance(owner, bytes) or (isinstance(owner, memoryview) and owner.readonly)
    return leaf if read_only else dataclasses.replace(leaf, array=array.copy())


def _leaf_batch(leaf: Leaf, index: int, leaves: int, step: int | None, source: str) -> pa.RecordBatch:
    data = pa.nulls(1, pa.large_binary())
    if leaf.array is not None:
        content = raw_bytes(leaf.array)
        offsets = np.array([0, content.size], np.int64)
        data = pa.Array.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(content)])
    columns = [
        pa.array([source], pa.string()),
        pa.array([step], pa.int64()),
        pa.array([index], pa.int64()),
        pa.array([leaves], pa.int64()),
        pa.array([_storable(leaf.path)], pa.string()),
        pa.array([leaf.kind], pa.string()),
        pa.array([leaf.dtype], pa.string()),
        pa.array([leaf.shape], pa.list_(pa.int64())),
        pa.array([leaf.weak_type], pa.bool_()),
        data,
        pa.array([None if leaf.static is None else _storable(leaf.static)], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=STATE_SCHEMA)


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
