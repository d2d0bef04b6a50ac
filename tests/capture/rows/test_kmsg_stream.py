"""Records of /dev/kmsg: synthetic ones from a socket that keeps their boundaries, and those of a real
kill.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.capture.rows.kmsg_stream import READ, KernelLog, open_kernel_log

MIB = 1 << 20
MS = 1_000_000


class Device:
    """The kernel's side: `log` adds a record. A reader meets an overrun before the next record."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.setblocking(False)
        self._ours = ours
        self.overruns = 0
        self._read = os.read

    def log(self, head: str, text: str, ktime_ns: int | None = None) -> None:
        prefix, sequence, *more = head.split(",")
        microseconds = (time.monotonic_ns() if ktime_ns is None else ktime_ns) // 1000
        self._ours.send(",".join([prefix, sequence, str(microseconds), "-", *more]).encode() + text.encode())

    def read(self, fd: int, count: int) -> bytes:
        if self.overruns:
            self.overruns -= 1
            raise BrokenPipeError
        return self._read(fd, count)

    def close(self) -> None:
        self._ours.close()
        self.theirs.close()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    made = Device()
    monkeypatch.setattr(os, "read", made.read)
    yield made
    monkeypatch.undo()
    made.close()


@pytest.fixture
def log(device: Device) -> KernelLog:
    return KernelLog(device.theirs.fileno(), READ)


def test_read_returns_lines_of_the_kernel_only(device: Device, log: KernelLog) -> None:
    device.log("6,10", ";memory: usage 1kB; limit\n SUBSYSTEM=pci\n DEVICE=+pci:0\n", 5_000_000)
    device.log("12,11", ";Killed process 1 (init), says a user\n", 5_001_000)
    device.log("3,12,caller=T99", r";evil\x0aname" + "\n", 5_002_000)
    first, last = log.read()
    assert (first["ktime_ns"], first["sequence"], first["level"]) == (5_000_000, 10, 6)
    assert (first["caller"], first["text"]) == (None, "memory: usage 1kB; limit")
    assert (last["sequence"], last["level"], last["caller"]) == (12, 3, "T99")
    assert last["text"] == r"evil\x0aname"
    assert log.read() == []
    assert log.lost == 0


def test_overwritten_records_are_counted_as_lost(device: Device, log: KernelLog) -> None:
    device.log("6,10", ";a\n")
    assert len(log.read()) == 1
    device.overruns = 2
    device.log("6,17", ";b\n")
    assert [row["sequence"] for row in log.read()] == [17]
    assert log.lost == 6


def test_overrun_before_the_first_read_counts_one(device: Device, log: KernelLog) -> None:
    device.overruns = 1
    assert log.read() == []
    assert log.lost == 1


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set CLOCK_MONOTONIC, in ms."""

    def set_clock(ms: int) -> None:
        monkeypatch.setattr(time, "monotonic_ns", lambda: ms * MS)

    return set_clock


def test_times_follow_the_smallest_delay(device: Device, log: KernelLog, at: Callable[[int], None]) -> None:
    """The log's clock is 3 s behind. A record with a longer delay was read late, and gets its true time."""
    device.log("6,1", ";read 400 ms late\n", 6000 * MS)
    device.log("6,2", ";read at once\n", 6400 * MS)
    at(9400)
    assert [row["time"] for row in log.read()] == [9000 * MS, 9400 * MS]
    device.log("6,3", ";read 700 ms late\n", 6500 * MS)
    at(10200)
    (late,) = log.read()
    assert 0 <= late["time"] - 9500 * MS < MS  # clocks may be adjusted by 500 ppm meanwhile


def test_no_line_is_earlier_than_the_one_before(
    device: Device, log: KernelLog, at: Callable[[int], None]
) -> None:
    device.log("6,1", ";read 400 ms late, so that its time is 400 ms late as well\n", 6000 * MS)
    at(9400)
    (first,) = log.read()
    device.log("6,2", ";read 401 ms late\n", 6001 * MS)
    device.log("6,3", ";read at once\n", 6402 * MS)
    at(9402)
    second, third = log.read()
    assert [row["time"] // MS for row in (first, second, third)] == [9400, 9400, 9402]
    device.log("6,4", ";stamped by another CPU, whose clock is behind\n", 6399 * MS)
    (fourth,) = log.read()
    assert fourth["time"] == third["time"]


def test_read_until_killed_waits_for_the_lines_on_the_victims(device: Device, log: KernelLog) -> None:
    marked_ns = time.monotonic_ns()
    device.log("3,1", ";Memory cgroup out of memory: Killed process 7 (a) total-vm:1kB\n")
    rows = log.read_until_killed({7: marked_ns})
    assert len(rows) == 1
    assert time.monotonic_ns() - marked_ns < 150 * MS
    rows = log.read_until_killed({7: time.monotonic_ns(), 8: marked_ns})  # pid 7 was used again
    assert rows == []
    assert time.monotonic_ns() - marked_ns >= 200 * MS


def test_read_until_killed_does_not_wait_for_old_kills(log: KernelLog) -> None:
    begin_ns = time.monotonic_ns()
    assert log.read_until_killed({7: begin_ns - 1000 * MS}) == []
    assert log.read_until_killed({}) == []
    assert time.monotonic_ns() - begin_ns < 100 * MS


@pytest.mark.parametrize("there", [False, True])
def test_unreadable_kernel_log_has_a_reason_and_no_rows(there: bool, tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    if there:
        path.symlink_to("/dev/null")
    log = open_kernel_log(path)
    assert log.state == (
        f"{path} is not the kernel log here" if there else f"{path}: No such file or directory"
    )
    assert (log.fds(), log.read(), log.read_until_killed({1: time.monotonic_ns()})) == ([], [], [])
    log.close()


@pytest.mark.kernel
def test_real_kill_is_in_the_kernel_log(
    memcg: Path, start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    if open_kernel_log().state != READ:
        pytest.skip("this machine does not show its kernel log")
    v1 = memcg / "memory.limit_in_bytes"
    (v1 if v1.exists() else memcg / "memory.max").write_text(str(20 * MIB))
    recorder = start_recorder("-c", str(memcg))
    hog = start_workload(memcg, "anon", str(40 * MIB))
    assert (hog.advance(), hog.advance()) == ("start", "")
    trace = tracer.open(recorder.stop())
    assert trace.meta["kernel_log"] == READ
    assert "kernel_log" not in (trace.meta["lost"] or {})
    text = trace.kernel_log["text"]
    (killed,) = trace.kernel_log[text.str.contains(f"Killed process {hog.process.pid} ")].index
    assert abs((killed - trace.oom.index[0]).total_seconds()) < 0.1
    sequences = trace.kernel_log["sequence"].diff().dropna()
    assert (sequences >= 1).all()
