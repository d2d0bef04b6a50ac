"""The writer of a trace: rows go to a journal at once, and to Parquet when their part is full or at the
end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import pyarrow as pa

from tracer.errors import TraceError
from tracer.schema import TABLES
from tracer.trace import layout
from tracer.trace.arrow_columns import IDENTITY_KEYS, conform
from tracer.trace.meta import Meta, utc_time, write_meta
from tracer.trace.recording_ends import WRITE_FAILED
from tracer.trace.row_sink import RowSink
from tracer.trace.write.backlog import HELD_BYTES, Backlog, Failure, stream_of
from tracer.trace.write.claim import claim
from tracer.trace.write.journal import Journal, compact_part, compact_whole, count_rows

PART_ROWS: Final = 1_000_000

_FLUSHED_BATCHES: Final = 64  # written from the backlog between two flushes


class TraceWriter(RowSink):
    """A trace that is being recorded.

    `rows` is, for each table, the number of rows that were appended and not lost, including superseded rows
    of identity tables. Parts of event tables that have `part_rows` rows become Parquet in another thread
    while the recording goes on. Identity tables (`IDENTITY_KEYS`) become Parquet at the end, because any row
    may supersede any earlier one. Without `compacts`, all journals stay journals, for `leave`.

    While the trace cannot be written (the disk is full, or fails), rows wait in memory, up to `held_bytes`.
    Rows beyond that are lost: `lost` counts them by stream, and `loss` gets a row about them when the trace
    can be written again. `warn` is called when this state begins and ends.

    Methods must be called from one thread. Raises TraceError if `path` is taken or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        meta: Meta,
        *,
        force: bool,
        warn: Callable[[str], None] = lambda _: None,
        part_rows: int = PART_ROWS,
        compacts: bool = True,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.path = path
        self.meta = meta
        self.rows = dict.fromkeys(TABLES, 0)
        self.lost: Counter[str] = Counter()
        self._warn = warn
        self._part_rows = part_rows
        self._compacts = compacts
        self._open: dict[str, Journal] = {}
        self._parts: dict[str, dict[int, Journal]] = {table: {} for table in TABLES}
        self._numbers: defaultdict[str, int] = defaultdict(int)  # of the last part, even if it was given up
        self._lost_in_table: Counter[str] = Counter()  # stream -> rows of `loss`
        self._backlog = Backlog(held_bytes)
        self._failure: Failure | None = None
        self._is_closed = False
        self._compactor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trace-compactor")
        try:
            self._trace = claim(path, force=force)
            try:
                write_meta(self._trace, meta)
                self._journals = self._trace.subfolder(layout.JOURNAL, make=True)
            except OSError:
                self._trace.close()  # this also unlocks it, so that the begun trace can be removed
                raise
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            raise TraceError(f"cannot create the trace {path} ({reason}); choose another place") from error

    def write_meta(self) -> None:
        """Replace meta.json by `meta`; raises TraceError if it cannot be written."""
        try:
            write_meta(self._trace, self.meta)
        except OSError as error:
            raise TraceError(f"cannot write the trace {self.path}: {self._reason(error)}") from error

    def open_journals(self) -> None:
        """Create a journal for each table now: later, the disk could delay the recorder."""
        for table in TABLES:
            try:
                self._journal(table)
            except OSError as error:
                self._fail(table, error)

    def append(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Add rows, cast to the table's schema by `conform`; they survive this process after `flush`."""
        for conforming in conform(table, batch):
            self._count_rows(table, conforming)
            if self._failure is not None:
                self._hold(table, conforming)
                continue
            try:
                journal = self._journal(table)
            except OSError as error:
                self._fail(table, error, conforming)
                continue
            try:
                journal.append(conforming)
            except OSError as error:
                self._fail(table, error)

    def _count_rows(self, table: str, batch: pa.RecordBatch) -> None:
        self.rows[table] += batch.num_rows
        if table == "loss":
            for stream, lost in zip(batch["stream"].to_pylist(), batch["lost"].to_pylist(), strict=True):
                self._lost_in_table[stream] += lost

    def flush(self) -> None:
        """Make all rows survive this process, as far as the trace can be written."""
        for table in list(self._open):
            journal = self._open.get(table)  # the failure of another one may have closed it
            if journal is None or journal.is_flushed:
                continue
            try:
                journal.flush()
            except OSError as error:
                self._fail(table, error)
        if self._failure is not None and time.monotonic() >= self._failure.due_s:
            self._write_backlog()

    @property
    def is_written(self) -> bool:
        """Return whether the trace can be written: no rows wait in memory."""
        return self._failure is None

    def require_written(self) -> None:
        """Raise TraceError if rows wait in memory because the trace cannot be written."""
        if self._failure is not None:
            raise TraceError(f"cannot write the trace {self.path}: {self._failure.reason}")

    def close(self, end_reason: str, **meta_updates: Any) -> None:
        """Turn all journals into Parquet, write the final meta.json, and close the directory.

        A table that cannot be turned into Parquet stays a journal, which readers also accept. After
        everything else is written, raises TraceError if a table stays a journal, or if rows still wait in
        memory and are lost.
        """
        if self._is_closed:
            return
        self._end_writing()
        failures: list[OSError | TraceError] = []
        rows = dict.fromkeys(TABLES, 0)
        for table in sorted(TABLES, key=self._journal_bytes):  # the smallest first: each frees space
            try:
                rows[table] = self._settle(table)
            except (OSError, TraceError) as error:
                failures.append(error.with_traceback(None))
                rows[table] = self._count(table)
        self._end(end_reason, rows, meta_updates, failures)

    def leave(self, end_reason: str, **meta_updates: Any) -> None:
        """Close the journals and write meta.json, for another process that turns the journals into Parquet.

        `rows` of meta.json stays null until then. After everything else is written, raises TraceError if rows
        still wait in memory and are lost.
        """
        if not self._is_closed:
            self._end_writing()
            self._end(end_reason, None, meta_updates, [])

    def _end_writing(self) -> None:
        self._is_closed = True
        self._end_parts()
        if self._failure is not None:
            self._write_backlog()
            self._end_parts()
        self._compactor.shutdown()

    def _end(
        self,
        end_reason: str,
        rows: dict[str, int] | None,
        meta_updates: dict[str, Any],
        failures: list[OSError | TraceError],
    ) -> None:
        """Write the final meta.json, close the directory, and raise what failed."""
        if self._failure is not None:
            end_reason = WRITE_FAILED
        try:
            write_meta(self._trace, self._final_meta(end_reason, rows, meta_updates))
        except OSError as error:  # its frames, with all waiting rows, would stay alive in a cycle
            failures.append(error.with_traceback(None))
        with suppress(OSError):  # journals are left in the folder
            self._trace.rmdir(layout.JOURNAL)
        try:
            self._raise_failures(failures, sum((self.rows if rows is None else rows).values()))
        finally:
            self.path = self._trace.where()
            self._journals.close()
            self._trace.close()

    # Journals

    def _journal(self, table: str) -> Journal:
        """Return the table's open journal; a new one if there is none, or if the open one is full."""
        journal = self._open.get(table)
        if journal and journal.rows >= self._part_rows and table not in IDENTITY_KEYS:
            number = self._numbers[table]
            self._end_part(table)
            if self._compacts:
                self._compactor.submit(compact_part, self._trace, self._journals, table, number, journal)
            journal = None
        if journal is None:
            self._numbers[table] = number = self._numbers[table] + 1
            journal = self._new_journal(table, layout.journal_name(table, number))
            self._parts[table][number] = self._open[table] = journal
        return journal

    def _new_journal(self, table: str, name: str) -> Journal:
        try:
            return Journal(self._journals, name, TABLES[table])
        except FileNotFoundError:  # the folder was removed: its rows are lost, but later rows are not
            self._journals = self._trace.subfolder(layout.JOURNAL, make=True)
            return Journal(self._journals, name, TABLES[table])

    def _end_part(self, table: str) -> None:
        self._open[table].close()
        del self._open[table]

    def _end_parts(self) -> None:
        for table in list(self._open):
            try:
                if table in self._open:  # the failure of another one may have closed it
                    self._end_part(table)
            except OSError as error:
                self._fail(table, error)

    @property
    def size_bytes(self) -> int:
        """Return the length of all journals up to the last flush."""
        return sum(map(self._journal_bytes, TABLES))

    def _journal_bytes(self, table: str) -> int:
        return sum(journal.size_bytes for journal in self._parts[table].values())

    # While the trace cannot be written

    def _fail(self, table: str, error: OSError, *batches: pa.RecordBatch) -> None:
        """Move the unflushed rows of the table's journal, and `batches` after them, to the backlog.

        The first attempt to write these rows to a new journal is made at once, because the file may only be
        too long.
        """
        self._backlog.put_back(table, [*self._give_up(table), *batches])
        if self._failure is None:
            self._failure = Failure(self._reason(error), time.monotonic())
            self._write_backlog()

    def _give_up(self, table: str) -> list[pa.RecordBatch]:
        """End the table's part at its last flush, and return the batches after that flush."""
        journal = self._open.pop(table, None)
        if journal is None:
            return []
        unflushed = journal.abandon()
        if journal.removed_rows:
            self._lose(table, journal.removed_rows, journal.began_ns)
            if table == "charge":  # the sums of these rows are also lost
                self._backlog.lose("residue", journal.removed_rows, journal.began_ns)
                self.lost["residue"] += journal.removed_rows
        if not journal.rows:
            self._parts[table].popitem()
            with suppress(OSError):
                journal.unlink()
        return unflushed

    def _hold(self, table: str, batch: pa.RecordBatch) -> None:
        if not self._backlog.put(table, batch):
            self._lose(table, batch.num_rows, time.monotonic_ns())

    def _lose(self, table: str, rows: int, since_ns: int) -> None:
        self.rows[table] -= rows
        self.lost[stream_of(table)] += rows
        self._backlog.lose(stream_of(table), rows, since_ns)

    def _write_backlog(self) -> None:
        """Write all waiting rows, and rows of `loss` for lost ones; on failure, put off the next attempt."""
        assert self._failure is not None
        try:
            self._write_waiting()
            clock = self.meta["clock"]
            offset_ns = clock["realtime_ns"] - clock["monotonic_ns"]
            for table, batch in self._backlog.take_lost(time.monotonic_ns(), offset_ns):
                self._count_rows(table, batch)
                self._backlog.put_back(table, [batch])
            self._write_waiting()
        except OSError as error:
            self._failure.put_off(self._reason(error))
            if not self._failure.is_reported:
                self._failure.is_reported = True
                self._warn(
                    f"cannot write the trace {self.path}: {self._failure.reason}; recording goes on in "
                    f"memory, up to {self._backlog.most_bytes >> 20} MiB, and tries again"
                )
            return
        if self._failure.is_reported:
            lost = sum(self.lost.values())
            self._warn(
                f"the trace {self.path} can be written again: "
                + (f"{lost:,} rows were lost" if lost else "no row was lost")
            )
        self._failure = None

    def _write_waiting(self) -> None:
        """Write and flush all waiting rows. Raises OSError; rows that were not flushed then still wait."""
        for table in self._backlog.tables():
            waiting = self._backlog.take(table)
            try:
                while waiting:
                    journal = self._journal(table)
                    for _ in range(min(len(waiting), _FLUSHED_BATCHES)):
                        journal.append(waiting.popleft())
                    journal.flush()
            except OSError:
                self._backlog.put_back(table, [*self._give_up(table), *waiting])
                raise

    def _reason(self, error: OSError) -> str:
        return "its directory was removed" if self._trace.is_removed else error.strerror or str(error)

    # The end

    def _settle(self, table: str) -> int:
        """Turn the remaining journals into Parquet: open parts, and parts whose compaction failed.

        Return the number of rows that the table has on disk.
        """
        known = self._parts[table]
        journals = [journal for journal in known.values() if journal.exists()]
        if table in IDENTITY_KEYS or (len(known) < 2 and len(journals) == len(known)):
            return compact_whole(self._trace, self._journals, table, list(known.values()))
        for number, journal in known.items():
            if journal in journals:
                compact_part(self._trace, self._journals, table, number, journal)
        return sum(journal.rows for journal in known.values())

    def _count(self, table: str) -> int:
        """Return the number of rows of a table, all or some parts of which stay journals."""
        journals = self._parts[table].values()
        with suppress(OSError):
            left = [journal for journal in journals if journal.exists()]
            return sum(one.rows for one in journals if one not in left) + count_rows(table, left)
        return 0

    def _final_meta(self, end_reason: str, rows: dict[str, int] | None, updates: dict[str, Any]) -> Meta:
        """Return the final metadata, with the totals that a reader finds."""
        lost = self._lost_in_table + Counter(self._backlog.lost)
        lost.update(
            {stream_of(table): count for table, count in self._backlog.rows.items() if table != "loss"}
        )
        final = {
            **self.meta,
            "ended": utc_time(self.meta["clock"], time.monotonic_ns()),
            "end_reason": end_reason,
            "rows": rows,
            "lost": dict(lost),
            **updates,
        }
        return cast(Meta, final)

    def _raise_failures(self, failures: list[OSError | TraceError], written: int) -> None:
        """Raise TraceError, with one line on what was written and what was not; return if all was written."""
        advice = (
            "record to another place"
            if self._trace.is_removed
            else "free some space or record to another place"
        )
        if self._failure is not None:
            lost = sum(self._backlog.rows.values()) + sum(self.lost.values())
            kept = self._failure.kept_and_lost(written, lost, is_removed=self._trace.is_removed)
            raise TraceError(f"cannot write the trace {self.path}: {self._failure.reason}; {kept}: {advice}")
        for error in failures:
            if isinstance(error, TraceError):
                raise TraceError(str(error)) from error
            raise TraceError(
                f"cannot write the trace {self.path}: {self._reason(error)}; all {written:,} rows are "
                f"written and what is there is readable, but it is not finished: {advice}"
            ) from error
