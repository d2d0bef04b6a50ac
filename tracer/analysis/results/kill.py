"""What `explain` says, as frozen dataclasses: one `OomReport` for each OOM kill, one `Held` for each cgroup
when nothing was killed.

`to_dict()` gives the JSON document's objects: the same names and nesting, tuples as lists. Sizes are bytes,
page counts are pages of `meta["page_size"]`. Times are Timestamps in UTC, in the document ISO 8601. A limit
that is not set is null there, and `is_limited` beside it false. None is "not known", and
`Quality.unknown` then says why, under the field's dotted name (`"composition.percpu"`). Where a None has no
entry there it is known that there is none: no container, no pod, no moment at which the cache was used up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracer.analysis.results import display
from tracer.analysis.results.conclusions import Sizing, Verdict
from tracer.analysis.results.json_values import as_json, as_object
from tracer.analysis.results.memory import Allocator, Composition, Cushion, FurtherAllocators
from tracer.analysis.results.quality import KernelLogPlace, Quality
from tracer.analysis.results.reclaim_attempts import Reclaim
from tracer.analysis.results.tasks import Candidate, Trigger, Victim, WhatIf
from tracer.units import UNKNOWN, limit

if TYPE_CHECKING:  # lab's names do not need it
    import pandas as pd


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
