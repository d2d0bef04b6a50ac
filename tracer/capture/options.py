"""The options of a recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """A request to record.

    `limit_bytes` and `swap_bytes` bound the cgroup that is made for `command`. `ring_pages` gives rings
    another size than the default, in pages. `hooks` is the family of hooks to take for each signal that has
    one (kernel/probes.py). `stacks_bytes` is the growth of a process for which a sample of its code is taken
    while its cgroup grows; None: no samples. While tracing costs more than `most_overhead_percent` of the
    CPU time of the traced tasks, page-cache events are summed. `held_bytes` bounds the records of undecided
    cgroups, which may turn out to be requested.
    """

    output: Path
    cgroups: tuple[str, ...] = ()
    duration_s: float | None = None
    limit_bytes: int | None = None
    swap_bytes: int | None = None
    name: str = "trace"
    force: bool = False
    command: tuple[str, ...] = ()
    ready_file: Path | None = None
    ring_pages: dict[str, int] = field(default_factory=dict)
    hooks: str | None = None
    stacks_bytes: int | None = None
    most_overhead_percent: float | None = None
    held_bytes: int = 64 << 20
