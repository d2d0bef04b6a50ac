"""Read a BPF ring buffer as an array.

A ring (kernel/bpf/ringbuf.c) is a page with the consumer's position, a page with the producer's position, and
the data. Each record has a header of 8 bytes: its length with two flag bits, and an offset for the kernel's
own use. All records of one ring have the same size, so the data between the two positions is a NumPy array
with a constant stride: a read costs one copy, and no work per event. The kernel offers the data twice in a
row, so that no record is cut at the end. Only the first is mapped: the second would count as memory again.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.load import Programs
from tracer.errors import TracerError
from tracer.wire.dtypes import WIRE

Records = npt.NDArray[np.void]
"""Wire records of one stream, as a structured array (tracer.wire)."""

_WAKE: Final = np.dtype([("nothing", "<u8")])  # a record of the ring that only wakes
_BUSY: Final = 1 << 31  # BPF_RINGBUF_BUSY_BIT: reserved, not yet submitted
_DISCARDED: Final = 1 << 30  # BPF_RINGBUF_DISCARD_BIT: reserved, and given up
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
        self._record = record
        self._length = record.itemsize
        self._data_bytes = data_bytes
        self._frame = np.dtype(
            {
                "names": ["header", "record"],
                "formats": ["<u4", (np.void, record.itemsize)],  # NumPy would copy each field on its own
                "offsets": [0, _HEADER_BYTES],
                "itemsize": self._stride,
            }
        )
        try:
            self._consumer_map = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self._producer_map = mmap.mmap(
                fd, page + data_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
            )
        except OSError as error:
            raise TracerError(f"cannot map a BPF ring buffer: {error.strerror}") from error
        self._consumer = np.frombuffer(self._consumer_map, "<u8", 1)
        self._producer = np.frombuffer(self._producer_map, "<u8", 1)
        self._none = np.empty(0, record)
        self._barrier = threading.Lock()
        self._data = np.frombuffer(self._producer_map, np.uint8, data_bytes, page)

    def read(self) -> Records:
        """Return a copy of the waiting records, oldest first, and free their space in the ring.

        Leaves out records that a program gave up (bpf_ringbuf_discard, kernel/bpf/ringbuf.c). Stops before a
        record that a program has reserved and not submitted: the next call returns it, in order.
        """
        begin = int(self._consumer[0])
        # The kernel publishes the position after the record's header (smp_store_release). Taking a lock is
        # the barrier that keeps this CPU from reading the header before the position.
        with self._barrier:
            waiting = int(self._producer[0]) - begin
        if not waiting:
            return self._none
        positions = (begin + np.arange(0, waiting, self._stride)) % self._data_bytes
        headers = self._data.view("<u4")[positions // 4]
        if int(headers[0]) & ~(_BUSY | _DISCARDED) != self._length:
            raise TracerError("a BPF ring holds records of another size than expected: was events.h changed?")
        unfinished = np.flatnonzero(headers & _BUSY)
        count = int(unfinished[0]) if len(unfinished) else len(headers)
        frames = self._bytes(begin % self._data_bytes, count * self._stride).view(self._frame)
        records = frames["record"].copy()
        self._consumer[0] = begin + count * self._stride
        given_up = headers[:count] & _DISCARDED
        return (records[given_up == 0] if given_up.any() else records).view(self._record)

    def is_filled(self) -> bool:
        """Return whether a record waits, or a program has reserved one."""
        return int(self._producer[0]) != int(self._consumer[0])

    def _bytes(self, begin: int, length: int) -> npt.NDArray[np.uint8]:
        """Return a part of the data, which may wrap around to the beginning of the ring."""
        beyond = begin + length - self._data_bytes
        if beyond <= 0:
            return self._data[begin : begin + length]
        return np.concatenate((self._data[begin:], self._data[:beyond]))

    def close(self) -> None:
        """Unmap the ring."""
        del self._consumer, self._producer, self._data
        self._consumer_map.close()
        self._producer_map.close()


@contextmanager
def rings_of(programs: Programs) -> Iterator[Mapping[str, Ring]]:
    """Map the rings of the streams, by name, and the ring that only wakes ("wake")."""
    with ExitStack() as mapped:
        rings = {}
        for name in (*programs.rings, "wake"):
            rings[name] = Ring(
                programs.ring_fd(name), programs.ring_bytes(name), _WAKE if name == "wake" else WIRE[name]
            )
            mapped.callback(rings[name].close)
        yield rings
