"""Records of the bulk streams, kept until they become rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import Decoder, stack_columns
from tracer.capture.symbols.stack_names import Stacks
from tracer.trace.row_sink import RowSink
from tracer.wire.streams import STREAM_AT, STREAMS

_BULK: Final = tuple(stream for stream in STREAMS if stream.is_bulk)
_MOST_BYTES: Final = 1 << 20
"""More records than this should become rows: a large batch is cheap for each row, and memory is short."""


class BulkRecords:
    """Keeps records, and writes them together: the fixed cost of a batch equals that of some hundred rows.

    Records with stacks are written at once: the stacks must be named while their processes exist.
    """

    def __init__(self, decoder: Decoder, sink: RowSink, stacks: Stacks) -> None:
        self._decoder = decoder
        self._sink = sink
        self._stacks = stacks
        self._kept: dict[str, list[Records]] = {}
        self._kept_bytes = 0

    def add(self, waiting: Mapping[str, Records]) -> None:
        """Take the records of the bulk streams, and leave out all others."""
        for stream in _BULK:
            records = waiting.get(stream.name)
            if records is None or not len(records):
                continue
            if stream.needs_stacks:
                columns = stack_columns(*self._stacks.number(records))
                self._sink.append(stream.table, self._decoder.rows(stream, records, **columns))
            else:
                self._kept.setdefault(stream.name, []).append(records)
                self._kept_bytes += records.nbytes

    @property
    def is_full(self) -> bool:
        """Return whether the records should become rows now."""
        return self._kept_bytes > _MOST_BYTES

    def write(self) -> None:
        kept, self._kept, self._kept_bytes = self._kept, {}, 0
        for name in [*kept]:
            records = _joined(kept.pop(name))
            self._sink.append(STREAM_AT[name].table, self._decoder.rows(STREAM_AT[name], records))


def _joined(parts: list[Records]) -> Records:
    """Return records as one array; a single one is not copied, since it may be all that a ring can hold."""
    if len(parts) == 1:
        return parts[0]
    if any(part.dtype != parts[0].dtype for part in parts):
        return np.concatenate(parts)  # sums of page-cache runs are wider than runs
    whole = np.dtype((np.void, parts[0].itemsize))  # NumPy would look at each field
    return np.concatenate([part.view(whole) for part in parts]).view(parts[0].dtype)
