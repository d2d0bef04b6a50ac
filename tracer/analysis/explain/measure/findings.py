"""All that a verdict stands on: what a trace, or a kernel log alone, tells of one kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from tracer.analysis.explain.measure.cushion import Steal, Window
from tracer.analysis.results.conclusions import Cause
from tracer.analysis.results.kill import LimitOwner
from tracer.analysis.results.memory import Allocator, Composition, Cushion, FurtherAllocators
from tracer.analysis.results.quality import KernelLog
from tracer.analysis.results.reclaim_attempts import Reclaim
from tracer.analysis.results.tasks import Candidate, Trigger, Victim


@dataclass(frozen=True, slots=True)
class Swap:
    """What of the limit owner's memory was in swap at the kill, and how much could be: None, no bound known.
    `refused`: the kernel counted, in the window, that it could not swap for want of room."""

    used_bytes: int
    allowed_bytes: int | None
    refused: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """A cgroup right below the limit owner, by the last part of its path, and what it held at the kill, all
    below it included. None: what is the owner's own."""

    cgroup: str | None
    held_bytes: int
    is_triggers: bool


@dataclass(frozen=True, slots=True)
class Shortage:
    """What was short where no limit was full: the clause that says it, the cause that it is, and what can be
    done; without `advice`, what can be done about that cause."""

    clause: str
    cause: Cause = "global_pressure"
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a kill came about in; each is empty, zero or None where the trace does not tell.

    `grown_bytes`: class of the ledger (anon, shmem, kernel, sock) -> its level at the kill above its least
    since `Window.begin`; empty: not known. `rise_ns`: how long the last 80 % took of the growth of all that
    cannot be dropped. `protected_bytes`: usage of the cgroups right below the owner that their memory.min
    keeps from reclaim. `dying_bytes`: held by cgroups that had been removed. `dirty_wait_ms`: what writers
    were held back for too many dirty pages, in the window. `shortage`: where no
    limit was full. `full_swap_limit_bytes`: v1's limit of memory and swap, where it was the one hit.
    `kmem_bytes`: v1's count of kernel memory, one number for all kinds of it.
    """

    grown_bytes: Mapping[str, int] = field(default_factory=dict)
    rise_ns: int | None = None
    swap: Swap | None = None
    protected_bytes: int = 0
    holders: tuple[Holder, ...] = ()
    dying_bytes: int = 0
    dirty_wait_ms: float = 0.0
    shortage: Shortage | None = None
    full_swap_limit_bytes: int | None = None
    kmem_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Findings:
    """`is_told`: constraint and limit owner are the kernel's own word, not inferred. `window` is None where
    nothing before the kill is known. `trigger_tgid`: the process of the task that asked; None: not known."""

    time: pd.Timestamp | None
    constraint: str
    owner: LimitOwner
    trigger: Trigger
    victims: Sequence[Victim]
    victim_tgids: frozenset[int]
    composition: Composition
    cushion: Cushion
    reclaim: Reclaim
    allocators: Sequence[Allocator]
    page_size: int
    window: Window | None = None
    circumstances: Circumstances = Circumstances()
    steal: Steal | None = None
    lost_records: int = 0
    sampled_at_kill: bool = True
    is_told: bool = False
    kmsg: KernelLog = "missing"
    trigger_tgid: int | None = None
    candidates: Sequence[Candidate] = ()
    further_allocators: FurtherAllocators | None = None
