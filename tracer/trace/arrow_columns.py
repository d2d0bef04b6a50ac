"""Arrow columns from arrays and lists, without pandas, and the tables in which a later row supersedes an
earlier one.

`pyarrow.array` imports pandas at its first call, to recognise the types of pandas. This would cost a recorder
half a second at the start, and 100 MiB of the memory that it watches. So columns are made from buffers here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracer.errors import TraceError
from tracer.schema import TABLES, TIME

_COLUMN_BYTES: Final = 1000
"""The memory of a batch's column for objects and buffers, measured. It matters because most batches have few
rows."""

Column: TypeAlias = pa.Array | pa.ChunkedArray
"""A column of a batch, or of a table."""


def rows_of(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Return a batch of `table` from rows in the form column -> value (kills, samples, names)."""
    schema = TABLES[table]
    columns = [from_values([row[column.name] for row in rows], column.type) for column in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def numbers(
    values: npt.NDArray[Any], kind: pa.DataType | None = None, null: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return a column of the array's type, or of `kind` with the same width; null where `null` is true."""
    values = np.ascontiguousarray(values)
    kind = kind if kind is not None else pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [_validity(null), pa.py_buffer(values)])


def strings(values: Sequence[str | None]) -> pa.Array:
    """Return a column of text."""
    encoded = [b"" if value is None else value.encode(errors="backslashreplace") for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    null = np.array([value is None for value in values], np.bool_)
    buffers = [_validity(null), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def names(codes: npt.NDArray[Any], vocabulary: tuple[str, ...]) -> pa.DictionaryArray:
    """Return a column of words; `codes` are positions in the vocabulary, which is kept for the next call."""
    return pa.DictionaryArray.from_arrays(numbers(codes.astype(np.int32)), _kept(vocabulary))


_kept = cache(strings)


def from_values(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return a column from Python values, of any type in `schema.TABLES`; None is null."""
    if pa.types.is_dictionary(kind):
        vocabulary = list(dict.fromkeys(values))
        codes = np.array([vocabulary.index(value) for value in values], np.int32)
        return pa.DictionaryArray.from_arrays(numbers(codes), strings(vocabulary))
    if pa.types.is_string(kind):
        return strings(values)
    if pa.types.is_list(kind):
        offsets = np.zeros(len(values) + 1, np.int32)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        return pa.ListArray.from_arrays(
            numbers(offsets), strings([word for value in values for word in value])
        )
    if pa.types.is_boolean(kind):
        bits = np.packbits(np.array(values, np.bool_), bitorder="little")
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(bits)])
    null = np.array([value is None for value in values], np.bool_)
    width = np.dtype("i8" if pa.types.is_timestamp(kind) else kind.to_pandas_dtype())
    return numbers(np.array([0 if value is None else value for value in values], width), kind, null)


def encoded(column: pa.Array, kind: pa.DictionaryType) -> pa.Array:
    """Return a column of strings with the dictionary type `kind`, whose values are distinct and not null.

    A column that fits is only checked, without pyarrow.compute, whose import takes 25 ms and 9 MiB.
    """
    if not pa.types.is_dictionary(column.type):
        return column.cast(kind.value_type).dictionary_encode().cast(kind)
    values = column.dictionary
    if values.null_count or len(set(values.to_pylist())) != len(values):
        return column.dictionary_decode().cast(kind.value_type).dictionary_encode().cast(kind)
    if column.type == kind:
        return column
    return pa.DictionaryArray.from_arrays(column.indices.cast(kind.index_type), values.cast(kind.value_type))


def _whole(column: Column) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def integers(column: Column) -> npt.NDArray[np.int64]:
    """Return a column of integers without NULL as an array.

    Arrow's `to_numpy` and `pa.array` would import pandas, which the recorder must not import; so would
    `combine_chunks` of a column without chunks.
    """
    if not len(column):
        return np.zeros(0, np.int64)
    return np.from_dlpack(_whole(column)).astype(np.int64, copy=False)


def nullable_integers(column: Column, missing: int) -> npt.NDArray[np.int64]:
    """Return a column of integers or times (ns) as an array, with `missing` for NULL.

    Numbers above the range of int64 become negative.
    """
    if not len(column):
        return np.zeros(0, np.int64)
    array = _whole(column)
    width = f"i{array.type.bit_width // 8}"
    values = np.frombuffer(array.buffers()[1], width)[array.offset :][: len(array)].astype(
        np.int64, copy=False
    )
    return np.where(is_known(column), values, missing) if array.null_count else values


def words(column: Column) -> tuple[npt.NDArray[np.int64], list[str | None]]:
    """Return a dictionary column as (codes, vocabulary); a word's code is its first position there."""
    if not len(column):
        return np.zeros(0, np.int64), []
    array = _whole(column)
    vocabulary = array.dictionary.to_pylist()
    first = {word: position for position, word in reversed(list(enumerate(vocabulary)))}
    codes = np.array([first[word] for word in vocabulary], np.int64)
    return codes[nullable_integers(array.indices, 0)], vocabulary


def weight_bytes(batch: pa.RecordBatch) -> int:
    """Return approximately the memory that a batch takes."""
    return int(batch.nbytes) + _COLUMN_BYTES * int(batch.num_columns)


def is_known(column: Column) -> npt.NDArray[np.bool_]:
    """Return for each row whether it is not null."""
    if not column.null_count:
        return np.ones(len(column), np.bool_)
    array = _whole(column)
    bits = np.frombuffer(array.buffers()[0], np.uint8)
    return np.unpackbits(bits, bitorder="little")[array.offset :][: len(array)].view(np.bool_)


def take(data: Any, positions: npt.NDArray[np.int64]) -> Any:
    """Return the rows of a table or column at these positions."""
    return data.take(numbers(positions))


_FEW_RUNS: Final = 100


def _cut_out(data: pa.Table, positions: npt.NDArray[np.int64]) -> pa.Table:
    """Return the rows of a table at these positions. Few runs of rows are not copied, and take no
    pyarrow.compute: its import is a tenth of the CPU time of a short recording."""
    begins = np.flatnonzero(np.diff(positions, prepend=-2) != 1)
    if len(begins) > _FEW_RUNS:
        return take(data, positions)
    lengths = np.diff(begins, append=len(positions))
    runs = zip(positions[begins].tolist(), lengths.tolist(), strict=True)
    return pa.concat_tables([data.slice(begin, length) for begin, length in runs])


def _validity(null: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    if null is None or not null.any():
        return None
    return pa.py_buffer(np.packbits(~null, bitorder="little"))


def shifted(batch: pa.RecordBatch, by_ns: int) -> pa.RecordBatch:
    """Return a batch whose times are later by `by_ns`; nulls stay null."""
    columns = [_moved(column, by_ns) if column.type == TIME else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _moved(column: pa.Array, by_ns: int) -> pa.Array:
    validity, values = column.buffers()
    moved = np.frombuffer(values, np.int64, column.offset + len(column)) + by_ns
    return pa.Array.from_buffers(TIME, len(column), [validity, pa.py_buffer(moved)], -1, column.offset)


_CHECKED: Final = {
    table: [
        (number, field)
        for number, field in enumerate(schema)
        if not field.nullable or pa.types.is_dictionary(field.type)
    ]
    for table, schema in TABLES.items()
}
"""Table -> the columns, with their numbers, that must be checked even if a batch has its schema."""


def conform(table: str, rows: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    """Return the rows as batches with the schema `TABLES[table]`; columns of the right type are not copied.

    Columns are matched by name, in any order, and cast if no value changes (a wider integer, nanoseconds
    since the epoch to a timestamp, strings to a dictionary). Raises TraceError for an unknown or missing
    column, for a value that the column's type cannot hold, and for NULL in a column that is never null.
    """
    schema = TABLES[table]
    is_like = rows.schema.equals(schema)
    if not is_like and (odd := set(rows.schema.names) ^ set(schema.names)):
        raise TraceError(f"rows for table {table} have columns too many or too few: {', '.join(sorted(odd))}")
    batches = rows.to_batches() if isinstance(rows, pa.Table) else [rows]
    fit = _checked if is_like else _fitted
    return [fit(table, batch) for batch in batches if batch.num_rows]


def _fitted(table: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    schema = TABLES[table]
    columns = [_fit(table, batch.column(field.name), field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _checked(table: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with the schema of the table, of which only the `_CHECKED` columns are looked at."""
    changed = {}
    for number, field in _CHECKED[table]:
        before = batch.column(number)
        if (column := _fit(table, before, field)) is not before:
            changed[number] = column
    if not changed:
        return batch
    columns = [changed.get(number, column) for number, column in enumerate(batch.columns)]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def as_type(column: Column, kind: pa.DataType) -> Column:
    """Return the column as this type. Most have it already, and a cast takes as long as reading some rows."""
    return column if column.type == kind else column.cast(kind)


def _fit(table: str, column: pa.Array, field: pa.Field) -> pa.Array:
    try:
        if pa.types.is_dictionary(field.type):
            column = encoded(column, field.type)
        else:
            column = as_type(column, field.type)
    except pa.ArrowException as error:
        raise TraceError(f"rows for table {table} do not fit column {field.name}: {error}") from error
    if column.null_count and not field.nullable:
        raise TraceError(f"rows for table {table} have NULL in column {field.name}, which is never null")
    return column


IDENTITY_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "cgroups": ("cgroup_id",),
    "tasks": ("tgid", "start_ns"),
    "inodes": ("inode_id",),
    "stacks": ("stack_id",),
}
"""Identity tables -> their key; a later row with the same key supersedes an earlier one."""

MERGED: Final = frozenset({"inodes"})
"""Identity tables in which a null of the later row leaves the earlier value valid, such as the name of a
removed file."""


def keep_last(data: pa.Table, table: str) -> pa.Table:
    """Return the rows of an identity table that no later row supersedes, in order; other tables whole."""
    keys = IDENTITY_KEYS.get(table)
    if keys is None or data.num_rows < 2:
        return data
    columns = [integers(data.column(key)) for key in reversed(keys)]
    by_key = np.lexsort(columns)  # stable: rows of one key stay in order
    is_last = np.ones(data.num_rows, dtype=bool)
    is_last[:-1] = np.any([np.diff(column[by_key]) != 0 for column in columns], axis=0)
    last = by_key[is_last]
    order = np.argsort(last)
    if len(last) == data.num_rows:
        return data
    if table not in MERGED:
        return _cut_out(data, last[order])
    ends = np.flatnonzero(is_last)
    begins = np.concatenate(([0], ends[:-1] + 1))
    columns_of_last = []
    for name in data.column_names:
        column = data.select([name])
        known = is_known(column[0])[by_key]
        latest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))[ends]
        source = by_key[np.where(latest >= begins, latest, ends)]
        columns_of_last.append(_cut_out(column, source[order])[0])
    return pa.Table.from_arrays(columns_of_last, schema=data.schema)
