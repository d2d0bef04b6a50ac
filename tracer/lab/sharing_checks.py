"""Checks of memory that several processes share, or that outlives the process that allocated it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracer.lab.checks import INTERPRETER_BYTES, Check, Evidence
from tracer.units import duration, size

_HELD_BY_CPU_BYTES: Final = 1 << 20


def writer_has_ended(left_bytes: int) -> Callable[[Evidence], Check]:
    """Return the check that a process wrote this much shmem, and ended before the kill.

    Memory written before usage reached half of the limit is not in the window of the allocators.
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
    """Return the check that a fork is a contributing factor; the process and its child have this much memory
    each.

    Both also have the interpreter. A page to which the parent has written since the fork exists twice.
    """

    def check(evidence: Evidence) -> Check:
        name, report = "the fork is a factor", evidence.report
        numbers = next((one.numbers for one in report.verdict.contributing if one.kind == "cow"), {})
        shared, copied = numbers.get("shared_bytes"), numbers.get("copied_bytes")
        anon = report.composition.anon
        if not isinstance(shared, int) or not isinstance(copied, int) or anon is None:
            return Check(name, False, "no memory that processes share is found")
        # The memory without the copies, and the most memory that could be copied.
        both = (anon - copied, shared + copied)
        passed = all(size_bytes <= each <= size_bytes + INTERPRETER_BYTES for each in both)
        detail = f"{size(copied)} copied, {size(shared)} still shared, set up: {size(size_bytes)}"
        return Check(name, passed, detail)

    return check


def segment_is_the_ceiling(size_bytes: int, members: int) -> Callable[[Evidence], Check]:
    """Return the check that growth is extrapolated to the end of a segment of this size, and not beyond.

    The upper end of the minimum limit has room for the whole segment beside the other memory. The rest of it
    is less than the interpreter of each member, which may copy the memory that it shares, and the charges
    that each CPU may hold.
    """

    def check(evidence: Evidence) -> Check:
        name, report = "growth ends at the size of the segment", evidence.report
        found = [one.size_bytes for one in report.shared_files if one.is_mapped]
        _, high = report.sizing.min_limit_bytes or (None, None)
        shmem = report.composition.shmem
        if high is None or shmem is None:
            return Check(name, False, "no upper end of the minimum limit is found")
        needed = size_bytes + evidence.limit_bytes - shmem
        more = members * INTERPRETER_BYTES + int(evidence.trace.meta["cpus"]) * _HELD_BY_CPU_BYTES
        passed = found == [size_bytes] and needed <= high <= needed + more
        sizes = ", ".join(size(one) for one in found) or "not known"
        detail = f"its size: {sizes}, set up: {size(size_bytes)}; it fits below {size(high)}, needed: "
        return Check(name, passed, f"{detail}{size(needed)}")

    return check
