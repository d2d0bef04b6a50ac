"""The parts that sentences share: names, who asked, who was killed, the limit, the cache, the shortage, and
what a kernel log beside the trace says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import pandas as pd

from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.findings import Findings, FreeMemory, NoVictim, Shortage, ShortageKind
from tracer.analysis.kernel_log.comparison import Difference
from tracer.analysis.results.kill import Candidate, LimitOwner, Lowered, OomReport, Trigger
from tracer.analysis.results.quality import ThinnedInterval, resolution_s
from tracer.kernel.cgroups.containers import identify, short_id, standing
from tracer.schema import UNLIMITED_BYTES
from tracer.units import coarse_duration, count, duration, percent, size


def owner_name(owner: LimitOwner) -> str:
    """Return `container web`, `pod web-1` (whose cgroup holds all its containers), or `the cgroup /a/b`.

    It is `the cgroup /system.slice/a.service in container web` for a limit inside a container. A container
    without a name has its short id.
    """
    if owner.container is None and owner.pod is None:
        return f"the cgroup {owner.cgroup}" if owner.cgroup is not None else "the cgroup"
    place = standing(owner.cgroup or "")
    name = f"pod {owner.pod}" if owner.container is None else f"container {short_id(owner.container)}"
    inside = f"the cgroup {place.below} in {name}" if place.below else name
    return inside if place.around is None else f"{inside} in container {short_id(place.around)}"


def cgroup_name(path: str | None) -> str:
    """Return the name of a cgroup of which only the path is known, as `owner_name` has it."""
    ref = None if path is None else identify(path)
    if ref is None or (ref.container_id is None and ref.pod_uid is None):
        return f"the cgroup {path}"
    return owner_name(LimitOwner(path, ref.container_id, ref.pod_uid, None, None, None))


def process(comm: str | None, pid: int | None) -> str:
    """Return `python3 (pid 41)`, or as much of it as is known."""
    if pid is None:
        return comm or "a process"
    return f"{comm} (pid {pid})" if comm else f"pid {pid}"


def trigger_name(trigger: Trigger) -> str:
    """Return `nginx (pid 41)`, or `pool (thread 43 of pid 41)` for another thread than the first.

    It is `pool (thread 43)` where a kernel log does not show the process.
    """
    if trigger.tgid is None and trigger.pid is not None:
        return f"{trigger.comm or 'a task'} (thread {trigger.pid})"
    if trigger.tgid == trigger.pid:
        return process(trigger.comm, trigger.pid)
    return f"{trigger.comm or 'a task'} (thread {trigger.pid} of pid {trigger.tgid})"


def time_before(end: pd.Timestamp, moment: pd.Timestamp, thinned: Sequence[ThinnedInterval]) -> str:
    """Return the time from a moment to the end, no finer than the rows of that moment are."""
    return coarse_duration((end - moment).total_seconds(), resolution_s(thinned, moment))


_SHORT: Final[Mapping[str, str]] = {
    "global": "the whole machine",
    "cpuset": "the memory nodes that its cpuset allows",
    "mempolicy": "the memory nodes that its memory policy allows",
}
"""Constraint -> what had no memory left."""

NO_VICTIM: Final[Mapping[NoVictim, str]] = {
    "panic_on_oom": "the kernel panicked, because vm.panic_on_oom is set",
    "panic": "the kernel panicked, because it found no process that it could kill",
    "none_killable": "there was no process that the kernel could kill",
}

_PIECES: Final = (
    "More memory may not help: the request was for contiguous pages. Raise vm.min_free_kbytes, write 1 "
    "to /proc/sys/vm/compact_memory, or find what asks for so large a piece (the call trace)."
)

# kernel.sysrq restricts the keys, not the file (Documentation/admin-guide/sysrq.rst).
_ADVICE: Final[Mapping[ShortageKind, str]] = {
    "by_hand": (
        "Find who invoked it: SysRq+F on a keyboard or a serial console, or a program that wrote `f` to "
        "/proc/sysrq-trigger. Without bit 64, kernel.sysrq forbids the keys, but not the file."
    ),
    "slab": (
        "Find what makes the kernel hold so much slab (slabtop, /proc/slabinfo): the processes' own memory "
        "is not the problem, and killing them does not free it."
    ),
    "pieces": _PIECES,
    "large_request": _PIECES,
    "low_zones": (
        "More memory does not help: only low memory was short, which 32-bit kernels use for their own "
        "objects. Use a 64-bit kernel, or keep less there (slab, page tables, tasks)."
    ),
}
_UNKILLABLE: Final = (
    "Look for processes with oom_score_adj -1000, which the kernel may not kill, and for memory that no "
    "process holds."
)
_NODES: Final = (
    "Allow more memory nodes (cpuset.mems, set_mempolicy, numactl), or place less memory on these."
)
_BY_NODES: Final[tuple[ShortageKind, ...]] = ("high_zones", "none_left", "not_shown")
_FULL_SWAP_SHARE: Final = 0.02


def shortage_clause(shortage: Shortage) -> str:
    """Return the part of the summary that names the shortage, and the memory that was free."""
    words = CLAUSES[shortage.kind](shortage, shortage.numbers)
    if shortage.free is None or shortage.kind == "not_shown":
        return words
    return words + _free(shortage.free, shortage.constraint)


def none_left(constraint: str, nodes: str | None = None) -> str:
    """Return a clause on memory that was short; `nodes` as in `Shortage`, None: without them."""
    return f"{_SHORT[constraint]}{'' if nodes is None else _nodes(constraint, nodes)} had none left"


def _who(it: Shortage) -> str:
    """Return what had no memory left."""
    allowed = ", or the nodes that a cpuset or a memory policy allowed," if it.may_be_confined else ""
    return f"{_SHORT[it.constraint]}{allowed}{_nodes(it.constraint, it.nodes)}"


def shortage_advice(shortage: Shortage) -> tuple[str, ...]:
    """Return sentences to act on; empty if the advice on the cause applies."""
    if shortage.no_task_killable and shortage.kind != "policy_constraint":
        return (_UNKILLABLE,)
    if shortage.kind in _BY_NODES and shortage.constraint != "global":
        return (_NODES,)
    return (_ADVICE[shortage.kind],) if shortage.kind in _ADVICE else ()


def _nodes(constraint: str, nodes: str) -> str:
    """Return ` (node 3)`, or ` (nodes 0-1)`; empty for all nodes."""
    if constraint == "global":
        return ""
    if not nodes:
        return " (the log does not show which)"
    return f" (node {nodes})" if nodes.isdigit() else f" (nodes {nodes})"


def _filled(what: str) -> Callable[[Shortage, Mapping[str, Any]], str]:
    def words(it: Shortage, of: Mapping[str, Any]) -> str:
        held = f"{size(of['held_bytes'])} of its {size(of['machine_bytes'])}"
        return f"{none_left(it.constraint)}; {held} was {what}"

    return words


def _slab(it: Shortage, of: Mapping[str, Any]) -> str:
    cache = f", {size(of['cache_bytes'])} of it in {of['cache']}" if "cache" in of else ""
    return _filled("slab, objects of the kernel")(it, of) + cache


def _unnamed(it: Shortage, of: Mapping[str, Any]) -> str:
    share = percent(of["held_bytes"], of["machine_bytes"])
    held = f"{size(of['held_bytes'])} of its {size(of['machine_bytes'])} ({share})"
    huge = "" if of["is_hugetlb_known"] else "huge pages, "
    none = none_left(it.constraint)
    return f"{none}; {held} was memory that no counter names: {huge}pages of drivers, or a leak in the kernel"


CLAUSES: Final[Mapping[ShortageKind, Callable[[Shortage, Mapping[str, Any]], str]]] = {
    "below_limit": lambda _, of: (
        f"by the kernel log, the limit was not reached: usage was {size(of['usage_bytes'])}, and the limit "
        f"{size(of['limit_bytes'])}, so it is not known what was short"
    ),
    "policy_constraint": lambda it, _: f"a BPF policy had it killed ({it.constraint}); no limit was hit",
    "by_hand": lambda *_: (
        "somebody invoked the OOM killer by hand (SysRq-F), whether or not memory was short"
    ),
    "policy": lambda *_: "a BPF policy invoked the OOM killer",
    "page_fault": lambda *_: (
        "a page fault got no memory (pagefault_out_of_memory, gfp 0x0), and the log does not show why"
    ),
    "slab": _slab,
    "huge_pages": lambda it, of: (
        _filled("kept for huge pages (hugetlb)")(it, of)
        + f", and {size(of['unused_bytes'])} of that was not in use"
    ),
    "gpu": _filled("memory of GPU drivers"),
    "unnamed": _unnamed,
    "pieces": lambda _, of: (
        f"memory was free, but not in one piece of {size(of['piece_bytes'])} (order {of['order']}): it is "
        "fragmented"
    ),
    "large_request": lambda it, of: (
        f"{_who(it)} had no {count(1 << of['order'])} contiguous pages left (order "
        f"{of['order']}); the log does not show how much was free in smaller pieces"
    ),
    "low_zones": lambda _, of: (
        f"low memory (zone {' and '.join(of['zones'])}) was exhausted, while high memory was free, which "
        "this request cannot use"
    ),
    "high_zones": lambda it, of: (
        f"{_SHORT[it.constraint]}{_nodes(it.constraint, it.nodes)} had memory left only in zone "
        f"{' and '.join(of['zones'])}, which this request cannot use"
    ),
    "none_left": lambda it, _: f"{_who(it)} had none left",
    "not_shown": lambda it, of: (
        f"the kernel found no memory that this request may use, although {size(of['free_bytes'])} of "
        f"{size(of['whole_bytes'])} was free on {_SHORT[it.constraint]}{_nodes(it.constraint, it.nodes)}; "
        "the log does not show why"
    ),
}
"""Kind of shortage -> its clause, from the shortage and its numbers."""


def _free(free: FreeMemory, constraint: str) -> str:
    """Return the end of the clause: the memory that was free, and the swap if it was full or absent."""
    machine = free.machine_bytes
    whole = "the machine" if machine is None else f"the machine's {size(machine)}"
    if constraint in ("cpuset", "mempolicy"):
        of_nodes = free.nodes_free_bytes
        there = "" if of_nodes is None else f"; {size(of_nodes)} of {size(free.nodes_bytes)} was free there"
        return f"{there}; on all nodes, {size(free.free_bytes)} of {whole} was free"
    return f"; {size(free.free_bytes)} of {whole} was free{_swap(free.free_swap_bytes, free.swap_bytes)}"


def _swap(free: int | None, total: int | None) -> str:
    if total == 0:
        return ", and it has no swap"
    if free is None or total is None or free > _FULL_SWAP_SHARE * total:
        return ""
    return f", and its swap of {size(total)} was full"


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
        return f", and {len(victims)} processes were killed for it{_together(findings)}"
    if not victims:
        none = findings.circumstances.no_victim
        return "" if none is None else f", and {NO_VICTIM[none]}"
    victim = process(victims[0].comm, victims[0].pid)
    is_asker = victims[0].pid is not None and victim == _asker(findings)
    by_rule = _KILLS_ASKER if findings.circumstances.kills_asker else ""
    return f" and was killed{by_rule}" if is_asker else f", and {victim} was killed for it{by_rule}"


_KILLS_ASKER: Final = " (vm.oom_kill_allocating_task is set)"


def _together(findings: Findings) -> str:
    """Return ` together (memory.oom.group)`, with the cgroup of the group unless its own limit was hit; empty
    if no group was killed."""
    if len(findings.victims) < 2 or not findings.victims[0].group_kill:
        return ""
    group = findings.circumstances.group
    of_group = "" if group in (None, findings.owner.cgroup) else f" of {cgroup_name(group)}"
    return f" together (memory.oom.group{of_group})"


def unexplained(report: OomReport, why: str) -> str:
    """Return the summary of a kill with its parties alone, and the reason."""
    killed = ", ".join(process(victim.comm, victim.pid) for victim in report.victims) or "a process"
    limit = f" for {owner_name(report.limit_owner)}" if report.constraint == "memcg" else ""
    return f"{killed} was killed{limit}. This kill could not be explained: {why}."


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
    freed = f"; {_freeing(findings)}" if composition.freeing_bytes(findings) else ""
    where = f"{owner_name(owner)}{above} was at {limit}{full}{freed}"
    return f"{asked(findings)} more memory{killed(findings)}: {where}; {cache or _cache(findings)}."


def _freeing(findings: Findings) -> str:
    """Return `java (pid 7), killed 20 ms before, was still freeing 26 MiB`; empty without such a kill."""
    previous = findings.previous
    if previous is None:
        return ""
    who, ago = process(previous.comm, previous.pid), duration(previous.age_ns / 1e9)
    return f"{who}, killed {ago} before, was still freeing {size(composition.freeing_bytes(findings))}"


def _lowered(findings: Findings, lowered: Lowered) -> str:
    """Return `kubelet (pid 41) lowered the limit of container web from 64 MiB to 24 MiB while …`."""
    owner, before = findings.owner, lowered.limit_bytes
    what = f"the limit of {owner_name(owner)}"
    if before is not None and before >= UNLIMITED_BYTES:
        did = f"set {what}, which had none,"
    else:
        did = f"lowered {what}{'' if before is None else f' from {size(before)}'}"
    to = "" if owner.limit_bytes is None else f" to {size(owner.limit_bytes)}"
    if lowered.usage_bytes is not None:
        in_use = f" while {size(lowered.usage_bytes)} was in use"
    else:
        in_use = f"{',' if to else ''} below its usage"
    return f"{_asker(findings)} {did}{to}{in_use}"


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
    """Return `97 MiB of it anonymous memory`, with the part in zswap if it is much; empty if not known."""
    held, zswap = composition.process_bytes(findings.composition), findings.composition.zswap or 0
    is_much = zswap >= _BESIDE_SHARE * (findings.composition.total or 0) > 0
    in_zswap = f" ({size(zswap)} of that swapped out, and compressed in memory by zswap)" if is_much else ""
    return "" if held is None else f"{size(held)} of it anonymous memory{in_zswap}"


def beside(findings: Findings, filling: Filling) -> str:
    """Return ` beside 39 MiB of shared memory`: other kinds that fill a good part of the limit, and locked
    memory in any of them; else empty."""
    made_of = findings.composition
    held: dict[Filling, int | None] = {
        "anonymous memory": made_of.anon,
        "shared memory": made_of.shmem,
        "locked memory": made_of.unevictable,
        "kernel memory": composition.kernel_bytes(findings),
    }
    others = [
        f"{size(bytes_)} of {kind}"
        for kind, bytes_ in held.items()
        if kind != filling and bytes_ is not None and bytes_ >= _BESIDE_SHARE * (made_of.total or 0) > 0
    ]
    locked = composition.much_locked_bytes(findings)
    of_both = f", {size(locked)} of the anonymous and shared memory locked (mlock)" if locked else ""
    return (f" beside {' and '.join(others)}" if others else "") + of_both


def _cache(findings: Findings) -> str:
    cushion, thrashing = findings.cushion, findings.circumstances.thrashing
    if thrashing is not None and cushion.evicted_bytes is not None:
        given = f"the page cache had given back {_given_back(findings)}"
        span = duration(thrashing.span_ns / 1e9)
        return f"{given}, and for the last {span} most of it was read again and again (thrashing)"
    is_much = (cushion.evicted_bytes or 0) >= _LEAST_SHARE * (findings.owner.limit_bytes or 0)
    if cushion.exhausted_at is not None and findings.time is not None and is_much:
        before = time_before(findings.time, cushion.exhausted_at, findings.thinned)
        given = f"the page cache had already given back {_given_back(findings)}"
        return f"{given} and was used up {before} before"
    left_bytes = _left_bytes(findings)
    if not cushion.evicted_bytes and left_bytes == 0:
        return "no page cache was left to reclaim"
    given = {
        None: "it is not known how much the page cache gave back",
        0: "the page cache had given back nothing",
    }.get(cushion.evicted_bytes, f"the page cache had given back {_given_back(findings)}")
    if left_bytes is None:
        return given
    return f"{given}, and {size(left_bytes) if left_bytes else 'nothing'} of it was left"


def _given_back(findings: Findings) -> str:
    """Return the evicted page cache, with the part that was taken on request."""
    asked = (findings.reclaim.requested_cache_pages or 0) * findings.page_size
    why = f" ({size(asked)} of it on request)" if asked else ""
    return f"{size(findings.cushion.evicted_bytes)}{why}"


def _left_bytes(findings: Findings) -> int | None:
    """Return the page cache that was left, without locked pages."""
    if findings.composition.file_clean is None:
        return findings.cushion.cache_end_bytes
    return composition.cache_left_bytes(findings.composition)


MISSED: Final = "the kernel log has this kill: the probe of the OOM killer missed it"
AFTER_THE_END: Final = "the kernel log has this kill: it came when the recording had ended"
_BOTH: Final = "{ours}, in the kernel log {theirs}"
_SIZES: Final = "{ours} bytes, in the kernel log {theirs}"
DIFFERENCES: Final[Mapping[str, str]] = {
    "constraint": f"constraint: {_BOTH}",
    "limit_owner": f"the limit owner: {_BOTH}",
    "trigger_pid": f"the pid of the trigger: {_BOTH}",
    "trigger_comm": f"the name of the trigger: {_BOTH}",
    "order": f"order: {_BOTH}",
    "gfp": "gfp: {ours:#x}, in the kernel log {theirs:#x}",
    "usage_bytes": f"usage: {_SIZES}",
    "limit_bytes": f"limit: {_SIZES}",
    "comm": f"the name of pid {{pid}}: {_BOTH}",
    "oom_score_adj": f"oom_score_adj of pid {{pid}}: {_BOTH}",
    "anon_rss_bytes": f"anon RSS of pid {{pid}}: {_SIZES}",
    "file_rss_bytes": f"file RSS of pid {{pid}}: {_SIZES}",
    "shmem_rss_bytes": f"shmem RSS of pid {{pid}}: {_SIZES}",
    "pgtables_bytes": f"page tables of pid {{pid}}: {_SIZES}",
    "not_logged": "pid {pid} was marked as a victim, but the kernel log has no line on it",
    "not_marked": "the kernel log has a kill of pid {pid}, which was not marked as a victim",
}
"""Kind of `Difference` -> its sentence."""


def difference(one: Difference) -> str:
    """Return the sentence of a difference, with both numbers."""
    return DIFFERENCES[one.kind].format(ours=one.ours, theirs=one.theirs, pid=one.pid)


def contradiction(ranked: Sequence[Candidate]) -> str:
    """Return the sentence on a choice that the numbers of the candidates contradict."""
    first, chosen = ranked[0], next((one for one in ranked if one.chosen), None)
    if chosen is None:
        return "the task that was killed is not among those that were weighed"
    its = "which cannot be killed" if chosen.badness is None else f"with {chosen.badness}"
    return (
        f"by these numbers {first.comm} (pid {first.pid}) with a badness of {first.badness} pages would have "
        f"been killed, and not {chosen.comm} (pid {chosen.pid}), {its}"
    )


_MOST_NAMED: Final = 3


def summary_of_a_line(findings: Findings, nodes: str, *, has_owner: bool, is_alone: bool) -> str:
    """Return the summary of a kill whose report the log has not, or in part.

    `nodes`: those of the request, as the log prints them. `has_owner`: the log names the owner of the limit.
    `is_alone`: it has one line, about the kill.
    """
    names = [process(victim.comm, victim.pid) for victim in findings.victims]
    group = findings.circumstances.group
    who = ", ".join(names) or ("a process" if group is None else f"every process of {cgroup_name(group)}")
    if len(names) > _MOST_NAMED:
        who = f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"
    how = _KILLS_ASKER if findings.circumstances.kills_asker else _together(findings)
    killed = f"{who} {'were' if len(names) > 1 else 'was'} killed{how} because"
    if findings.circumstances.no_victim:
        killed = f"{NO_VICTIM[findings.circumstances.no_victim]}:"
    short = "memory was short"
    if findings.constraint == "memcg":
        short = f"{owner_name(findings.owner) if has_owner else 'a cgroup'} was at its limit"
    elif findings.constraint in ("cpuset", "mempolicy"):
        short = none_left(findings.constraint, nodes)
    elif (shortage := findings.circumstances.shortage) is not None and shortage.kind == "by_hand":
        short = shortage_clause(shortage)
    rest = "nothing but the kill itself" if is_alone else "only a part of its report"
    return f"{killed} {short}; the kernel log has {rest}."


def summary_of_a_part(findings: Findings) -> str:
    """Return the summary of a report of which the log has neither the beginning nor the end: the table of
    tasks, or the state of the machine."""
    found = "the kernel log has only a part of an OOM report, the table of processes"
    if not findings.candidates:
        found = (
            "the kernel log has only the state of the machine's memory, which the kernel prints for an OOM, "
            "for a failed allocation and for SysRq+M"
        )
    lines = "the lines about the limit that was hit, and about a kill, are missing."
    sized = [one for one in findings.candidates if one.rss_bytes]
    largest = sorted(sized, key=lambda one: one.rss_bytes or 0, reverse=True)[:_MOST_NAMED]
    named = ", ".join(f"{process(one.comm, one.pid)} with {size(one.rss_bytes or 0)}" for one in largest)
    return f"{found}: {lines}" + (f" The largest processes: {named}." if named else "")
