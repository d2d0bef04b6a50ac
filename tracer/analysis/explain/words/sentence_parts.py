"""The parts that the sentences of several causes share: who asked, who was killed, the limit, the cache."""

from __future__ import annotations

from typing import Final, Literal

from tracer.analysis.explain.measure import memory_kinds
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.words.shortage_words import NO_VICTIM
from tracer.analysis.explain.words.wording import owner_name, process, time_before, trigger_name
from tracer.analysis.results.kill import Lowered
from tracer.schema import UNLIMITED_BYTES
from tracer.units import duration, size

_BESIDE_SHARE: Final = 0.2
_LEAST_SHARE: Final = 0.01
"""A cache that gave back less than this share of the limit was no cushion that was used up."""
_FULL_SHARE: Final = 0.95

Filling = Literal["anonymous memory", "shared memory", "locked memory", "kernel memory"]


def asked(findings: Findings) -> str:
    """Return `sh (pid 41) asked for`; a thread of the only killed process has the name of that process."""
    return f"{_asker(findings)} asked for"


def killed(findings: Findings) -> str:
    """Return ` and was killed`, or `, and b (pid 7) was killed for it`; if nothing was killed, why not."""
    victims = findings.victims
    if len(victims) > 1:
        together = " together (memory.oom.group)" if victims[0].group_kill else ""
        return f", and {len(victims)} processes were killed for it{together}"
    if not victims:
        none = findings.circumstances.no_victim
        return "" if none is None else f", and {NO_VICTIM[none]}"
    victim = process(victims[0].comm, victims[0].pid)
    return " and was killed" if victim == _asker(findings) else f", and {victim} was killed for it"


def _asker(findings: Findings) -> str:
    if findings.trigger.tgid in findings.victim_tgids and len(findings.victims) == 1:
        return process(findings.victims[0].comm, findings.victims[0].pid)
    return trigger_name(findings.trigger)


def at_limit(findings: Findings, filled: str, *, cache: str | None = None) -> str:
    """Return the sentence on a kill at a cgroup's limit.

    `filled` names the memory that filled the limit, and may be empty. `cache` is a clause on the page cache;
    by default, the amount that it gave back and the amount that was left.
    """
    owner, full = findings.owner, f", {filled}" if filled else ""
    if owner.lowered is not None and owner.lowered.by_trigger:
        did = f"{_lowered(findings, owner.lowered)}{full}{_killed_by_it(findings)}"
        return f"{did}; {cache or _cache(findings)}."
    limit = f"its limit of {size(owner.limit_bytes)}" if owner.has_limit else "its limit"
    if findings.circumstances.full_swap_limit_bytes is not None:
        limit = f"its limit of memory and swap together, {size(findings.circumstances.full_swap_limit_bytes)}"
    above = " (above the cgroup that asked)" if owner.is_ancestor else ""
    limit += "" if owner.lowered is None else _which_was_lowered(owner.lowered)
    used = findings.composition.total
    if _is_below_limit(findings):  # an exiting process freed memory between the decision and the kill
        limit += f", with {size(used)} still in use"
    freed = f"; {_freeing(findings)}" if memory_kinds.freeing_bytes(findings) else ""
    where = f"{owner_name(owner)}{above} was at {limit}{full}{freed}"
    return f"{asked(findings)} more memory{killed(findings)}: {where}; {cache or _cache(findings)}."


def _freeing(findings: Findings) -> str:
    """Return `java (pid 7), killed 20 ms before, was still freeing 26 MiB`; empty without such a kill."""
    previous = findings.previous
    if previous is None:
        return ""
    who, ago = process(previous.comm, previous.pid), duration(previous.age_ns / 1e9)
    return f"{who}, killed {ago} before, was still freeing {size(memory_kinds.freeing_bytes(findings))}"


def _lowered(findings: Findings, lowered: Lowered) -> str:
    """Return `kubelet (pid 41) lowered the limit of container web from 64 MiB to 24 MiB while …`."""
    owner, before = findings.owner, lowered.limit_bytes
    what = f"the limit of {owner_name(owner)}"
    if before is not None and before >= UNLIMITED_BYTES:
        did = f"set {what}, which had none, to"
    else:
        did = f"lowered {what}{'' if before is None else f' from {size(before)}'} to"
    in_use = f"while {size(lowered.usage_bytes)} was in use"
    return f"{_asker(findings)} {did} {size(owner.limit_bytes)} {in_use}"


def _killed_by_it(findings: Findings) -> str:
    words = killed(findings)
    return f",{words}" if words and not words.startswith(",") else words


def _which_was_lowered(lowered: Lowered) -> str:
    """Return ` (lowered from 64 MiB 2 s before, while 40.1 MiB was in use)`."""
    before, ago = lowered.limit_bytes, lowered.before_ns
    did = "set" if before is None or before >= UNLIMITED_BYTES else f"lowered from {size(before)}"
    when = "" if ago is None else f" {duration(ago / 1e9)} before"
    return f" ({did}{when}, while {size(lowered.usage_bytes)} was in use)"


def _is_below_limit(findings: Findings) -> bool:
    """Return whether usage at the kill was clearly below the limit that was hit."""
    used, limit_bytes = findings.composition.total, findings.owner.limit_bytes
    if used is None or limit_bytes is None or not findings.owner.has_limit:
        return False
    is_of_swap = findings.circumstances.full_swap_limit_bytes is not None
    return not is_of_swap and used < _FULL_SHARE * limit_bytes


def anonymous(findings: Findings) -> str:
    """Return `97 MiB of it anonymous memory`; empty if that is not known."""
    anon = findings.composition.anon
    return "" if anon is None else f"{size(anon)} of it anonymous memory"


def beside(findings: Findings, filling: Filling) -> str:
    """Return ` beside 39 MiB of shared memory`: other kinds that fill a good part of the limit, and locked
    memory in any of them; else empty."""
    made_of = findings.composition
    held: dict[Filling, int | None] = {
        "anonymous memory": made_of.anon,
        "shared memory": made_of.shmem,
        "locked memory": made_of.unevictable,
        "kernel memory": memory_kinds.kernel_bytes(findings),
    }
    others = [
        f"{size(bytes_)} of {kind}"
        for kind, bytes_ in held.items()
        if kind != filling and bytes_ is not None and bytes_ >= _BESIDE_SHARE * (made_of.total or 0) > 0
    ]
    locked = memory_kinds.much_locked_bytes(findings)
    of_both = f", {size(locked)} of the anonymous and shared memory locked (mlock)" if locked else ""
    return (f" beside {' and '.join(others)}" if others else "") + of_both


def _cache(findings: Findings) -> str:
    cushion, thrashing = findings.cushion, findings.circumstances.thrashing
    if thrashing is not None and cushion.evicted_bytes is not None:
        given = f"the page cache had given back {size(cushion.evicted_bytes)}"
        span = duration(thrashing.span_ns / 1e9)
        return f"{given}, and for the last {span} most of it was read again and again (thrashing)"
    is_much = (cushion.evicted_bytes or 0) >= _LEAST_SHARE * (findings.owner.limit_bytes or 0)
    if cushion.exhausted_at is not None and findings.time is not None and is_much:
        before = time_before(findings.time, cushion.exhausted_at, findings.thinned)
        given = f"the page cache had already given back {size(cushion.evicted_bytes)}"
        return f"{given} and was used up {before} before"
    left_bytes = _left_bytes(findings)
    if not cushion.evicted_bytes and left_bytes == 0:
        return "no page cache was left to reclaim"
    given = {
        None: "it is not known how much the page cache gave back",
        0: "the page cache had given back nothing",
    }.get(cushion.evicted_bytes, f"the page cache had given back {size(cushion.evicted_bytes)}")
    if left_bytes is None:
        return given
    return f"{given}, and {size(left_bytes) if left_bytes else 'nothing'} of it was left"


def _left_bytes(findings: Findings) -> int | None:
    """Return the page cache that was left, without locked pages."""
    if findings.composition.file_clean is None:
        return findings.cushion.cache_end_bytes
    return memory_kinds.cache_left_bytes(findings.composition)
