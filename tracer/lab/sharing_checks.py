"""Checks of memory that several processes share, or that outlives the process that it was charged to."""

from __future__ import annotations

from collections.abc import Callable

from tracer.lab.checks import INTERPRETER_BYTES, Check, Evidence
from tracer.units import duration, size


def writer_has_ended(left_bytes: int) -> Callable[[Evidence], Check]:
    """Return the check that a process wrote this much shmem, and ended before the kill.

    What it wrote before usage was half of the limit is not in the window of the allocators.
    """

    def check(evidence: Evidence) -> Check:
        name, report = "the writer of what is left had ended", evidence.report
        wrote = max(report.allocators, key=lambda one: one.shmem_bytes, default=None)
        if wrote is None or wrote.exited is None or report.time is None:
            return Check(name, False, "no writer of shmem has an end")
        before_s = (report.time - wrote.exited).total_seconds()
        least = left_bytes - evidence.limit_bytes // 2
        passed = least <= wrote.shmem_bytes <= left_bytes and before_s > 0
        detail = f"pid {wrote.tgid} wrote {size(wrote.shmem_bytes)}, and ended {duration(before_s)} before"
        return Check(name, passed, detail)

    return check


def memory_was_copied(size_bytes: int) -> Callable[[Evidence], Check]:
    """Return the check that a fork is a factor, of a process and a child that have this much each.

    Both also have the interpreter. A page that the parent has written to since the fork exists twice.
    """

    def check(evidence: Evidence) -> Check:
        name, report = "the fork is a factor", evidence.report
        numbers = next((one.numbers for one in report.verdict.contributing if one.kind == "cow"), {})
        shared, copied = numbers.get("shared_bytes"), numbers.get("copied_bytes")
        anon = report.composition.anon
        if not isinstance(shared, int) or not isinstance(copied, int) or anon is None:
            return Check(name, False, "no memory that processes share is found")
        # Without the copies, and what would be copied at most.
        both = (anon - copied, shared + copied)
        passed = all(size_bytes <= each <= size_bytes + INTERPRETER_BYTES for each in both)
        detail = f"{size(copied)} copied, {size(shared)} still shared, set up: {size(size_bytes)}"
        return Check(name, passed, detail)

    return check
