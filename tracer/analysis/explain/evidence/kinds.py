"""The kinds of evidence: their numbers, and the tables of a trace that these are read from.

This is the only list of kinds. `render.words.evidence` has a sentence for each, and docs/causes.md a line; a
test compares all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tracer.analysis.core.columns import utc_time
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.results.conclusions import Evidence, Suspect
from tracer.analysis.results.quality import resolution_s

COMPOSITION: Final = "composition"
"""A placeholder in `Kind.source` for the tables that the composition was read from
(`_composition_source`)."""

KERNEL_LOG: Final = "kernel_log"


@dataclass(frozen=True, slots=True)
class Kind:
    """The names of the numbers of one kind of evidence, and the tables that they are read from.

    `fields` are the fields of the report behind the numbers: if the tables lack one of them, the kernel log
    completes it (`Quality.kmsg_fields`).
    """

    numbers: tuple[str, ...]
    source: tuple[str, ...]
    fields: tuple[str, ...] = ()


_SHARE: Final = ("held_bytes", "usage_bytes")
_SUSPECT: Final = ("cause", "weight", "reason")

REASONS: Final[Mapping[str, Kind]] = {
    "fills_limit": Kind((*_SHARE, "grown_bytes", "all_grown_bytes"), (COMPOSITION, "charge")),
    "unwritten_cache": Kind(_SHARE, (COMPOSITION,)),
    "protected_cache": Kind(_SHARE, (COMPOSITION, "samples")),
    "barred_memory": Kind(_SHARE, (COMPOSITION, "oom"), ("trigger.gfp",)),
    "full_swap": Kind(("used_bytes", "allowed_bytes"), ("charge", "samples")),
    "constraint": Kind(("constraint",), ("oom",), ("constraint",)),
    "killed_held_limit": Kind(
        ("anon_rss_bytes", "rss_bytes", "limit_bytes"), ("oom",), ("victims.anon_rss_bytes", "limit_owner")
    ),
}
"""Why a cause is suspected."""

_MEASURED: Final[Mapping[str, Kind]] = {
    "part_of_usage": Kind(("part", *_SHARE), (COMPOSITION,)),
    "machine_holders": Kind(("cgroups", "lately_ns"), ("charge", "samples", "cgroups")),
    "room_left": Kind(("room_pages", "usage_bytes", "limit_bytes"), ("oom",), ("limit_owner",)),
    "lowered_limit": Kind(
        ("old_limit_bytes", "limit_bytes", "usage_bytes", "before_ns", "by_trigger"),
        ("oom", "samples"),
        ("limit_owner",),
    ),
    "still_freeing": Kind(
        ("kill_id", "killed_comm", "killed_pid", "before_ns", "freeing_bytes"), (COMPOSITION, "oom")
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
    "largest_processes": Kind(("largest",), (KERNEL_LOG,)),
    "machine_swap": Kind(("free_bytes", "total_bytes"), (KERNEL_LOG,)),
    "short_zone": Kind(("zone", "node", "free_bytes", "min_bytes"), (KERNEL_LOG,)),
    "swap_use": Kind(("used_bytes", "allowed_bytes"), (KERNEL_LOG,)),
}

_DOUBTS: Final[Mapping[str, Kind]] = {
    "doubt_lost_records": Kind(("lost_records",), ("loss",)),
    "doubt_no_sample": Kind((), ("samples",)),
    "doubt_log_alone": Kind((), (KERNEL_LOG,)),
    "doubt_no_start_sample": Kind((), ("samples",)),
    "doubt_locked_kind": Kind(("locked_bytes",), (COMPOSITION,)),
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
        ("comm", "pid", "option", "heap_at_most_bytes", "outside_bytes", "anon_rss_bytes"), ("oom", "tasks")
    ),
    "many_threads": Kind(("comm", "pid", "threads", "anon_rss_bytes"), ("oom",)),
    "cow": Kind(
        (
            *("parent_comm", "parent_pid", "child_comm", "child_pid", "shared_bytes", "copied_bytes"),
            "is_copying",
        ),
        ("oom_candidates", "charge", "tasks", "oom"),
        ("candidates",),
    ),
    "also_in_usage": Kind(("part", *_SHARE), (COMPOSITION,)),
    "shared_files": Kind(("files",), ("shmem_files",)),
    "unmapped_shmem": Kind(
        ("unmapped_bytes",), (COMPOSITION, "oom", "shmem_files"), ("victims.anon_rss_bytes",)
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
    "refaulted_cache": Kind(("refaulted_bytes", "evicted_bytes"), ("pagecache",)),
    "no_swap": Kind(("bounded_above", "cgroup"), ("samples",)),
    "swap_in_use": Kind(("used_bytes", "allowed_bytes"), ("charge", "samples")),
    "incompressible": Kind(("held_bytes", "zswap_bytes"), (COMPOSITION,)),
    "protected_memory": Kind(("protected_bytes",), ("samples",)),
    "writer_waits": Kind(("waited_ms",), ("stalls",)),
    "restricted_request": Kind(("gfp",), ("oom",), ("trigger.gfp",)),
    "dying_cgroups": Kind(("held_bytes",), ("charge", "samples", "cgroups")),
    "left_by_moved": Kind(("processes", "comm", "pid", "held_bytes"), ("charge", "tasks", "oom_candidates")),
    "memory_in_transit": Kind(("held_bytes",), (COMPOSITION, "charge")),
    "clean_cache_left": Kind(("held_bytes",), (COMPOSITION,)),
}

KINDS: Final[Mapping[str, Kind]] = {**REASONS, **_MEASURED, **_DOUBTS, **OF_SUSPECTS, **_CONTRIBUTING}


def found(findings: Findings, kind: str, **numbers: Any) -> Evidence:
    """Return evidence of a kind in `KINDS`; a number that is None is not known, and left out.

    TypeError where the names of `numbers` are not those of the kind.
    """
    if numbers.keys() != set(KINDS[kind].numbers):
        raise TypeError(f"evidence of kind {kind} has {KINDS[kind].numbers}, not {tuple(numbers)}")
    known = {name: value for name, value in numbers.items() if value is not None}
    return Evidence(kind, known, _source(findings, KINDS[kind]))


def on_suspect(kind: str, suspect: Suspect) -> Evidence:
    """Return evidence of a kind in `OF_SUSPECTS`: the suspect, and the numbers behind it."""
    numbers = {"cause": suspect.cause, "weight": suspect.weight, "reason": suspect.evidence.kind}
    return Evidence(kind, numbers | dict(suspect.evidence.numbers), suspect.evidence.source)


def _source(findings: Findings, kind: Kind) -> tuple[str, ...]:
    """Return the tables that were read for this kill, each once.

    The kernel log is the last of them where it completed these tables, and the only one without a trace.
    """
    if findings.kmsg == "only":
        return (KERNEL_LOG,)
    read: list[str] = []
    for table in kind.source:
        read += _composition_source(findings) if table == COMPOSITION else [table]
    if set(kind.fields) & set(findings.kmsg_fields):
        read.append(KERNEL_LOG)
    return tuple(dict.fromkeys(read))


def _composition_source(findings: Findings) -> list[str]:
    if "composition" in findings.kmsg_fields:
        return [KERNEL_LOG]
    if "memory_stat_bytes" in findings.kmsg_fields:
        return ["samples", KERNEL_LOG]
    return ["samples"] if findings.sampled_at_kill else ["charge", "samples"]


def resolution_ns(findings: Findings, *moments_ns: int) -> int | None:
    """Return how coarse the rows of these moments are at most; None: they are as they were recorded."""
    coarsest_s = max(resolution_s(findings.thinned, utc_time(moment_ns)) for moment_ns in moments_ns)
    return round(coarsest_s * 1e9) or None
