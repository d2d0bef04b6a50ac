"""The tables of a trace, a part at a time, with columns that name the trace and host of each row."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tracer.analysis import named_tables
from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.summary.origin import Origin
from tracer.fleet.summary.summaries import SUMMARIES

_ORIGIN: Final = ("date", "host", "boot_id", "trace", "trace_id")


def raw_schema(table: str) -> pa.Schema:
    """Return the columns of a raw table in a dataset: the trace and host, then the columns of
    `named_tables`."""
    return pa.schema(
        [SUMMARIES["sources"].field(name) for name in _ORIGIN] + list(named_tables.schema_of(table))
    )


def raw_rows(trace: AnalysedTrace, origin: Origin, table: str) -> Iterator[tuple[datetime.date, pa.Table]]:
    """Yield (day, rows of that day), some 100,000 rows at a time. Rows without a time belong to the trace's
    first day."""
    first = datetime.datetime.fromisoformat(trace.meta["started"]).astimezone(datetime.UTC).date()
    for rows in named_tables.batches(trace, table):
        if "time" not in rows.column_names:
            yield first, _with_origin(rows, origin, first)
            continue
        days = pc.cast(rows["time"], pa.date32())
        for day in pc.unique(days).to_pylist():
            yield day, _with_origin(rows.filter(pc.equal(days, pa.scalar(day, pa.date32()))), origin, day)


def _with_origin(rows: pa.Table, origin: Origin, day: datetime.date) -> pa.Table:
    values: Mapping[str, object] = {
        "date": day,
        "host": origin.host,
        "boot_id": origin.boot_id,
        "trace": origin.trace,
        "trace_id": origin.trace_id,
    }
    fields = [SUMMARIES["sources"].field(name) for name in _ORIGIN]
    columns = [pa.repeat(pa.scalar(values[field.name], field.type), rows.num_rows) for field in fields]
    return pa.Table.from_arrays([*columns, *rows.columns], schema=pa.schema([*fields, *rows.schema]))
