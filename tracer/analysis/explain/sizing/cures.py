"""Settings that cure a kill where a greater limit does not, with the numbers of that kill."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.analysis.explain.measure import memory_kinds, shared_memory
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.sizing.kill_range import LimitAtKill
from tracer.analysis.explain.wording import owner_name
from tracer.analysis.results.conclusions import Cause
from tracer.units import size


def cures(findings: Findings, cause: Cause) -> Iterator[str]:
    """Yield a sentence for each setting; none for a kill from a kernel log, which shows no window."""
    kill = LimitAtKill.from_findings(findings)
    if kill is None or findings.window is None or memory_kinds.is_limit_lowered(findings):
        return
    shmem, room = findings.composition.shmem or 0, kill.limit_bytes - kill.kept_bytes
    kinds = {one.kind for one in shared_memory.kinds(findings)}
    if cause == "shmem" and room + shmem > 0 and (not kinds or "tmpfs" in kinds):
        yield (
            f"Beside its other memory, {owner_name(findings.owner)} has room for {size(room + shmem)} of "
            "files in memory: set the size= of its tmpfs below that."
        )
    if cause == "dirty_writeback" and room > 0:
        yield (
            f"The limit leaves {size(room)} for page cache, and less than half of that should wait to be "
            f"written: vm.dirty_bytes={room // 2} is such a bound for the whole machine; there is none for "
            "one cgroup."
        )
