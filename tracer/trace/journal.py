"""A part of a table while it is recorded: an Arrow IPC stream that any prefix of can be read.

A stream only ever grows, so a column of repeated strings cannot go back and extend its dictionary. It need
not: the stream format lets a new dictionary stand before any batch and hold from there on. The writer
compares the dictionary of each batch with the one in force and writes it only where they differ, so a fixed
enumeration is written once and an arbitrary one as often as it changes. Readers unify them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from tracer.trace.ipc_message import is_any_compressed
from tracer.trace.layout import create


class Journal:
    """An open part: `path` holds its flushed rows and perhaps a torn tail.

    Methods raise OSError where the file cannot be written; `abandon` must be called then.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._flushed_rows = 0
        self._flushed_bytes = 0
        self._file = create(path)
        self._stream = pa.ipc.new_stream(self._file, schema)

    def append(self, batch: pa.RecordBatch) -> None:
        self._stream.write_batch(batch)
        self.rows += batch.num_rows

    def flush(self) -> None:
        """Hand all rows to the kernel: they survive the death of this process."""
        self._file.flush()
        self._flushed_rows = self.rows
        self._flushed_bytes = self._file.tell()

    def close(self) -> None:
        self._stream.close()
        self._file.close()
        self._flushed_rows = self.rows

    def abandon(self) -> int:
        """Close at the last flush, and return how many rows after it are given up.

        What reached the file since then is cut off, so that `rows` is what a reader finds.
        """
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.truncate(self.path, self._flushed_bytes)
        given_up = self.rows - self._flushed_rows
        self.rows = self._flushed_rows
        return given_up


def read_journal(content: pa.Buffer, check: Callable[[pa.Schema], None]) -> Iterator[pa.RecordBatch]:
    """The whole batches of a stream; a torn tail, even one within the first message, reads as absent.

    `check` may refuse the stream's schema, by raising, before a batch is read. Raises ValueError for
    compressed batches: the recorder writes none, and their length is known only once they are in memory.
    """
    if is_any_compressed(content):
        raise ValueError("its batches are compressed")
    try:
        with pa.ipc.open_stream(content) as stream:
            check(stream.schema)
            yield from stream
    except pa.ArrowInvalid:
        return
    except OSError as error:
        if error.errno is not None:
            raise
