"""What a dataset has, as plain rows, and what it should have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from tracer.fleet.dataset.host_ranges import host_ranges, read
from tracer.fleet.summary.overlaps import merged
from tracer.fleet.summary.summaries import SUMMARIES
from tracer.fleet.summary.summarize import Summary

Rows = dict[str, list[str]]


def rows_of(address: str, *, part_bytes: int = 16 << 20) -> Rows:
    """Return table -> its rows as texts, sorted, as the parts of a dataset have them."""
    found: Rows = {table: [] for table in SUMMARIES}
    for part in host_ranges(address, SUMMARIES, part_bytes):
        for table, rows in read(part).items():
            found[table] += _texts(rows)
    return {table: sorted(rows) for table, rows in found.items()}


def rows_of_summaries(summaries: Iterable[Summary]) -> Rows:
    """Return the same of summaries, put together in memory."""
    listed = list(summaries)
    tables = {
        table: pa.concat_tables([schema.empty_table(), *(one.tables[table] for one in listed)])
        for table, schema in SUMMARIES.items()
    }
    return {table: sorted(_texts(rows)) for table, rows in merged(tables).items()}


def _texts(rows: pa.Table) -> list[str]:
    listed: list[dict[str, Any]] = rows.to_pylist()
    return [str(row) for row in listed]
