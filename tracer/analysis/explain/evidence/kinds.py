"""The kinds of evidence: their numbers, and the tables of a trace that these are read from.

This is the only list of kinds. `explain.words.evidence` has a sentence for each, and docs/causes.md a line; a
test compares all three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final

from tracer.analysis.core.columns import utc_time
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.kernel_log.comparison import KERNEL_LOG
from tracer.analysis.results.kill import Evidence, Suspect
from tracer.analysis.results.quality import resolution_s

COMPOSITION: Final = "composition"
"""A placeholder in `Kind.source` for the tables that parts of the composition are from
(`Findings.origins`)."""


@dataclass(frozen=True)
class Kind:
    """The names of the numbers of one kind of evidence, and the tables that they are read from.

    `fields` are the fields of the report behind the numbers: if the tables lack one of them, the kernel log
    completes it (`Quality.kmsg_fields`). `parts` are names in `Findings.origins`; evidence that names a part
    has that one.
    """

    numbers: tuple[str, ...]
    source: tuple[str, ...]
    fields: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """Return the names of the numbers."""
        return frozenset(self.numbers)


_SHARE: Final = ("held_bytes", "usage_bytes")
_SUMS: Final[Mapping[str, tuple[str, ...]]] = {"unwritten": ("file_dirty", "writeback")}
_OF_ONE_VICTIM: Final = ("victims.pid", "victims.anon_rss_bytes")
_SUSPECT: Final = ("cause", "weight", "reason")

REASONS: Final[Mapping[str, Kind]] = {
    "fills_limit": Kind(
        (*_SHARE, "grown_bytes", "all_grown_bytes"), (COMPOSITION, "charge"), parts=("usage",)
    ),
    "unwritten_cache": Kind(_SHARE, (COMPOSITION,), parts=(*_SUMS["unwritten"], "usage")),
    "protected_cache": Kind(
        _SHARE, (COMPOSITION, "samples"), parts=("file_clean", *_SUMS["unwritten"], "usage")
    ),
    "barred_memory": Kind(
        _SHARE, (COMPOSITION, "oom"), ("trigger.gfp",), ("file_clean", "slab_reclaimable", "usage")
    ),
    "full_swap": Kind(("used_bytes", "allowed_bytes"), ("charge", "samples")),
    "constraint": Kind(("constraint",), ("oom",), ("constraint",)),
    "killed_held_limit": Kind(
        ("anon_rss_bytes", "rss_bytes", "limit_bytes"), ("oom",), ("victims.anon_rss_bytes", "limit_owner")
    ),
}
"""Why a cause is suspected."""

_MEASURED: Final[Mapping[str, Kind]] = {
    "part_of_usage": Kind(("part", *_SHARE), (COMPOSITION,), parts=("usage",)),
    "machine_holders": Kind(("cgroups", "lately_ns"), ("charge", "samples", "cgroups")),
    "room_left": Kind(("room_pages", "usage_bytes", "limit_bytes"), ("oom",), ("limit_owner",)),
    "lowered_limit": Kind(
        ("old_limit_bytes", "limit_bytes", "usage_bytes", "before_ns", "by_trigger"),
        ("oom", "samples"),
        ("limit_owner", "trigger.stack"),
    ),
    "still_freeing": Kind(
        ("kill_id", "killed_comm", "killed_pid", "before_ns", "freeing_bytes"),
        (COMPOSITION, "oom"),
        parts=("other", "usage"),
    ),
    "growth": Kind(("part", "grown_bytes", "span_ns", "resolution_ns"), ("charge",)),
    "evicted_cache": Kind(("evicted_bytes", "span_ns", "resolution_ns"), ("pagecache",)),
    "absorbed_memory": Kind(("absorbed_bytes",), ("charge",)),
    "steal_count": Kind(
        ("evicted_pages", "swapped_pages", "pgsteal_pages"), ("pagecache", "reclaim", "samples")
    ),
    "reclaim_attempts": Kind(("attempts", "scanned_pages", "reclaimed_pages", "stall_ms"), ("reclaim",)),
    "fruitless_attempt": Kind(("scanned_pages",), ("reclaim",)),
    "unwritten_scanned": Kind(("attempts", "scanned_pages", "unwritten_pages"), ("reclaim",)),
    "machine_memory": Kind(
        (
            *("usable_bytes", "anon_bytes", "file_bytes", "shmem_bytes", "lru_bytes", "slab_bytes"),
            *("unevictable_bytes", "free_bytes", "hugetlb_bytes", "gpu_bytes"),
        ),
        (KERNEL_LOG,),
    ),
    "largest_processes": Kind(("largest",), ("oom_candidates",), ("candidates",)),
    "machine_swap": Kind(("free_bytes", "total_bytes"), (KERNEL_LOG,)),
    "short_zone": Kind(("zone", "node", "free_bytes", "min_bytes"), (KERNEL_LOG,)),
    "swap_use": Kind(("used_bytes", "allowed_bytes"), (KERNEL_LOG,)),
}

_DOUBTS: Final[Mapping[str, Kind]] = {
    "doubt_lost_records": Kind(("lost_records",), ("loss",)),
    "doubt_no_sample": Kind((), ("samples",)),
    "doubt_log_alone": Kind((), (KERNEL_LOG,)),
    "doubt_no_start_sample": Kind((), ("samples",)),
    "doubt_locked_kind": Kind(("locked_bytes",), (COMPOSITION,), parts=("unevictable",)),
    "doubt_inferred_limit": Kind((), ("oom", KERNEL_LOG)),
}

OF_SUSPECTS: Final[Mapping[str, Kind]] = {
    "other_cause": Kind(_SUSPECT, ()),
    "doubt_close_cause": Kind(_SUSPECT, ()),
}
"""Evidence on a suspect that is not the verdict. The numbers and the source of its reason are added."""

_CONTRIBUTING: Final[Mapping[str, Kind]] = {
    "shared_limit": Kind(("holders",), ("charge", "samples", "cgroups")),
    "larger_process_lived": Kind(
        tuple(
            f"{who}_{what}"
            for who in ("killed", "larger")
            for what in ("comm", "pid", "oom_score_adj", "held_bytes")
        ),
        ("oom_candidates",),
        ("candidates",),
    ),
    "many_processes": Kind(("processes", "largest_bytes"), ("oom_candidates",), ("candidates",)),
    "same_command": Kind(
        ("comm", "processes", "held_bytes", "largest_bytes"), ("oom_candidates",), ("candidates",)
    ),
    "outside_heap": Kind(
        ("comm", "pid", "option", "heap_at_most_bytes", "outside_bytes", "anon_rss_bytes"),
        ("oom", "tasks"),
        _OF_ONE_VICTIM,
    ),
    "many_threads": Kind(("comm", "pid", "threads", "anon_rss_bytes"), ("oom",), _OF_ONE_VICTIM),
    "cow": Kind(
        (
            *("parent_comm", "parent_pid", "child_comm", "child_pid", "shared_bytes", "copied_bytes"),
            *("is_copying", "children"),
        ),
        ("oom_candidates", "charge", "tasks", "oom"),
        ("candidates", "trigger.stack"),
    ),
    "also_in_usage": Kind(("part", *_SHARE), (COMPOSITION,), parts=("usage",)),
    "shared_files": Kind(("files",), ("shmem_files",)),
    "unmapped_shmem": Kind(
        ("unmapped_bytes", "in_memfds_bytes"),
        (COMPOSITION, "oom", "shmem_files"),
        ("victims.anon_rss_bytes",),
        ("shmem",),
    ),
    "ended_writer": Kind(
        ("writer_comm", "writer_pid", "shmem_bytes", "ended_ns"), ("charge", "tasks", "shmem_files")
    ),
    "slow_growth": Kind(("grown_bytes", "rise_ns", "bytes_per_minute", "resolution_ns"), ("charge",)),
    "burst": Kind(("grown_bytes", "rise_ns", "calm_ns", "resolution_ns"), ("charge",)),
    "thrashing": Kind(
        ("span_ns", "lost_ns", "evicted_bytes", "refaulted_bytes"),
        ("pagecache", "reclaim", "file_waits", "task_time"),
    ),
    "throttled": Kind(("waited_ns", "span_ns", "file", "high_bytes", "cgroup"), ("stalls", "samples")),
    "refaulted_cache": Kind(("refaulted_bytes", "evicted_bytes"), ("pagecache",)),
    "no_swap": Kind(("bounded_above", "cgroup"), ("samples",)),
    "swap_in_use": Kind(("used_bytes", "allowed_bytes"), ("charge", "samples")),
    "incompressible": Kind(("held_bytes", "zswap_bytes"), (COMPOSITION,), parts=("zswap", "zswap_incomp")),
    "protected_memory": Kind(("protected_bytes",), ("samples",)),
    "writer_waits": Kind(("waited_ms",), ("stalls",)),
    "requested_reclaim": Kind(("cache_bytes", "anon_bytes"), ("reclaim",)),
    "restricted_request": Kind(("gfp",), ("oom",), ("trigger.gfp",)),
    "dying_cgroups": Kind(("held_bytes",), ("charge", "samples", "cgroups")),
    "left_by_moved": Kind(("processes", "comm", "pid", "held_bytes"), ("charge", "tasks", "oom_candidates")),
    "memory_in_transit": Kind(("held_bytes",), (COMPOSITION, "charge"), parts=("other",)),
    "clean_cache_left": Kind(("held_bytes",), (COMPOSITION,), parts=("file_clean",)),
}

KINDS: Final[Mapping[str, Kind]] = {**REASONS, **_MEASURED, **_DOUBTS, **OF_SUSPECTS, **_CONTRIBUTING}


def found(findings: Findings, kind: str, of: Sequence[str] = (), /, **numbers: Any) -> Evidence:
    """Return evidence of a kind in `KINDS`; a number that is None is not known, and left out.

    `of`: the parts of the composition in its numbers, beside `Kind.parts`. TypeError where the names of
    `numbers` are not those of the kind.
    """
    if numbers.keys() != KINDS[kind].names:
        raise TypeError(f"evidence of kind {kind} has {KINDS[kind].numbers}, not {tuple(numbers)}")
    known = {name: value for name, value in numbers.items() if value is not None}
    named = [numbers["part"]] if "part" in numbers else []
    parts = (*of, *chain(*(_SUMS.get(part, (part,)) for part in named)), *KINDS[kind].parts)
    return Evidence(kind, known, _source(findings, KINDS[kind], parts))


def on_suspect(kind: str, suspect: Suspect) -> Evidence:
    """Return evidence of a kind in `OF_SUSPECTS`: the suspect, and the numbers behind it."""
    numbers = {"cause": suspect.cause, "weight": suspect.weight, "reason": suspect.evidence.kind}
    return Evidence(kind, numbers | dict(suspect.evidence.numbers), suspect.evidence.source)


def _source(findings: Findings, kind: Kind, parts: Sequence[str]) -> tuple[str, ...]:
    """Return the tables that the numbers are from, each once.

    The kernel log is the only one without a trace. It takes the place of a table if it gave all fields of it.
    """
    if findings.kmsg == "only":
        return (KERNEL_LOG,)
    read: list[str] = []
    for table in kind.source:
        if table == COMPOSITION:
            read += chain(*(findings.origins.get(part, ()) for part in parts)) if findings.origins else ()
            continue
        if not kind.fields:
            read.append(table)
            continue
        is_logged = [_is_logged(findings, field) for field in kind.fields if _table_of(field) == table]
        read += [] if is_logged and all(is_logged) else [table]
        read += [KERNEL_LOG] if any(is_logged) else []
    once = dict.fromkeys(read)
    return (*(table for table in once if table != KERNEL_LOG), *([KERNEL_LOG] if KERNEL_LOG in once else []))


def _table_of(field: str) -> str:
    return "oom_candidates" if field == "candidates" else "oom"


def _is_logged(findings: Findings, field: str) -> bool:
    """Return whether the kernel log gave a field; that of victims, for each of them."""
    wanted = len(findings.victims) if field.startswith("victims.") else 1
    return findings.kmsg_fields.count(field) >= max(wanted, 1)


def resolution_ns(findings: Findings, *moments_ns: int) -> int | None:
    """Return how coarse the rows of these moments are at most; None: they are as they were recorded."""
    coarsest_s = max(resolution_s(findings.thinned, utc_time(moment_ns)) for moment_ns in moments_ns)
    return round(coarsest_s * 1e9) or None
