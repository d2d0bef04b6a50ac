"""The post-mortem of a kill: one `OomReport` for each decision of the OOM killer.

`to_dict()` returns the object of `explain --json`: the same names and nesting, tuples as lists. Sizes are
bytes, page counts are pages of `meta["page_size"]`. Times are Timestamps in UTC, in the document ISO 8601. A
limit that is not set is null in the document, and `is_limited` beside it is false. None is "not known";
`Quality.unknown` then has the reason, by the field's dotted name (`"composition.percpu"`). A None without a
reason means that there is nothing: no container, no pod, no moment at which the cache was used up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracer.analysis.results import display
from tracer.analysis.results.conclusions import NO_VERDICT, Sizing, Verdict
from tracer.analysis.results.json_values import as_json, as_object
from tracer.analysis.results.memory import (
    Allocator,
    ChargedStack,
    Composition,
    Cushion,
    FurtherAllocators,
    SharedFile,
)
from tracer.analysis.results.quality import KernelLogPlace, Quality
from tracer.analysis.results.reclaim_attempts import Reclaim
from tracer.analysis.results.tasks import Candidate, Trigger, Victim, WhatIf
from tracer.schema import UNLIMITED_BYTES
from tracer.units import UNKNOWN, limit

if TYPE_CHECKING:
    import pandas as pd


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


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class OomReport:
    """One decision of the OOM killer: the tasks, the memory, the attempts of reclaim, and the verdict.

    `constraint` is `memcg`, `global`, `cpuset`, `mempolicy`, `unknown`, or the word that a BPF policy printed
    for its own (`CONSTRAINT_…`). `memory_stat_bytes` are the known counters of the limit owner at the kill,
    by their names in memory.stat (`schema.MEMORY_STAT_BYTES`); they overlap. `badness_total_pages`: the
    total, in pages; an oom_score_adj of 1 adds a thousandth of it. `what_if`: changes of oom_score_adj with
    which the kernel would have killed another task. `kernel_log`: None for a report from a trace.
    `further_allocators`: None if allocators are not known. `shared_files`: the files of the shared memory
    that were seen. `charged_in`: the stacks with which memory of the verdict's kind was charged in the
    window, the heaviest first; empty if stacks were not recorded, or if none has a quarter of it.
    """

    kill_id: int
    time: pd.Timestamp | None
    ktime_ns: int | None = None
    constraint: str
    limit_owner: LimitOwner
    trigger: Trigger = field(default_factory=Trigger)
    victims: tuple[Victim, ...]
    candidates: tuple[Candidate, ...] = ()
    composition: Composition = field(default_factory=Composition)
    working_set_bytes: int | None = None
    reclaim: Reclaim = field(default_factory=Reclaim)
    cushion: Cushion = field(default_factory=Cushion)
    allocators: tuple[Allocator, ...] = ()
    verdict: Verdict = NO_VERDICT
    advice: tuple[str, ...] = ()
    sizing: Sizing = field(default_factory=Sizing)
    quality: Quality
    memory_stat_bytes: Mapping[str, int] = field(default_factory=dict)
    badness_total_pages: int | None = None
    what_if: tuple[WhatIf, ...] = ()
    kernel_log: KernelLogPlace | None = None
    further_allocators: FurtherAllocators | None = None
    shared_files: tuple[SharedFile, ...] = ()
    charged_in: tuple[ChargedStack, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the object of this kill in `explain --json`, whose evidence has no sentences here.

        Only renderers have words for evidence (`explain.words.evidence.document`).
        """
        return as_object(self)

    def __repr__(self) -> str:
        return display.as_text(*self._title_and_facts())

    def _repr_html_(self) -> str:
        return display.as_html(*self._title_and_facts())

    def _title_and_facts(self) -> tuple[str, display.Facts]:
        owner = self.limit_owner
        place = owner.container or owner.cgroup or UNKNOWN
        life = f" (run {owner.run} of {owner.runs})" if (owner.runs or 1) > 1 else ""
        victims = [f"{victim.comm} (pid {victim.pid})" for victim in self.victims]
        more = f" and {len(victims) - 3} more" if len(victims) > 3 else ""
        return display.printable(
            f"OOM kill {self.kill_id} at {as_json(self.time) or UNKNOWN}",
            [
                ("limit of", f"{place}{life}: {limit(owner.limit_bytes)}, {self.constraint}"),
                ("killed", (", ".join(victims[:3]) or UNKNOWN) + more),
                ("cause", f"{self.verdict.cause}, confidence {self.verdict.confidence}"),
                ("summary", self.verdict.summary),
            ],
        )
