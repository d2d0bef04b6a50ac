"""A part of a table while it is recorded: an Arrow IPC stream that any prefix of can be read.

A stream only ever grows, so a column of repeated strings cannot go back and extend its dictionary. It need
not: the stream format lets a new dictionary stand before any batch and hold from there on. The writer
compares the dictionary of each batch with the one in force and writes it only where they differ, so a fixed
enumeration is written once and an arbitrary one as often as it changes. Readers unify them.
"""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO

import pyarrow as pa

from tracer.directory import Directory
from tracer.trace.ipc_message import is_any_compressed


class Journal:
    """An open part: the file `name` of `folder` holds its flushed rows and perhaps a torn tail.

    Methods raise OSError where the file cannot be written; `abandon` must be called then.
    """

    def __init__(self, folder: Directory, name: str, schema: pa.Schema) -> None:
        self.folder = folder
        self.name = name
        self.rows = 0
        self.removed_rows = 0  # that were flushed to a file which was then removed
        self.began_ns = time.monotonic_ns()
        self._unflushed: list[pa.RecordBatch] = []
        self._flushed_bytes = 0
        self._file = folder.create(name)
        self._stream = pa.ipc.new_stream(self._file, schema)

    def append(self, batch: pa.RecordBatch) -> None:
        self._unflushed.append(batch)
        self.rows += batch.num_rows
        self._stream.write_batch(batch)

    def flush(self) -> None:
        """Hand all rows to the kernel: they survive the death of this process."""
        self._file.flush()
        if self.is_removed:
            raise FileNotFoundError(errno.ENOENT, "its files were removed", self.name)
        self._flushed_bytes = self._file.tell()
        self._unflushed.clear()

    @property
    def size_bytes(self) -> int:
        """The length of the file up to the last flush."""
        return self._flushed_bytes

    @property
    def is_removed(self) -> bool:
        """Whether no name leads to the file any more: its rows are gone when it is closed."""
        return os.fstat(self._file.fileno()).st_nlink == 0

    def close(self) -> None:
        """End the stream. The rows that were not flushed are kept for `abandon` until all is written."""
        self._stream.close()
        self.flush()
        self._file.close()

    def abandon(self) -> list[pa.RecordBatch]:
        """Close at the last flush, and return the batches after it.

        What reached the file since then is cut off, so that `rows` is what a reader finds: none, where the
        file was removed.
        """
        assert isinstance(self._file, io.BufferedWriter)
        is_removed = False
        if not self._file.closed:
            is_removed = self.is_removed
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._flushed_bytes)
            self._file.raw.close()  # without what waits in the buffer
        unflushed, self._unflushed = self._unflushed, []
        self.rows -= sum(batch.num_rows for batch in unflushed)
        if is_removed:
            self.rows, self.removed_rows = 0, self.rows
        return unflushed

    def read(self) -> IO[bytes]:
        """Open the file for reading."""
        return self.folder.read(self.name)

    def unlink(self) -> None:
        self.folder.unlink(self.name)

    def exists(self) -> bool:
        try:
            self.folder.mode(self.name)
        except FileNotFoundError:
            return False
        return True


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
