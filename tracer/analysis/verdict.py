"""Why a kill came, from what was measured: the cause, how sure it is, and the sentences that say so.

Causes known so far: `anon_growth`, and `unknown` for everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tracer.analysis.cushion import Steal, Window
from tracer.analysis.report import (
    Allocator,
    Composition,
    Confidence,
    Constraint,
    Cushion,
    LimitOwner,
    Reclaim,
    Trigger,
    Verdict,
    Victim,
)
from tracer.schema import UNLIMITED_BYTES
from tracer.units import size

_ANON_LEAST_PERCENT: Final = 70
_CACHE_MOST_PERCENT: Final = 10
_CONFIDENCES: Final[tuple[Confidence, ...]] = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a verdict stands on. `anon_grown_bytes`: anon at the kill above its least since
    `window.begin`."""

    time: str
    constraint: Constraint
    owner: LimitOwner
    trigger: Trigger
    victims: Sequence[Victim]
    victim_tgids: frozenset[int]
    composition: Composition
    cushion: Cushion
    reclaim: Reclaim
    allocators: Sequence[Allocator]
    window: Window
    anon_grown_bytes: int | None
    steal: Steal | None
    page_size: int
    lost_records: int
    sampled_at_kill: bool


def judge(findings: Findings) -> Verdict:
    """The verdict; its cause is `anon_growth` when anonymous memory is at least 70 % of usage at the kill,
    clean page cache at most 10 %, and anonymous memory had grown."""
    doubts = _doubts(findings)
    is_anon_growth = findings.constraint == "memcg" and _is_anon_growth(findings)
    return Verdict(
        cause="anon_growth" if is_anon_growth else "unknown",
        confidence=_CONFIDENCES[min(len(doubts), 2)] if is_anon_growth else "low",
        summary=_summary(findings) + ("" if is_anon_growth else " No known cause fits these numbers."),
        evidence=(*_evidence(findings), *doubts),
        contributing=_contributing(findings),
    )


def advise(findings: Findings, verdict: Verdict) -> tuple[str, ...]:
    """What to do, as far as the evidence goes; nothing for an unknown cause."""
    if verdict.cause != "anon_growth":
        return ()
    top = findings.allocators[0] if findings.allocators else None
    advice = [
        f"Raise the limit of {_owner_name(findings)} above {size(findings.owner.limit_bytes)}, or make what "
        f"runs there need less: {size(findings.composition.anon)} are anonymous memory, which only swap "
        "could have taken."
    ]
    if top is not None:
        advice.append(
            f"Look for growth in {_process(top.comm, top.tgid)}: it charged {size(top.charged_bytes)} in the "
            f"{_seconds(findings.window.end - findings.window.begin)} before the kill."
        )
        if top.tgid not in findings.victim_tgids:
            killed = ", ".join(_process(victim.comm, victim.pid) for victim in findings.victims)
            advice.append(f"Do not look only at who was killed ({killed}): it charged less than that.")
    if findings.owner.is_ancestor:
        advice.append(
            "The limit is an ancestor's, and all cgroups below it share it: look at its other children too."
        )
    return tuple(advice)


def _is_anon_growth(findings: Findings) -> bool:
    made_of = findings.composition
    if made_of.total is None or made_of.anon is None or made_of.file_clean is None:
        return False
    return (
        made_of.anon * 100 >= made_of.total * _ANON_LEAST_PERCENT
        and made_of.file_clean * 100 <= made_of.total * _CACHE_MOST_PERCENT
        and (findings.anon_grown_bytes or 0) > 0
    )


def _doubts(findings: Findings) -> tuple[str, ...]:
    """What lowers the confidence, each by one step."""
    doubts = []
    if findings.lost_records:
        doubts.append(f"doubt: {findings.lost_records} records were lost in the window (loss)")
    if not findings.sampled_at_kill:
        doubts.append("doubt: the composition is the ledger's, no sample was taken at the kill (samples)")
    if findings.cushion.cache_start_bytes is None:
        doubts.append("doubt: what the cgroup held when the trace began is not known (samples)")
    return tuple(doubts)


def _summary(findings: Findings) -> str:
    who = _process(findings.trigger.comm, findings.trigger.pid)
    if findings.constraint == "global":
        return f"{who} asked for memory and the whole machine had none left."
    if findings.constraint != "memcg":
        return f"{who} asked for memory that its {findings.constraint} constraint did not leave."
    made_of, owner = findings.composition, findings.owner
    limit = "its limit" if _no_limit(owner) else f"its limit of {size(owner.limit_bytes)}"
    below = " (an ancestor of its own)" if owner.is_ancestor else ""
    anon = "" if made_of.anon is None else f", {size(made_of.anon)} of it anonymous memory"
    where = f"{_owner_name(findings)}{below} was at {limit}{anon}"
    return f"{who} asked for more memory; {where}; {_cache(findings)}."


def _cache(findings: Findings) -> str:
    cushion = findings.cushion
    if cushion.evicted_bytes is None:
        return "what its page cache gave back is not known"
    if cushion.exhausted_at is not None:
        given = f"the page cache had already given back {size(cushion.evicted_bytes)}"
        return f"{given} and was used up {_since(cushion.exhausted_at, findings.time)} before"
    left = "" if cushion.cache_end_bytes is None else f" and {size(cushion.cache_end_bytes)} of it was left"
    if cushion.evicted_bytes == 0:
        return "the page cache had given back nothing" + left
    return f"the page cache had given back {size(cushion.evicted_bytes)}{left}"


def _evidence(findings: Findings) -> tuple[str, ...]:
    made_of, cushion, reclaim = findings.composition, findings.cushion, findings.reclaim
    lines = []
    if made_of.total:
        for label, part in (("anonymous memory", made_of.anon), ("clean page cache", made_of.file_clean)):
            if part is not None:
                percent = 100 * part / made_of.total
                lines.append(
                    f"{label} was {size(part)} of {size(made_of.total)} in use, {percent:.1f} % (composition)"
                )
    if findings.owner.usage_bytes is not None and not _no_limit(findings.owner):
        left = (findings.owner.limit_bytes or 0) - findings.owner.usage_bytes
        lines.append(
            f"usage at the kill was {left // findings.page_size} pages below the limit (page counter)"
        )
    if findings.anon_grown_bytes is not None:
        span = _seconds(findings.window.end - findings.window.begin)
        lines.append(
            f"anonymous memory grew by {size(findings.anon_grown_bytes)} in the {span} before (charge ledger)"
        )
    if cushion.evicted_bytes is not None:
        span = _seconds(findings.window.end - findings.window.at_limit)
        lines.append(
            f"reclaim took {size(cushion.evicted_bytes)} of page cache in the {span} at the limit (pagecache)"
        )
    if cushion.absorbed_bytes:
        lines.append(f"{size(cushion.absorbed_bytes)} of other memory fitted in their place (charge ledger)")
    if findings.steal is not None:
        steal = findings.steal
        swapped = f" and {steal.swapped_pages} swapped out" if steal.swapped_pages else ""
        lines.append(
            f"evictions seen: {steal.evicted_pages} pages of cache{swapped}; the kernel's own count over the "
            f"same time: {steal.pgsteal_pages} (pagecache, reclaim, pgsteal)"
        )
    lines.append(
        f"{reclaim.attempts} reclaim attempts scanned {reclaim.scanned_pages} and freed "
        f"{reclaim.reclaimed_pages} pages, {reclaim.stall_ms:.1f} ms of waiting (reclaim)"
    )
    return tuple(lines)


def _contributing(findings: Findings) -> tuple[str, ...]:
    lines = []
    cushion, last = findings.cushion, findings.reclaim.transcript[-1:]
    if cushion.refaulted_bytes:
        lines.append(
            f"{size(cushion.refaulted_bytes)} of the evicted cache were read again: the work needs its cache"
        )
    if last and last[0].reclaimed_pages == 0:
        lines.append(f"the last reclaim attempt scanned {last[0].scanned_pages} pages and freed none")
    if findings.owner.is_ancestor:
        lines.append("the limit is an ancestor's, which its children share")
    return tuple(lines)


def _owner_name(findings: Findings) -> str:
    owner = findings.owner
    if owner.container is not None:
        return f"container {owner.container}"
    return f"the cgroup {owner.cgroup}" if owner.cgroup is not None else "the cgroup"


def _no_limit(owner: LimitOwner) -> bool:
    return owner.limit_bytes is None or owner.limit_bytes >= UNLIMITED_BYTES


def _process(comm: str | None, pid: int) -> str:
    return f"{comm} (pid {pid})" if comm else f"pid {pid}"


def _since(earlier: str, later: str) -> str:
    elapsed = datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
    return _seconds(round(elapsed.total_seconds() * 1e9))


def _seconds(duration_ns: int) -> str:
    seconds = duration_ns / 1e9
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"
