"""Limits as the kernel has them, out of DataFrames.

In a DataFrame, a limit that is not set and a limit that is not known are both NA; the flag column beside the
limit (`schema.LIMITS`) distinguishes them. In the kernel, a limit that is not set is a number:
`UNLIMITED_BYTES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tracer.schema import LIMITS, UNLIMITED_BYTES


def kernel_numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column in bytes: `UNLIMITED_BYTES` where no limit is set, NA where the value is not known."""
    if name not in LIMITS:
        return table[name]
    return table[name].mask(table[LIMITS[name]].eq(False).fillna(False), UNLIMITED_BYTES)


def limit_of(row: Mapping[str, Any] | pd.Series, name: str = "limit_bytes") -> int | None:
    """Return a limit of one row, in bytes; `UNLIMITED_BYTES` if it is not set, None if it is not known."""
    flag = row[LIMITS[name]]
    return None if pd.isna(flag) else int(row[name]) if flag else UNLIMITED_BYTES


def swap_room_of(
    row: Mapping[str, Any] | pd.Series, cgroup_version: int | None, *, of: str = "effective_swap_limit_bytes"
) -> int | None:
    """Return the swap that the cgroup of a sample may use beside its limit, in bytes.

    `UNLIMITED_BYTES` if no limit is set, None if it is not known. It is the least limit of the cgroup and its
    ancestors; in older traces, or with `of` "swap_limit_bytes", the limit of the cgroup alone. On v1
    memory.memsw.limit_in_bytes bounds memory and swap together; the part above the limit of memory is for
    swap.
    """
    limit = limit_of(row, of)
    if limit is None:
        limit = limit_of(row, "swap_limit_bytes")
    if limit is None or limit >= UNLIMITED_BYTES or cgroup_version != 1:
        return limit
    return max(limit - (limit_of(row) or 0), 0)
