"""Why a kill came, from what was measured: the cause, how sure it is, and the sentences that say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pandas as pd

from tracer.analysis.explain.causes import registry
from tracer.analysis.explain.evidence.contributing import contributing
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.wording import no_limit, owner_name, process, trigger_name
from tracer.analysis.results.conclusions import Cause, Confidence, Suspect, Verdict
from tracer.units import count, duration, percent, size

_CONFIDENCES: Final[tuple[Confidence, ...]] = ("high", "medium", "low")
_SURE_WEIGHTS: Final = (0.7, 0.5)
"""From which weight on a cause is held for with high, and with medium confidence."""
_CLOSE: Final = 0.1
DOUBT: Final = "doubt: "
"""How a line of the evidence begins that lowers the confidence."""
_BESIDE_SHARE: Final = 0.2


def judge(findings: Findings) -> Verdict:
    """The verdict; `analysis.explain.causes.registry` says how it comes about.

    Its confidence is high from a weight of 0.7 on, medium from 0.5 on, and one step less for each doubt: what
    was lost, inferred or not seen, and another cause that weighs nearly as much.
    """
    suspects = registry.suspects(findings)
    cause: Cause = (
        suspects[0].cause if suspects and suspects[0].weight >= registry.LEAST_WEIGHT else "unknown"
    )
    doubts = _doubts(findings, suspects)
    return Verdict(
        cause=cause,
        confidence="low" if cause == "unknown" else _confidence(suspects[0].weight, len(doubts)),
        summary=summary(findings, cause),
        evidence=(*_evidence(findings, suspects), *doubts),
        contributing=contributing(findings, cause),
        suspects=suspects,
    )


def _confidence(weight: float, doubts: int) -> Confidence:
    steps = sum(weight < least for least in _SURE_WEIGHTS)
    return _CONFIDENCES[min(steps + doubts, 2)]


def _doubts(findings: Findings, suspects: Sequence[Suspect]) -> tuple[str, ...]:
    """What lowers the confidence, each by one step."""
    doubts = []
    if findings.lost_records:
        doubts.append(f"{DOUBT}{findings.lost_records} records were lost in the window (loss)")
    if not findings.sampled_at_kill:
        doubts.append(f"{DOUBT}the composition is the ledger's, no sample was taken at the kill (samples)")
    if findings.kmsg == "only":
        doubts.append(f"{DOUBT}there is only a kernel log, so what had grown is not known (kernel log)")
    elif findings.cushion.cache_start_bytes is None and findings.constraint == "memcg":
        doubts.append(f"{DOUBT}what the cgroup held when the trace began is not known (samples)")
    if not findings.is_told and findings.kmsg == "missing" and findings.constraint == "memcg":
        doubts.append(f"{DOUBT}whose limit was hit is inferred, and no kernel log confirms it (kernel log)")
    if len(suspects) > 1 and suspects[0].weight - suspects[1].weight < _CLOSE:
        other = suspects[1]
        doubts.append(f"{DOUBT}{other.cause} is nearly as likely: {other.reason} (composition)")
    return tuple(doubts)


def summary(findings: Findings, cause: Cause) -> str:
    """The one sentence that answers why."""
    asked = f"{_asker(findings)} asked for"
    if findings.circumstances.shortage is not None:
        return f"{asked} memory{_killed(findings)}: {findings.circumstances.shortage.clause}."
    if findings.constraint == "global":
        return f"{asked} memory{_killed(findings)}: the whole machine had none left."
    if findings.constraint == "unknown":
        return f"{asked} memory that could not be had{_killed(findings)}; whose limit was hit is not known."
    if findings.constraint != "memcg":
        return f"{asked} memory that its {findings.constraint} constraint did not leave{_killed(findings)}."
    owner = findings.owner
    limit = "its limit" if no_limit(owner) else f"its limit of {size(owner.limit_bytes)}"
    if findings.circumstances.full_swap_limit_bytes is not None:
        limit = f"its limit of memory and swap together, {size(findings.circumstances.full_swap_limit_bytes)}"
    above = " (above the cgroup that asked)" if owner.is_ancestor else ""
    filled = _filled(findings, cause)
    sentence = f"{asked} more memory{_killed(findings)}: {owner_name(owner)}{above} was at {limit}{filled}"
    unknown = " No known cause fits these numbers." if cause == "unknown" else ""
    return f"{sentence}; {_cache(findings, cause)}.{unknown}"


def _asker(findings: Findings) -> str:
    """Who asked; of a thread of who was killed the process."""
    if findings.trigger_tgid in findings.victim_tgids and len(findings.victims) == 1:
        return process(findings.victims[0].comm, findings.victims[0].pid)
    return trigger_name(findings.trigger)


def _killed(findings: Findings) -> str:
    """Who was killed, as the sentence on who asked goes on."""
    victims = findings.victims
    if len(victims) > 1:
        return f", and {len(victims)} processes were killed for it"
    if not victims:
        return ""
    killed = process(victims[0].comm, victims[0].pid)
    return " and was killed" if killed == _asker(findings) else f", and {killed} was killed for it"


def _filled(findings: Findings, cause: Cause) -> str:
    """What the limit was full of, as far as it is the cause."""
    what = _FILLED.get(cause, _anon)(findings)
    return f", {what}{_beside(findings, cause)}" if what else ""


def _beside(findings: Findings, cause: Cause) -> str:
    """Kinds that fill a good part of the limit, too, where none has it for itself."""
    made_of = findings.composition
    kinds: dict[Cause, tuple[int | None, str]] = {
        "anon_growth": (made_of.anon, "anonymous memory"),
        "shmem": (made_of.shmem, "shared memory"),
        "unevictable": (made_of.unevictable, "locked memory"),
        "kernel_memory": (registry.kernel_bytes(findings), "kernel memory"),
    }
    if cause not in kinds:
        return ""
    much = [
        f"{size(held)} of {what}"
        for of_cause, (held, what) in kinds.items()
        if of_cause != cause and held is not None and held >= _BESIDE_SHARE * (made_of.total or 0) > 0
    ]
    return f" beside {' and '.join(much)}" if much else ""


def _anon(findings: Findings) -> str:
    anon = findings.composition.anon
    return "" if anon is None else f"{size(anon)} of it anonymous memory"


def _shmem(findings: Findings) -> str:
    return f"{size(findings.composition.shmem)} of it shared memory (tmpfs, memfd or shared mappings)"


def _unevictable(findings: Findings) -> str:
    held = size(findings.composition.unevictable)
    return f"{held} of it locked (mlock) or on ramfs, which reclaim may not touch"


def _kernel_memory(findings: Findings) -> str:
    held = registry.kernel_bytes(findings)
    part, most = registry.largest_kernel_part(findings)
    return f"{size(held)} of it kernel memory, {size(most)} of that {part}"


def _dirty_writeback(findings: Findings) -> str:
    unwritten = registry.unwritten_bytes(findings.composition)
    return f"{size(unwritten)} of it file contents that were not yet written to disk"


def _protected_cache(findings: Findings) -> str:
    left = registry.cache_left_bytes(findings.composition)
    protected = min(findings.circumstances.protected_bytes, left)
    return f"{size(protected)} of it page cache that memory.min of cgroups below keeps from reclaim"


def _gfp_constrained(findings: Findings) -> str:
    barred = registry.barred_bytes(findings.composition)
    return f"{size(barred)} of it cache and slab that this request was not allowed to have freed (gfp)"


def _swap_exhausted(findings: Findings) -> str:
    swap = findings.circumstances.swap
    used = "" if swap is None else f" ({size(swap.used_bytes)})"
    return f"{_anon(findings)}, and its swap was full{used}"


_FILLED: Final[dict[Cause, Callable[[Findings], str]]] = {
    "shmem": _shmem,
    "unevictable": _unevictable,
    "kernel_memory": _kernel_memory,
    "dirty_writeback": _dirty_writeback,
    "protected_cache": _protected_cache,
    "gfp_constrained": _gfp_constrained,
    "swap_exhausted": _swap_exhausted,
}
"""Cause -> what the limit was full of; of all others what was anonymous is said."""


def _cache(findings: Findings, cause: Cause) -> str:
    cushion = findings.cushion
    if cause == "dirty_writeback":
        given = "" if cushion.evicted_bytes is None else f" (it had given back {size(cushion.evicted_bytes)})"
        return f"until it is written, page cache cannot be dropped{given}"
    if cushion.exhausted_at is not None and findings.time is not None:
        given = f"the page cache had already given back {size(cushion.evicted_bytes)}"
        return f"{given} and was used up {_since(cushion.exhausted_at, findings.time)} before"
    left_bytes = _droppable(findings)
    if not cushion.evicted_bytes and left_bytes == 0:
        return "there was no page cache left to give way"
    given = {
        None: "what the page cache gave back is not known",
        0: "the page cache had given back nothing",
    }.get(cushion.evicted_bytes, f"the page cache had given back {size(cushion.evicted_bytes)}")
    if left_bytes is None:
        return given
    return f"{given}, and {size(left_bytes) if left_bytes else 'nothing'} of it was left"


def _droppable(findings: Findings) -> int | None:
    """Page cache that was left, without what is locked."""
    if findings.composition.file_clean is None:
        return findings.cushion.cache_end_bytes
    return registry.cache_left_bytes(findings.composition)


def _evidence(findings: Findings, suspects: Sequence[Suspect]) -> tuple[str, ...]:
    return (
        *_evidence_of_composition(findings),
        *_evidence_of_change(findings),
        *_evidence_of_reclaim(findings),
        *(
            f"not {other.cause}: {other.reason} (composition)"
            for other in suspects[1:3]
            if other.weight >= registry.LEAST_WEIGHT / 2
            and suspects[0].cause != "swap_exhausted"
            and suspects[0].weight - other.weight >= _CLOSE  # else it is a doubt
        ),
    )


def _evidence_of_composition(findings: Findings) -> list[str]:
    lines: list[str] = []
    made_of = findings.composition
    if not made_of.total or made_of.anon is None:
        lines += [f"{one.reason} (line on the kill)" for one in registry.by_the_killed(findings)]
    if not made_of.total:
        return lines
    parts = (
        ("anonymous memory", made_of.anon),
        ("shared memory", made_of.shmem or None),
        ("locked memory (or on ramfs)", made_of.unevictable or None),
        ("kernel memory", registry.kernel_bytes(findings)),
        ("clean page cache", made_of.file_clean),
        ("page cache not yet written", registry.unwritten_bytes(made_of) or None),
    )
    for label, part in parts:
        if part is not None and (part * 100 >= made_of.total or label == "clean page cache"):
            share = percent(part, made_of.total)
            lines.append(f"{label} was {size(part)} of {size(made_of.total)} in use, {share} (composition)")
    if findings.owner.usage_bytes is not None and not no_limit(findings.owner):
        left = (findings.owner.limit_bytes or 0) - findings.owner.usage_bytes
        lines.append(
            f"usage at the kill was {left // findings.page_size} pages below the limit (page counter)"
        )
    return lines


def _evidence_of_change(findings: Findings) -> list[str]:
    lines: list[str] = []
    window, cushion = findings.window, findings.cushion
    if window is None:
        return lines
    labels = {"anon": "anonymous memory", "shmem": "shared memory", "kernel": "kernel memory"}
    grown = findings.circumstances.grown_bytes
    span = duration((window.end - window.begin) / 1e9)
    least = max(max(grown.values(), default=0) // 10, (findings.composition.total or 0) // 100, 1)
    for name, label in labels.items():
        if grown.get(name, 0) >= least:
            lines.append(f"{label} grew by {size(grown[name])} in the {span} before (charge ledger)")
    if cushion.evicted_bytes is not None:
        span = duration((window.end - window.at_limit) / 1e9)
        lines.append(
            f"reclaim took {size(cushion.evicted_bytes)} of page cache in the {span} at the limit (pagecache)"
        )
    if cushion.absorbed_bytes and cushion.evicted_bytes:
        lines.append(f"{size(cushion.absorbed_bytes)} of other memory fitted in their place (charge ledger)")
    return lines


def _evidence_of_reclaim(findings: Findings) -> list[str]:
    lines, reclaim = [], findings.reclaim
    steal = findings.steal
    if steal is not None and (steal.evicted_pages or steal.swapped_pages or steal.pgsteal_pages):
        swapped = f" and {count(steal.swapped_pages)} swapped out" if steal.swapped_pages else ""
        lines.append(
            "evictions seen until the kernel's own count was last read: "
            f"{count(steal.evicted_pages)} pages of cache{swapped}; by that count: "
            f"{count(steal.pgsteal_pages)} (pagecache, reclaim, pgsteal)"
        )
    if reclaim.attempts is not None and reclaim.stall_ms is not None:
        lines.append(
            f"{count(reclaim.attempts)} reclaim attempts scanned {count(reclaim.scanned_pages)} and freed "
            f"{count(reclaim.reclaimed_pages)} pages, {duration(reclaim.stall_ms / 1000)} of waiting "
            "(reclaim)"
        )
    last = reclaim.transcript
    if last and last[-1].reclaimed_pages == 0:
        scanned_last = count(last[-1].scanned_pages)
        lines.append(f"the last reclaim attempt scanned {scanned_last} pages and freed none (reclaim)")
    scanned = sum(attempt.scanned_file_pages for attempt in last)
    unwritten = sum(max(attempt.nr_dirty, attempt.nr_writeback) for attempt in last)  # a page can be both
    if unwritten * 2 > scanned:
        lines.append(
            f"of {count(scanned)} pages of cache that the last {len(last)} attempts looked at, "
            f"{count(unwritten)} were not yet written (reclaim)"
        )
    return lines


def _since(earlier: pd.Timestamp, later: pd.Timestamp) -> str:
    return duration((later - earlier).total_seconds())
