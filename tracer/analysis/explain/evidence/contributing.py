"""Evidence of factors beside the cause: a shared limit, a spared process, the pace of growth, swap, waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tracer.analysis.explain.cause_record import CauseRecord, Grown
from tracer.analysis.explain.evidence.kinds import found, resolution_ns
from tracer.analysis.explain.measure import composition, shared_memory
from tracer.analysis.explain.measure.findings import Findings, Throttled
from tracer.analysis.explain.measure.last_looks import heap_bound
from tracer.analysis.results.kill import Evidence
from tracer.analysis.results.memory import Allocator, name_without_number, shared_name

_LEAST_COPIED_SHARE: Final = 0.05
_COPY: Final = ("do_wp_page", "wp_page_copy")  # mm/memory.c; the compiler may inline the second


def copy_on_write(findings: Findings) -> Evidence | None:
    """Return the evidence of copy-on-write, if at least 5 % of usage is mapped more than once, and copies
    matter: as much was copied since a fork, or the request that failed was for a copy."""
    fork, stack, shared = (
        findings.circumstances.fork,
        findings.trigger.stack,
        shared_memory.shared_by_fork_bytes(findings),
    )
    copies = None if stack is None else any(frame.partition("+")[0] in _COPY for frame in stack)
    least = _LEAST_COPIED_SHARE * (findings.composition.total or 0)
    copied = fork.copied_bytes if fork is not None else 0
    if shared is None or shared <= least or (copied <= least and not copies):
        return None
    return found(
        findings,
        "cow",
        **{
            name: None if fork is None else getattr(fork, name)
            for name in ("parent_comm", "parent_pid", "child_comm", "child_pid", "copied_bytes")
        },
        shared_bytes=shared,
        is_copying=copies,
        children=None if fork is None or fork.children == 1 else fork.children,
    )


_OUTLIVING: Final = ("file",)
"""The kinds that a process leaves behind when it ends; for shared memory see `Circumstances.ended_writer`."""

_LEAST_PERCENT: Final = 1


@dataclass(frozen=True, slots=True)
class Grew:
    """A process, the memory of some kinds that it charged in the window, in bytes, and the kind of most of
    it."""

    process: Allocator
    bytes_: int
    kind: Grown


def who_grew(findings: Findings, kinds: tuple[Grown, ...]) -> Grew | None:
    """Return the process that charged most of some kinds of memory.

    Of a process that ended before the kill, only memory counts that outlives it. None if no process charged
    at least 1 % of usage.
    """
    grew = [_grew(one, kinds) for one in findings.allocators]
    most = max(grew, key=lambda one: one.bytes_, default=None)
    least = (findings.composition.total or 0) * _LEAST_PERCENT // 100
    return most if most is not None and most.bytes_ > least else None


def _grew(one: Allocator, kinds: tuple[Grown, ...]) -> Grew:
    charged = {
        kind: getattr(one, f"{kind}_bytes") for kind in kinds if one.exited is None or kind in _OUTLIVING
    }
    most = max(charged, key=lambda kind: charged[kind], default=kinds[0])
    return Grew(one, sum(charged.values()), most)


_LEAST_SHARE: Final = 0.05
_LEAST_ANON_SHARE: Final = 0.2
_BURST_NS: Final = 2_000_000_000
_SLOW_NS: Final = 60_000_000_000
_NS_PER_MINUTE: Final = 60_000_000_000
_MOST_HOLDERS: Final = 3
_LEAST_WAIT_MS: Final = 1.0
_MANY_THREADS: Final = 32
_MOST_OF_COMPANY: Final = 0.6
_SHARED_ABOVE: Final = 1.1
"""If the anonymous RSS of all processes is so much of what there is, they share some of it."""

_CROWD: Final = 10
"""From this many processes on, each with at most this fraction of usage, their number matters."""


def contributing(findings: Findings, cause: CauseRecord) -> tuple[Evidence, ...]:
    """Return the factors that contributed to the kill, most important first.

    Factors that the sentence of the cause states are left out.
    """
    if findings.constraint != "memcg":
        return ()
    items = (item for factor in _FACTORS for item in factor(findings, cause))
    return tuple(item for item in items if not {item.kind, item.numbers.get("part")} & {*cause.stated})


def _shared_limit(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Yield the evidence that the limit is an ancestor's, with the cgroups below it that hold most."""
    if findings.owner.is_ancestor:
        holders = tuple(
            ({} if one.cgroup is None else {"cgroup": one.cgroup})
            | {"held_bytes": one.held_bytes, "is_triggers": one.is_triggers}
            for one in findings.circumstances.holders[:_MOST_HOLDERS]
        )
        yield found(findings, "shared_limit", holders=holders)


def _larger_process(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Yield the evidence that oom_score_adj spared a larger process than the killed one."""
    weighed = [one for one in findings.candidates if one.held_pages is not None]
    killed = next((one for one in weighed if one.chosen), None)
    if killed is None or len(findings.victims) > 1:
        return
    most = max(weighed, key=lambda one: one.held_pages or 0)
    if (most.held_pages or 0) <= (killed.held_pages or 0) or most.oom_score_adj >= killed.oom_score_adj:
        return
    yield found(
        findings,
        "larger_process_lived",
        killed_comm=killed.comm,
        killed_pid=killed.pid,
        killed_oom_score_adj=killed.oom_score_adj,
        killed_held_bytes=(killed.held_pages or 0) * findings.page_size,
        larger_comm=most.comm,
        larger_pid=most.pid,
        larger_oom_score_adj=most.oom_score_adj,
        larger_held_bytes=(most.held_pages or 0) * findings.page_size,
    )


def crowd(findings: Findings) -> tuple[int, int] | None:
    """Return the number of processes and the most that one of them held in bytes, if their number matters.

    Their number matters if no process holds much, and all of them together hold half of usage or more.
    """
    held = [one.held_pages * findings.page_size for one in findings.candidates if one.held_pages]
    total = findings.composition.total or 0
    if len(held) < _CROWD or max(held) * _CROWD > total or sum(held) * 2 < total:
        return None
    return len(held), max(held)


def _many_processes(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    many = crowd(findings)
    if many is not None:
        yield found(findings, "many_processes", processes=many[0], largest_bytes=many[1])


@dataclass(frozen=True, slots=True)
class Company:
    """Processes of one name up to a trailing number: how many there are, the anonymous memory of all, and the
    most that one of them has."""

    comm: str
    processes: int
    held_bytes: int
    largest_bytes: int


def company(findings: Findings) -> Company | None:
    """Return the processes of one name that hold half of usage or more as anonymous memory of their own.

    None if one of them holds most of it, if their sizes are not known, or if they share memory since a fork:
    their sizes then count it several times. Processes that hold less than a quarter of the largest do other
    work under the same name.
    """
    total, anon = findings.composition.total or 0, findings.composition.anon or 0
    of_name: dict[str, list[tuple[int, str]]] = {}
    for one in findings.candidates:
        if one.anon_rss_bytes:
            of_name.setdefault(name_without_number(one.comm), []).append((one.anon_rss_bytes, one.comm))
    if sum(size for named in of_name.values() for size, _ in named) > _SHARED_ABOVE * anon:
        return None
    companies = []
    for named in of_name.values():
        most = max(named)[0]
        alike, comms = zip(*((size, comm) for size, comm in named if size * 4 >= most), strict=True)
        is_shared_out = max(alike) <= _MOST_OF_COMPANY * sum(alike)
        if is_shared_out and sum(alike) * 2 >= total > 0:
            companies.append(Company(shared_name(comms), len(alike), sum(alike), max(alike)))
    return max(companies, key=lambda one: one.held_bytes, default=None)


def _same_command(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    one = company(findings)
    if one is not None and crowd(findings) is None:
        yield found(
            findings,
            "same_command",
            comm=one.comm,
            processes=one.processes,
            held_bytes=one.held_bytes,
            largest_bytes=one.largest_bytes,
        )


def _many_threads(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Yield the killed process with most threads, if these are many: their stacks are anonymous memory.

    Mappings that were read before the kill show how much of it.
    """
    looked_at = {one.pid for one in findings.mappings}
    most = max(findings.victims, key=lambda one: one.threads or 0, default=None)
    if most is not None and (most.threads or 0) >= _MANY_THREADS and most.pid not in looked_at:
        yield found(
            findings,
            "many_threads",
            comm=most.comm,
            pid=most.pid,
            threads=most.threads,
            anon_rss_bytes=most.anon_rss_bytes,
        )


def _outside_heap(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Find killed processes with more anonymous memory than the bound of their heap allows there."""
    measured = {runtime["pid"] for runtime in findings.runtimes if "outside_bytes" in runtime}
    for one in findings.victims:
        if one.pid in measured:
            continue
        bound = heap_bound(one.comm, one.cmdline)
        if bound is None or bound.bytes_ is None or one.anon_rss_bytes is None:
            continue
        outside = one.anon_rss_bytes - bound.bytes_
        if outside > _LEAST_SHARE * (findings.composition.total or 0):
            yield found(
                findings,
                "outside_heap",
                comm=one.comm,
                pid=one.pid,
                option=bound.option,
                heap_at_most_bytes=bound.bytes_,
                outside_bytes=outside,
                anon_rss_bytes=one.anon_rss_bytes,
            )


def _cow(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    yield from filter(None, [copy_on_write(findings)])


def _other_kinds(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Find kinds of memory that are a good part of usage."""
    made_of = findings.composition
    kinds = {
        "anon": made_of.anon,
        "shmem": made_of.shmem,
        "unevictable": made_of.unevictable,
        "page_tables": made_of.page_tables,
        "sock": made_of.sock,
        "unwritten": composition.unwritten_bytes(made_of),
        "zswap": made_of.zswap,
        "hugetlb": made_of.hugetlb,
    }
    total = made_of.total
    for part, held in kinds.items():
        least = _LEAST_ANON_SHARE if part == "anon" else _LEAST_SHARE
        if total and held and held >= least * total:
            yield found(findings, "also_in_usage", part=part, held_bytes=held, usage_bytes=total)


def _shared_files(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Yield the files that hold most of the shared memory, if that is a good part of usage."""
    if shared_memory.is_much(findings) and (most := shared_memory.largest(findings)):
        files = tuple(
            {"kind": one.kind, "name": one.name, "held_bytes": one.held_bytes, "size_bytes": one.size_bytes}
            | ({"is_least": True} if one.is_least else {})
            for one in most
        )
        yield found(findings, "shared_files", files=files)


def _ended_writer(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Yield the process that left most shared memory behind when it ended, if that is much of usage."""
    writer, left = findings.circumstances.ended_writer, shared_memory.left_behind_bytes(findings)
    if writer is not None and left > _LEAST_SHARE * (findings.composition.total or 0):
        yield found(
            findings,
            "ended_writer",
            writer_comm=writer.comm,
            writer_pid=writer.pid,
            shmem_bytes=left,
            ended_ns=writer.ended_ns,
        )


def _unmapped_shmem(findings: Findings, cause: CauseRecord) -> Iterator[Evidence]:
    """Find shared memory that no process had mapped: a kill does not free it, unless it is in a memfd."""
    if "unmapped_shmem" not in cause.concerns:
        return
    rest = shared_memory.unmapped_bytes(findings)
    if rest is not None and rest > _LEAST_SHARE * (findings.composition.total or 0):
        in_memfds = min(shared_memory.unmapped_memfd_bytes(findings), rest)
        yield found(findings, "unmapped_shmem", unmapped_bytes=rest, in_memfds_bytes=in_memfds or None)


def _pace(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Yield the evidence that memory grew slowly, as with a leak, or in a burst after a calm time."""
    rise, window = findings.circumstances.rise, findings.window
    if rise is None or window is None:
        return
    calm_ns = window.end - window.begin - rise.lost_ns - rise.span_ns
    coarse_ns = resolution_ns(findings, window.begin, window.end - rise.span_ns - rise.lost_ns)
    of_both = {"grown_bytes": rise.grown_bytes, "rise_ns": rise.span_ns}
    if rise.span_ns >= _SLOW_NS:
        rate = rise.grown_bytes * 4 // 5 * _NS_PER_MINUTE // rise.span_ns
        yield found(findings, "slow_growth", **of_both, bytes_per_minute=rate, resolution_ns=coarse_ns)
    elif rise.span_ns <= _BURST_NS and calm_ns >= 2 * rise.span_ns:
        yield found(findings, "burst", **of_both, calm_ns=calm_ns, resolution_ns=coarse_ns)


def _thrashing(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Yield the evidence that tasks hardly ran for some time before the kill."""
    it = findings.circumstances.thrashing
    if it is not None:
        yield found(
            findings,
            "thrashing",
            span_ns=it.span_ns,
            lost_ns=it.lost_ns,
            evicted_bytes=it.evicted_bytes,
            refaulted_bytes=it.refaulted_bytes,
        )


def throttled(findings: Findings) -> Throttled | None:
    """Return the waits above memory.high, if they took a good part of the time before the kill."""
    it = findings.circumstances.throttled
    return None if it is None or it.waited_ns < _LEAST_SHARE * it.span_ns else it


def _throttled(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    it = throttled(findings)
    if it is None:
        return
    high = it.high
    is_own = high is None or high.cgroup == findings.owner.cgroup
    yield found(
        findings,
        "throttled",
        waited_ns=it.waited_ns,
        span_ns=it.span_ns,
        file=None if high is None else high.file,
        high_bytes=None if high is None else high.high_bytes,
        cgroup=None if is_own or high is None else high.cgroup,
    )


def _refaulted_cache(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    again = findings.cushion.refaulted_bytes
    if again:
        evicted = findings.cushion.evicted_bytes
        yield found(findings, "refaulted_cache", refaulted_bytes=again, evicted_bytes=evicted)


def _swap(findings: Findings, cause: CauseRecord) -> Iterator[Evidence]:
    swap = findings.circumstances.swap
    if swap is None:
        return
    if swap.allowed_bytes == 0 and "no_swap" in cause.concerns:
        above = swap.bound == "above" or None
        yield found(findings, "no_swap", bounded_above=above, cgroup=swap.bound_cgroup)
    elif swap.used_bytes:
        yield found(findings, "swap_in_use", used_bytes=swap.used_bytes, allowed_bytes=swap.allowed_bytes)


def _incompressible(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Find swapped pages that zswap could not compress: to swap them freed nothing."""
    held = findings.circumstances.incompressible_bytes
    if held and held >= _LEAST_SHARE * (findings.composition.total or 0):
        yield found(findings, "incompressible", held_bytes=held, zswap_bytes=findings.composition.zswap)


def _protected_memory(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    protected = findings.circumstances.protected_bytes
    if protected:
        yield found(findings, "protected_memory", protected_bytes=protected)


def _writer_waits(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    waited_ms = findings.circumstances.dirty_wait_ms
    if waited_ms >= _LEAST_WAIT_MS:
        yield found(findings, "writer_waits", waited_ms=waited_ms)


def _requested_reclaim(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Yield the memory that writes to memory.reclaim took, if that is a good part of usage: no pressure asked
    for it."""
    cache, anon = findings.circumstances.requested_cache_bytes, findings.circumstances.requested_anon_bytes
    if cache + anon > _LEAST_SHARE * (findings.composition.total or 0):
        yield found(findings, "requested_reclaim", cache_bytes=cache, anon_bytes=anon)


def _restricted_request(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    gfp = findings.trigger.gfp
    if composition.may_not_enter_fs(gfp):
        yield found(findings, "restricted_request", gfp=gfp)


def _dying_cgroups(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    dying = findings.circumstances.dying_bytes
    if dying >= _LEAST_SHARE * (findings.composition.total or 0) and dying:
        yield found(findings, "dying_cgroups", held_bytes=dying)


def _clean_cache_left(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    total = findings.composition.total or 0
    clean = (findings.composition.file_clean or 0) - findings.circumstances.protected_bytes
    if clean > _LEAST_SHARE * total:
        yield found(findings, "clean_cache_left", held_bytes=clean)


def _memory_in_transit(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    held = composition.in_transit_bytes(findings)
    if held and held >= _LEAST_SHARE * (findings.composition.total or 0):
        yield found(findings, "memory_in_transit", held_bytes=held)


def _left_by_moved(findings: Findings, _: CauseRecord) -> Iterator[Evidence]:
    """Find memory of processes that are no longer in the cgroups below the limit."""
    moved = findings.circumstances.moved
    held = sum(one.held_bytes for one in moved)
    if held and held >= _LEAST_SHARE * (findings.composition.total or 0):
        most = moved[0]
        yield found(
            findings,
            "left_by_moved",
            processes=len(moved),
            comm=most.comm,
            pid=most.tgid,
            held_bytes=held,
        )


_FACTORS: Final[tuple[Callable[[Findings, CauseRecord], Iterator[Evidence]], ...]] = (
    _thrashing,
    _throttled,
    _shared_limit,
    _cow,
    _left_by_moved,
    _larger_process,
    _many_processes,
    _same_command,
    _outside_heap,
    _many_threads,
    _other_kinds,
    _shared_files,
    _ended_writer,
    _unmapped_shmem,
    _requested_reclaim,
    _pace,
    _refaulted_cache,
    _swap,
    _incompressible,
    _protected_memory,
    _writer_waits,
    _restricted_request,
    _dying_cgroups,
    _memory_in_transit,
    _clean_cache_left,
)
