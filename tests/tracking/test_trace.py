from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from helpers.numbers import array_leaf, arrays, scalars
from hypothesis import given, settings
from hypothesis import strategies as st

from researchlab.errors import MetricError, RecordError, ResearchlabWarning
from researchlab.numerics.compare import compare_leaves
from researchlab.numerics.compare_metrics import compare_metrics
from researchlab.numerics.history import MetricHistory
from researchlab.numerics.leaves import leaves_of
from researchlab.tracking import _trace_writer
from researchlab.tracking._trace_format import METRICS_SCHEMA
from researchlab.tracking.trace import METRICS_FILE, STATE_FILE, TraceWriter, read_trace

STEPS = st.integers(-(2**63), 2**63 - 1)
VALUES = scalars() | st.integers() | st.floats() | st.booleans() | st.complex_numbers()


def points_of(history):
    return [(name, *point) for name, metric in history.metrics.items() for point in _points(metric)]


def _points(metric):
    return [(int(metric.steps[i]), metric.dtype(i), metric.bits(i)) for i in range(len(metric))]


@pytest.fixture
def written(tmp_path):
    """A folder with a trace of 10 points in 5 batches and two States."""
    writer = TraceWriter(tmp_path)
    for step in range(5):
        writer.add_metrics({"loss": 0.5 * step, "accuracy": np.float32(step)}, step)
        writer.flush()
    writer.set_state(leaves_of({"w": jnp.arange(3.0), "n": 3}), 4, source="loop")
    writer.set_state(leaves_of({"w": jnp.arange(3.0), "n": 4}), None, source="loop")
    writer.close()
    return tmp_path


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=3), STEPS, VALUES), max_size=15))
def test_metrics_of_any_dtype_come_back_with_their_bits(points):
    with tempfile.TemporaryDirectory() as folder:
        writer = TraceWriter(Path(folder))
        for name, step, value in points:
            writer.add_metric(name, value, step)
        writer.close()
        trace = read_trace(Path(folder))
    assert points_of(trace.metrics) == points_of(MetricHistory.from_values(points))
    assert list(trace.metrics.metrics) == list(MetricHistory.from_values(points).metrics)
    assert not trace.truncated


@settings(max_examples=40, deadline=None)
@given(st.lists(arrays(), max_size=4))
def test_states_of_any_dtype_come_back_with_their_bits(values):
    leaves = [array_leaf(value, str(index)) for index, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as folder:
        writer = TraceWriter(Path(folder))
        writer.set_state(leaves, 7, source="s")
        writer.close()
        states = read_trace(Path(folder)).states
        back = states.get(("s", 7), ())
        assert [(leaf.path, leaf.dtype, leaf.shape) for leaf in back] == [
            (leaf.path, leaf.dtype, leaf.shape) for leaf in leaves
        ]
        assert [leaf.array.tobytes() for leaf in back] == [leaf.array.tobytes() for leaf in leaves]


def test_every_kind_of_leaf_comes_back(tmp_path):
    tree = {
        "keys": jax.random.split(jax.random.key(0), 3),
        "no_keys": jax.random.split(jax.random.key(0), 0),
        "rbg": jax.random.key(0, impl="rbg"),
        "weak": jnp.asarray(1.0),
        "int": 3,
        "huge": -(10**40),
        "bool": True,
        "float": float("nan"),
        "complex": 1j,
        "none": None,
        "text": "a\ud800b",
        "function": jax.nn.relu,
        "object": object(),
        "empty": jnp.zeros((0, 3)),
        "strings": np.array(["a", "bcd"]),
        "a.b": np.longdouble(1) / 3,
    }
    stored = leaves_of(tree)
    writer = TraceWriter(tmp_path)
    writer.set_state(stored, None, source="loop")
    writer.close()
    received = read_trace(tmp_path).states["loop", None]
    assert [d for d in compare_leaves(stored, received) if d.path != "text"] == []
    assert [leaf.path for leaf in received] == [leaf.path for leaf in stored]
    assert [leaf.weak_type for leaf in received] == [leaf.weak_type for leaf in stored]
    assert [leaf.path for leaf in received if not leaf.comparable] == ["object"]


def test_nothing_recorded_leaves_no_file_and_reads_as_nothing(tmp_path):
    writer = TraceWriter(tmp_path)
    writer.add_metrics({}, 0)
    writer.close()
    assert list(tmp_path.iterdir()) == []
    trace = read_trace(tmp_path)
    assert (trace.metrics.points, trace.states, trace.truncated) == (0, {}, False)


def test_counts_and_repeated_close(tmp_path):
    writer = TraceWriter(tmp_path)
    writer.add_metrics({"a": 1, "b": 2}, 0)
    writer.add_metric("a", 3, 1)
    leaves = leaves_of([1.0])
    writer.set_state(leaves, 0, source="loop")
    writer.set_state(leaves, None, source="loop")
    writer.set_state(leaves, None, source="loop")
    writer.set_state(leaves, None, source="other")
    for _ in range(2):
        assert (writer.points, writer.names, writer.states) == (3, 2, 3)
        writer.close()
    assert list(read_trace(tmp_path).states) == [("loop", 0), ("loop", None), ("other", None)]


def test_the_last_final_state_of_a_source_wins_whatever_happens_to_its_arrays_later(tmp_path):
    writer = TraceWriter(tmp_path)
    array = np.zeros(3)
    writer.set_state(leaves_of({"w": array, "x": array[::-1]}), None, source="loop")
    array += 1
    frozen = array.view()
    frozen.flags.writeable = False
    writer.set_state(leaves_of({"w": array, "frozen": frozen}), None, source="loop")
    array += 1
    writer.close()
    (leaves,) = read_trace(tmp_path).states.values()
    assert [leaf.array.tolist() for leaf in leaves] == [[1, 1, 1]] * 2


def test_the_final_arrays_of_jax_are_not_copied(tmp_path):
    writer = TraceWriter(tmp_path)
    leaves = leaves_of(jnp.arange(1000.0))
    writer.set_state(leaves, None, source="loop")
    assert np.shares_memory(writer._final["loop"][0].array, leaves[0].array)
    writer.close()


def test_points_reach_the_file_within_the_interval_without_another_call(tmp_path):
    writer = TraceWriter(tmp_path, flush_interval=0.05)
    writer.add_metric("loss", 0.5, 1)
    for _ in range(200):
        if (tmp_path / METRICS_FILE).exists() and read_trace(tmp_path).metrics.points:
            break
        time.sleep(0.05)
    trace = read_trace(tmp_path)
    assert trace.metrics.points == 1
    assert trace.truncated
    writer.close()
    assert not read_trace(tmp_path).truncated


def test_a_killed_process_leaves_what_it_flushed(tmp_path):
    code = """
import os, signal, sys, pathlib
import numpy as np
from researchlab.numerics.leaves import Leaf
from researchlab.tracking.trace import TraceWriter
writer = TraceWriter(pathlib.Path(sys.argv[1]), flush_interval=3600)
for step in range(10_000):
    writer.add_metrics({"loss": step / 3, "x": float("nan")}, step)
leaf = Leaf("w", "array", "float64", (3,), False, np.arange(3.0), None)
writer.set_state([leaf], 5, source="loop")
writer.set_state([leaf], None, source="loop")
writer.flush()
writer.add_metric("lost", 1.0, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    trace = read_trace(tmp_path)
    assert trace.truncated
    assert list(trace.metrics.metrics) == ["loss", "x"]
    assert trace.metrics.metrics["loss"].value(9_999) == 9_999 / 3
    assert list(trace.states) == [("loop", 5)]


@pytest.mark.parametrize("name", [METRICS_FILE, STATE_FILE])
def test_a_file_cut_anywhere_reads_up_to_the_cut(written, name):
    whole = read_trace(written)
    content = (written / name).read_bytes()
    read = set()
    for size in range(0, len(content), 5):  # any cut does; batches end at multiples of 8
        (written / name).unlink()  # a mapped file must not shrink
        (written / name).write_bytes(content[:size])
        trace = read_trace(written)
        assert trace.truncated
        result = compare_metrics(trace.metrics, whole.metrics, prefix=True)
        assert result.differences == ()
        for key, leaves in trace.states.items():
            assert compare_leaves(whole.states[key], leaves) == ()
        read.add(trace.metrics.points if name == METRICS_FILE else len(trace.states))
    assert read == ({0, 2, 4, 6, 8, 10} if name == METRICS_FILE else {0, 1, 2})


@pytest.mark.parametrize("name", [METRICS_FILE, STATE_FILE])
@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"hello, this is no trace at all" * 9,
        lambda content: b"ARROW1\0\0" + content,
        lambda content: b"\0" * len(content),
        lambda content: content + content,
        lambda content: content[:400] + content[500:],
        lambda content: content[:4] + b"\xff\xff\xff\x7f" + content[8:],
        lambda content: content.replace(b"researchlab.trace", b"anotherlab!.trace"),
    ],
    ids=["text", "file-format", "zeros", "twice", "hole", "length", "other-stream"],
)
def test_damage_is_an_error_that_names_the_file(written, name, damage):
    content = (written / name).read_bytes()
    (written / name).unlink()
    (written / name).write_bytes(damage(content))
    with pytest.raises(RecordError) as caught:
        read_trace(written)
    assert str(written / name) in str(caught.value)
    assert "Fetch the run's artifacts again" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_a_file_is_an_error_or_other_data_and_never_a_crash(data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = TraceWriter(folder)
        writer.add_metrics({"loss": 0.5, "n": 3}, 0)
        writer.flush()
        writer.add_metrics({"loss": 0.25}, 1)
        writer.set_state(leaves_of({"w": np.arange(3.0), "t": "text"}), None, source="loop")
        writer.close()
        path = folder / data.draw(st.sampled_from([METRICS_FILE, STATE_FILE]))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.unlink()
        path.write_bytes(content)
        with contextlib.suppress(RecordError):
            trace = read_trace(folder)
            compare_metrics(trace.metrics, trace.metrics)
            for leaves in trace.states.values():
                compare_leaves(leaves, leaves)


def test_a_newer_version_says_to_upgrade(tmp_path):
    schema = pa.schema([("name", pa.string())], metadata={"researchlab.trace": "2"})
    with pa.OSFile(str(tmp_path / METRICS_FILE), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_batch(pa.record_batch([pa.array(["x"])], schema=schema))
    with pytest.raises(RecordError, match=r"version 2.*pip install -U researchlab"):
        read_trace(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "bits", "found"), [("float32", b"123", "3 bytes instead of 4"), ("float31", b"1234", "'float31'")]
)
def test_bits_that_do_not_fit_their_dtype_are_damage(tmp_path, dtype, bits, found):
    texts = [pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([text])) for text in ("loss", dtype)]
    columns = [texts[0], pa.array([0]), texts[1], pa.array([bits], pa.binary()), pa.array([0.0])]
    with pa.OSFile(str(tmp_path / METRICS_FILE), "wb") as file, pa.ipc.new_stream(file, METRICS_SCHEMA) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=METRICS_SCHEMA))
    with pytest.raises(RecordError, match=found):
        read_trace(tmp_path)


def test_a_state_that_was_not_finished_is_left_out_and_the_next_one_is_read(tmp_path):
    writer = TraceWriter(tmp_path)
    good = leaves_of({"a": 1, "b": np.arange(2)})
    broken = [good[0], _Exploding()]
    with pytest.raises(KeyboardInterrupt):
        writer.set_state(broken, 3, source="loop")
    writer.set_state(good, 3, source="loop")
    with pytest.raises(KeyboardInterrupt):
        writer.set_state(broken, 4, source="loop")
    writer.close()
    states = read_trace(tmp_path).states
    assert list(states) == [("loop", 3)]
    assert compare_leaves(states["loop", 3], good) == ()


class _Exploding:
    """A leaf at which the user presses Ctrl-C."""

    @property
    def array(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1.5, "1", None, 2**63, -(2**63) - 1, np.float32(1)])
def test_a_step_that_is_no_integer_of_64_bits_is_refused_by_name(tmp_path, step):
    writer = TraceWriter(tmp_path)
    with pytest.raises(MetricError, match="'loss'"):
        writer.add_metrics({"loss": 1.0}, step)
    with pytest.raises(MetricError, match="'loss'"):
        writer.add_metric("loss", 1.0, step)
    writer.close()


def test_integers_of_numpy_and_jax_are_steps(tmp_path):
    writer = TraceWriter(tmp_path)
    for step in (np.int32(1), jnp.int32(2), np.array(3), -(2**63), 2**63 - 1):
        writer.add_metric("loss", 1.0, step)
    writer.close()
    steps = read_trace(tmp_path).metrics.metrics["loss"].steps.tolist()
    assert steps == [1, 2, 3, -(2**63), 2**63 - 1]


@pytest.mark.parametrize("bad", [{"b": None}, {"b": [1]}, {3: 1.0}, {"\ud800": 1.0}])
def test_of_a_step_with_a_bad_metric_nothing_is_kept(tmp_path, bad):
    writer = TraceWriter(tmp_path)
    with pytest.raises(MetricError):
        writer.add_metrics({"a": 1.0} | bad, 0)
    assert (writer.points, writer.names) == (0, 0)
    writer.add_metric("c", 1.0, 0)
    writer.close()
    assert list(read_trace(tmp_path).metrics.metrics) == ["c"]


def test_many_threads_lose_no_point(tmp_path):
    writer = TraceWriter(tmp_path, flush_interval=0.01)
    leaf = leaves_of({"w": np.arange(5)})

    def work(thread):
        for step in range(2_000):
            writer.add_metrics({f"thread{thread}": step, "all": thread}, step)
            if step % 500 == 0:
                writer.set_state(leaf, step, source=str(thread))
                writer.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    trace = read_trace(tmp_path)
    assert trace.metrics.points == writer.points == 16_000
    for number in range(4):
        metric = trace.metrics.metrics[f"thread{number}"]
        assert metric.steps.tolist() == list(range(2_000))
        assert [metric.value(i) for i in (0, 1_999)] == [0, 1_999]
    assert len(trace.states) == writer.states == 16


def test_a_closed_trace_takes_nothing_more(tmp_path):
    writer = TraceWriter(tmp_path)
    writer.add_metric("a", 1, 0)
    writer.close()
    for late in (lambda: writer.add_metric("a", 1, 1), lambda: writer.set_state([], None, source="s")):
        with pytest.raises(RecordError, match="closed"):
            late()


def test_a_trace_is_not_written_over(written):
    with pytest.raises(RecordError, match="exists"):
        TraceWriter(written)


def test_a_folder_that_cannot_be_written_to_is_an_error_at_flush_and_close(tmp_path):
    writer = TraceWriter(tmp_path / "missing")
    writer.add_metric("a", 1, 0)
    with pytest.raises(RecordError, match="could not be written"):
        writer.flush()
    with pytest.raises(RecordError, match="could not be written"):
        writer.add_metric("a", 1, 1)
    with pytest.raises(RecordError, match="could not be written"):
        writer.close()
    writer.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_says_so(tmp_path):
    writer = TraceWriter(tmp_path)
    (tmp_path / METRICS_FILE).symlink_to("/dev/full")
    writer.add_metric("a", 1, 0)
    with pytest.raises(RecordError, match="Free space"):
        writer.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_state_that_cannot_be_written_costs_no_metrics(tmp_path):
    writer = TraceWriter(tmp_path)
    (tmp_path / STATE_FILE).symlink_to("/dev/full")
    writer.add_metric("a", 1, 0)
    writer.flush()
    writer.add_metric("a", 2, 1)
    with pytest.raises(RecordError, match="Free space"):
        writer.set_state(leaves_of({"w": np.arange(3)}), 1, source="loop")
    with pytest.raises(RecordError, match="Free space"):
        writer.close()
    (tmp_path / STATE_FILE).unlink()
    trace = read_trace(tmp_path)
    assert trace.metrics.points == 2
    assert trace.truncated


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_does_not_touch_the_trace(tmp_path):
    writer = TraceWriter(tmp_path)
    writer.add_metric("a", 1, 0)
    writer.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.warns(ResearchlabWarning, match="Log it in the parent"):
                writer.add_metric("a", 2, 0)
            writer.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    writer.add_metric("a", 3, 0)
    writer.close()
    metric = read_trace(tmp_path).metrics.metrics["a"]
    assert [metric.value(i) for i in range(len(metric))] == [1, 3]


def test_an_array_read_back_is_a_view_of_the_file(tmp_path):
    writer = TraceWriter(tmp_path)
    writer.set_state(leaves_of({"w": np.arange(100_000.0)}), 0, source="loop")
    writer.close()
    before = pa.total_allocated_bytes()
    (leaf,) = read_trace(tmp_path).states["loop", 0]
    assert pa.total_allocated_bytes() - before < 100_000
    assert not leaf.array.flags.owndata
    assert leaf.array.flags.aligned


# Dtypes of metrics, plain and not; the generators give any bits of them.
COLUMN_DTYPES = [
    *map(np.dtype, ("bool", "int32", "uint64", "float16", "float32", "float64", "longdouble", "complex64", ">f4")),
    *(np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "int4")),
]


@st.composite
def blocks(draw):
    count = draw(st.integers(0, 5))
    columns = {}
    for name in draw(st.lists(st.text(max_size=3), max_size=4, unique=True)):
        dtype = draw(st.sampled_from(COLUMN_DTYPES))
        bits = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
        column = np.frombuffer(bits, np.uint8)
        # A bool is 0 or 1, as a device gives it.
        columns[name] = (column % 2).astype(bool) if dtype.kind == "b" else column.view(dtype)
    steps = np.array(draw(st.lists(STEPS, min_size=count, max_size=count)), np.int64)
    return steps, np.arange(count) * 0.5, columns


def rows_of(folder):
    with pa.OSFile(str(folder / METRICS_FILE)) as file:
        table = pa.ipc.open_stream(file).read_all()
    return list(
        zip(*(table.column(name).to_pylist() for name in ("name", "step", "dtype", "bits", "time")), strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(blocks() | st.tuples(st.text(max_size=3), STEPS, VALUES), min_size=1, max_size=4))
def test_a_block_is_what_its_steps_in_turn_are(pieces):
    with tempfile.TemporaryDirectory() as base:
        folders = Path(base, "blocks"), Path(base, "steps")
        for folder, by_block in zip(folders, (True, False), strict=True):
            folder.mkdir()
            writer = TraceWriter(folder)
            for piece in pieces:
                first, second, third = piece
                if isinstance(third, dict) and by_block:
                    writer.add_block(first, second, third)
                elif isinstance(third, dict):
                    for index, step in enumerate(first.tolist()):
                        writer.add_metrics({name: column[index] for name, column in third.items()}, step)
                else:
                    writer.add_metric(first, third, second)
            counts = writer.points, writer.names
            writer.close()
        one, other = (read_trace(folder).metrics for folder in folders)
        assert points_of(one) == points_of(other)
        assert list(one.metrics) == list(other.metrics)
        if counts[0]:
            received, wanted = (rows_of(folder) for folder in folders)
            assert [row[:4] for row in received] == [row[:4] for row in wanted]
        assert counts == (one.points, len(one.metrics))


def test_a_block_keeps_the_time_of_each_step_and_the_bits_that_are_easily_lost(tmp_path):
    nan = np.array([0x7FC00123, 0xFFC00001], np.uint32).view(np.float32)
    columns = {
        "nan": nan,
        "zero": np.array([-0.0, 0.0], ml_dtypes.bfloat16),
        "count": np.array([2**24 + 1, 2**62 + 1]),
        "double": np.array([0.1, -0.0]),
    }
    writer = TraceWriter(tmp_path)
    writer.add_block(np.array([7, 9]), np.array([1.25, 2.5]), columns)
    writer.close()
    rows = rows_of(tmp_path)
    assert [row[:2] for row in rows] == [(name, step) for step in (7, 9) for name in columns]
    assert [row[4] for row in rows] == [1.25] * 4 + [2.5] * 4
    assert [row[3] for row in rows] == [column[i].tobytes() for i in range(2) for column in columns.values()]
    assert [row[2] for row in rows[:4]] == ["float32", "bfloat16", "int64", "float64"]


def test_the_arrays_of_a_block_may_be_reused(tmp_path):
    writer = TraceWriter(tmp_path)
    steps, times, column = np.arange(3), np.zeros(3), np.arange(3.0)
    writer.add_block(steps, times, {"m": column})
    for array in (steps, times, column):
        array[:] = 9
    writer.close()
    assert [(row[1], row[4]) for row in rows_of(tmp_path)] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert read_trace(tmp_path).metrics.metrics["m"].value(2) == 2.0


def test_a_large_block_is_written_in_batches_of_a_few_megabytes(tmp_path):
    writer = TraceWriter(tmp_path)
    count = 100_000
    writer.add_block(np.arange(count), np.zeros(count), {"a": np.arange(count), "b": np.arange(count) * 0.5})
    writer.close()
    with pa.OSFile(str(tmp_path / METRICS_FILE)) as file:
        batches = list(pa.ipc.open_stream(file))
    assert max(len(batch) for batch in batches) == 1 << 17
    metrics = read_trace(tmp_path).metrics.metrics
    assert [int(metrics["a"].value(i)) for i in (0, 65_536, count - 1)] == [0, 65_536, count - 1]
    assert metrics["b"].value(count - 1) == (count - 1) * 0.5


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"ok": np.zeros(2), "m": np.zeros(3)}, "'m' has 3 values for 2 steps"),
        ({"ok": np.zeros(2), "m": np.zeros((2, 2))}, "'m' is not one number"),
        ({"ok": np.zeros(2), "m": np.array(["a", "b"])}, "'m' is not one number"),
        ({"ok": np.zeros(2), "m": np.array([1, None])}, "'m' is not one number"),
        ({"ok": np.zeros(2), "a\ud800": np.zeros(2)}, "not text that can be stored"),
    ],
)
def test_a_block_that_cannot_be_kept_is_refused_whole(tmp_path, columns, said):
    writer = TraceWriter(tmp_path)
    with pytest.raises(MetricError, match=said):
        writer.add_block(np.arange(2), np.zeros(2), columns)
    assert (writer.points, writer.names) == (0, 0)
    writer.close()


def test_who_is_faster_than_the_disk_waits_and_memory_stays_flat(tmp_path, monkeypatch):
    monkeypatch.setattr(_trace_writer, "MOST_WAITING", 1000)
    writer = TraceWriter(tmp_path)
    gate, seen = threading.Event(), []
    write = writer._metrics_stream.write
    monkeypatch.setattr(writer._metrics_stream, "write", lambda batch: (gate.wait(60), write(batch)))

    def add():
        for first in range(0, 3000, 500):
            writer.add_block(np.arange(first, first + 500), np.zeros(500), {"m": np.zeros(500)})
            seen.append(writer.points)

    adder = threading.Thread(target=add)
    adder.start()
    while len(seen) < 2:
        time.sleep(0.01)
    time.sleep(0.05)
    assert seen == [500, 1000]
    gate.set()
    adder.join()
    writer.close()
    assert seen[-1] == read_trace(tmp_path).metrics.points == 3000


def test_who_waits_for_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(_trace_writer, "MOST_WAITING", 10)
    writer = TraceWriter(tmp_path)

    def fail(batch):
        time.sleep(0.05)
        msg = "No space left"
        raise OSError(msg)

    monkeypatch.setattr(writer._metrics_stream, "write", fail)
    writer.add_block(np.arange(10), np.zeros(10), {"m": np.zeros(10)})
    with pytest.raises(RecordError, match="No space left"):
        writer.add_block(np.arange(10), np.zeros(10), {"m": np.zeros(10)})
