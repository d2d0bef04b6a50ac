"""The complete part of a journal, which is an Arrow IPC stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from tracer.trace.ipc_message import is_any_compressed


def read_journal(content: pa.Buffer, check: Callable[[pa.Schema], None]) -> Iterator[pa.RecordBatch]:
    """Yield the complete batches of a stream; a torn tail reads as absent, even within the first message.

    `check` may raise to refuse the stream's schema before a batch is read. Raises ValueError for compressed
    batches: the recorder writes none, and their length is known only when they are in memory.
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
