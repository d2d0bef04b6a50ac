"""The tables of a trace with the names of their ids beside them, as Arrow data for other tools.

A table has the columns of `schema.TABLES`, with these differences. A limit that is not set is null, and the
flag after it (`schema.LIMITS`) is false, as in DataFrames. Columns with names follow an id: the path follows
the id of a cgroup, and the name of the container as well if that is `cgroup_id`; the name of the process
follows `tgid`; the name of the file follows `inode_id`; and the list of functions, innermost first, follows
the id of a stack. A name that is not known is null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tracer.analysis.core import naming
from tracer.analysis.core.columns import Int64s
from tracer.analysis.trace import AnalysedTrace
from tracer.schema import LIMITS, TABLES, UNLIMITED_BYTES
from tracer.trace.arrow_columns import IDENTITY_KEYS, as_type
from tracer.trace.read.to_pandas import to_frame

_NAME: Final = pa.dictionary(pa.int32(), pa.string())
_FUNCTIONS: Final = pa.list_(pa.string())

_CGROUP_ID: Final = "cgroup_id"
_STACKS: Final = {"kernel_stack_id": "kernel_stack", "user_stack_id": "user_stack"}


def schema_of(table: str) -> pa.Schema:
    """Return the schema of a table with names."""
    fields = []
    for field in TABLES[table]:
        fields.append(field)
        if field.name in LIMITS:
            fields.append(pa.field(LIMITS[field.name], pa.bool_()))
        kind = _FUNCTIONS if field.name in _STACKS else _NAME
        fields += [pa.field(name, kind) for name in _names_of(table, field.name)]
    return pa.schema(fields)


def batches(trace: AnalysedTrace, table: str, members: Int64s | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a table with names, in batches of some 100,000 that are each sorted by `time`.

    The batches come in recorded order, which is not quite the order of time. `members`: in a table with
    cgroups, only rows that name one of these.
    """
    stored = TABLES[table].names
    if table in IDENTITY_KEYS:
        parts: Iterator[pa.Table] = iter([trace.table(table)])
    else:
        parts = (pa.Table.from_batches([batch]) for batch in trace.batches(table, stored))
    for part in parts:
        rows = part if members is None else _of_members(part, members)
        rows = rows.sort_by("time") if "time" in stored and rows.num_rows else rows
        yield _named(trace, table, rows)


def _of_members(rows: pa.Table, members: Int64s) -> pa.Table:
    columns = [name for name in rows.column_names if name.endswith(_CGROUP_ID)]
    if not columns:
        return rows
    masks = [pc.is_in(rows[name], value_set=pa.array(members)).to_numpy() for name in columns]
    return rows.filter(pa.array(np.logical_or.reduce(masks)))


def _names_of(table: str, column: str) -> list[str]:
    """Return the columns with the names of an id."""
    if table == "cgroups":  # the table has them
        return []
    if column == _CGROUP_ID:
        return ["cgroup", "container"]
    if column.endswith(_CGROUP_ID):
        return [column.removesuffix("_id")]
    if column == "tgid" and "comm" not in TABLES[table].names:
        return ["comm"]
    if column == "inode_id" and table != "inodes":
        return ["file"]
    return [_STACKS[column]] if column in _STACKS else []


def _named(trace: AnalysedTrace, table: str, rows: pa.Table) -> pa.Table:
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for field in TABLES[table]:
        stored = rows[field.name]
        if field.name in LIMITS:
            is_limited = pc.less(stored, UNLIMITED_BYTES)
            columns[field.name] = pc.if_else(is_limited, stored, pa.scalar(None, field.type))
            columns[LIMITS[field.name]] = is_limited
        else:
            columns[field.name] = stored
        if wanted := _names_of(table, field.name):
            columns |= {name: _names(trace, rows, field.name)[name] for name in wanted}
    schema = schema_of(table)
    return pa.Table.from_arrays([as_type(columns[field.name], field.type) for field in schema], schema=schema)


def _names(trace: AnalysedTrace, rows: pa.Table, column: str) -> Mapping[str, pa.Array]:
    """Return column -> names of the ids in a column."""
    if column in _STACKS:
        return {_STACKS[column]: _stacks(trace, rows[column])}
    known_as = _CGROUP_ID if column.endswith(_CGROUP_ID) else column
    timed = ["time"] if "time" in rows.column_names else []
    frame = to_frame(rows.select([*timed, column]).rename_columns([*timed, known_as]))
    named = naming.with_names(trace, frame)
    found = {name: _dictionary(named[name]) for name in named.columns if name != known_as}
    if known_as != column:
        return {column.removesuffix("_id"): found["cgroup"]}
    return found


def _dictionary(column: pd.Series) -> pa.DictionaryArray:
    codes = column.cat.codes.to_numpy()
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(column.cat.categories, pa.string()))


def _stacks(trace: AnalysedTrace, ids: pa.ChunkedArray) -> pa.Array:
    coded = ids.combine_chunks().dictionary_encode()
    functions = [list(trace.functions.functions_for(number)) for number in coded.dictionary.to_pylist()]
    return pa.array(functions, _FUNCTIONS).take(coded.indices)
