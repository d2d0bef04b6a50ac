"""The cast of the capture layer's rows to the exact schema of a table."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace.arrow_columns import encoded

_CHECKED: Final = {
    table: [
        number
        for number, field in enumerate(schema)
        if not field.nullable or pa.types.is_dictionary(field.type)
    ]
    for table, schema in TABLES.items()
}
"""Table -> numbers of the columns that must be checked even if a batch has the schema of the table."""


def conform(table: str, rows: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    """Return the rows as batches with the schema `TABLES[table]`; columns of the right type are not copied.

    Columns are matched by name, in any order, and cast if no value changes (a wider integer, nanoseconds
    since the epoch to a timestamp, strings to a dictionary). Raises TraceError for an unknown or missing
    column, for a value that the column's type cannot hold, and for NULL in a column that is never null.
    """
    schema = TABLES[table]
    if odd := set(rows.schema.names) ^ set(schema.names):
        raise TraceError(f"rows for table {table} have columns too many or too few: {', '.join(sorted(odd))}")
    batches = rows.to_batches() if isinstance(rows, pa.Table) else [rows]
    return [
        pa.RecordBatch.from_arrays(_columns(table, batch), schema=schema)
        for batch in batches
        if batch.num_rows
    ]


def _columns(table: str, batch: pa.RecordBatch) -> list[pa.Array]:
    """Return the columns of the table. If the schema fits, only columns that may still not fit are checked,
    which is faster."""
    schema = TABLES[table]
    if not batch.schema.equals(schema):
        return [_column(table, batch, field) for field in schema]
    columns: list[pa.Array] = batch.columns
    for number in _CHECKED[table]:
        columns[number] = _column(table, batch, schema.field(number))
    return columns


def _column(table: str, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    column = batch.column(field.name)
    try:
        if pa.types.is_dictionary(field.type):
            column = encoded(column, field.type)
        elif column.type != field.type:
            column = column.cast(field.type)
    except pa.ArrowException as error:
        raise TraceError(f"rows for table {table} do not fit column {field.name}: {error}") from error
    if column.null_count and not field.nullable:
        raise TraceError(f"rows for table {table} have NULL in column {field.name}, which is never null")
    return column
