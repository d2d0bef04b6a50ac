"""What else played a part in a kill, beside its cause: a sentence for each factor that had a share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tracer.analysis.explain.causes import registry
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.wording import process
from tracer.analysis.results.conclusions import Cause
from tracer.analysis.results.tasks import Candidate
from tracer.units import count, duration, percent, size

_LEAST_SHARE: Final = 0.05
_BURST_NS: Final = 2_000_000_000
_SLOW_NS: Final = 60_000_000_000
_MOST_HOLDERS: Final = 3
_LEAST_WAIT_MS: Final = 1.0
_CROWD: Final = 10
"""From how many processes on, each with at most such a part of usage, it is their number that matters."""


def contributing(findings: Findings, cause: Cause) -> tuple[str, ...]:
    """The sentences, the most telling first; what the cause itself says is not said again."""
    if findings.constraint != "memcg":
        return ()
    return tuple(sentence for factor in _FACTORS for sentence in factor(findings, cause))


def _ancestor(findings: Findings, _: Cause) -> Iterator[str]:
    if not findings.owner.is_ancestor:
        return
    shared = "the limit is an ancestor's, which its children share"
    holders = findings.circumstances.holders[:_MOST_HOLDERS]
    if not holders:
        yield shared
        return
    held = ", ".join(
        f"{holder.cgroup or 'the cgroup itself'} {size(holder.held_bytes)}"
        f"{' (who asked is in it)' if holder.is_triggers else ''}"
        for holder in holders
    )
    if holders[0].cgroup is not None and not holders[0].is_triggers:
        yield f"{shared}, and a sibling holds most of the memory: {held}"
    elif len(holders) > 1:
        yield f"{shared}; the memory is held by {held}"
    else:
        yield shared


def _adj(findings: Findings, _: Cause) -> Iterator[str]:
    """Who was killed need not be who holds the most."""
    weighed = [one for one in findings.candidates if one.held_pages is not None]
    killed = next((one for one in weighed if one.chosen), None)
    if killed is None or len(findings.victims) > 1:
        return
    most = max(weighed, key=lambda one: one.held_pages or 0)
    if (most.held_pages or 0) <= (killed.held_pages or 0) or most.oom_score_adj >= killed.oom_score_adj:
        return

    def held(one: Candidate) -> str:
        return size((one.held_pages or 0) * findings.page_size)

    killed_name, most_name = process(killed.comm, killed.pid), process(most.comm, most.pid)
    if killed.oom_score_adj > 0:
        yield (
            f"{killed_name} was killed for its oom_score_adj of {killed.oom_score_adj}: it held "
            f"{held(killed)}, and {most_name} {held(most)}"
        )
    else:
        yield (
            f"{most_name} held {held(most)}, and {killed_name}, which was killed, {held(killed)}: an "
            f"oom_score_adj of {most.oom_score_adj} spared the larger one"
        )


def crowd(findings: Findings) -> tuple[int, int] | None:
    """(how many processes there were, the most that one of them held in bytes) where none of them matters by
    itself, and together they do."""
    held = [one.held_pages * findings.page_size for one in findings.candidates if one.held_pages]
    total = findings.composition.total or 0
    if len(held) < _CROWD or max(held) * _CROWD > total or sum(held) * 2 < total:
        return None
    return len(held), max(held)


def _crowd(findings: Findings, _: Cause) -> Iterator[str]:
    found = crowd(findings)
    if found is not None:
        yield f"the memory is spread over {count(found[0])} processes; the largest held {size(found[1])}"


def _pace(findings: Findings, _: Cause) -> Iterator[str]:
    rise_ns = findings.circumstances.rise_ns
    grown = sum(findings.circumstances.grown_bytes.values())
    if rise_ns is None or findings.window is None or not grown:
        return
    span_ns = findings.window.end - findings.window.begin
    if rise_ns >= _SLOW_NS:
        rate = grown * 4 // 5 * 60_000_000_000 // rise_ns
        yield f"it grew slowly: {size(rate)} a minute over {duration(rise_ns / 1e9)}, as a leak would"
    elif rise_ns <= _BURST_NS and rise_ns * 3 <= span_ns:
        yield (
            f"it came in a burst: four fifths of {size(grown)} within {duration(rise_ns / 1e9)}, after "
            f"{duration((span_ns - rise_ns) / 1e9)} of calm"
        )


def _refaults(findings: Findings, _: Cause) -> Iterator[str]:
    again = findings.cushion.refaulted_bytes
    if again and findings.cushion.evicted_bytes is not None and again > findings.cushion.evicted_bytes:
        yield f"{size(again)} of cache were read again that had been evicted, some of it long before"
    elif again:
        yield f"{size(again)} of the evicted cache were read again: the work needs its cache"


def _swap(findings: Findings, cause: Cause) -> Iterator[str]:
    swap = findings.circumstances.swap
    if swap is None or cause == "swap_exhausted":
        return
    if swap.allowed_bytes == 0 and cause in ("anon_growth", "shmem"):
        yield "swap is off for this cgroup, so only page cache could be reclaimed"
    elif swap.used_bytes:
        allowed = "" if swap.allowed_bytes is None else f" of the {size(swap.allowed_bytes)} that it may"
        yield f"{size(swap.used_bytes)} were in swap{allowed}"


def _classes(findings: Findings, cause: Cause) -> Iterator[str]:
    """Kinds of memory of which there was much, and which people look for last."""
    made_of = findings.composition
    kinds = (
        ("anon_growth", "anonymous memory", made_of.anon, 0.2),
        (
            "shmem",
            "shared memory (tmpfs, memfd), which no process need have mapped",
            made_of.shmem,
            _LEAST_SHARE,
        ),
        ("unevictable", "locked memory (or on ramfs)", made_of.unevictable, _LEAST_SHARE),
        (
            "kernel_memory",
            "page tables, the maps of the processes' memory",
            made_of.page_tables,
            _LEAST_SHARE,
        ),
        ("kernel_memory", "socket buffers", made_of.sock, _LEAST_SHARE),
        (
            "dirty_writeback",
            "page cache that was not yet written to disk and so could not be dropped",
            registry.unwritten_bytes(made_of),
            _LEAST_SHARE,
        ),
    )
    total = made_of.total
    for of_cause, label, held, least in kinds:
        if total and held and of_cause != cause and held >= least * total:
            yield f"{percent(held, total)} of usage was {label}: {size(held)}"


def _unmapped_shmem(findings: Findings, cause: Cause) -> Iterator[str]:
    """Killing gives back only what a process has mapped and nobody else keeps."""
    shmem = findings.composition.shmem
    mapped = [victim.shmem_rss_bytes for victim in findings.victims]
    if cause != "shmem" or shmem is None or None in mapped:
        return
    rest = shmem - sum(one or 0 for one in mapped)
    if rest > _LEAST_SHARE * (findings.composition.total or 0):
        yield (
            f"the killed processes had not mapped {size(rest)} of the shared memory: such memory, as in "
            "files on tmpfs, outlives the kill"
        )


def _protected(findings: Findings, cause: Cause) -> Iterator[str]:
    protected = findings.circumstances.protected_bytes
    if protected and cause != "protected_cache":
        yield f"memory.min keeps {size(protected)} of cgroups below the limit from reclaim"


def _dirty_waits(findings: Findings, _: Cause) -> Iterator[str]:
    waited_ms = findings.circumstances.dirty_wait_ms
    if waited_ms >= _LEAST_WAIT_MS:
        yield f"writers were held back for {duration(waited_ms / 1e3)}, since too much was dirty"


def _gfp(findings: Findings, cause: Cause) -> Iterator[str]:
    if cause != "gfp_constrained" and registry.may_not_enter_fs(findings.trigger.gfp):
        yield "the request was not allowed to enter file systems or to start I/O (gfp): reclaim could do less"


def _dying(findings: Findings, _: Cause) -> Iterator[str]:
    dying = findings.circumstances.dying_bytes
    if dying >= _LEAST_SHARE * (findings.composition.total or 0) and dying:
        yield f"removed cgroups (dying ones) still held {size(dying)}"


def _cache_left(findings: Findings, cause: Cause) -> Iterator[str]:
    clean, total = findings.composition.file_clean or 0, findings.composition.total or 0
    if clean > _LEAST_SHARE * total and cause not in ("protected_cache", "gfp_constrained"):
        yield f"{size(clean)} of clean page cache were left that reclaim did not take"


_FACTORS: Final[tuple[Callable[[Findings, Cause], Iterator[str]], ...]] = (
    _ancestor,
    _adj,
    _crowd,
    _classes,
    _unmapped_shmem,
    _pace,
    _refaults,
    _swap,
    _protected,
    _dirty_waits,
    _gfp,
    _dying,
    _cache_left,
)
