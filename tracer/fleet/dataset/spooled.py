"""Parquet files that are written on this machine first, and are then stored whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from tracer.fleet.dataset.store import Store
from tracer.fleet.pushing.target import private_files

ROWS_TOGETHER: Final = 100_000
"""The rows of a row group in a table of events; the last group may have fewer."""
SUMMARY_ROWS_TOGETHER: Final = 20_000
"""The rows of a row group in a summary table: a reader of some hosts needs few of them."""


@contextmanager
def spool() -> Iterator[Path]:
    """Yield a directory that only its owner can read, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-") as folder:
        yield Path(folder)


class SpooledFile:
    """A Parquet file that is being written. `put` copies it to the store; readers do not see it before.

    Rows are collected until they fill a row group, since groups of a few rows are slow to read.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        metadata: Mapping[bytes, bytes] | None = None,
        *,
        rows_together: int = ROWS_TOGETHER,
    ) -> None:
        self._together = rows_together
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".parquet", delete=False) as file:
            self._path = Path(file.name)
        self._schema = schema.with_metadata(metadata)
        self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self.rows = 0

    def write(self, rows: pa.Table) -> None:
        """Add rows with the columns of the schema."""
        self._waiting.append(rows.replace_schema_metadata(self._schema.metadata))
        self.rows += rows.num_rows
        if sum(part.num_rows for part in self._waiting) >= self._together:
            self._flush()

    def put(self, store: Store, path: str) -> int:
        """Finish the file and copy it to the store; return its length in bytes."""
        self._flush()
        self._writer.close()
        size_bytes = self._path.stat().st_size
        with private_files():
            store.put_file(path, self._path)
        self._path.unlink()
        return size_bytes

    def discard(self) -> None:
        """Remove the file, unless `put` has stored it."""
        with suppress(OSError, ValueError):
            self._writer.close()
        self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._waiting:
            rows = pa.concat_tables(self._waiting).unify_dictionaries().combine_chunks()
            self._waiting.clear()
            self._writer.write_table(rows, row_group_size=self._together)
