"""Records of /dev/kmsg: synthetic ones from a socket that keeps their boundaries, and those of a real
kill.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic.oom_log import MIB, Dump

import tracer
from tracer.capture.rows import kmsg_stream
from tracer.capture.rows.kmsg_stream import READ, KernelLog, LogFilter, open_kernel_log
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

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


OURS = Dump(1, "ours", "/box", "/box/inner")
OTHERS = Dump(2, "others", "/other", "/other/one")
ABOVE = Dump(3, "above", "/top", "/top/sibling")
GLOBAL = Dump(4, "global", constraint="CONSTRAINT_NONE", task_memcg="/other")
OLD = [
    "hog invoked oom-killer: gfp_mask=0x6000c0(GFP_KERNEL), nodemask=(null), order=0, oom_score_adj=0",
    "Task in /other/one killed as a result of limit of /other",
    "memory: usage 102400kB, limit 102400kB, failcnt 23",
    "Memory cgroup out of memory: Kill process 7 (hog) score 988 or sacrifice child",
    "Killed process 7 (hog) total-vm:105344kB, anon-rss:101376kB, file-rss:4kB, shmem-rss:0kB",
]


def rows(*texts: str, start_ns: int = 0, step_ns: int = 1000) -> list[dict[str, Any]]:
    return [{"ktime_ns": start_ns + step_ns * number, "text": text} for number, text in enumerate(texts)]


def texts(kept: Iterable[dict[str, Any]]) -> list[str]:
    return [row["text"] for row in kept]


class Traced:
    """The traced cgroups; `concerns` holds for those below and above them as well."""

    def __init__(self, *paths: str) -> None:
        self.paths = set(paths)

    def concerns(self, path: str) -> bool:
        above = path.rstrip("/") + "/"
        return any((path + "/").startswith(one + "/") or one.startswith(above) for one in self.paths)


@pytest.fixture
def traced() -> Traced:
    return Traced("/box", "/top/sub")


@pytest.fixture
def filtered(traced: Traced) -> LogFilter:
    return LogFilter(traced.concerns)


@pytest.mark.parametrize("dump", [OURS, ABOVE, GLOBAL], ids=lambda dump: dump.comm)
@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_report_on_a_traced_cgroup_is_kept(filtered: LogFilter, dump: Dump, pieces: int) -> None:
    lines = rows("before", *dump.lines(), "oom_reaper: reaped process 1 (ours), now anon-rss:0kB", "after")
    kept = [row for at in range(0, len(lines), pieces) for row in filtered.take(lines[at : at + pieces])]
    assert kept + filtered.end() == lines
    assert filtered.left_out == {"reports": 0, "lines": 0}


@pytest.mark.parametrize("lines", [list(OTHERS.lines()), OLD], ids=["5.0 and later", "before 5.0"])
def test_report_on_another_cgroup_is_left_out_and_counted(filtered: LogFilter, lines: list[str]) -> None:
    reaped = f"oom_reaper: reaped process {7 if lines is OLD else 2} (others), now anon-rss:0kB"
    kept = filtered.take(rows("before", *lines, reaped, "usb 1-1: new device", *OURS.lines()))
    assert texts(kept + filtered.end()) == ["before", "usb 1-1: new device", *OURS.lines()]
    assert filtered.left_out == {"reports": 1, "lines": len(lines) + 1}


def test_rest_of_another_cgroups_group_kill_is_left_out(filtered: LogFilter) -> None:
    def group(path: str) -> list[str]:
        kill = "Memory cgroup out of memory: Killed process {} (a) total-vm:1kB, anon-rss:1kB, UID:0"
        ended = f"Tasks in {path} are going to be killed due to memory.oom.group set"
        return [ended, kill.format(21), kill.format(22)]

    lines = rows(*OTHERS.lines(), *group("/other/one"), "after", *OURS.lines(), *group("/box/inner"))
    assert texts(filtered.take(lines) + filtered.end()) == ["after", *OURS.lines(), *group("/box/inner")]
    assert filtered.left_out["reports"] == 1


def test_cgroup_traced_later_has_its_report_kept(filtered: LogFilter, traced: Traced) -> None:
    assert filtered.take(rows(*OTHERS.lines())) == []
    traced.paths.add("/other/one/new")
    assert texts(filtered.take(rows(*OTHERS.lines()))) == list(OTHERS.lines())


def test_report_without_its_end_is_kept(filtered: LogFilter) -> None:
    """It is released by the next report, at the end of the recording, and after a second."""
    begun = list(OTHERS.lines())[:9]
    assert texts(filtered.take(rows(*begun, *OURS.lines()))) == [*begun, *OURS.lines()]
    assert filtered.take(rows(*begun)) == []
    assert texts(filtered.end()) == begun
    assert filtered.take(rows(*begun)) == []
    later = rows("a", start_ns=3_000_000_000)
    assert texts(filtered.take(later)) == [*begun, "a"]


def test_held_lines_stay_below_the_bound(filtered: LogFilter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmsg_stream, "_MOST_HELD", 50)
    flood = [next(OTHERS.lines()), *(f"[ {number} ] row" for number in range(500))]
    kept = filtered.take(rows(*flood))
    assert len(kept) >= 450
    assert texts(kept + filtered.end()) == flood


@pytest.mark.parametrize("path", [r"/bo\x78", "/" + "d" * 880])
def test_report_with_a_doubtful_path_is_kept(filtered: LogFilter, path: str) -> None:
    """A path with escapes, or one that was cut, may be that of a traced cgroup."""
    dump = Dump(5, "odd", path, path)
    assert texts(filtered.take(rows(*dump.lines()))) == list(dump.lines())


def test_comm_that_imitates_the_kernel_changes_nothing(filtered: LogFilter) -> None:
    name = "/box/oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/other,task_memcg=/other"
    dump = Dump(5, "odd", name, name)
    assert texts(filtered.take(rows(*dump.lines()))) == list(dump.lines())


@pytest.mark.kernel
def test_trace_has_the_report_of_the_traced_kill_alone(
    memcg: Path, start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    if open_kernel_log().state != READ:
        pytest.skip("this machine does not show its kernel log")
    with ephemeral_cgroup("others", 20 * MIB, 0) as other:
        v1 = memcg / "memory.limit_in_bytes"
        (v1 if v1.exists() else memcg / "memory.max").write_text(str(20 * MIB))
        recorder = start_recorder("-c", str(memcg))
        for place in (other, memcg):
            hog = start_workload(place, "anon", str(40 * MIB))
            assert (hog.advance(), hog.advance()) == ("start", "")
        trace = tracer.open(recorder.stop())
    text = "\n".join(trace.kernel_log["text"])
    assert f"Killed process {hog.process.pid} " in text
    assert other.name not in text
    if trace.meta["kernel_log_left_out"][
        "reports"
    ]:  # the kernel prints at most ten reports in 5 s, of all cgroups
        assert trace.meta["kernel_log_left_out"]["lines"] > 20
    assert len(trace.explain()) == 1
