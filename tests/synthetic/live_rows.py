"""Rows of any table as the recorder would give them, from a few columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from synthetic.unset import unset_row

from tracer.trace.arrow_columns import rows_of

MIB = 1 << 20


def rows(table: str, *given: dict[str, Any]) -> pa.RecordBatch:
    """Return rows with these columns; the others are unset."""
    return rows_of(table, [unset_row(table) | one for one in given])


def cgroup(number: int, parent: int | None = None, **columns: Any) -> dict[str, Any]:
    """Return a row of `cgroups` with the path /N."""
    return {"cgroup_id": number, "parent_id": parent, "path": f"/{number}"} | columns
