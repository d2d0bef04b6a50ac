"""The tables of names behind ids, in which a later row supersedes an earlier one with the same key."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from tracer.trace.arrow_columns import integers, is_known, take

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
        return take(data, last[order])
    ends = np.flatnonzero(is_last)
    begins = np.concatenate(([0], ends[:-1] + 1))
    columns_of_last = []
    for column in data.columns:
        known = is_known(column)[by_key]
        latest = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))[ends]
        source = by_key[np.where(latest >= begins, latest, ends)]
        columns_of_last.append(take(column, source[order]))
    return pa.Table.from_arrays(columns_of_last, schema=data.schema)
