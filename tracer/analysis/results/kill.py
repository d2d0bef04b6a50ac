"""The post-mortem of a kill: one `OomReport` for each decision of the OOM killer, and the records in it.

`to_dict()` returns the object of `explain --json`: the same names and nesting, tuples as lists. Sizes are
bytes, page counts are pages of `meta["page_size"]`. Times are Timestamps in UTC, in the document ISO 8601. A
limit that is not set is null in the document, and `is_limited` beside it is false. None is "not known";
`Quality.unknown` then has the reason, by the field's dotted name (`"composition.percpu"`). A None without a
reason means that there is nothing: no container, no pod, no moment at which the cache was used up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from tracer import units
from tracer.analysis.results import forms
from tracer.analysis.results.forms import as_json, as_object
from tracer.analysis.results.memory import (
    Allocator,
    Composition,
    Cushion,
    FurtherAllocators,
    Reclaim,
    SeenMemory,
    SharedFile,
)
from tracer.analysis.results.outcome import AtLimit
from tracer.analysis.results.quality import KernelLogPlace, Quality
from tracer.schema import UNLIMITED_BYTES

if TYPE_CHECKING:
    import pandas as pd


Cause = Literal[
    "anon_growth",
    "shmem",
    "swap_exhausted",
    "unevictable",
    "kernel_memory",
    "dirty_writeback",
    "protected_cache",
    "gfp_constrained",
    "global_pressure",
    "unknown",
]
"""The causes of a kill (docs/causes.md). Of those with equal weight, the first is the verdict.

Memory that swap could hold comes before memory that it cannot, and what filled the limit before what kept
reclaim from freeing memory. Protected cache is out of reach of every request, not of this one alone.
"""

UNKNOWN: Final = "unknown"
"""The verdict where no cause weighs enough."""

Confidence = Literal["high", "medium", "low"]
CONFIDENCES: Final[tuple[Confidence, ...]] = get_args(Confidence)


Number: TypeAlias = int | float | str | bool
Numbers: TypeAlias = Mapping[str, "Number | tuple[Mapping[str, Number], ...]"]
"""Values by name, with the unit in the name (`_bytes`, `_pages`, `_ns`, `_ms`). A number that is not known is
left out."""

_DOUBT: Final = "doubt_"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One finding on which a verdict rests, without words; `explain.words.evidence` has its sentence.

    `kind` is a name of `analysis.explain.evidence.kinds.KINDS`, which lists the names in `numbers`. `source`
    holds the tables of the trace from which the numbers were read. `kernel_log` among them also stands for
    the log that `explain --kmsg` reads.
    """

    kind: str
    numbers: Numbers
    source: tuple[str, ...]

    @property
    def is_doubt(self) -> bool:
        """Return whether the finding lowers the confidence."""
        return self.kind.startswith(_DOUBT)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cause that was weighed, with its weight from 0 (no number points to it) to 1, and the evidence."""

    cause: Cause
    weight: float
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Verdict:
    """The cause of a kill, its confidence, and the evidence for it.

    `summary` is one sentence. `contributing` are factors beside the cause. `suspects` are all causes that any
    number points to, the likeliest first; `analysis.explain.verdict` picks from them.
    """

    cause: Cause
    confidence: Confidence
    summary: str
    evidence: tuple[Evidence, ...]
    contributing: tuple[Evidence, ...]
    suspects: tuple[Suspect, ...] = ()


NO_VERDICT: Final = Verdict(UNKNOWN, "low", "", (), ())
"""The verdict on a kill that is not explained."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """The minimum limit, (low, high) in bytes, under which the same work would have survived
    (`analysis.explain.sizing`).

    `high` is None if no limit is known to be enough: after most kills, more than `low` is needed, and nothing
    shows how much. `min_limit_bytes` is None if the size of the limit was not the problem, or if `low` is not
    known either. `basis`: sentences on the bounds of the range and on other known facts. `pace`: a sentence
    on the time that a greater limit would have lasted; empty if nothing grew. `outcomes`: by limit, what
    `whatif` says about the limit from which the work survives, and about `high`. `kills`: the number of kills
    for one limit that the range is for; 0 without a kill or a range.
    """

    min_limit_bytes: tuple[int, int | None] | None = None
    basis: tuple[str, ...] = ()
    pace: str = ""
    outcomes: tuple[AtLimit, ...] = ()
    kills: int = 0


@dataclass(frozen=True, slots=True)
class Trigger:
    """The task whose charge could not be met. It need not be a victim.

    `pid` is the number of the thread, `tgid` that of its process (None: a kernel log may not have it). `gfp`
    are the flags of the request, `gfp_names` their names in the kernel log; empty without a log. `cmdline`:
    the title of the process if it contains more than its name.
    `user_stack_left_code`: unwinding ended at an address that is no code, so callers are missing; None: not
    known.
    """

    pid: int | None = None
    comm: str | None = None
    cgroup: str | None = None
    gfp: int | None = None
    order: int | None = None
    stack: tuple[str, ...] | None = None
    user_stack: tuple[str, ...] | None = None
    gfp_names: str = ""
    tgid: int | None = None
    cmdline: str | None = None
    user_stack_left_code: bool | None = None


@dataclass(frozen=True, slots=True)
class Victim:
    """A killed task.

    `group_kill`: one decision killed several tasks (memory.oom.group). `cgroup_id` and `threads`, the number
    of its threads: None if only a kernel log has the kill.
    """

    pid: int | None
    comm: str
    cgroup: str | None = None
    anon_rss_bytes: int | None = None
    file_rss_bytes: int | None = None
    shmem_rss_bytes: int | None = None
    pgtables_bytes: int | None = None
    swap_bytes: int | None = None
    oom_score_adj: int | None = None
    group_kill: bool = False
    cgroup_id: int | None = None
    cmdline: str | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A task that the kernel weighed. `badness` (`analysis.explain.victim_selection`) is in pages.

    It is the sum of `held_pages` (RSS, swap, page tables) and `adj_pages`, which oom_score_adj adds.
    `cmdline`: as in `Trigger`. `anon_rss_bytes` and `shmem_rss_bytes` are parts of `rss_bytes`; None: a
    kernel log before 6.8 does not distinguish them.
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
    anon_rss_bytes: int | None = None
    shmem_rss_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A change with which the kernel would have chosen another task.

    If the oom_score_adj of `pid` had been `instead`, the kernel would have killed `victim_pid`.
    """

    pid: int
    comm: str
    oom_score_adj: int
    instead: int
    victim_pid: int
    victim_comm: str


@dataclass(frozen=True, slots=True)
class Lowered:
    """A limit that was lowered while more than the new one was in use.

    `limit_bytes`: the limit before. `usage_bytes`: usage when it was lowered; at the kill, if that is not
    known. `by_trigger`: the trigger was writing the limit, and asked for no memory. `before_ns`: the time
    from then to the kill.
    """

    limit_bytes: int | None
    usage_bytes: int | None
    by_trigger: bool
    before_ns: int | None = None


@dataclass(frozen=True, slots=True)
class LimitOwner:
    """The cgroup whose limit was hit.

    `is_ancestor`: the trigger's task is in a cgroup below it. `run` of `runs` is the life of its name
    (`analysis.core.lives`). `run`, `runs` and `cgroup_id` are None if only a kernel log has the kill.
    `namespace` is the pod's, `image` the container's; None: not known, or absent. `lowered`: None if the
    limit was not seen to be lowered below usage.
    """

    cgroup: str | None
    container: str | None = None
    pod: str | None = None
    limit_bytes: int | None = None
    usage_bytes: int | None = None
    is_ancestor: bool | None = None
    cgroup_id: int | None = None
    run: int | None = None
    runs: int | None = None
    namespace: str | None = None
    image: str | None = None
    lowered: Lowered | None = None

    @property
    def has_limit(self) -> bool:
        """Return whether a limit is set and known."""
        return self.limit_bytes is not None and self.limit_bytes < UNLIMITED_BYTES


_NO_COMPOSITION: Final = Composition()
_NO_RECLAIM: Final = Reclaim()
_NO_CUSHION: Final = Cushion()


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class OomReport(SeenMemory):
    """One decision of the OOM killer: the tasks, the memory, the attempts of reclaim, and the verdict.

    `constraint` is `memcg`, `global`, `cpuset`, `mempolicy`, `unknown`, or the word that a BPF policy printed
    for its own (`CONSTRAINT_…`). `memory_stat_bytes` are the known counters of the limit owner at the kill,
    by their names in memory.stat (`schema.MEMORY_STAT_BYTES`); they overlap. `badness_total_pages`: the
    total, in pages; an oom_score_adj of 1 adds a thousandth of it. `what_if`: changes of oom_score_adj with
    which the kernel would have killed another task. `kernel_log`: None for a report from a trace.
    `further_allocators`: None if allocators are not known. `shared_files`: the files of the shared memory
    that were seen. `mappings`, `runtime` and `cached` are of the last look before the kill, the killed
    processes first. `code` made memory of the verdict's kind grow in the window.
    """

    kill_id: int
    time: pd.Timestamp | None
    ktime_ns: int | None = None
    constraint: str
    limit_owner: LimitOwner
    trigger: Trigger = Trigger()
    victims: tuple[Victim, ...]
    candidates: tuple[Candidate, ...] = ()
    composition: Composition = _NO_COMPOSITION
    working_set_bytes: int | None = None
    reclaim: Reclaim = _NO_RECLAIM
    cushion: Cushion = _NO_CUSHION
    allocators: tuple[Allocator, ...] = ()
    verdict: Verdict = NO_VERDICT
    advice: tuple[str, ...] = ()
    sizing: Sizing = Sizing()
    quality: Quality
    memory_stat_bytes: Mapping[str, int] = field(default_factory=dict)
    badness_total_pages: int | None = None
    what_if: tuple[WhatIf, ...] = ()
    kernel_log: KernelLogPlace | None = None
    further_allocators: FurtherAllocators | None = None
    shared_files: tuple[SharedFile, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the object of this kill in `explain --json`, whose evidence has no sentences here.

        Only renderers have words for evidence (`explain.words.evidence.document`).
        """
        return as_object(self)

    def __repr__(self) -> str:
        return forms.as_text(*self._title_and_facts())

    def _repr_html_(self) -> str:
        return forms.as_html(*self._title_and_facts())

    def _title_and_facts(self) -> tuple[str, forms.Facts]:
        owner = self.limit_owner
        place = owner.container or owner.cgroup or units.UNKNOWN
        life = f" (run {owner.run} of {owner.runs})" if (owner.runs or 1) > 1 else ""
        victims = [
            victim.comm if victim.pid is None else f"{victim.comm} (pid {victim.pid})"
            for victim in self.victims
        ]
        more = f" and {len(victims) - 3} more" if len(victims) > 3 else ""
        return forms.printable(
            f"OOM kill {self.kill_id} at {as_json(self.time) or units.UNKNOWN}",
            [
                ("limit of", f"{place}{life}: {units.limit(owner.limit_bytes)}, {self.constraint}"),
                ("killed", (", ".join(victims[:3]) or units.UNKNOWN) + more),
                ("cause", f"{self.verdict.cause}, confidence {self.verdict.confidence}"),
                ("summary", self.verdict.summary),
            ],
        )
