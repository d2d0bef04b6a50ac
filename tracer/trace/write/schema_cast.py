"""Rows as the capture layer has them, made into rows of exactly a table's schema."""

from __future__ import annotations

import pyarrow as pa

from tracer.errors import TraceError
from tracer.schema import TABLES


def conform(table: str, rows: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    """The rows as batches of exactly `TABLES[table]`; columns that have the right type are not copied.

    Columns are matched by name, in any order, and cast where no value changes (a wider integer, nanoseconds
    since the epoch to a timestamp, strings to a dictionary). Raises TraceError for a column too many or too
    few, a value that the column's type cannot hold, and NULL in a column that is never null.
    """
    schema = TABLES[table]
    if odd := set(rows.schema.names) ^ set(schema.names):
        raise TraceError(f"rows for table {table} have columns too many or too few: {', '.join(sorted(odd))}")
    batches = rows.to_batches() if isinstance(rows, pa.Table) else [rows]
    return [
        pa.RecordBatch.from_arrays([_column(table, batch, field) for field in schema], schema=schema)
        for batch in batches
        if batch.num_rows
    ]


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


def encoded(column: pa.Array, kind: pa.DictionaryType) -> pa.Array:
    """A column of strings with the dictionary type `kind`, whose values are distinct and not null."""
    if not pa.types.is_dictionary(column.type):
        return column.cast(kind.value_type).dictionary_encode().cast(kind)
    values = column.dictionary
    if values.null_count or len(values.unique()) != len(values):
        return column.dictionary_decode().cast(kind.value_type).dictionary_encode().cast(kind)
    if column.type == kind:
        return column
    return pa.DictionaryArray.from_arrays(column.indices.cast(kind.index_type), values.cast(kind.value_type))
