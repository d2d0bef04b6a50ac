"""The part of the kernel log that a trace keeps: reports on its cgroups, and lines outside of reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from synthetic.oom_log import MIB, Dump

import tracer
from tracer.capture.rows import log_filter
from tracer.capture.rows.kmsg_stream import READ, open_kernel_log
from tracer.capture.rows.log_filter import LogFilter
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

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
    monkeypatch.setattr(log_filter, "_MOST_HELD", 50)
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
