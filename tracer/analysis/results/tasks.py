"""The tasks of a kill: the trigger, the victims, and the candidates that the kernel weighed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trigger:
    """The task whose charge could not be met. It need not be a victim.

    `pid` is the number of the thread, `tgid` that of its process (None: a kernel log may not have it). `gfp`
    are the flags of the request, `gfp_names` their names in the kernel log; empty without a log. `cmdline`:
    the title of the process if it contains more than its name.
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


@dataclass(frozen=True, slots=True)
class Victim:
    """A killed task.

    `group_kill`: one decision killed several tasks (memory.oom.group). `cgroup_id` and `threads`, the number
    of its threads: None if only a kernel log has the kill.
    """

    pid: int
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
