"""SIGKILLs of the OOM killer are told from others, in whichever pass their kill is read; those of one sender
are reported together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracer.capture.observer import Sigkilled
from tracer.capture.rows.decode import Decoder
from tracer.capture.sigkill_rows import SigkillReports, SigkillRows
from tracer.enumerations import KILL_WAY
from tracer.wire.dtypes import WIRE

SECOND = 1_000_000_000
NONE = np.zeros(0, WIRE["oom"])


def records(*, tgid: int = 7, time_ns: int = 5 * SECOND, tid: int = 3, way: str = "other") -> Any:
    record = np.zeros(1, WIRE["sigkill"])
    record["tgid"], record["time_ns"], record["sender_tid"] = tgid, time_ns, tid
    record["way"], record["is_privileged"] = KILL_WAY.number(way), way == "other"
    return record


def kill(*, time_ns: int = 5 * SECOND + 1000, tid: int = 3) -> Any:
    record = np.zeros(1, WIRE["oom"])
    record["trigger_pid"], record["time_ns"] = tid, time_ns
    return record


def pids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["tgid"] for row in rows]


def test_signal_of_a_task_is_a_row_at_once() -> None:
    rows = SigkillRows(Decoder(0))
    rows.add(records(way="kill"), NONE)
    assert pids(rows.take(5 * SECOND)) == [7]
    assert not rows.is_waiting


def test_signal_of_the_oom_killer_is_no_row_in_the_pass_of_its_kill_or_before_it() -> None:
    same = SigkillRows(Decoder(0))
    same.add(records(), kill())
    assert same.take(5 * SECOND) == []
    assert not same.is_waiting
    earlier = SigkillRows(Decoder(0))
    earlier.add(records(), NONE)
    assert earlier.take(5 * SECOND) == []
    assert earlier.is_waiting
    earlier.add(records(tgid=8), kill())  # a process that shares the memory of the victim has no mark
    assert earlier.take(9 * SECOND) == []
    assert not earlier.is_waiting


def test_signal_of_the_kernel_without_an_oom_kill_of_its_thread_is_a_row_in_the_end() -> None:
    rows = SigkillRows(Decoder(0))
    rows.add(records(), kill(tid=4))
    rows.add(records(tgid=9, tid=5), kill(tid=5, time_ns=SECOND))
    assert rows.take(5 * SECOND) == []
    assert rows.take(6 * SECOND) == []
    assert pids(rows.take(7 * SECOND)) == [7, 9]
    rows.add(records(tgid=10, time_ns=8 * SECOND), NONE)
    assert pids(rows.take(None)) == [10], "at the end of the recording nothing is held"


def test_row_of_an_unknown_sender_has_no_names_and_units_are_bytes() -> None:
    record = records(way="seccomp")
    record["usage_pages"], record["limit_pages"] = 3, np.iinfo(np.int64).max // 4096
    row = Decoder(0).sigkill(record[0])
    unknown = ("sender_tgid", "sender_comm", "parent1_comm", "since_sigterm_ns")
    assert {row[name] for name in unknown} == {None}
    assert row["usage_bytes"] == 3 * 4096
    assert row["limit_bytes"] == 0x7FFF_FFFF_FFFF_F000


def sent(tgid: int, sender: str | None = "timeout", cgroup_id: int = 3, way: str = "kill") -> Sigkilled:
    row = {"tgid": tgid, "sender_comm": sender, "cgroup_id": cgroup_id, "way": way}
    return Sigkilled(row, f"cgroup {cgroup_id}")


def told(reports: SigkillReports, now_s: float, *new: Sigkilled) -> list[tuple[int, int]]:
    """Return the pid and the number of each report that is due."""
    return [(one.row["tgid"], one.number) for one in reports.take(new, now_s)]


def test_first_of_each_sender_and_cgroup_and_way_is_reported_at_once() -> None:
    others = sent(2, "runc"), sent(3, cgroup_id=4), sent(4, way="group"), sent(5, None)
    reports = SigkillReports()
    assert told(reports, 100.0, sent(1), *others) == [(pid, 1) for pid in (1, 2, 3, 4, 5)]
    assert not reports.is_waiting


def test_what_follows_the_first_is_reported_together_after_a_second() -> None:
    reports = SigkillReports()
    assert told(reports, 100.0, sent(1), sent(2), sent(3)) == [(1, 1)]
    assert reports.is_waiting
    assert told(reports, 100.9, sent(4)) == []
    assert told(reports, 101.0) == [(4, 3)]
    assert not reports.is_waiting


def test_sender_that_goes_on_is_reported_after_longer_and_longer_times() -> None:
    reports, times = SigkillReports(), []
    for second in range(60):
        counts = [count for _, count in told(reports, float(second), sent(second))]
        times += [(second, *counts)] * bool(counts)
    assert times == [(0, 1), (1, 1), (3, 2), (7, 4), (15, 8), (25, 10), (35, 10), (45, 10), (55, 10)]


def test_sigkill_after_a_pause_is_reported_at_once_again() -> None:
    reports = SigkillReports()
    assert told(reports, 0.0, sent(1), sent(2)) == [(1, 1)]
    assert told(reports, 1.0) == [(2, 1)]
    assert told(reports, 3.0) == []
    assert told(reports, 3.1, sent(3)) == [(3, 1)]


def test_all_are_reported_in_the_end() -> None:
    reports = SigkillReports()
    assert told(reports, 0.0, sent(1), sent(2)) == [(1, 1)]
    assert told(reports, math.inf, sent(3), sent(4, "runc")) == [(4, 1), (3, 2)]
    assert not reports.is_waiting


def test_more_senders_than_are_kept_are_reported_at_once() -> None:
    reports = SigkillReports()
    many = [sent(pid, cgroup_id=pid) for pid in range(3000)]
    assert len(told(reports, 0.0, *many)) == 3000
    assert len(told(reports, 0.5, *many)) == 3000 - 1024
