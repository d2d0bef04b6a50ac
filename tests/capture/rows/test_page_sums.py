"""The switch that has runs summed, and the rows of the sums, with maps that are filled by hand."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np
import pytest

from tracer.capture.rows import page_sums
from tracer.capture.rows.decode import Decoder
from tracer.capture.rows.page_sums import PageSums
from tracer.enumerations import CAUSE, SUMMED_REASON
from tracer.wire.dtypes import WIRE
from tracer.wire.streams import STREAM_AT

MS = 1_000_000
RING_FULL, MAX_OVERHEAD = (SUMMED_REASON.number(name) for name in ("ring_full", "max_overhead"))


class Key(ctypes.Structure):
    """struct page_sum_key of bpf/shared/page_sums.h."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("cgroup_id", "task_cgroup_id", "inode_id", "ino")),
        *((name, ctypes.c_uint32) for name in ("dev", "tgid", "epoch")),
        *((name, ctypes.c_uint8) for name in ("op", "cause")),
        ("pad", ctypes.c_uint8 * 2),
    )


class Value(ctypes.Structure):
    """struct page_sum."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("first_ns", "last_ns", "folios", "nr_pages"))


class Sums:
    """The map `page_sums`."""

    key_type, value_type, fd = Key, Value, -1

    def __init__(self) -> None:
        self.rows: list[tuple[Key, Value]] = []

    def read_elements(self) -> tuple[bytearray, bytearray]:
        keys, values = bytearray(), bytearray()
        for key, value in self.rows:
            keys += bytes(key)
            values += bytes(value)
        return keys, values

    def delete(self, _fd: int, keys: bytearray, count: int) -> None:
        size = ctypes.sizeof(Key)
        taken = {bytes(keys[at * size : (at + 1) * size]) for at in range(count)}
        self.rows = [row for row in self.rows if bytes(row[0]) not in taken]


class Barrier:
    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


class Kernel:
    """The maps, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sums = Sums()
        self.summing = {item: ctypes.c_uint64() for item in range(4)}
        self.now_ns = 10**12
        monkeypatch.setattr(page_sums, "ProgramBarrier", Barrier)
        monkeypatch.setattr(page_sums, "delete_elements", self.sums.delete)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_ns / 1e9)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)
        self.page_sums = PageSums(self)  # type: ignore[arg-type]

    def map(self, name: str) -> Any:
        return {"page_sums": self.sums, "summing": self}[name]

    def __getitem__(self, item: int) -> ctypes.c_uint64:
        return self.summing[item]

    def __setitem__(self, item: int, value: int) -> None:
        self.summing[item] = ctypes.c_uint64(value)

    def add(self, begin_ms: int, duration_ms: int, pages: int, **key: int) -> None:
        """Add a sum to the present epoch; times are relative to now."""
        epoch = self.summing[1].value
        first_ns = self.now_ns + begin_ms * MS
        self.sums.rows.append(
            (Key(epoch=epoch, **key), Value(first_ns, first_ns + duration_ms * MS, 2, pages))
        )
        self[2 + epoch % 2] = self.summing[2 + epoch % 2].value + 1

    def read(self, passed_ms: int, *, is_last: bool = False) -> list[dict[str, Any]]:
        """Return the rows of a ring with one record, after some time."""
        self.now_ns += passed_ms * MS
        one = np.zeros(1, WIRE["pagecache"])
        found = self.page_sums.add_to(one, is_last=is_last)
        rows: list[dict[str, Any]] = Decoder(0).rows(STREAM_AT["pagecache"], found).to_pylist()
        assert rows[0]["index"] == 0
        return rows[1:]

    def intervals(self) -> list[tuple[int, int, str]]:
        """Return (begin, end, reason) of new intervals, in ms from now."""
        return [
            ((row["begin"] - self.now_ns) // MS, (row["time"] - self.now_ns) // MS, row["reason"])
            for row in self.page_sums.take_rows(0)
        ]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_sum_becomes_a_row_with_its_key(kernel: Kernel) -> None:
    assert kernel.read(500) == []
    kernel[0] = RING_FULL
    kernel.add(
        -30, 5000, 1 << 40, cgroup_id=7, task_cgroup_id=8, inode_id=9, ino=3, dev=4, tgid=41, op=1,
        cause=CAUSE.number("reclaim_memcg"),
    )  # fmt: skip
    (row,) = kernel.read(0)
    assert row.pop("time").value == kernel.now_ns - 30 * MS
    assert row == {
        **{"cgroup_id": 7, "task_cgroup_id": 8, "inode_id": 9, "ino": 3, "dev": 4, "tgid": 41},
        **{"op": "delete", "cause": "reclaim_memcg", "index": None},
        **{"duration_ns": 5000 * MS, "folios": 2, "nr_pages": 1 << 40},
    }
    assert kernel.sums.rows == []


def test_sums_are_read_ten_times_a_second_and_at_the_end(kernel: Kernel) -> None:
    kernel[0] = RING_FULL
    found = []
    for _ in range(40):
        kernel.add(0, 0, 1, inode_id=5)
        found.append(len(kernel.read(26)))
    assert sum(map(bool, found)) == 10
    kernel.add(0, 0, 1, inode_id=6)
    assert sum(found) + len(kernel.read(0, is_last=True)) == 41


def test_sum_of_a_later_epoch_waits_for_its_own_turn(kernel: Kernel) -> None:
    kernel.add(0, 0, 1, inode_id=5)
    kernel.sums.rows.append((Key(epoch=1, inode_id=6), Value(kernel.now_ns, kernel.now_ns, 1, 1)))
    kernel[3] = 1
    assert [row["inode_id"] for row in kernel.read(200)] == [5]
    assert [row["inode_id"] for row in kernel.read(200)] == [6]
    assert kernel.read(200) == []


def test_interval_goes_on_while_the_switch_is_on(kernel: Kernel) -> None:
    kernel.read(100)
    kernel[0] = RING_FULL
    kernel.add(-7, 2, 1)
    kernel.read(100)
    assert kernel.intervals() == [(-107, 0, "ring_full")]
    kernel.add(40, 2, 1)
    kernel.read(150)
    assert kernel.intervals() == [(-150, 0, "ring_full")], "it joins the one before"


def test_switch_of_a_full_ring_is_on_for_a_second(kernel: Kernel) -> None:
    kernel.read(300)
    kernel[0] = RING_FULL
    for _ in range(9):
        kernel.read(100)
        assert kernel[0].value == RING_FULL
    kernel.add(3, 2, 1)
    kernel.read(100)
    assert kernel[0].value == 0
    assert kernel.intervals() == [(-97, -95, "ring_full")], "it ends with the last folio"


def test_interval_does_not_reach_back_over_a_time_without_sums(kernel: Kernel) -> None:
    kernel.read(300)
    kernel[0] = RING_FULL
    kernel.add(3, 2, 1)
    kernel.read(100)
    assert kernel.intervals() == [(-97, 0, "ring_full")]
    kernel.read(1000)
    assert kernel[0].value == 0
    kernel[0] = RING_FULL
    kernel.add(3, 2, 1)
    kernel.read(200)
    assert kernel.intervals() == [(-197, 0, "ring_full")]


def test_switch_for_the_cost_stays_on_as_long_as_that_is_too_high(kernel: Kernel) -> None:
    kernel.page_sums.sum_while(True)
    kernel.add(0, 0, 1)
    kernel.read(9000)
    assert kernel[0].value == MAX_OVERHEAD
    assert [reason for *_, reason in kernel.intervals()] == ["max_overhead"]
    kernel.page_sums.sum_while(False)
    assert kernel[0].value == 0
    kernel[0] = RING_FULL
    kernel.page_sums.sum_while(False)
    assert kernel[0].value == RING_FULL, "the ring decides on its own"
