"""What do the columns of a trace's two files mean?

Both are Arrow IPC streams: ``metrics.arrow`` has a row for each point in logging order, ``state.arrow`` a row and a
record batch for each leaf, so that writing and reading need the memory of one leaf. A stream without its end mark
belongs to a run that was killed.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

METRICS_FILE: Final = "metrics.arrow"
STATE_FILE: Final = "state.arrow"
VERSION_KEY: Final = b"researchlab.trace"
VERSION: Final = b"1"
END_MARK: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"

_METADATA = {VERSION_KEY: VERSION}
METRICS_SCHEMA: Final = pa.schema(
    [
        pa.field("name", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("dtype", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("bits", pa.binary(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),  # seconds since 1970
    ],
    metadata=_METADATA,
)
STATE_SCHEMA: Final = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("step", pa.int64()),  # null: the final State
        pa.field("index", pa.int64(), nullable=False),  # of the leaf, and how many its State has: half a State shows
        pa.field("leaves", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int64()), nullable=False),
        pa.field("weak_type", pa.bool_(), nullable=False),
        pa.field("data", pa.large_binary()),
        pa.field("static", pa.string()),
    ],
    metadata=_METADATA,
)
