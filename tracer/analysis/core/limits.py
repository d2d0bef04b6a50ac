"""Limits as the kernel has them: a column of sizes, and the flag beside it that tells whether one is set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tracer.schema import LIMITS, UNLIMITED_BYTES


def kernel_numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A column as the kernel has it: a limit that is not set is `schema.UNLIMITED_BYTES`, NA is not known."""
    if name not in LIMITS:
        return table[name]
    return table[name].mask(table[LIMITS[name]].eq(False).fillna(False), UNLIMITED_BYTES)


def limit_of(row: Mapping[str, Any] | pd.Series, name: str = "limit_bytes") -> int | None:
    """The same of one row."""
    flag = row[LIMITS[name]]
    return None if pd.isna(flag) else int(row[name]) if flag else UNLIMITED_BYTES
