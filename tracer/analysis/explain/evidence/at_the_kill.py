"""Evidence of the state at the kill: the parts of usage, and the room that was left below the limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.evidence.kinds import found
from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import LATELY_NS, Findings
from tracer.analysis.results.conclusions import Evidence
from tracer.schema import UNLIMITED_BYTES

_LEAST_PERCENT: Final = 1
_KILLED_SHARE: Final = 0.9


def evidence(findings: Findings) -> Iterator[Evidence]:
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
        "kernel": memory_kinds.kernel_bytes(findings),
        "file_clean": made_of.file_clean,
        "unwritten": memory_kinds.unwritten_bytes(made_of) or None,
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
    previous, freeing = findings.previous, memory_kinds.freeing_bytes(findings)
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
    rss_of = {one.pid: one.rss_bytes for one in findings.candidates}
    return sum(rss_of.get(victim.pid) or 0 for victim in findings.victims), False
