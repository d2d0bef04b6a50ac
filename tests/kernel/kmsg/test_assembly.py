"""Impossible sizes become unknown, and possible ones stay."""

from __future__ import annotations

import pytest

from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.report.log_report import LogReport

ZONE = "Node 0 Normal free:9kB min:10kB low:11kB high:12kB present:4000000kB managed:4000000kB"
MACHINE = ("Mem-Info:", "Node 0 active_anon:16kB active_file:16696000000kB", ZONE, "1000000 pages RAM")
TABLE = (
    "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    "[      7]     0     7  5000000   900000       126976        0             0 hog",
    "[      8]     0     8  5000000  1000001       126976        0             0 broken",
    "[      9]     0     9      100   900000       126976        0             0 broken",
)
SIZES = {"total-vm": 20_000_000, "anon-rss": 3_000_000, "file-rss": 4, "shmem-rss": 8, "pgtables": 128}


def report(**changed: int) -> LogReport:
    sizes = SIZES | {name.replace("_", "-"): size for name, size in changed.items()}
    printed = ", ".join(f"{name}:{size}kB" for name, size in sizes.items())
    kill = f"Out of memory: Killed process 7 (hog) {printed.replace('kB, pgtables', 'kB, UID:0 pgtables')}"
    (found,) = reports([f"[ 1.{at:06d}] {line}" for at, line in enumerate((*MACHINE, *TABLE, kill))])
    return found


@pytest.mark.parametrize(
    ("changed", "unknown"),
    [
        ({}, set()),
        ({"anon_rss": 5_000_000}, {"anon_rss_bytes"}),  # more than the machine has
        ({"file_rss": 5_000_000}, {"file_rss_bytes"}),
        (
            {"total_vm": 3000},  # less than the resident memory: one of them was misread
            {"total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes"},
        ),
        ({"pgtables": 126_976}, {"pgtables_bytes"}),  # bytes with the unit kB, as v5.4 prints them
        ({"pgtables": 30_000_000}, {"pgtables_bytes"}),
    ],
)
def test_kill_impossible_size_is_none(changed: dict[str, int], unknown: set[str]) -> None:
    (kill,) = report(**changed).kills
    names = [f"{name.replace('-', '_')}_bytes" for name in SIZES]
    assert {name for name in names if getattr(kill, name) is None} == unknown


def test_report_impossible_rows_are_left_out() -> None:
    assert [row.pid for row in report().tasks] == [7]
