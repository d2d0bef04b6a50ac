"""The complete part of a journal, which is an Arrow IPC stream, and the compression of its messages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

import pyarrow as pa

_HEADER_OF_MESSAGE: Final = 2
_DATA_OF_DICTIONARY: Final = 1
_COMPRESSION_OF_BATCH: Final = 3


def is_any_compressed(content: pa.Buffer) -> bool:
    """Return whether any complete message of a stream has compressed buffers.

    Raises ValueError for a header that is not valid.
    """
    try:
        return any(_is_compressed(message) for message in _whole_messages(content))
    except struct.error:
        raise ValueError("the header of a message points outside of itself") from None


def _whole_messages(content: pa.Buffer) -> Iterator[pa.Message]:
    try:
        yield from pa.ipc.MessageReader.open_stream(content)
    except (pa.ArrowInvalid, OSError):  # the tail is torn
        return


def _is_compressed(message: pa.Message) -> bool:
    if message.type not in ("record batch", "dictionary"):
        return False
    header = message.metadata.to_pybytes()
    batch = _table(header, _table(header, 0), _HEADER_OF_MESSAGE)
    if message.type == "dictionary":
        batch = _table(header, batch, _DATA_OF_DICTIONARY)
    return _field(header, batch, _COMPRESSION_OF_BATCH) is not None


def _table(header: bytes, table: int, field: int | None = None) -> int:
    """Return the position of the table to which a field of `table`, or the offset there, points."""
    place = table if field is None else _field(header, table, field)
    if place is None:
        raise struct.error("there is no such field")
    return place + _read("<I", header, place)


def _field(header: bytes, table: int, field: int) -> int | None:
    """Return the position of a field of a table; None if the table omits it."""
    fields = table - _read("<i", header, table)
    entry = 4 + 2 * field
    if entry + 2 > _read("<H", header, fields):
        return None
    offset = _read("<H", header, fields + entry)
    return table + offset if offset else None


def _read(kind: str, header: bytes, position: int) -> int:
    if position < 0:
        raise struct.error("before the header")
    value: int = struct.unpack_from(kind, header, position)[0]
    return value


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
