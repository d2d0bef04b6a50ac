"""Limits as the kernel has them, out of DataFrames.

In a DataFrame a limit that is not set is NA, as is one that is not known; the flag column beside it
(`schema.LIMITS`) tells them apart. In the kernel, a limit that is not set is a number: `UNLIMITED_BYTES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tracer.schema import LIMITS, UNLIMITED_BYTES


def kernel_numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column, in bytes; of a limit that is not set, `UNLIMITED_BYTES`; NA is not known."""
    if name not in LIMITS:
        return table[name]
    return table[name].mask(table[LIMITS[name]].eq(False).fillna(False), UNLIMITED_BYTES)


def limit_of(row: Mapping[str, Any] | pd.Series, name: str = "limit_bytes") -> int | None:
    """Return a limit of one row, in bytes; `UNLIMITED_BYTES` if it is not set, None if it is not known."""
    flag = row[LIMITS[name]]
    return None if pd.isna(flag) else int(row[name]) if flag else UNLIMITED_BYTES
