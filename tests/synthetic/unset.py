"""A row of a table with no values of its own."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tracer.schema import TABLES


def unset_row(table: str) -> dict[str, Any]:
    """Return null for each column that may be null, else the empty value of its type: 0, "", False, []."""
    return {field.name: None if field.nullable else _nothing(field.type) for field in TABLES[table]}


def _nothing(kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return False
    if pa.types.is_list(kind):
        return []
    return "" if pa.types.is_string(kind) or pa.types.is_dictionary(kind) else 0
