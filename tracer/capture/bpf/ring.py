"""Read a BPF ring buffer as an array.

A ring (kernel/bpf/ringbuf.c) is a page with the consumer's position, a page with the producer's position, and
the data. The data is mapped twice in a row, so that no record is cut at the end. Each record has a header of
8 bytes: its length with two flag bits, and an offset for the kernel's own use. All records of one ring have
the same size, so the data between the two positions is a NumPy array with a constant stride: a read costs
one copy, and no work per event.
"""

from __future__ import annotations

import mmap
import threading
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.errors import TracerError

Records = npt.NDArray[np.void]
"""Wire records of one stream, as a structured array (tracer.wire)."""

_BUSY: Final = 1 << 31  # BPF_RINGBUF_BUSY_BIT: reserved, not yet submitted
_HEADER_BYTES: Final = 8  # BPF_RINGBUF_HDR_SZ


class Ring:
    """One mapped ring. `data_bytes` is the size of its data area, `record` the type of its records.

    Reading moves the consumer's position, so a ring must have one reader only. Raises TracerError if the
    kernel refuses to map it.
    """

    def __init__(self, fd: int, data_bytes: int, record: np.dtype[np.void]) -> None:
        page = mmap.PAGESIZE
        payload = record.itemsize + (-record.itemsize) % 8
        self._stride = _HEADER_BYTES + payload
        self._length = record.itemsize
        self._data_bytes = data_bytes
        self._frame = np.dtype(
            {
                "names": ["header", "record"],
                "formats": ["<u4", record],
                "offsets": [0, _HEADER_BYTES],
                "itemsize": self._stride,
            }
        )
        try:
            self._consumer_map = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self._producer_map = mmap.mmap(
                fd, page + 2 * data_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
            )
        except OSError as error:
            raise TracerError(f"cannot map a BPF ring buffer: {error.strerror}") from error
        self._consumer = np.frombuffer(self._consumer_map, "<u8", 1)
        self._producer = np.frombuffer(self._producer_map, "<u8", 1)
        self._barrier = threading.Lock()
        self._data_offset = page

    def read(self) -> Records:
        """Return a copy of the waiting records, oldest first, and free their space in the ring.

        Stops before a record that a program has reserved and not submitted: the next call returns it, in
        order.
        """
        begin = int(self._consumer[0])
        # The kernel publishes the position after the record's header (smp_store_release). Taking a lock is
        # the barrier that keeps this CPU from reading the header before the position.
        with self._barrier:
            waiting = int(self._producer[0]) - begin
        # At most a whole ring waits, and the double mapping makes it contiguous.
        frames = np.frombuffer(
            self._producer_map,
            self._frame,
            waiting // self._stride,
            self._data_offset + begin % self._data_bytes,
        )
        unfinished = np.flatnonzero(frames["header"] & _BUSY)
        if len(unfinished):
            frames = frames[: unfinished[0]]
        if len(frames) and (frames["header"][0] != self._length):
            raise TracerError("a BPF ring holds records of another size than expected: was events.h changed?")
        records = frames["record"].copy()
        self._consumer[0] = begin + len(frames) * self._stride
        return records

    def close(self) -> None:
        """Unmap the ring."""
        del self._consumer, self._producer
        self._consumer_map.close()
        self._producer_map.close()
