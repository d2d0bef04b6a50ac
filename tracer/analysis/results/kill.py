"""What `explain` says, as frozen dataclasses: one `OomReport` for each OOM kill, one `Held` for each cgroup
when nothing was killed.

`to_dict()` gives the JSON document's objects: the same names and nesting, tuples as lists. Sizes are bytes,
page counts are pages of `meta["page_size"]`. Times are Timestamps in UTC, in the document ISO 8601. A limit
that is not set is null there, and `is_limited` beside it false. None is "not known", and
`Quality.unknown` then says why, under the field's dotted name (`"composition.percpu"`). Where a None has no
entry there it is known that there is none: no container, no pod, no moment at which the cache was used up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:  # lab's names do not need it
    import pandas as pd

Cause = Literal[
    "anon_growth",
    "shmem",
    "dirty_writeback",
    "unevictable",
    "kernel_memory",
    "gfp_constrained",
    "swap_exhausted",
    "protected_cache",
    "global_pressure",
    "unknown",
]
Confidence = Literal["high", "medium", "low"]
KernelLog = Literal["matched", "missing", "rate_limited", "only"]


@dataclass(frozen=True, slots=True)
class LimitOwner:
    """The cgroup whose limit was hit; `is_ancestor` when the trigger's task lives below it. `run` of `runs`:
    which life of its name it was (`analysis.core.lives`). That and `cgroup_id` are None where only a kernel
    log tells of the kill.
    """

    cgroup: str | None
    container: str | None
    pod: str | None
    limit_bytes: int | None
    usage_bytes: int | None
    is_ancestor: bool | None
    cgroup_id: int | None = None
    run: int | None = None
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    """The task whose charge could not be met. It need not be a victim.

    `gfp_names`: what the kernel log calls the flags in `gfp`; empty without a log. `pid` is that of the
    thread, `tgid` that of its process (None: a kernel log does not say). `cmdline`: the title of the process,
    where that says more than its name.
    """

    pid: int | None
    comm: str | None
    cgroup: str | None
    gfp: int | None
    order: int | None
    stack: tuple[str, ...] | None
    user_stack: tuple[str, ...] | None
    gfp_names: str = ""
    tgid: int | None = None
    cmdline: str | None = None


@dataclass(frozen=True, slots=True)
class Victim:
    """A killed task. `group_kill`: it died with others of one decision (memory.oom.group). `cgroup_id` is
    None where only a kernel log tells of the kill."""

    pid: int
    comm: str
    cgroup: str | None
    anon_rss_bytes: int | None
    file_rss_bytes: int | None
    shmem_rss_bytes: int | None
    pgtables_bytes: int | None
    swap_bytes: int | None
    oom_score_adj: int | None
    group_kill: bool
    cgroup_id: int | None = None
    cmdline: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A task that the kernel weighed; `badness` (`analysis.explain.victim.badness`) is in pages.

    It is what the task holds (`held_pages`: RSS, swap, page tables) and what oom_score_adj adds
    (`adj_pages`). `cmdline`: as of `Trigger`.
    """

    pid: int
    comm: str
    badness: int | None
    oom_score_adj: int
    rss_bytes: int | None
    chosen: bool
    held_pages: int | None = None
    adj_pages: int | None = None
    cmdline: str | None = None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A change with which the kernel would have chosen another: had this task had `instead` for its
    `oom_score_adj`, `victim` would have been killed."""

    pid: int
    comm: str
    oom_score_adj: int
    instead: int
    victim_pid: int
    victim_comm: str


@dataclass(frozen=True, slots=True)
class Composition:
    """What usage was made of at the kill, in bytes. The classes are disjoint; how:
    `analysis.explain.measure.composition`.

    The known classes and `other` add up to `total` exactly, and `total` is the page counter's usage.
    """

    anon: int | None
    file_clean: int | None
    file_dirty: int | None
    writeback: int | None
    shmem: int | None
    unevictable: int | None
    slab_reclaimable: int | None
    slab_unreclaimable: int | None
    kernel_stack: int | None
    page_tables: int | None
    sock: int | None
    percpu: int | None
    vmalloc: int | None
    other: int | None
    total: int | None

    def parts(self) -> Iterator[tuple[str, int | None]]:
        """(class, bytes) of every class, `other` last, without `total`."""
        for part in COMPOSITION_PARTS:
            yield part, getattr(self, part)


COMPOSITION_PARTS: Final = tuple(item.name for item in fields(Composition) if item.name != "total")


@dataclass(frozen=True, slots=True)
class ReclaimAttempt:
    """One begin-to-end attempt to free memory for the limit owner, or for a cgroup below it.

    `kept_anon` and `kept_file` are what it met on either list and could not free, in pages, by
    `schema.RECLAIM_COUNTS`; None where the trace does not tell the lists apart.
    """

    time: pd.Timestamp
    duration_ms: float
    kind: str
    cgroup: str | None
    pid: int
    comm: str | None
    scanned_pages: int
    reclaimed_pages: int
    priority: int | None
    scanned_anon_pages: int
    scanned_file_pages: int
    reclaimed_anon_pages: int
    reclaimed_file_pages: int
    nr_dirty: int
    nr_writeback: int
    usage_bytes: int | None
    limit_bytes: int | None
    kept_anon: Mapping[str, int] | None = None
    kept_file: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Waiter:
    """A process that waited for memory: how long in all, its threads together, and of that by kind (those of
    `analysis.views.stalls.KINDS` that it met)."""

    tgid: int
    comm: str | None
    stalled_ms: float
    kinds_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SwapIo:
    """What was written to swap, or what was read from it, in how many pieces. `took_ms`: what half of them
    took at most (`median`), and the slowest (`longest`); empty where there was none of which the end was
    seen."""

    count: int
    size_bytes: int
    took_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reclaim:
    """All attempts in the window; `transcript` holds the last ones, oldest first.

    `stall_ms` is what these attempts took. `waiters` are the processes of the cgroup that waited longest for
    memory in the window, in these attempts, in others or for another reason. `swap_writes`, `swap_reads`: of
    pages of the cgroup, whoever made room or wanted them back. The numbers are None where there are only a
    kernel log's words.
    """

    attempts: int | None
    scanned_pages: int | None
    reclaimed_pages: int | None
    stall_ms: float | None
    transcript: tuple[ReclaimAttempt, ...]
    waiters: tuple[Waiter, ...] = ()
    swap_writes: SwapIo | None = None
    swap_reads: SwapIo | None = None


@dataclass(frozen=True, slots=True)
class Cushion:
    """The page cache as the cushion between the limit and the kill; definitions:
    `analysis.explain.measure.cushion`.
    """

    cache_start_bytes: int | None
    cache_end_bytes: int | None
    evicted_bytes: int | None
    absorbed_bytes: int | None
    exhausted_at: pd.Timestamp | None
    refaulted_bytes: int | None


@dataclass(frozen=True, slots=True)
class ChargedStack:
    """Where `sampled_bytes` were charged, of the `of_bytes` that were sampled of a process: functions,
    innermost first, of its own code (`user`) and of the kernel below it; None where no stack could be taken.
    """

    user: tuple[str, ...] | None
    kernel: tuple[str, ...] | None
    sampled_bytes: int
    of_bytes: int


@dataclass(frozen=True, slots=True)
class Allocator:
    """A process and the memory it charged in the window, net of what it gave back. `stack`: by which it
    charged most of it; None where stacks were not asked for, or none was sampled of it.
    """

    tgid: int
    comm: str | None
    charged_bytes: int
    stack: ChargedStack | None = None
    cmdline: str | None = None


@dataclass(frozen=True, slots=True)
class FurtherAllocators:
    """Those that charged less than the ones in `OomReport.allocators`: how many, and what they charged."""

    processes: int
    charged_bytes: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cause that was weighed: `weight` from 0 (nothing speaks for it) to 1, and the numbers behind it."""

    cause: Cause
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the kill came: `summary` for a person, `evidence` with a number and its source in each line.

    `suspects` are all causes that anything speaks for, the likeliest first; how they are weighed:
    `analysis.explain.causes.registry`.
    """

    cause: Cause
    confidence: Confidence
    summary: str
    evidence: tuple[str, ...]
    contributing: tuple[str, ...]
    suspects: tuple[Suspect, ...] = ()


@dataclass(frozen=True, slots=True)
class Sizing:
    """The least limit, (low, high), under which the same work would have lived: `analysis.explain.sizing`.

    `basis` are sentences on what bounds it; where the range is None, on what is known all the same. `pace` is
    one on how long a greater limit would have lasted; empty where nothing grew.
    """

    min_limit_bytes: tuple[int, int] | None
    basis: tuple[str, ...] = ()
    pace: str = ""


@dataclass(frozen=True, slots=True)
class Quality:
    """How far the report can be trusted.

    Of the kernel log, `kmsg_missing` says what is not there, and why (empty: nothing); `kmsg_fields` are what
    was taken from it, by the dotted names. `disagreements`: what sources say differently, each with both.
    """

    lost_records: int
    kmsg: KernelLog
    probes: Mapping[str, Any]
    unknown: Mapping[str, str] = field(default_factory=dict)
    disagreements: tuple[str, ...] = ()
    kmsg_missing: str = ""
    kmsg_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelLogPlace:
    """Where a report stands in the log that it was read from, and the times there; see `kmsg.facts`.

    `page_size`: what the log tells of it. `missing`: parts of the report that the log does not have.
    """

    first_line: int
    last_line: int
    since_boot_ns: int | None
    wall: str | None
    page_size: int | None
    missing: tuple[str, ...]
    suppressed: int


@dataclass(frozen=True, slots=True, repr=False)
class OomReport:
    """One decision of the OOM killer: who, what filled the cgroup, what reclaim tried, why then.

    `memory_stat_bytes`: the limit owner's counters at the kill, which overlap, by their names in memory.stat
    (`schema.MEMORY_STAT_BYTES`), as far as they are known.
    `constraint` is `memcg`, `global`, `cpuset`, `mempolicy`, `unknown`, or the word that a BPF policy printed
    for its own (`CONSTRAINT_…`). `kernel_log`: None for a report from a trace.
    `badness_total_pages` is the whole of which oom_score_adj is thousandths, `what_if` what other
    oom_score_adj would have had another killed. `further_allocators`: None where nothing is known of
    allocators.
    """

    kill_id: int
    time: pd.Timestamp | None
    ktime_ns: int | None
    constraint: str
    limit_owner: LimitOwner
    trigger: Trigger
    victims: tuple[Victim, ...]
    candidates: tuple[Candidate, ...]
    composition: Composition
    working_set_bytes: int | None
    reclaim: Reclaim
    cushion: Cushion
    allocators: tuple[Allocator, ...]
    verdict: Verdict
    advice: tuple[str, ...]
    sizing: Sizing
    quality: Quality
    memory_stat_bytes: Mapping[str, int] = field(default_factory=dict)
    badness_total_pages: int | None = None
    what_if: tuple[WhatIf, ...] = ()
    kernel_log: KernelLogPlace | None = None
    further_allocators: FurtherAllocators | None = None

    def to_dict(self) -> dict[str, Any]:
        """The object of this kill in `explain --json`."""
        return as_object(self)

    def __repr__(self) -> str:
        from tracer.analysis.results import summary  # noqa: PLC0415  it makes DataFrames of these

        return summary.as_text(*summary.of_report(self))

    def _repr_html_(self) -> str:
        from tracer.analysis.results import summary  # noqa: PLC0415

        return summary.as_html(*summary.of_report(self))


@dataclass(frozen=True, slots=True)
class Held:
    """A cgroup that lived: how near its limit came and what reclaim gave back, over the whole trace.

    `limit_bytes` is `schema.UNLIMITED_BYTES` where no limit is set, and `headroom_bytes` (limit - peak, 0
    where usage was above it: the kernel lets some charges pass) is then None. `cache_at_peak_bytes` is page
    cache without shmem at `peak_time`, the other two are of the same moment. `peak_swap_bytes`: the most
    that was in swap. `stuck_since`: from when to the end its tasks waited at the limit, since killing is
    switched off (v1 memory.oom_control); None: they did not. `run` of `runs`: which life of its name it was.
    `recorded_until`: the last record of a recording that breaks off, which says nothing of what came then;
    `recorder_cgroup`: where its recorder ran, if that was traced and had a limit.
    """

    cgroup: str
    container: str | None
    limit_bytes: int | None
    peak_usage_bytes: int | None
    peak_time: pd.Timestamp | None
    headroom_bytes: int | None
    peak_anon_bytes: int | None
    cache_at_peak_bytes: int | None
    evicted_bytes: int
    refaulted_bytes: int | None
    max_events: int | None
    reclaim: Reclaim
    sizing: Sizing
    quality: Quality
    shmem_at_peak_bytes: int | None = None
    kernel_at_peak_bytes: int | None = None
    peak_swap_bytes: int | None = None
    stuck_since: pd.Timestamp | None = None
    cgroup_id: int | None = None
    run: int = 1
    runs: int = 1
    recorded_until: pd.Timestamp | None = None
    recorder_cgroup: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The object of this cgroup in the `held` list of `explain --json`."""
        return as_object(self)


def as_object(record: Any) -> dict[str, Any]:
    """Return a frozen dataclass as documents have it: field by field, by `as_json` and `limit_columns`."""
    from tracer.schema import LIMITS  # noqa: PLC0415  it brings Arrow, which lab's names do not need

    found: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if item.name in LIMITS:
            found |= limit_columns(value)
        else:
            found[item.name] = as_json(value)
    return found


def limit_columns(limit_bytes: int | None) -> dict[str, Any]:
    """A limit as documents have it: null where none is set, and beside it whether that is known."""
    from tracer.schema import UNLIMITED_BYTES  # noqa: PLC0415  as above

    is_limited = None if limit_bytes is None else limit_bytes < UNLIMITED_BYTES
    return {"limit_bytes": limit_bytes if is_limited else None, "is_limited": is_limited}


def as_json(value: Any) -> Any:
    """Return a field's value as documents have it; times with microseconds, as in meta.json."""
    if is_dataclass(value):
        return as_object(value)
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
