"""The receiver of a recording's rows: a trace on disk, or a history in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tracer.trace.arrow_columns import rows_of
from tracer.trace.meta import Meta


class Rows:
    """Takes rows of tables."""

    def append(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Add rows of a table."""
        raise NotImplementedError

    def append_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows in the form column -> value; `rows` may be empty."""
        if rows:
            self.append(table, rows_of(table, rows))


class RowSink(Rows):
    """Takes the rows of a recording as they arrive.

    `meta` describes the recording, and may be changed before `write_meta`. `rows` counts the rows of each
    table, and `lost` the rows of each stream that could not be kept. Methods are called from one thread. A
    sink in memory has nothing to do for `flush`, `open_journals` and `require_written`.
    """

    meta: Meta
    rows: dict[str, int]
    lost: Counter[str]

    def flush(self) -> None:
        """Make all rows survive this process, as far as the sink can."""

    def write_meta(self) -> None:
        """Keep `meta` as it is now; raises TraceError."""

    def open_journals(self) -> None:
        """Prepare everything that could take time later."""

    def require_written(self) -> None:
        """Raise TraceError if rows cannot be kept as the sink promises."""

    def close(self, end_reason: str, **meta_updates: Any) -> None:
        """End the recording; raises TraceError if a part of it is lost."""
