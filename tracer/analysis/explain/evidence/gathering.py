"""The evidence of a kill: its state, the time before it, the whole machine, and doubts about the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from tracer.analysis.explain.evidence.kinds import found, on_suspect, resolution_ns
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import LATELY_NS, OF_MACHINE, Findings
from tracer.analysis.explain.measure.growth import growth_span_s
from tracer.analysis.results.kill import Evidence, Suspect, Victim
from tracer.schema import UNLIMITED_BYTES

_LEAST_PERCENT: Final = 1
_KILLED_SHARE: Final = 0.9


def at_the_kill(findings: Findings) -> Iterator[Evidence]:
    """Find the kinds of memory with at least 1 % of usage, clean page cache always, and the room left.

    Without a limit, find the traced cgroups that held most of the machine.
    """
    made_of = findings.composition
    yield from _machine_holders(findings)
    swap = findings.circumstances.swap
    is_logged = findings.kmsg == "only" and findings.constraint == "memcg"
    if is_logged and swap is not None and (swap.used_bytes or swap.allowed_bytes is not None):
        yield found(findings, "swap_use", used_bytes=swap.used_bytes, allowed_bytes=swap.allowed_bytes)
    if not made_of.total or made_of.anon is None:
        yield from killed_held_limit(findings)
    if not made_of.total:
        return
    yield from _lowered_limit(findings)
    yield from _still_freeing(findings)
    parts = {
        "anon": made_of.anon,
        "shmem": made_of.shmem or None,
        "unevictable": made_of.unevictable or None,
        "kernel": composition.kernel_bytes(findings),
        "file_clean": made_of.file_clean,
        "unwritten": composition.unwritten_bytes(made_of) or None,
    }
    for part, held in parts.items():
        if held is not None and (held * 100 >= _LEAST_PERCENT * made_of.total or part == "file_clean"):
            yield found(findings, "part_of_usage", part=part, held_bytes=held, usage_bytes=made_of.total)
    usage, limit = findings.owner.usage_bytes, findings.owner.limit_bytes
    if usage is not None and limit is not None and findings.owner.has_limit:
        room = (limit - usage) // findings.page_size
        yield found(findings, "room_left", room_pages=room, usage_bytes=usage, limit_bytes=limit)


def _lowered_limit(findings: Findings) -> Iterator[Evidence]:
    lowered = findings.owner.lowered
    if lowered is not None:
        before = lowered.limit_bytes
        yield found(
            findings,
            "lowered_limit",
            old_limit_bytes=None if before is None or before >= UNLIMITED_BYTES else before,
            limit_bytes=findings.owner.limit_bytes,
            usage_bytes=lowered.usage_bytes,
            before_ns=lowered.before_ns,
            by_trigger=lowered.by_trigger,
        )


def _still_freeing(findings: Findings) -> Iterator[Evidence]:
    previous, freeing = findings.previous, composition.freeing_bytes(findings)
    if previous is not None and freeing:
        yield found(
            findings,
            "still_freeing",
            kill_id=previous.kill_id,
            killed_comm=previous.comm,
            killed_pid=previous.pid,
            before_ns=previous.age_ns,
            freeing_bytes=freeing,
        )


def _machine_holders(findings: Findings) -> Iterator[Evidence]:
    holders = tuple(
        {"cgroup": one.cgroup, "held_bytes": one.held_bytes, "charged_bytes": one.charged_bytes}
        | ({} if one.container is None else {"container": one.container})
        for one in findings.circumstances.machine_holders
    )
    if holders:
        yield found(findings, "machine_holders", cgroups=holders, lately_ns=LATELY_NS)


def killed_held_limit(findings: Findings) -> Iterator[Evidence]:
    """Return the evidence that the killed processes held nearly all of the limit: as anonymous memory or,
    where the kinds are not known, as RSS.

    Without a composition, nothing else shows what filled the limit.
    """
    limit = findings.owner.limit_bytes
    held, is_anon = held_by_killed(findings)
    if not findings.owner.has_limit or not limit or held < _KILLED_SHARE * limit:
        return
    yield found(
        findings,
        "killed_held_limit",
        anon_rss_bytes=held if is_anon else None,
        rss_bytes=None if is_anon else held,
        limit_bytes=limit,
    )


def held_by_killed(findings: Findings) -> tuple[int, bool]:
    """Return what the killed processes held in bytes, and whether that is anonymous memory. It is RSS if
    the log does not show the kinds."""
    anon = [victim.anon_rss_bytes for victim in findings.victims]
    if any(one is not None for one in anon):
        return sum(filter(None, anon)), True
    rss_of: dict[int | None, int | None] = {one.pid: one.rss_bytes for one in findings.candidates}
    return sum(rss_of.get(victim.pid) or 0 for victim in findings.victims), False


_GROWING: Final = ("anon", "zswap", "shmem", "locked_cache", "kernel")


def growth(findings: Findings) -> Iterator[Evidence]:
    """Find the memory that grew, the evicted cache, and the memory that took its place.

    Growth below a tenth of the largest growth, or below a hundredth of usage, is left out.
    """
    window, cushion = findings.window, findings.cushion
    if window is None:
        return
    grown = findings.circumstances.grown_bytes
    least = max(max(grown.values(), default=0) // 10, (findings.composition.total or 0) // 100, 1)
    for part in _GROWING:
        if grown.get(part, 0) >= least:
            span_s, coarse_s = growth_span_s(findings, grown[part])
            yield found(
                findings,
                "growth",
                part=part,
                grown_bytes=grown[part],
                span_ns=round(span_s * 1e9),
                resolution_ns=round(coarse_s * 1e9) or None,
            )
    if cushion.evicted_bytes is not None:
        yield found(
            findings,
            "evicted_cache",
            evicted_bytes=cushion.evicted_bytes,
            span_ns=window.end - window.at_limit,
            resolution_ns=resolution_ns(findings, window.at_limit),
        )
    if cushion.absorbed_bytes and cushion.evicted_bytes:
        yield found(findings, "absorbed_memory", absorbed_bytes=cushion.absorbed_bytes)


def reclaim(findings: Findings) -> Iterator[Evidence]:
    """Find the pages that reclaim scanned and freed, and those that the last attempts could not free."""
    steal, tried, last = findings.steal, findings.reclaim, findings.reclaim.transcript
    if steal is not None and (steal.evicted_pages or steal.swapped_pages or steal.pgsteal_pages):
        yield found(
            findings,
            "steal_count",
            evicted_pages=steal.evicted_pages,
            swapped_pages=steal.swapped_pages,
            pgsteal_pages=steal.pgsteal_pages,
        )
    if tried.attempts is not None and tried.stall_ms is not None:
        yield found(
            findings,
            "reclaim_attempts",
            attempts=tried.attempts,
            scanned_pages=tried.scanned_pages,
            reclaimed_pages=tried.reclaimed_pages,
            stall_ms=tried.stall_ms,
        )
    if last and last[-1].reclaimed_pages == 0:
        yield found(findings, "fruitless_attempt", scanned_pages=last[-1].scanned_pages)
    scanned = sum(attempt.scanned_file_pages for attempt in last)
    # A page can be both dirty and under writeback.
    unwritten = sum(max(attempt.nr_dirty, attempt.nr_writeback) for attempt in last)
    if unwritten * 2 > scanned:
        yield found(
            findings,
            "unwritten_scanned",
            attempts=len(last),
            scanned_pages=scanned,
            unwritten_pages=unwritten,
        )


_MOST: Final = 3
_MUCH_SHARE: Final = 0.2
_MUCH_UNKNOWN_BYTES: Final = 512 << 20
"""The same where the machine's memory is not known."""

_MUCH_UNUSED_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Large:
    """Processes of one name. `held_bytes`: their RSS, without what is in swap. `pid`: of the largest."""

    comm: str
    pid: int | None
    held_bytes: int
    processes: int
    was_killed: bool


def largest_processes(findings: Findings) -> list[Large]:
    """Return up to three names with the most memory, the largest first; none if a cgroup's limit was hit.

    Killed processes whose sizes are known are among them without a row as well: a table may be cut.
    """
    if findings.constraint not in OF_MACHINE:
        return []
    held: list[tuple[str, int | None, int]] = [
        (one.comm, one.pid, one.rss_bytes or 0) for one in findings.candidates
    ]
    # A killed thread has no row of its own, but its process has one of about its size.
    least = 1.1 * max((bytes_ for _, _, bytes_ in held), default=0)
    held += [(one.comm, one.pid, _rss(one)) for one in findings.victims if _rss(one) > least]
    named: dict[str, list[tuple[int, int | None]]] = {}
    for comm, pid, bytes_ in held:
        named.setdefault(comm, []).append((bytes_, pid))
    found = [
        Large(
            comm,
            max(of_name, key=itemgetter(0))[1],
            sum(bytes_ for bytes_, _ in of_name),
            len(of_name),
            any(pid is None or pid in findings.victim_tgids for _, pid in of_name),
        )
        for comm, of_name in named.items()
    ]
    return sorted((one for one in found if one.held_bytes), key=lambda one: -one.held_bytes)[:_MOST]


def much_of_machine(findings: Findings) -> Large | None:
    """Return the largest of `largest`; None if it held little of the machine."""
    usable = usable_bytes(findings)
    least = _MUCH_UNKNOWN_BYTES if usable is None else _MUCH_SHARE * usable
    return next((one for one in largest_processes(findings)[:1] if one.held_bytes >= least), None)


def killed_bytes(findings: Findings, comm: str, cgroup: str) -> int:
    """Return what the killed processes of this name in a cgroup (its path) held, as far as it is known."""
    return sum(_rss(one) for one in findings.victims if (one.comm, one.cgroup) == (comm, cgroup))


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


_MACHINE_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "anon_bytes": ("active_anon", "inactive_anon"),
    "file_bytes": ("active_file", "inactive_file"),
    "shmem_bytes": ("shmem",),
    "lru_bytes": ("active", "inactive"),  # before v2.6.28, which does not separate the two
    "slab_bytes": ("slab_reclaimable", "slab_unreclaimable", "slab"),
    "unevictable_bytes": ("unevictable",),
    "free_bytes": ("free",),
}
"""Number of the evidence -> the counters of Mem-Info that it sums."""

_MACHINE_COUNTERS: Final = frozenset(name for names in _MACHINE_PARTS.values() for name in names)


def of_the_machine(findings: Findings) -> Iterator[Evidence]:
    """Find the use of the machine's memory, the largest processes, the swap that was free, and zones below
    their minimum.

    Only a report on a machine that was short of memory has Mem-Info (show_free_areas in mm/show_mem.c).
    """
    info = findings.circumstances.machine
    if info is None:
        yield from _largest(findings)
        return
    if info.usable_pages is not None and not info.pages.keys().isdisjoint(_MACHINE_COUNTERS):
        parts: dict[str, int | None] = {
            number: sum(info.pages.get(name, 0) for name in names) * findings.page_size
            for number, names in _MACHINE_PARTS.items()
        }
        usable = info.usable_pages * findings.page_size
        parts["lru_bytes"] = parts["lru_bytes"] or None
        yield found(
            findings,
            "machine_memory",
            usable_bytes=usable,
            **parts,
            hugetlb_bytes=info.hugetlb_bytes,
            gpu_bytes=info.gpu_bytes,
        )
    yield from _largest(findings)
    if info.total_swap_bytes:
        yield found(
            findings, "machine_swap", free_bytes=info.free_swap_bytes, total_bytes=info.total_swap_bytes
        )
    for zone in info.zones:
        if zone.min_bytes is not None and zone.free_bytes < zone.min_bytes:
            yield found(
                findings,
                "short_zone",
                zone=zone.name,
                node=zone.node,
                free_bytes=zone.free_bytes,
                min_bytes=zone.min_bytes,
            )


def _largest(findings: Findings) -> Iterator[Evidence]:
    largest = tuple(
        {"comm": one.comm, "pid": one.pid, "held_bytes": one.held_bytes, "processes": one.processes}
        for one in largest_processes(findings)
    )
    if largest and findings.candidates:
        yield found(findings, "largest_processes", largest=largest)


CLOSE_WEIGHT: Final = 0.1
"""Two causes whose weights differ by less are about equally likely."""


def doubts(findings: Findings, suspects: Sequence[Suspect]) -> Iterator[Evidence]:
    """Find lost and missing records, unknown kinds, inferred values, and a suspect that weighs nearly as
    much."""
    if findings.lost_records:
        yield found(findings, "doubt_lost_records", lost_records=findings.lost_records)
    if not findings.sampled_at_kill and findings.constraint == "memcg":
        yield found(findings, "doubt_no_sample")
    if findings.kmsg == "only":
        yield found(findings, "doubt_log_alone")
    elif findings.cushion.cache_start_bytes is None and findings.constraint == "memcg":
        yield found(findings, "doubt_no_start_sample")
    locked_bytes = composition.much_locked_bytes(findings)
    if locked_bytes:
        yield found(findings, "doubt_locked_kind", locked_bytes=locked_bytes)
    if not findings.is_told and findings.kmsg == "missing" and findings.constraint == "memcg":
        yield found(findings, "doubt_inferred_limit")
    if len(suspects) > 1 and suspects[0].weight - suspects[1].weight < CLOSE_WEIGHT:
        yield on_suspect("doubt_close_cause", suspects[1])
