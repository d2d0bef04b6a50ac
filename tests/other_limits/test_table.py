"""The row of a program in the table of answers and runs."""

from __future__ import annotations

from typing import Any

from other_limits.__main__ import row
from tracer.analysis.results.outcome import AtLimit
from tracer.lab.other_limits import Answered
from tracer.lab.resize import Rerun

MIB = 1 << 20


def answered(limit_mib: int, outcome: Any, kills: int, low_mib: int, high_mib: int) -> Answered:
    again = (low_mib * MIB, high_mib * MIB)
    return Answered(
        AtLimit(limit_mib * MIB, 0, outcome, "", again),
        Rerun(0, kills, 1.0, 10 * MIB),
        recorded_bytes=40 * MIB,
    )


def test_row_counts_answers_ranges_and_those_that_are_narrow() -> None:
    found = [
        answered(20, "killed", 1, 0, 0),
        answered(30, "killed", 0, 0, 9),
        answered(50, "unknown", 0, 9, 14),
        answered(60, "survives", 0, 9, 13),
        answered(60, "survives", 0, 20, 21),
    ]
    assert row("work", "40 MiB", found) == "| work | 40 MiB | 20, 30, 50, 60 | 3 | 1 | 1 | 3 of 4 | 2 of 3 |"
