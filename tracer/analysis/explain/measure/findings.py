"""The findings on one kill, from a trace or from a kernel log alone: the input of a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pandas as pd

from tracer.analysis.explain.measure.window import Steal, Window
from tracer.analysis.results.kill import Candidate, LimitOwner, Trigger, Victim
from tracer.analysis.results.memory import (
    Allocator,
    CacheContents,
    Composition,
    Cushion,
    FurtherAllocators,
    GrownCode,
    ProcessMemory,
    Reclaim,
    Runtime,
    SharedFile,
)
from tracer.analysis.results.quality import KernelLog, ThinnedInterval
from tracer.analysis.results.survivor import HighOwner
from tracer.kernel.kmsg.report.log_report import MemInfo


@dataclass(frozen=True, slots=True)
class Thrashing:
    """The time until a kill in which tasks mostly read again what was evicted: how long it was, the part of
    it that they lost, and the page cache that was evicted and read again in it."""

    span_ns: int
    lost_ns: int
    evicted_bytes: int
    refaulted_bytes: int


LATELY_NS: Final = 10_000_000_000

OF_MACHINE: Final = ("global", "cpuset", "mempolicy")
"""The constraints (enum oom_constraint, include/linux/oom.h) of a kill that is not for a cgroup's limit."""


@dataclass(frozen=True, slots=True)
class Swap:
    """The limit owner's memory in swap at the kill, and the most that could be there.

    `allowed_bytes`: None if no bound is known. `refused`: in the window, the kernel counted failures to swap
    because swap was full. `bound`: what allows least: the limit of swap of the owner or of a cgroup above, or
    the swap of the machine; None: not known. `bound_cgroup`: the path of that cgroup above; None: not known.
    """

    used_bytes: int
    allowed_bytes: int | None
    refused: bool
    bound: Literal["own", "above", "machine"] | None = None
    bound_cgroup: str | None = None


LostTo = Literal["thrashing", "oom_disabled", "pause"]


@dataclass(frozen=True, slots=True)
class Rise:
    """The growth of memory other than page cache before a kill, with what went to swap: `grown_bytes` in all.

    The last 80 % of it took `span_ns`, without `lost_ns` meanwhile in which memory did not grow
    (`measure.growth`).
    """

    grown_bytes: int
    span_ns: int
    lost_ns: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """The growth of memory other than page cache since its last minimum before a kill: `grown_bytes` in
    `span_s`, known to `resolution_s`, without `lost_s` in which memory did not grow, because of `lost_to`.

    `is_all`: nothing notable grew earlier in the window.
    """

    grown_bytes: int
    span_s: float
    lost_s: float
    lost_to: LostTo
    resolution_s: float
    is_all: bool


@dataclass(frozen=True, slots=True)
class Throttled:
    """The time that tasks waited above a memory.high or memory.swap.high before a kill: `waited_ns` in all,
    in the last `span_ns`. `high`: None if it is not known."""

    waited_ns: int
    span_ns: int
    high: HighOwner | None


@dataclass(frozen=True, slots=True)
class Holder:
    """A child of the limit owner, and the memory that it held at the kill with all cgroups below it.

    `cgroup`: the last part of its path; None for the owner's own memory. `is_triggers`: the trigger's task is
    in it.
    """

    cgroup: str | None
    held_bytes: int
    is_triggers: bool


@dataclass(frozen=True, slots=True)
class Fork:
    """A process and its children, which share memory since the forks; `child` has most memory of its parent.

    `inherited_bytes`: anonymous memory that `child` had mapped and was not charged for. `copied_bytes`: what
    all of them were charged since the forks, without memory that only one of them has, which is `new_bytes`.
    `age_ns`: the time since the fork of `child`. `children`: the number of children that share.
    """

    parent_pid: int
    parent_comm: str
    child_pid: int
    child_comm: str
    inherited_bytes: int
    copied_bytes: int
    new_bytes: int
    age_ns: int
    children: int = 1


@dataclass(frozen=True, slots=True)
class EndedWriter:
    """A process that had ended, and shared memory that it was charged for and that was still there.

    `ended_ns`: the time since its end.
    """

    pid: int
    comm: str | None
    shmem_bytes: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class MachineHolder:
    """A traced cgroup at a kill of the whole machine.

    `held_bytes`: its own memory, without that of cgroups below it. `charged_bytes`: the growth of that in the
    last `LATELY_NS`; negative if it shrank.
    """

    cgroup: str
    container: str | None
    held_bytes: int
    charged_bytes: int


@dataclass(frozen=True, slots=True)
class Mover:
    """A process that left the cgroups below the limit, and the memory that it had charged there.

    Memory stays charged to the cgroup in which it was touched first. cgroup v2 never moves a charge with a
    process, and v1 only if memory.move_charge_at_immigrate was set.
    """

    tgid: int
    comm: str | None
    held_bytes: int


ShortageKind = Literal[
    "below_limit",
    "policy_constraint",
    "by_hand",
    "policy",
    "page_fault",
    "slab",
    "huge_pages",
    "gpu",
    "unnamed",
    "pieces",
    "large_request",
    "low_zones",
    "high_zones",
    "none_left",
    "not_shown",
]


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """The free memory that a kernel log shows, in bytes; None: it does not show that.

    `nodes_free_bytes` of `nodes_bytes`: of the memory nodes that the request was confined to.
    """

    free_bytes: int
    machine_bytes: int | None
    nodes_free_bytes: int | None = None
    nodes_bytes: int | None = None
    free_swap_bytes: int | None = None
    swap_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Shortage:
    """The shortage behind a kill for which no limit was full.

    `numbers`: what `words.sentence_parts` shows for the kind. `is_seen`:
    whether the log shows that memory was short. `constraint` and `nodes` are the log's: the nodes that the
    request was confined to, as in `0-1,3`, empty if the log does not show them. `may_be_confined`: no line
    shows whether a cpuset or a memory policy confined it. `no_task_killable`: the kernel found no process
    that it could kill. `free`: None if the log does not show it.
    """

    kind: ShortageKind
    numbers: Mapping[str, Any] = field(default_factory=dict)
    is_seen: bool = True
    constraint: str = "global"
    nodes: str = ""
    may_be_confined: bool = False
    no_task_killable: bool = False
    free: FreeMemory | None = None


NoVictim = Literal["panic_on_oom", "panic", "none_killable"]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The circumstances of a kill. A field is empty, zero or None if the source does not show it.

    `grown_bytes`: category of the ledger (anon, shmem, kernel without zswap, sock), `zswap`, or
    `locked_cache` (mlocked page cache) -> its level at the kill above its least level since `Window.begin`;
    empty: not known. `rise` and `pace`: None if nothing grew. `thrashing`: of the tasks until the kill.
    `protected_bytes`: usage of the owner's children that memory.min protects from reclaim. `dying_bytes`:
    held by removed cgroups. `dirty_wait_ms`: how long writers were throttled in the window because too many
    pages were dirty. `requested_cache_bytes` and `requested_anon_bytes`: taken in the window by writes to
    memory.reclaim. `shortage`: set if no limit was full. `full_swap_limit_bytes`: v1's limit of memory and
    swap together, if that was hit. `fork`: a child among the candidates that lives from its parent's memory.
    `kernel_bytes`: the kernel's count of all its memory. `locked_cache_bytes`: mlocked page cache.
    `locked_shmem_bytes`: mlocked shared memory.
    `incompressible_bytes`: the part of zswap that could not be compressed. `locked_in_unknown_bytes`: locked
    memory of which the kernel does not show how much is anonymous and how much is shared; it is inside these
    two parts of the composition. `moved`: processes that left their memory behind. `ended_writer`: the
    process that left most shared memory behind. `machine_holders`: empty if a cgroup's limit was hit.
    `machine`: the kernel log's account of the whole machine, which it prints only if the machine was short of
    memory. `no_victim`: why the decision killed nothing. `group`: the cgroup of which all processes were
    killed (memory.oom.group), as a kernel log names it. `kills_asker`: vm.oom_kill_allocating_task had the
    task killed that asked.
    """

    grown_bytes: Mapping[str, int] = field(default_factory=dict)
    rise: Rise | None = None
    pace: Pace | None = None
    thrashing: Thrashing | None = None
    swap: Swap | None = None
    protected_bytes: int = 0
    holders: tuple[Holder, ...] = ()
    dying_bytes: int = 0
    dirty_wait_ms: float = 0.0
    throttled: Throttled | None = None
    requested_cache_bytes: int = 0
    requested_anon_bytes: int = 0
    shortage: Shortage | None = None
    full_swap_limit_bytes: int | None = None
    fork: Fork | None = None
    ended_writer: EndedWriter | None = None
    machine_holders: tuple[MachineHolder, ...] = ()
    machine: MemInfo | None = None
    kernel_bytes: int | None = None
    locked_cache_bytes: int = 0
    locked_shmem_bytes: int = 0
    incompressible_bytes: int | None = None
    locked_in_unknown_bytes: int = 0
    moved: tuple[Mover, ...] = ()
    no_victim: NoVictim | None = None
    group: str | None = None
    kills_asker: bool = False


@dataclass(frozen=True, slots=True)
class PreviousKill:
    """The last kill for the same limit; `age_ns`: the time since then. Of several victims, the first."""

    kill_id: int
    pid: int | None
    comm: str | None
    age_ns: int


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings on one kill.

    `victim_tgids`: the killed processes, with those that run in their address spaces (vfork). `is_told`: the
    kernel itself named constraint and limit owner; they are not inferred. `window`: None if the time before
    the kill is not known. `origins`: see `composition.origins_of_parts`. `kmsg_fields` and
    `thinned`: see `Quality`.
    """

    time: pd.Timestamp | None
    constraint: str
    owner: LimitOwner
    trigger: Trigger
    victims: Sequence[Victim]
    victim_tgids: frozenset[int]
    composition: Composition
    page_size: int
    cushion: Cushion = field(default_factory=Cushion)
    reclaim: Reclaim = field(default_factory=Reclaim)
    allocators: Sequence[Allocator] = ()
    window: Window | None = None
    circumstances: Circumstances = Circumstances()
    steal: Steal | None = None
    lost_records: int = 0
    sampled_at_kill: bool = True
    is_told: bool = False
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kmsg: KernelLog = "missing"
    kmsg_fields: tuple[str, ...] = ()
    candidates: Sequence[Candidate] = ()
    further_allocators: FurtherAllocators | None = None
    shared_files: Sequence[SharedFile] = ()
    mappings: Sequence[ProcessMemory] = ()
    runtimes: Sequence[Runtime] = ()
    cached: CacheContents | None = None
    code: Sequence[GrownCode] = ()
    thinned: Sequence[ThinnedInterval] = ()
    previous: PreviousKill | None = None
