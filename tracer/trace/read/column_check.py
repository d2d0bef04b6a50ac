"""The check of a file's columns, and their cast to the types of the schema."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tracer.schema import ADDED_COLUMNS
from tracer.trace.arrow_columns import encoded
from tracer.trace.read import memory_bounds
from tracer.trace.value_ranges import value_range


def conforming(table: str, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch from a file with the columns of `schema`, which has all or some columns of the table.

    A column that the batch lacks is null, or has the value that older traces imply. Raises KeyError,
    TypeError or ValueError (pyarrow.ArrowInvalid is a ValueError) for columns and values that the schema does
    not allow.
    """
    # Offsets and indices must be within their buffers, and texts must be UTF-8: otherwise later steps may
    # crash.
    batch.validate(full=True)
    arrays = [_column(table, batch, field) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def require_akin(stored: pa.Schema, schema: pa.Schema) -> None:
    """Raise TypeError if the type of a stored column is not another form of the schema's type."""
    for field in schema:
        for place in stored.get_all_field_indices(field.name):
            kind = stored.field(place).type
            if not _is_akin(kind, field.type):
                raise TypeError(f"column {field.name} is of type {kind}, not {field.type}")


def _is_akin(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether the two types are different forms of the same values."""
    types = pa.types
    if types.is_list(wanted):
        return bool(types.is_list(stored)) and _is_akin(stored.value_type, wanted.value_type)
    if types.is_dictionary(wanted) or types.is_string(wanted):
        kind = stored.value_type if types.is_dictionary(stored) else stored
        return bool(types.is_string(kind) or types.is_large_string(kind))
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(stored)) and stored.tz == wanted.tz
    if types.is_integer(wanted):
        return bool(types.is_integer(stored))
    return bool(stored == wanted)


def _column(table: str, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    places = batch.schema.get_all_field_indices(field.name)
    if len(places) > 1:
        raise KeyError(f"{len(places)} columns are named {field.name}")
    if not places:
        implied = ADDED_COLUMNS.get(table, {}).get(field.name)
        if implied is not None:
            return pa.repeat(pa.scalar(implied, field.type), batch.num_rows)
        if not field.nullable:
            raise KeyError(f"there is no column {field.name}")
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(places[0])
    if pa.types.is_list(field.type):
        column = _lists(column, field.type)
    elif pa.types.is_dictionary(field.type):
        _require_short(column)
        column = encoded(column, field.type)
    else:
        if pa.types.is_string(field.type):
            _require_short(column)  # before the cast: a short dictionary may stand for much text
        if column.type != field.type:
            column = column.cast(field.type)
    if column.null_count and not field.nullable:
        raise ValueError(f"column {field.name} has NULL, which it never has")
    _require_in_range(table, field, column)
    return column


def _lists(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if len(column.flatten()) > memory_bounds.MOST_FRAMES:
        raise ValueError(f"there are more than {memory_bounds.MOST_FRAMES:,} frames")
    texts = column.flatten()
    if texts.null_count:
        raise ValueError("a list holds NULL, which it never does")
    _require_short(texts)
    return column.cast(kind) if column.type != kind else column


def _require_short(texts: pa.Array) -> None:
    """Raise ValueError for a text that is longer than any name of the kernel, or for too much text."""
    is_dictionary = pa.types.is_dictionary(texts.type)
    lengths = pc.binary_length(texts.dictionary if is_dictionary else texts)
    longest = pc.max(lengths).as_py() or 0
    if longest > memory_bounds.LONGEST_TEXT_BYTES:
        raise ValueError(f"a text of {longest:,} bytes is longer than any name")
    if longest * len(texts) <= memory_bounds.MOST_TEXT_BYTES:
        return
    total = pc.sum(lengths.take(texts.indices) if is_dictionary else lengths).as_py() or 0
    if total > memory_bounds.MOST_TEXT_BYTES:
        raise ValueError(f"its texts are of {total:,} bytes")


def _require_in_range(table: str, field: pa.Field, column: pa.Array) -> None:
    allowed = value_range(table, field)
    if allowed is None:
        return
    if pa.types.is_timestamp(field.type):
        column = column.cast(pa.int64())
    found = pc.min_max(column).as_py()
    for value in (found["min"], found["max"]):
        if value is not None and not allowed[0] <= value <= allowed[1]:
            raise ValueError(
                f"column {field.name} has {value}, which is not between {allowed[0]} and {allowed[1]}"
            )
