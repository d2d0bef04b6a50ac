"""The NumPy dtypes of the wire records."""

from __future__ import annotations

from typing import Final

import numpy as np

from tracer.wire import streams
from tracer.wire.fields import KIND_BYTES, LENGTHS, Padding, Record


def dtype_from_record(record: Record) -> np.dtype[np.void]:
    """Return the packed dtype of a record. Paddings are fields, so each field has its offset in C."""
    fields: list[tuple[str, str] | tuple[str, str, int]] = []
    for member in record.members():
        if isinstance(member, Padding):
            fields.append((member.name, "u1", member.size_bytes))
        elif member.kind == "char":
            fields.append((member.name, f"S{member.size_bytes}"))
        else:
            number = f"<{member.kind[0].replace('s', 'i')}{KIND_BYTES[member.kind]}"
            fields.append(
                (member.name, number, LENGTHS[member.length]) if member.length else (member.name, number)
            )
    return np.dtype(fields)


WIRE: Final = {stream.name: dtype_from_record(stream.record) for stream in streams.STREAMS} | {
    streams.STACK_COPY.name: dtype_from_record(streams.STACK_COPY)
}
"""Name of a stream, or of the ring of copies of stacks -> its records."""

WATCHED: Final = dtype_from_record(streams.WATCHED)
SAMPLE: Final = dtype_from_record(streams.SAMPLE)
