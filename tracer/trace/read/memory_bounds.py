"""Bounds of the memory that a trace may take: a few KiB of Parquet can stand for more rows than fit into
memory.

A recording stays far below each bound. Each of its rows takes some bytes on disk, because its time differs
from the time of the row before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from tracer.errors import TraceError

MOST_ROWS: Final = {
    "oom": 100_000,
    "oom_candidates": 5_000_000,
    "kernel_log": 5_000_000,
    "loss": 1_000_000,
    "summed": 1_000_000,
    "cgroups": 1_000_000,
    "tasks": 5_000_000,
    "inodes": 5_000_000,
    "stacks": 1_000_000,
}
"""The most rows of a table. Tables that are not listed are bounded by memory only."""

FREE_BYTES: Final = 1 << 30
EXPANSION: Final = 32
"""A table takes at most `FREE_BYTES` of memory, or `EXPANSION` times the length of its files. A factor of ten
is usual."""

MOST_TEXT_BYTES: Final = 1 << 30
"""The most text in one column of a file; text that rows repeat counts each time."""

LONGEST_TEXT_BYTES: Final = 1 << 17
"""The longest text. A path has at most 4096 bytes (PATH_MAX), and each byte may be written as an escape of
four characters."""

MOST_FRAMES: Final = 20_000_000
"""The most frames in the stacks of a file."""


@dataclass(slots=True)
class Budget:
    """The rows and bytes of a table's files so far; `row_bytes` is the size of a row in memory.

    With `is_kept`, all rows are in memory at the end; otherwise at most the rows of one file.
    """

    table: str
    row_bytes: float
    is_kept: bool = True
    rows: int = 0
    stored_bytes: int = 0

    @classmethod
    def from_schema(cls, table: str, schema: pa.Schema, *, is_kept: bool = True) -> Budget:
        """Return the budget of a table whose columns in `schema` are read."""
        row_bytes = sum(_value_bytes(field.type) + field.nullable / 8 for field in schema)
        return cls(table, row_bytes, is_kept)

    def take(self, path: Path, *, rows: int, stored_bytes: int) -> None:
        """Add rows of the file `path`, and its length; raises TraceError if a bound is exceeded."""
        self.rows += rows
        self.stored_bytes += stored_bytes
        most = MOST_ROWS.get(self.table)
        if most is not None and self.rows > most:
            raise TraceError(
                f"{path}: {self.rows:,} rows of {self.table}, and no recording has more than {most:,}: "
                "restore it from a copy"
            )
        taken_bytes = self.rows * self.row_bytes
        if taken_bytes > max(FREE_BYTES, EXPANSION * self.stored_bytes):
            raise TraceError(
                f"{path}: {self.rows:,} rows of {self.table} in {self.stored_bytes:,} bytes, and no "
                "recording is so dense: restore it from a copy"
            )
        available_bytes = memory_available_bytes()
        needed_bytes = max(taken_bytes, self.stored_bytes) if self.is_kept else stored_bytes
        if available_bytes is not None and needed_bytes > available_bytes:
            raise TraceError(
                f"{path}: {self.rows:,} rows of {self.table} take {needed_bytes / (1 << 30):,.1f} GiB of "
                f"memory, and {available_bytes / (1 << 30):,.1f} GiB are available: use a larger machine"
            )


def memory_available_bytes() -> int | None:
    """Return MemAvailable of /proc/meminfo, in bytes; None if there is no such value."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            fields = (line.split() for line in file)
            return next((int(row[1]) << 10 for row in fields if row[0] == "MemAvailable:"), None)
    except (OSError, ValueError, IndexError):
        return None


def _value_bytes(kind: pa.DataType) -> float:
    if pa.types.is_dictionary(kind):
        kind = kind.index_type
    if pa.types.is_string(kind) or pa.types.is_list(kind):
        return 4  # the offset of its end
    return float(kind.bit_width / 8)
