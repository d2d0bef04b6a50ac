"""Logs with their newest line first have the same reports as the log in the order of time."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Final

import pytest
from kernel.kmsg.test_corpus import CORPUS

from tracer.kernel.kmsg.parser import oldest_first, reports
from tracer.kernel.kmsg.text.lines import split

LOGS: Final = (
    "written-5.14-el9-arm64-v2-monotonic.log",
    "written-4.19-debian10-v1-kern.log",
    "captured-6.18-debian13-v2-dmesg-iso.log",
)


@pytest.mark.parametrize("name", LOGS)
def test_reversed_log_has_same_reports(name: str) -> None:
    log = [line for line in split([(CORPUS / name).read_bytes()]) if line.strip()]
    messages = list[list[str]]()
    for line in log:
        if line[:1] == " " and messages:
            messages[-1].append(line)
        else:
            messages.append([line])
    reverse = [line for message in reversed(messages) for line in message]
    expected, found = list(reports(log)), list(reports(reverse))
    assert len(found) == len(expected) > 0
    for one, other in zip(expected, found, strict=True):
        assert one.stamp.line + other.last_line == one.last_line + other.stamp.line == len(log) + 1
        for kill, own in zip(other.kills, one.kills, strict=True):
            assert log[own.stamp.line - 1] == reverse[kill.stamp.line - 1]
        kills = tuple(
            kill._replace(stamp=own.stamp) for kill, own in zip(other.kills, one.kills, strict=True)
        )
        assert dataclasses.replace(other, stamp=one.stamp, last_line=one.last_line, kills=kills) == one


KILL: Final = "Memory cgroup out of memory: Killed process 7 (a) total-vm:9kB, anon-rss:4kB, file-rss:0kB"
HEADER: Final = "a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"


@pytest.mark.parametrize(
    "log",
    [
        [],
        [f"[ 9.100000] {HEADER}", f"[ 9.200000] {KILL}"],
        [f"[ 9.100000] {KILL}", f"[ 9.200000] {HEADER}"],  # the end of a report, and the next one
        [f"[ 9.200000] {KILL}", f"[ 9.200000] {HEADER}"],
        [f"[ 9.200000] {KILL}", f"[ 9.100000] {KILL}"],  # kills of several boots
        [f"Sep 30 10:00:00 a kernel: {KILL}", f"Oct  1 10:00:00 a kernel: {HEADER}"],
        [f"Mar 5 10:00:00 a kernel: {KILL}", f"Mar 10 10:00:00 a kernel: {HEADER}"],
        [KILL, HEADER],
    ],
)
def test_other_log_stays_as_it_is(log: list[str]) -> None:
    assert oldest_first(log) is None


@pytest.mark.parametrize("at", [0, 1500, 2900])
@pytest.mark.parametrize("style", ["%b %e %H:%M:%S box kernel:", "[%a %b %e %H:%M:%S %Y]"])
def test_long_reversed_log_has_same_reports(style: str, at: int) -> None:
    """The log is longer than a block of lines, and its times go from one month to the next."""
    texts = [f"eth0: link {number}" for number in range(3000)]
    texts[at : at + 3] = [HEADER, "memory: usage 102400kB, limit 102400kB, failcnt 5", KILL]
    begin = datetime(2026, 11, 29)
    log = [
        f"{(begin + timedelta(minutes=number)).strftime(style)} {text}" for number, text in enumerate(texts)
    ]
    (expected,), (found,) = list(reports(log)), list(reports(log[::-1]))
    assert found.counters == expected.counters != {}
    assert (found.invoker, [kill.pid for kill in found.kills]) == (expected.invoker, [7])
    assert found.stamp.line == len(log) + 1 - expected.last_line
