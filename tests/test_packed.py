"""Records that are kept compressed: they come back as they were, and take little memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.kmsg.report.log_report import Counter, Kill, LogReport, MemoryStat, TaskRow
from tracer.kernel.kmsg.text.styles import Stamp
from tracer.packed import Packed


def report(pid: int) -> LogReport:
    stamp = Stamp(pid * 9, pid * 1_000_000, None)
    row = TaskRow(pid, 0, pid, 9000, 4000, None, None, None, 8192, 0, 0, "caf\udcc3")
    return LogReport(
        stamp,
        pid * 9 + 8,
        counters={"memory": Counter(pid << 20, 1 << 30, None)},
        stats=(MemoryStat("/a", {"anon": pid}),),
        tasks=(row,),
        kills=(Kill(stamp, pid, "caf\udcc3"),),
    )


@given(st.integers(0, 300), st.lists(st.tuples(st.integers(0, 299), st.integers(500, 600)), max_size=9))
def test_items_come_back_as_they_were(count: int, replaced: list[tuple[int, int]]) -> None:
    expected = [report(pid) for pid in range(count)]
    packed = Packed(expected)
    for at, pid in replaced:
        if at < count:
            expected[at] = report(pid)
            packed.replace(at, report(pid))
    assert list(packed) == expected == packed[:]
    assert [packed[at] for at in range(len(packed))] == expected
    assert list(reversed(packed)) == expected[::-1]
    assert packed[5:90:7] == expected[5:90:7]
    assert list(packed.only(range(0, count, 3))) == expected[::3]
