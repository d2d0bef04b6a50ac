"""Writing a trace: rows go to a journal at once, and to Parquet when their part is full and at the end."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.compact import compact
from tracer.trace.conform import conform
from tracer.trace.journal import Journal
from tracer.trace.meta import Meta, is_trace, utc_time, write_meta
from tracer.trace.reader import Trace

PART_ROWS: Final = 1_000_000


class TraceWriter:
    """A trace that is being recorded.

    `rows` counts, for each table, the rows appended and not given up; in identity tables also those that
    later ones superseded. Parts of event tables that have reached `part_rows` become Parquet in a thread
    beside the recording. Identity tables (`layout.IDENTITY_KEYS`) wait for the end: any row may supersede
    any earlier one.

    Methods must be called from one thread. Raises TraceError where `path` is taken or cannot be written.
    """

    def __init__(self, path: Path, meta: Meta, *, force: bool, part_rows: int = PART_ROWS) -> None:
        self.path = path
        self.meta = meta
        self.rows = dict.fromkeys(TABLES, 0)
        self._part_rows = part_rows
        self._open: dict[str, Journal] = {}
        self._parts: dict[str, dict[int, Journal]] = {table: {} for table in TABLES}
        self._compactor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trace-compactor")
        try:
            _claim(path, force=force)
            write_meta(path, meta)
            (path / layout.JOURNAL).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}"
            raise TraceError(f"cannot create the trace {path} ({reason}); choose another place") from error

    def append(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Add rows, which `conform` brings to the table's schema. They outlive this process from `flush` on.

        Raises TraceError where the disk is full or fails: rows that were flushed stay readable, rows of this
        table that were not are given up, and the next append begins a new part.
        """
        for conforming in conform(table, batch):
            try:
                self._journal(table).append(conforming)
            except OSError as error:
                raise self._give_up(table, error) from error
            self.rows[table] += conforming.num_rows

    def flush(self) -> None:
        """Make everything appended outlive this process; raises TraceError as `append` does."""
        failures = []
        for table, journal in list(self._open.items()):
            try:
                journal.flush()
            except OSError as error:
                failures.append(self._give_up(table, error))
        if failures:
            raise failures[0]

    def close(self, end_reason: str, **meta_updates: Any) -> None:
        """Turn all journals into Parquet and write the final meta.json.

        A table that cannot be turned stays a journal, which is as readable; its TraceError is raised when the
        others and meta.json are done.
        """
        failures: list[TraceError] = []
        for table in list(self._open):
            try:
                self._end_part(table)
            except OSError as error:
                failures.append(self._give_up(table, error))
        self._compactor.shutdown()
        for table in TABLES:
            with self._failing_into(failures):
                self._settle(table)
        with self._failing_into(failures):
            write_meta(self.path, self._final_meta(end_reason, meta_updates))
        with contextlib.suppress(OSError):
            (self.path / layout.JOURNAL).rmdir()
        if failures:
            raise failures[0]

    def _journal(self, table: str) -> Journal:
        """The table's open journal, a new one where there is none or the one there was is full."""
        journal = self._open.get(table)
        if journal and journal.rows >= self._part_rows and table not in layout.IDENTITY_KEYS:
            number = len(self._parts[table])
            self._end_part(table)
            target = layout.part_path(self.path, table, number)
            self._compactor.submit(compact, self.path, table, [journal], target)
            journal = None
        if journal is None:
            number = len(self._parts[table]) + 1
            journal = Journal(layout.journal_path(self.path, table, number), TABLES[table])
            self._parts[table][number] = self._open[table] = journal
        return journal

    def _end_part(self, table: str) -> None:
        self._open[table].close()
        del self._open[table]

    def _give_up(self, table: str, error: OSError) -> TraceError:
        """End the table's part at its last flush, so that a reader finds whole rows up to there."""
        if journal := self._open.pop(table, None):
            self.rows[table] -= journal.abandon()
            if not journal.rows:
                self._parts[table].popitem()
                with contextlib.suppress(OSError):
                    journal.path.unlink()
        return self._cannot_write(error)

    def _cannot_write(self, error: OSError) -> TraceError:
        return TraceError(
            f"cannot write the trace {self.path}: {error.strerror or error}; "
            "what was recorded so far is readable, free some space or record to another place"
        )

    @contextlib.contextmanager
    def _failing_into(self, failures: list[TraceError]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            failures.append(self._cannot_write(error))
        except TraceError as error:
            failures.append(error)

    def _settle(self, table: str) -> None:
        """Turn what is a journal still into Parquet: parts that were open, or whose compaction failed."""
        known, whole = self._parts[table], layout.whole_path(self.path, table)
        if table in layout.IDENTITY_KEYS or (len(known) < 2 and not (self.path / table).exists()):
            if not whole.exists():
                compact(self.path, table, list(known.values()), whole)
            return
        for number, journal in known.items():
            if journal.path.exists():
                compact(self.path, table, [journal], layout.part_path(self.path, table, number))

    def _final_meta(self, end_reason: str, updates: dict[str, Any]) -> Meta:
        """The totals are counted in the files, so that they are what a reader finds."""
        trace = Trace(self.path)
        final = {
            **self.meta,
            "ended": utc_time(self.meta["clock"], time.monotonic_ns()),
            "end_reason": end_reason,
            "rows": {table: trace.rows(table) for table in TABLES},
            "lost": _lost_by_stream(trace.table("loss")),
            **updates,
        }
        return cast(Meta, final)


def _lost_by_stream(loss: pa.Table) -> dict[str, int]:
    if not loss.num_rows:
        return {}
    stream = loss.column("stream").combine_chunks()
    lost = np.zeros(len(stream.dictionary), dtype=np.int64)
    np.add.at(lost, np.from_dlpack(stream.indices).astype(np.int64), layout.integers(loss.column("lost")))
    return dict(zip(stream.dictionary.to_pylist(), lost.tolist(), strict=True))


def _claim(path: Path, *, force: bool) -> None:
    """Make `path` a directory of mode 0700 without a trace in it; raises OSError and TraceError."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
        return
    if not path.is_dir():
        raise TraceError(f"{path} exists and is not a trace: choose another place")
    if any(path.iterdir()):
        if not force:
            raise TraceError(f"{path} exists and is not empty: choose another place, or overwrite it with -f")
        if not is_trace(path):
            raise TraceError(f"{path} is not a trace and will not be overwritten: choose another place")
        _discard(path)
    path.chmod(0o700)


def _discard(trace: Path) -> None:
    """Remove what a recorder wrote there, and nothing else. meta.json goes last: until then it is a trace."""
    for table in TABLES:
        layout.whole_path(trace, table).unlink(missing_ok=True)
        _empty(trace / table, layout.PART)
    _empty(trace / layout.JOURNAL, layout.JOURNAL_FILE)
    (trace / layout.META).unlink()


def _empty(folder: Path, ours: re.Pattern[str]) -> None:
    """Remove the files with a name of ours, and the folder if that leaves nothing; of a link, only itself."""
    if folder.is_symlink():
        folder.unlink()
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if ours.fullmatch(path.name):
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
