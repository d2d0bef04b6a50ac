"""The experiments: each provokes one thing in a cgroup of its own, and its label says what must be found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.lab import checks
from tracer.lab.checks import Check, Evidence
from tracer.lab.scratch import write_uncached

_MIB = 1 << 20
_PAUSE_MS = 5  # after each MiB: the acts then last long enough to be seen in a timeline


@dataclass(frozen=True)
class Experiment:
    """`prepare` fills the scratch directory outside of the cgroup; `steps` are those of
    `tracer.lab.workload`. `needs_v2`: what of cgroup v2 it is about, which v1 does not have.
    """

    name: str
    summary: str
    limit_bytes: int
    cause: str
    prepare: Callable[[Path], None]
    steps: Callable[[Path], list[str]]
    checks: tuple[Callable[[Evidence], Check], ...]
    needs_v2: str | None = None

    def command(self, scratch: Path) -> list[str]:
        """The command that is recorded."""
        workload = [sys.executable, "-m", "tracer.lab.workload", "--pause-ms", str(_PAUSE_MS)]
        return workload + self.steps(scratch)


_LIMIT_BYTES: Final = 100 * _MIB
_FILE_BYTES: Final = 117 * _MIB
_CHILDREN_BYTES: Final = (7 * _MIB, 19 * _MIB)  # uneven, so that none can be taken for another
_BIG_BYTES: Final = 61 * _MIB
_GROWN_BYTES: Final = 47 * _MIB  # more than the big one leaves of the limit, and less than that one has
_CEILING_BYTES: Final = 4 * _LIMIT_BYTES  # if no kill comes, the workload ends here by itself
_ALWAYS: Final = (checks.killed_at_the_limit, checks.cause_is_named, checks.composition_adds_up)

EXPERIMENTS: Final = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            name="page-cache",
            summary="read a 117-MiB file at a limit of 100 MiB, then allocate until the kill",
            limit_bytes=_LIMIT_BYTES,
            cause="anon_growth",
            prepare=lambda scratch: write_uncached(scratch / "read-me", _FILE_BYTES),
            steps=lambda scratch: ["read", str(scratch / "read-me"), "then", "anon", str(_CEILING_BYTES)],
            checks=(
                *_ALWAYS,
                checks.evictions_equal_pgsteal,
                checks.cache_fills_to_the_limit,
                checks.cache_gives_way,
                checks.cache_is_used_up,
            ),
        ),
        Experiment(
            name="anon",
            summary="allocate at a limit of 100 MiB until the kill, with no cache to give",
            limit_bytes=_LIMIT_BYTES,
            cause="anon_growth",
            prepare=lambda _: None,
            steps=lambda _: ["anon", str(_CEILING_BYTES)],
            checks=(*_ALWAYS, checks.evictions_equal_pgsteal, checks.little_was_evicted),
        ),
        Experiment(
            name="parent-limit",
            summary="allocate in one cgroup until its sibling dies at their parent's limit",
            limit_bytes=_LIMIT_BYTES,
            cause="anon_growth",
            prepare=lambda _: None,
            steps=lambda _: [
                *["cgroups", "small", "big", "then", "child", "big", str(_BIG_BYTES)],
                *["then", "anon", str(_GROWN_BYTES)],
            ],
            checks=(*_ALWAYS, checks.three_cgroups("small", "big")),
        ),
        Experiment(
            name="group-kill",
            summary="allocate until three processes die together (memory.oom.group, cgroup v2)",
            limit_bytes=_LIMIT_BYTES,
            cause="anon_growth",
            prepare=lambda _: None,
            steps=lambda _: [
                *["oom_group", "then"],
                *(word for size in _CHILDREN_BYTES for word in ("child", ".", str(size), "then")),
                *["anon", str(_CEILING_BYTES)],
            ],
            checks=(*_ALWAYS, checks.killed_together(_CHILDREN_BYTES)),
            needs_v2="memory.oom.group",
        ),
    )
}
