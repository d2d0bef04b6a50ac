"""A part of a table while it is recorded: an Arrow IPC stream, every prefix of which can be read.

A stream only grows, so the dictionary of a column of repeated strings cannot be extended in place. The stream
format allows a new dictionary before any batch, which is valid from there on. Arrow's writer compares the
dictionary of each batch with the last one, and writes it only if they differ. So a fixed enumeration is
written once, and any other dictionary as often as it changes. Readers unify the dictionaries.
"""

from __future__ import annotations

import errno
import io
import os
import time
from contextlib import suppress
from typing import IO

import pyarrow as pa

from tracer.directory import Directory


class Journal:
    """An open part: the file `name` in `folder` holds its flushed rows, and perhaps a torn tail.

    Methods raise OSError if the file cannot be written; the caller must then call `abandon`.
    """

    def __init__(self, folder: Directory, name: str, schema: pa.Schema) -> None:
        self.folder = folder
        self.name = name
        self.rows = 0
        self.removed_rows = 0  # flushed to a file that was then removed
        self.is_flushed = False  # since the last batch
        self.began_ns = time.monotonic_ns()
        self._unflushed: list[pa.RecordBatch] = []
        self._flushed_bytes = 0
        self._file = folder.create(name)
        self._stream = pa.ipc.new_stream(self._file, schema)

    def append(self, batch: pa.RecordBatch) -> None:
        """Write a batch; it survives this process after `flush`."""
        self._unflushed.append(batch)
        self.is_flushed = False
        self.rows += batch.num_rows
        self._stream.write_batch(batch)

    def flush(self) -> None:
        """Give all rows to the kernel, so that they survive the end of this process."""
        self._file.flush()
        if self.is_removed:
            raise FileNotFoundError(errno.ENOENT, "its files were removed", self.name)
        self._flushed_bytes = self._file.tell()
        self._unflushed.clear()
        self.is_flushed = True

    @property
    def size_bytes(self) -> int:
        """Return the length of the file up to the last flush."""
        return self._flushed_bytes

    @property
    def is_removed(self) -> bool:
        """Return whether the file was removed, so that its rows are lost when it is closed."""
        return os.fstat(self._file.fileno()).st_nlink == 0

    def close(self) -> None:
        """End the stream and close the file; until all is written, unflushed rows are kept for `abandon`."""
        self._stream.close()
        self.flush()
        self._file.close()

    def abandon(self) -> list[pa.RecordBatch]:
        """Cut the file off at the last flush, close it, and return the batches after the flush.

        `rows` is then the number of rows that a reader finds: 0 if the file was removed.
        """
        assert isinstance(self._file, io.BufferedWriter)
        is_removed = False
        if not self._file.closed:
            is_removed = self.is_removed
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._flushed_bytes)
            self._file.raw.close()  # without writing the buffer
            with suppress(ValueError):
                self._file.close()  # frees the buffer
        unflushed, self._unflushed = self._unflushed, []
        self.rows -= sum(batch.num_rows for batch in unflushed)
        if is_removed:
            self.rows, self.removed_rows = 0, self.rows
        return unflushed

    def read(self) -> IO[bytes]:
        """Open the file for reading."""
        return self.folder.read(self.name)

    def unlink(self) -> None:
        """Remove the file."""
        self.folder.unlink(self.name)

    def exists(self) -> bool:
        """Return whether the file has its name in the folder."""
        try:
            self.folder.mode(self.name)
        except FileNotFoundError:
            return False
        return True
