"""Evidence in words: a sentence for each kind, and the records of `explain --json` with their sentences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias, TypedDict

from tracer.analysis.explain.evidence.kinds import KINDS
from tracer.analysis.explain.words.sentence_parts import process
from tracer.analysis.results.forms import as_json
from tracer.analysis.results.kill import Cause, Evidence, OomReport, Suspect
from tracer.analysis.views.reclaim import REQUESTED
from tracer.units import coarse_duration, count, duration, percent, size, the

_Numbers: TypeAlias = Mapping[str, Any]

_PARTS: Final[Mapping[str, str]] = {
    "anon": "anonymous memory",
    "zswap": "zswap (swapped pages that are compressed in memory)",
    "shmem": "shared memory",
    "unevictable": "locked memory (or on ramfs)",
    "locked_cache": "locked (mlocked) page cache",
    "kernel": "kernel memory",
    "file_clean": "clean page cache",
    "unwritten": "page cache not yet written",
}
_ALSO: Final[Mapping[str, str]] = {
    "anon": "anonymous memory",
    "shmem": "shared memory (tmpfs, memfd), which need not be mapped by any process",
    "unevictable": "locked memory (or on ramfs)",
    "page_tables": "page tables, the maps of the processes' memory",
    "sock": "socket buffers",
    "zswap": "zswap, swapped pages that are compressed in memory",
    "hugetlb": "huge pages (hugetlb), which are never reclaimed",
    "unwritten": "page cache that was not yet written to disk and so could not be dropped",
}
_SHARED: Final[Mapping[str, str]] = {
    "anonymous": "a shared anonymous mapping",
    "sysv": "the System V segment",
    "memfd": "the memfd",
    "tmpfs": "the file",
}
_MOST_CGROUPS: Final = 3
_MACHINE: Final[Mapping[str, str]] = {
    "anon_bytes": "anonymous",
    "file_bytes": "page cache",
    "shmem_bytes": "shared",
    "lru_bytes": "of processes and page cache",
    "slab_bytes": "slab",
    "unevictable_bytes": "locked",
    "hugetlb_bytes": "huge pages (hugetlb)",
    "gpu_bytes": "of GPU drivers",
    "free_bytes": "free",
}
_SOURCES: Final[Mapping[str, str]] = {"charge": "charge ledger", "kernel_log": "kernel log"}
"""Table -> its name in a sentence, if the two differ."""


def sentence(item: Evidence) -> str:
    """Return the sentence of a piece of evidence without its source. A doubt begins with `doubt: `."""
    words = _WORDS[item.kind](item.numbers)
    return f"doubt: {words}" if item.is_doubt else words


def doubt(item: Evidence) -> str:
    """Return the sentence of a doubt with its source, without `doubt: `, for use below a heading of
    doubts."""
    return f"{_WORDS[item.kind](item.numbers)} {_source(item)}"


def with_source(item: Evidence) -> str:
    """Return the sentence, with the source tables of its numbers in parentheses."""
    return f"{sentence(item)} {_source(item)}"


class EvidenceObject(TypedDict):
    """An `Evidence` in the JSON, with its sentence."""

    kind: str
    sentence: str
    numbers: dict[str, Any]
    source: list[str]


class SuspectObject(TypedDict):
    """A `Suspect` in the JSON; `reason` is the sentence of its evidence."""

    cause: Cause
    weight: float
    reason: str
    evidence: EvidenceObject


def document(report: OomReport) -> dict[str, Any]:
    """Return the object of a kill in `explain --json`: `OomReport.to_dict`, with sentences for all evidence.

    A suspect also has its sentence as `reason`.
    """
    found, verdict = report.to_dict(), report.verdict
    found["verdict"] |= {
        "evidence": [_as_object(item) for item in verdict.evidence],
        "contributing": [_as_object(item) for item in verdict.contributing],
        "suspects": [_suspect(suspect) for suspect in verdict.suspects],
    }
    return found


def check(kinds: Collection[str], worded: Collection[str]) -> None:
    """Raise ImportError if the kinds of evidence differ from the kinds that have words."""
    if silent := sorted(set(kinds) - set(worded)):
        raise ImportError(f"no words for the evidence {', '.join(silent)}")
    if unknown := sorted(set(worded) - set(kinds)):
        raise ImportError(f"words for unknown kinds of evidence: {', '.join(unknown)}")


def _suspect(suspect: Suspect) -> SuspectObject:
    return {
        "cause": suspect.cause,
        "weight": suspect.weight,
        "reason": sentence(suspect.evidence),
        "evidence": _as_object(suspect.evidence),
    }


def _as_object(item: Evidence) -> EvidenceObject:
    numbers, source = as_json(item.numbers), as_json(item.source)
    return {"kind": item.kind, "sentence": sentence(item), "numbers": numbers, "source": source}


def _source(item: Evidence) -> str:
    return f"({', '.join(_SOURCES.get(table, table) for table in item.source)})"


def _fills_limit(it: _Numbers) -> str:
    share = f"{size(it['held_bytes'])} of {size(it['usage_bytes'])} in use"
    grown = it.get("grown_bytes")
    growth = "" if grown is None else f"; {size(grown)} of the {size(it['all_grown_bytes'])} that grew"
    return f"{share}, {percent(it['held_bytes'], it['usage_bytes'])}{growth}"


def _blocked(what: str) -> Callable[[_Numbers], str]:
    def words(it: _Numbers) -> str:
        return f"{size(it['held_bytes'])} {what}, {percent(it['held_bytes'], it['usage_bytes'])} of usage"

    return words


def _barred_memory(it: _Numbers) -> str:
    barred = _blocked("of cache and slab that this request may not free")(it)
    return f"{barred}: it may not enter file systems or start I/O"


def _full_swap(it: _Numbers) -> str:
    allowed = f" of {size(it['allowed_bytes'])}" if "allowed_bytes" in it else ""
    return f"{size(it['used_bytes'])}{allowed} of swap was in use"


def _killed_held_limit(it: _Numbers) -> str:
    of_kind = "of anonymous memory" if "anon_rss_bytes" in it else "(RSS, of kinds that are not known)"
    held = it["anon_rss_bytes" if "anon_rss_bytes" in it else "rss_bytes"]
    share = percent(min(held, it["limit_bytes"]), it["limit_bytes"])
    return f"the killed processes held {size(held)} {of_kind}, {share} of the limit"


def _part_of_usage(it: _Numbers) -> str:
    held, usage = it["held_bytes"], it["usage_bytes"]
    return f"{_PARTS[it['part']]} was {size(held)} of {size(usage)} in use, {percent(held, usage)}"


def _room_left(it: _Numbers) -> str:
    room = it["room_pages"]
    side = "below" if room >= 0 else "above"
    return f"usage at the kill was {abs(room)} pages {side} the limit"


def _lowered_limit(it: _Numbers) -> str:
    old = f"lowered from {size(it['old_limit_bytes'])} to" if "old_limit_bytes" in it else "set to"
    ago = f" {duration(it['before_ns'] / 1e9)} before the kill" if "before_ns" in it else ""
    asked = ": the kill was for this, and no task had asked for memory" if it["by_trigger"] else ""
    in_use = f"while {size(it.get('usage_bytes'))} was in use"
    return f"the limit was {old} {size(it['limit_bytes'])}{ago}, {in_use}{asked}"


def _span(it: _Numbers, name: str) -> str:
    """Return a duration that is no finer than the rows from which it was measured."""
    return coarse_duration(it[name] / 1e9, it.get("resolution_ns", 0) / 1e9)


def _growth(it: _Numbers) -> str:
    span = _span(it, "span_ns")
    return f"{_PARTS[it['part']]} grew by {size(it['grown_bytes'])} in {the(span)} before the kill"


def _evicted_cache(it: _Numbers) -> str:
    span = _span(it, "span_ns")
    return f"reclaim evicted {size(it['evicted_bytes'])} of page cache in {the(span)} at the limit"


def _steal_count(it: _Numbers) -> str:
    swapped = f" and {count(it['swapped_pages'])} to swap" if it["swapped_pages"] else ""
    return (
        f"reclaim took {count(it['evicted_pages'])} pages of cache{swapped} by this trace, and "
        f"{count(it['pgsteal_pages'])} by the kernel's own count (pgsteal), up to its last reading"
    )


def _machine_memory(it: _Numbers) -> str:
    kinds = ", ".join(f"{size(it[number])} {kind}" for number, kind in _MACHINE.items() if it.get(number))
    return f"of the machine's {size(it['usable_bytes'])}: {kinds}"


def _largest_processes(it: _Numbers) -> str:
    named = [
        f"{process(one['comm'], one['pid'])} {size(one['held_bytes'])}"
        if one["processes"] == 1
        else f"{count(one['processes'])} processes {one['comm']} {size(one['held_bytes'])} together"
        for one in it["largest"]
    ]
    return f"the largest processes: {', '.join(named)}"


def _swap_use(it: _Numbers) -> str:
    used, allowed = it["used_bytes"], it.get("allowed_bytes")
    if not allowed:
        return "swap: none is allowed" if allowed == 0 else f"swap: {size(used)} in use, no known limit"
    return f"swap: {size(used)} of {size(allowed)} in use{', full' if used >= 0.95 * allowed else ''}"


def _machine_holders(it: _Numbers) -> str:
    lately, cgroups = duration(it["lately_ns"] / 1e9), it["cgroups"]
    growing = max(cgroups, key=lambda one: one["charged_bytes"])
    shown = [one for one in cgroups if one in cgroups[:_MOST_CGROUPS] or one is growing]
    held = "; ".join(
        (f"container {one['container']} ({one['cgroup']})" if "container" in one else str(one["cgroup"]))
        + f" {size(one['held_bytes'])}"
        + (f", {size(one['charged_bytes'])} more than {lately} before" if one["charged_bytes"] > 0 else "")
        for one in shown
    )
    return f"of the traced cgroups, these held most: {held}"


def _shared_limit(it: _Numbers) -> str:
    shared, holders = "the limit is an ancestor's, and the cgroups below it share it", it["holders"]
    held = ", ".join(
        f"{one.get('cgroup', 'the ancestor itself')} {size(one['held_bytes'])}"
        f"{' (the task that asked is in it)' if one['is_triggers'] else ''}"
        for one in holders
    )
    if holders and "cgroup" in holders[0] and not holders[0]["is_triggers"]:
        return f"{shared}; a sibling holds most of the memory: {held}"
    return f"{shared}; the memory is held by {held}" if len(holders) > 1 else shared


def _larger_process_lived(it: _Numbers) -> str:
    killed = process(it["killed_comm"], it["killed_pid"])
    larger = process(it["larger_comm"], it["larger_pid"])
    killed_held, larger_held = size(it["killed_held_bytes"]), size(it["larger_held_bytes"])
    if it["killed_oom_score_adj"] > 0:
        return (
            f"{killed} was killed for its oom_score_adj of {it['killed_oom_score_adj']}: it held "
            f"{killed_held}, and {larger} {larger_held}"
        )
    return (
        f"{larger} held {larger_held}, and {killed}, which was killed, {killed_held}: an oom_score_adj of "
        f"{it['larger_oom_score_adj']} spared the larger one"
    )


def _many_processes(it: _Numbers) -> str:
    processes, largest = count(it["processes"]), size(it["largest_bytes"])
    return f"the memory is spread over {processes} processes; the largest held {largest}"


def _same_command(it: _Numbers) -> str:
    held, largest = size(it["held_bytes"]), size(it["largest_bytes"])
    several = f"{count(it['processes'])} {it['comm']} processes"
    return f"{several} held {held} of anonymous memory, at most {largest} each"


def _outside_heap(it: _Numbers) -> str:
    heap = f"{process(it['comm'], it['pid'])} has a heap of at most {size(it['heap_at_most_bytes'])}"
    return (
        f"{heap} ({it['option']}): at least {size(it['outside_bytes'])} of its "
        f"{size(it['anon_rss_bytes'])} of anonymous memory is outside of it, such as buffers, code and stacks"
    )


def _many_threads(it: _Numbers) -> str:
    held = f"its {size(it['anon_rss_bytes'])} of" if "anon_rss_bytes" in it else "its"
    return (
        f"{process(it['comm'], it['pid'])} had {count(it['threads'])} threads: their stacks are part of "
        f"{held} anonymous memory; how much is not known"
    )


def _cow(it: _Numbers) -> str:
    pair = "processes"
    if "child_pid" in it:
        parent = process(it["parent_comm"], it["parent_pid"])
        pair = f"{parent} and its child {process(it['child_comm'], it['child_pid'])}"
        if it.get("children", 1) > 1:
            pair = f"{parent} and its {count(it['children'])} children"
    shared = (
        f"{pair} share memory since a fork: the RSS of all processes adds up to {size(it['shared_bytes'])}"
    )
    copied = f"; {size(it['copied_bytes'])} was copied since" if it.get("copied_bytes") else ""
    copies = "; the request that failed was such a copy (do_wp_page)" if it.get("is_copying") else ""
    return f"{shared} more than there is, and each page that one of them writes to is copied{copied}{copies}"


def _shared_files(it: _Numbers) -> str:
    return "of the shared memory, " + ", ".join(map(_shared_file, it["files"]))


def _shared_file(one: Mapping[str, Any]) -> str:
    name = "" if one["kind"] == "anonymous" else f" {one['name']}"
    least = "at least " if one.get("is_least") else ""
    return f"{least}{size(one['held_bytes'])} in {_SHARED[one['kind']]}{name} of {size(one['size_bytes'])}"


def _unmapped_shmem(it: _Numbers) -> str:
    unmapped, in_memfds = it["unmapped_bytes"], it.get("in_memfds_bytes", 0)
    kept = f"{size(in_memfds)} of it is in memfds, which the last process that has one open frees"
    lasting = [] if in_memfds > 0.8 * unmapped else ["what is in files on tmpfs outlives the kill"]
    ends = "; ".join([*([kept] if in_memfds else []), *lasting])
    return f"{size(unmapped)} of the shared memory was in no process's RSS: {ends}"


def _ended_writer(it: _Numbers) -> str:
    writer = process(it.get("writer_comm"), it["writer_pid"])
    return (
        f"{size(it['shmem_bytes'])} of the shared memory is of {writer}, which had ended "
        f"{duration(it['ended_ns'] / 1e9)} before: files on tmpfs and System V segments stay until they are "
        "removed, memfds and shared mappings until the last process has closed and unmapped them"
    )


def _also_in_usage(it: _Numbers) -> str:
    held, usage = it["held_bytes"], it["usage_bytes"]
    return f"{percent(held, usage)} of usage was {_ALSO[it['part']]}: {size(held)}"


def _slow_growth(it: _Numbers) -> str:
    rate, span = size(it["bytes_per_minute"]), _span(it, "rise_ns")
    return f"memory grew slowly, as with a leak: {rate} a minute over {span}"


def _burst(it: _Numbers) -> str:
    rise, calm = _span(it, "rise_ns"), _span(it, "calm_ns")
    most = f"four fifths of {size(it['grown_bytes'])}"
    return f"memory grew in a burst: {most} within {rise}, after {calm} of calm"


def _thrashing(it: _Numbers) -> str:
    share = percent(it["lost_ns"], it["span_ns"])
    return (
        f"for {duration(it['span_ns'] / 1e9)} before the kill, tasks were thrashing: {share} of their time "
        f"went into getting memory back, and {size(it['evicted_bytes'])} of page cache was evicted, "
        f"{size(it['refaulted_bytes'])} of it read again"
    )


def _throttled(it: _Numbers) -> str:
    high = f" of {size(it['high_bytes'])}" if "high_bytes" in it else ""
    whose = f" of {it['cgroup']}" if "cgroup" in it else ""
    span, waited = duration(it["span_ns"] / 1e9), duration(it["waited_ns"] / 1e9)
    return (
        f"in {the(span)} before the kill, tasks waited {waited} "
        f"above the {it.get('file', 'memory.high')}{high}{whose}, which slows growth and does not end it"
    )


def _refaulted_cache(it: _Numbers) -> str:
    return f"{size(it['refaulted_bytes'])} of the evicted cache was read again: the work needs its cache"


def _no_swap(it: _Numbers) -> str:
    above = f"the cgroup {it['cgroup']} above" if "cgroup" in it else "a cgroup above"
    why = f"{above} leaves this one no swap" if "bounded_above" in it else "swap is off for this cgroup"
    return f"{why}, so only page cache could be reclaimed"


def _left_by_moved(it: _Numbers) -> str:
    who = f"{it.get('comm', 'a process')} (pid {it['pid']})"
    others = it["processes"] - 1
    who += f" and {others} other{'s' if others > 1 else ''}" if others else ""
    return (
        f"{size(it['held_bytes'])} of anonymous memory was left behind by {who}: a process that is moved to "
        "another cgroup leaves its memory charged to the old one"
    )


def _swap_in_use(it: _Numbers) -> str:
    allowed = f", of {size(it['allowed_bytes'])} allowed" if "allowed_bytes" in it else ""
    return f"{size(it['used_bytes'])} was in swap{allowed}"


def _requested_reclaim(it: _Numbers) -> str:
    kinds = {"page cache": it["cache_bytes"], "anonymous memory": it["anon_bytes"]}
    taken = " and ".join(f"{size(bytes_)} of {kind}" for kind, bytes_ in kinds.items() if bytes_)
    return f"{taken} was taken before the kill {REQUESTED}"


_WORDS: Final[Mapping[str, Callable[[_Numbers], str]]] = {
    "fills_limit": _fills_limit,
    "unwritten_cache": _blocked("of page cache not yet written to disk"),
    "protected_cache": _blocked("of page cache that memory.min of cgroups below protects"),
    "barred_memory": _barred_memory,
    "full_swap": _full_swap,
    "constraint": lambda it: f"the kernel's constraint was {it['constraint']}",
    "killed_held_limit": _killed_held_limit,
    "other_cause": lambda it: f"not {it['cause']}: {_WORDS[it['reason']](it)}",
    "part_of_usage": _part_of_usage,
    "machine_holders": _machine_holders,
    "room_left": _room_left,
    "lowered_limit": _lowered_limit,
    "still_freeing": lambda it: (
        f"{process(it.get('killed_comm'), it['killed_pid'])}, the victim of kill {it['kill_id']}, was still "
        f"freeing {size(it['freeing_bytes'])} {duration(it['before_ns'] / 1e9)} after it"
    ),
    "growth": _growth,
    "evicted_cache": _evicted_cache,
    "absorbed_memory": lambda it: (
        f"{size(it['absorbed_bytes'])} of other memory took the place of evicted cache"
    ),
    "steal_count": _steal_count,
    "reclaim_attempts": lambda it: (
        f"{count(it['attempts'])} reclaim attempts took {duration(it['stall_ms'] / 1000)}: they scanned "
        f"{count(it['scanned_pages'])} pages and freed {count(it['reclaimed_pages'])}"
    ),
    "fruitless_attempt": lambda it: (
        f"the last reclaim attempt scanned {count(it['scanned_pages'])} pages and freed none"
    ),
    "unwritten_scanned": lambda it: (
        f"of {count(it['scanned_pages'])} cache pages that the last {it['attempts']} attempts scanned, "
        f"{count(it['unwritten_pages'])} were not yet written to disk"
    ),
    "machine_memory": _machine_memory,
    "largest_processes": _largest_processes,
    "swap_use": _swap_use,
    "short_zone": lambda it: (
        f"zone {it['zone']} of node {it['node']} had {size(it['free_bytes'])} free, less than its minimum of "
        f"{size(it['min_bytes'])}"
    ),
    "machine_swap": lambda it: (
        f"{size(it['free_bytes'])} of {size(it['total_bytes'])} of swap was free"
        if "free_bytes" in it
        else f"the machine has {size(it['total_bytes'])} of swap"
    ),
    "doubt_lost_records": lambda it: f"{it['lost_records']} records were lost in the time before the kill",
    "doubt_no_sample": lambda _: (
        "no sample was taken at the kill, so the composition is computed from charges"
    ),
    "doubt_log_alone": lambda _: "there is only a kernel log, which does not show what grew",
    "doubt_no_start_sample": lambda _: "the memory that the cgroup held when the trace began is not known",
    "doubt_locked_kind": lambda it: (
        f"{size(it['locked_bytes'])} is locked (mlock), and the kernel does not show how much of that is "
        "anonymous and how much is shared memory"
    ),
    "doubt_inferred_limit": lambda _: (
        "the cgroup whose limit was hit is inferred, and no kernel log confirms it"
    ),
    "doubt_close_cause": lambda it: f"{it['cause']} is nearly as likely: {_WORDS[it['reason']](it)}",
    "shared_limit": _shared_limit,
    "larger_process_lived": _larger_process_lived,
    "many_processes": _many_processes,
    "same_command": _same_command,
    "outside_heap": _outside_heap,
    "many_threads": _many_threads,
    "cow": _cow,
    "also_in_usage": _also_in_usage,
    "shared_files": _shared_files,
    "ended_writer": _ended_writer,
    "unmapped_shmem": _unmapped_shmem,
    "slow_growth": _slow_growth,
    "burst": _burst,
    "thrashing": _thrashing,
    "throttled": _throttled,
    "refaulted_cache": _refaulted_cache,
    "no_swap": _no_swap,
    "swap_in_use": _swap_in_use,
    "incompressible": lambda it: (
        f"{size(it['held_bytes'])} of the {size(it.get('zswap_bytes'))} in zswap could not be compressed: "
        "swapping it freed nothing"
    ),
    "protected_memory": lambda it: (
        f"memory.min protects {size(it['protected_bytes'])} of cgroups below the limit from reclaim"
    ),
    "writer_waits": lambda it: (
        f"writers waited {duration(it['waited_ms'] / 1e3)}, because too many pages were dirty"
    ),
    "requested_reclaim": _requested_reclaim,
    "restricted_request": lambda _: (
        "the request may not enter file systems or start I/O (gfp), so reclaim could free less"
    ),
    "dying_cgroups": lambda it: f"removed (dying) cgroups still held {size(it['held_bytes'])}",
    "left_by_moved": _left_by_moved,
    "memory_in_transit": lambda it: (
        f"{size(it['held_bytes'])} was charged but in no counter: pages that exiting processes were freeing, "
        "and charges that CPUs hold in stock"
    ),
    "clean_cache_left": lambda it: f"reclaim left {size(it['held_bytes'])} of clean page cache",
}
"""Kind of evidence -> its words."""

check(KINDS, _WORDS)
