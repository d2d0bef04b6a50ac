"""A trace whose files are removed while it is written."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from tracer.trace import layout
from tracer.trace.read.reader import Trace
from tracer.trace.write.writer import TraceWriter


def test_flush_while_files_are_removed_leaves_closed_journals_alone(
    open_writer: Callable[..., TraceWriter], rows_of: Callable[[str, range], pa.RecordBatch]
) -> None:
    """Lost rows of one table are counted in `loss`, whose file is gone as well: that closes its journal."""
    writer = open_writer()
    for numbers in (range(2), range(2, 5)):
        for table in ("samples", "loss"):
            writer.append(table, rows_of(table, numbers))
        if numbers.start == 0:
            writer.flush()
            for journal in (writer.path / layout.JOURNAL).iterdir():
                journal.unlink()
    writer.flush()
    assert writer.lost == {"samples": 2, "loss": 2}
    writer.close("done")
    trace = Trace(writer.path)
    assert trace.rows("samples") == 3
    assert trace.table("loss", ["lost"])["lost"].to_pylist()[:3] == [2, 3, 4]
