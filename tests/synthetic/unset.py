"""Tables and rows of which only some columns are given; the others are unset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from tracer.schema import TABLES


def unset_row(table: str) -> dict[str, Any]:
    """Return null for each column that may be null, else the empty value of its type: 0, "", False, [].

    A row of `pagecache` is a run of a known process and file, not a sum.
    """
    return _unset(table).copy()


@cache
def _unset(table: str) -> dict[str, Any]:
    """Return the row to copy: tests make thousands, and Arrow makes the fields of a schema each time."""
    is_set = ("index", "inode_id", "ino", "tgid") if table == "pagecache" else ()
    return {
        field.name: None if field.nullable and field.name not in is_set else _nothing(field.type)
        for field in TABLES[table]
    }


def _nothing(kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return False
    if pa.types.is_list(kind):
        return []
    return "" if pa.types.is_string(kind) or pa.types.is_dictionary(kind) else 0


def table_of(name: str, rows: int, **columns: Any) -> pa.Table:
    """Return a table; a column is an array, or one value for all rows; the others are unset."""
    cells = unset_row(name) | columns
    if unknown := set(cells) - set(TABLES[name].names):
        raise AssertionError(f"{name} has no columns {unknown}")
    kinds = {column.name: column.type for column in TABLES[name]}
    arrays = [
        (pa.array(value) if _is_column(value) else pa.array([value]).take(pa.repeat(0, rows))).cast(
            kinds[column]
        )
        for column, value in cells.items()
    ]
    return pa.Table.from_arrays(arrays, list(cells)).select(TABLES[name].names).cast(TABLES[name])


def _is_column(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray | pa.Array | Sequence) and not isinstance(value, str) and len(value) > 0
    )
