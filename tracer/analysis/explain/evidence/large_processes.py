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
_MUCH_SHARE: Final = 0.2
_MUCH_UNKNOWN_BYTES: Final = 512 << 20
"""The same where the machine's memory is not known."""

_MUCH_UNUSED_SHARE: Final = 0.1


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


def much(findings: Findings) -> Large | None:
    """Return the largest of `largest`; None if it held little of the machine."""
    usable = usable_bytes(findings)
    least = _MUCH_UNKNOWN_BYTES if usable is None else _MUCH_SHARE * usable
    return next((one for one in largest(findings)[:1] if one.held_bytes >= least), None)


def usable_bytes(findings: Findings) -> int | None:
    """Return the machine's memory without what the kernel reserves, in bytes; None: not known."""
    machine = findings.circumstances.machine
    usable = None if machine is None else machine.usable_pages
    return None if usable is None else usable * findings.page_size


def unused_huge_pages(findings: Findings) -> int:
    """Return the bytes of huge pages that are not in use, if they are much of the machine; else 0."""
    machine = findings.circumstances.machine
    if machine is None or not machine.ram_pages:
        return 0
    unused_bytes = machine.unused_hugetlb_bytes or 0
    return unused_bytes if unused_bytes >= _MUCH_UNUSED_SHARE * machine.ram_pages * findings.page_size else 0


def _rss(victim: Victim) -> int:
    return sum(one or 0 for one in (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes))
