"""The processes that held most of a machine that was short of memory, by the table in the kernel log.

Processes of one name count together, as the workers of a server do. Their RSS is added up, which counts pages
that they share once for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tracer.analysis.explain.measure.findings import OF_MACHINE, Findings
from tracer.analysis.results.tasks import Victim

_MOST: Final = 3


@dataclass(frozen=True, slots=True)
class Large:
    """Processes of one name. `held_bytes`: their RSS, without what is in swap. `pid`: of the largest."""

    comm: str
    pid: int
    held_bytes: int
    processes: int
    was_killed: bool


def largest(findings: Findings) -> list[Large]:
    """Return up to three names with the most memory, the largest first; none if a cgroup's limit was hit, or
    without a kernel log.

    Without the table, they are the killed processes whose sizes are known.
    """
    if findings.constraint not in OF_MACHINE or findings.kmsg != "only":
        return []
    held = [(one.comm, one.pid, one.rss_bytes or 0) for one in findings.candidates]
    held = held or [(one.comm, one.pid, _rss(one)) for one in findings.victims]
    named: dict[str, list[tuple[int, int]]] = {}
    for comm, pid, bytes_ in held:
        named.setdefault(comm, []).append((bytes_, pid))
    found = [
        Large(
            comm,
            max(of_name)[1],
            sum(bytes_ for bytes_, _ in of_name),
            len(of_name),
            any(pid in findings.victim_tgids for _, pid in of_name),
        )
        for comm, of_name in named.items()
    ]
    return sorted((one for one in found if one.held_bytes), key=lambda one: -one.held_bytes)[:_MOST]


def _rss(victim: Victim) -> int:
    return sum(one or 0 for one in (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes))
