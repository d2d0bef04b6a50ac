"""A ring in a file, laid out as in kernel/bpf/ringbuf.c, compared with the list of its records."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.bpf.ring import Ring
from tracer.errors import TracerError

PAGE = mmap.PAGESIZE
BUSY = 1 << 31
DISCARDED = 1 << 30
HEADER = struct.Struct("<II")  # struct bpf_ringbuf_hdr: len, pg_off

RECORDS = [np.dtype([("number", "<u8"), ("rest", "u1", size - 8)]) for size in (16, 56, 60, 480)]


class FakeKernel:
    """The producer. The kernel maps the data twice in a row; here each write goes to both places."""

    def __init__(self, record: np.dtype[np.void], data_bytes: int) -> None:
        self.record = record
        self.data_bytes = data_bytes
        self.fd = os.memfd_create("ring")
        os.truncate(self.fd, 2 * PAGE + 2 * data_bytes)
        self.produced = 0
        self.reserved: dict[int, int] = {}  # number -> position, of records that are not yet submitted
        self.next_number = 0

    def consumed(self) -> int:
        return int.from_bytes(os.pread(self.fd, 8, 0), "little")

    def reserve(self) -> bool:
        """Reserve a record, which is busy until `submit`. Return False if the ring is full."""
        length = self.record.itemsize
        size = HEADER.size + length + -length % 8
        if self.produced + size - self.consumed() > self.data_bytes - 1:  # __bpf_ringbuf_reserve: > mask
            return False
        payload = np.zeros(1, self.record)
        payload["number"] = self.next_number
        self._write(self.produced, HEADER.pack(length | BUSY, 0) + payload.tobytes())
        self.reserved[self.next_number] = self.produced
        self.next_number += 1
        self.produced += size
        os.pwrite(self.fd, self.produced.to_bytes(8, "little"), PAGE)
        return True

    def submit(self, number: int, flags: int = 0) -> None:
        self._write(self.reserved.pop(number), HEADER.pack(self.record.itemsize | flags, 0))

    def discard(self, number: int) -> None:
        self.submit(number, DISCARDED)

    def _write(self, position: int, content: bytes) -> None:
        at = position % self.data_bytes
        until_end = self.data_bytes - at
        for copy in (0, self.data_bytes):
            os.pwrite(self.fd, content[:until_end], 2 * PAGE + copy + at)
            os.pwrite(self.fd, content[until_end:], 2 * PAGE + copy)


@pytest.fixture(scope="module", params=RECORDS, ids=lambda record: str(record.itemsize))
def record(request: pytest.FixtureRequest) -> np.dtype[np.void]:
    kind: np.dtype[np.void] = request.param
    return kind


class Pair:
    """A producer and the reader of its ring."""

    def __init__(self, record: np.dtype[np.void], data_bytes: int = PAGE) -> None:
        self.kernel = FakeKernel(record, data_bytes)
        self.ring = Ring(self.kernel.fd, data_bytes, record)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.ring.close()
        os.close(self.kernel.fd)


@given(data=st.data())
def test_read_returns_every_record_once_and_in_order(record: np.dtype[np.void], data: st.DataObject) -> None:
    with Pair(record) as pair:
        kernel, received = pair.kernel, 0
        for _ in range(data.draw(st.integers(1, 40))):
            for _ in range(data.draw(st.integers(0, 12))):
                if not kernel.reserve():
                    break
            for number in [n for n in kernel.reserved if data.draw(st.booleans())]:
                kernel.submit(number)
            finished = min(kernel.reserved, default=kernel.next_number)
            read = pair.ring.read()
            assert read["number"].tolist() == list(range(received, finished))
            assert not read["rest"].any()
            received = finished
        for number in sorted(kernel.reserved):
            kernel.submit(number)
        assert pair.ring.read()["number"].tolist() == list(range(received, kernel.next_number))
        assert kernel.consumed() == kernel.produced


@pytest.mark.parametrize("discarded", [{0}, {1}, {2}, {0, 2}, {0, 1, 2}])
def test_discarded_records_are_left_out(record: np.dtype[np.void], discarded: set[int]) -> None:
    with Pair(record) as pair:
        for number in range(3):
            pair.kernel.reserve()
            (pair.kernel.discard if number in discarded else pair.kernel.submit)(number)
        assert pair.ring.read()["number"].tolist() == [one for one in range(3) if one not in discarded]
        assert pair.kernel.consumed() == pair.kernel.produced
        assert not pair.ring.is_filled()


def test_ring_is_filled_while_a_record_is_reserved_or_waits(record: np.dtype[np.void]) -> None:
    with Pair(record) as pair:
        found = [pair.ring.is_filled()]
        pair.kernel.reserve()
        pair.ring.read()
        found.append(pair.ring.is_filled())
        pair.kernel.submit(0)
        found.append(pair.ring.is_filled())
        pair.ring.read()
        found.append(pair.ring.is_filled())
    assert found == [False, True, True, False]


def test_read_across_many_wraps_loses_nothing(record: np.dtype[np.void]) -> None:
    with Pair(record) as pair:
        numbers: list[int] = []
        while pair.kernel.produced < 5 * PAGE:
            while pair.kernel.reserve():
                pair.kernel.submit(pair.kernel.next_number - 1)
            numbers += pair.ring.read()["number"].tolist()
        assert numbers == list(range(pair.kernel.next_number))


def test_read_returns_a_copy_that_the_producer_does_not_overwrite(record: np.dtype[np.void]) -> None:
    """The read frees the space: later records in it must not show in earlier results."""
    with Pair(record) as pair:
        first = None
        for _ in range(2):
            while pair.kernel.reserve():
                pair.kernel.submit(pair.kernel.next_number - 1)
            read = pair.ring.read()
            first = read if first is None else first
        assert first is not None
        assert first["number"].tolist() == list(range(len(first)))


def test_read_of_records_of_another_size_raises() -> None:
    with Pair(RECORDS[0]) as pair:
        pair.kernel.record = RECORDS[1]
        for number in range(3):
            pair.kernel.reserve()
            pair.kernel.submit(number)
        with pytest.raises(TracerError, match="another size than expected"):
            pair.ring.read()


@pytest.fixture
def not_mappable() -> Iterator[int]:
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


def test_ring_of_an_unmappable_descriptor_raises(not_mappable: int) -> None:
    with pytest.raises(TracerError, match="cannot map a BPF ring buffer"):
        Ring(not_mappable, PAGE, RECORDS[0])
