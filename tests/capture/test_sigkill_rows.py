"""SIGKILLs of the OOM killer are told from others, in whichever pass their kill is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracer.capture.rows.decode import Decoder
from tracer.capture.sigkill_rows import SigkillRows
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
