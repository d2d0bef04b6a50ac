"""A run of a command that is counted and not recorded: by the files of its cgroup, without BPF.

It is for machines on which no BPF program can be loaded, such as the containers of CI services. The kernel's
own peak of usage is exact. What memory was made of is known at readings `READ_INTERVAL_S` apart, so a shorter
peak may have been made of something else. Which file or code it was is not known.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tracer.capture.loop import Loop, Timer, stop_signals
from tracer.capture.options import Options
from tracer.capture.session import (
    create_ready_file,
    end_command,
    require_absent,
    require_command,
    run_until_command_ends,
)
from tracer.categories import usage_parts
from tracer.errors import TracerError, UsageError
from tracer.kernel.cgroups import memory_files
from tracer.kernel.cgroups.cgroupfs import Hierarchy, memory_hierarchy, own_path
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.process.spawn import spawn
from tracer.schema import MEMORY_STAT_COLUMNS, UNLIMITED_BYTES

READ_INTERVAL_S: Final = 0.05

Scope = Literal["command", "job", "none"]
"""The cgroup that was counted: one of the command's own; the one that this process is in, with all else in
it; or none."""


@dataclass(frozen=True)
class CountedRun:
    """The counts of a run. None: the kernel does not count it here.

    `path` is the cgroup's. `peak_bytes` is the kernel's own peak (of scope "job": since that cgroup was made,
    also before the run). `usage_bytes` and `parts` (`categories.PARTS`, bytes) are those of the reading with
    the highest usage, of `readings`; `unreclaimable_bytes` is the most memory in any reading that reclaim
    cannot free without swap. `evicted_bytes` is what reclaim freed, by the kernel's count (v2: pgsteal of
    memory.stat). `limit_hits` and `kills` are those of the run. Readings are
    `read_interval_s` apart.
    """

    scope: Scope
    path: str | None
    status: int
    wall_s: float
    limit_bytes: int | None = None
    peak_bytes: int | None = None
    readings: int = 0
    usage_bytes: int | None = None
    parts: Mapping[str, int | None] | None = None
    unreclaimable_bytes: int | None = None
    evicted_bytes: int | None = None
    limit_hits: int | None = None
    kills: int = 0
    read_interval_s: float = READ_INTERVAL_S


@dataclass(frozen=True)
class _Counts:
    evicted_bytes: int | None
    limit_hits: int | None
    kills: int


class _Readings:
    """The readings of one cgroup."""

    def __init__(self, hierarchy: Hierarchy, cgroup: Path) -> None:
        self._hierarchy, self._cgroup = hierarchy, cgroup
        self.readings = 0
        self.usage_bytes = 0
        self.parts: Mapping[str, int | None] = {}
        self.unreclaimable_bytes: int | None = None

    def read(self) -> None:
        """Take a reading."""
        version = self._hierarchy.version
        with suppress(OSError):  # no file can be opened at the moment: the next reading is soon
            usage = memory_files.read_usage(self._cgroup, version)
            stat = memory_files.read_stat(self._cgroup, version)
            if usage is None or not stat:
                return
            self.readings += 1
            sizes = {name: stat.get(column) for name, column in MEMORY_STAT_COLUMNS.items()}
            parts, _ = usage_parts(sizes, usage, lambda _: "")
            cache = sum(parts[name] or 0 for name in _RECLAIMABLE)
            self.unreclaimable_bytes = max(self.unreclaimable_bytes or 0, usage - cache)
            if usage > self.usage_bytes:
                self.usage_bytes, self.parts = usage, parts

    def counts(self) -> _Counts:
        """Return the counts so far."""
        version = self._hierarchy.version
        stat = memory_files.read_stat(self._cgroup, version)
        freed = [stat[part] for part in memory_files.RECLAIM_PARTS["pgsteal"] if part in stat]
        page_size = os.sysconf("SC_PAGE_SIZE")
        return _Counts(
            sum(freed) * page_size if freed else None,
            memory_files.read_limit_hits(self._cgroup, version),
            memory_files.oom_kills_below(self._hierarchy, self._cgroup),
        )


_ROOM: Final = 1.5
"""This process may still grow, such as to write the summary."""
_EXEMPT: Final = -1000  # OOM_SCORE_ADJ_MIN, include/uapi/linux/oom.h
_RECLAIMABLE: Final = ("file_clean", "file_dirty", "writeback", "slab_reclaimable")


def count(options: Options) -> CountedRun:
    """Run the command of the options, and return what its cgroup's files counted.

    Without a limit, the command also runs where no cgroup can be made: then the cgroup of this process is
    counted, with all else in it. Raises TracerError, before the command runs, if the options cannot be
    fulfilled; CommandError, with a shell's exit status, if the command cannot run.
    """
    require_command(options.command[0])
    require_absent(options.ready_file)
    hierarchy = _hierarchy()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())  # first: no signal may interrupt the clean-up below
        made = _own_cgroup(stack, options, hierarchy)
        command = spawn(made, options.command)
        stack.callback(end_command, command)
        counted = made if made is not None else _cgroup_of_job(hierarchy)
        readings = None if hierarchy is None or counted is None else _Readings(hierarchy, counted)
        before = None if readings is None else readings.counts()
        if made is None:
            put_before_this(command.process.pid, _least_limit(counted, hierarchy))
        create_ready_file(options.ready_file)
        command.release()
        began_s = time.monotonic()
        deadline_s = math.inf if options.duration_s is None else began_s + options.duration_s
        timers = [] if readings is None else [Timer(READ_INTERVAL_S, readings.read)]
        run_until_command_ends(Loop(stop, timers), command, stop, deadline_s)
        wall_s = time.monotonic() - began_s
        code = command.process.wait()
        status = code if code >= 0 else 128 - code
        if readings is None or hierarchy is None or counted is None or before is None:
            return CountedRun("none", None, status, wall_s)
        readings.read()
        after = readings.counts()
        return CountedRun(
            "job" if made is None else "command",
            hierarchy.path(counted),
            status,
            wall_s,
            limit_bytes=_limit(counted, hierarchy.version),
            peak_bytes=memory_files.read_peak(counted, hierarchy.version),
            readings=readings.readings,
            usage_bytes=readings.usage_bytes or None,
            parts=readings.parts or None,
            unreclaimable_bytes=readings.unreclaimable_bytes,
            evicted_bytes=_less(after.evicted_bytes, before.evicted_bytes),
            limit_hits=_less(after.limit_hits, before.limit_hits),
            kills=after.kills - before.kills,
        )


def put_before_this(pid: int, limit_bytes: int | None) -> None:
    """Make the OOM killer choose a process, however small, before this one in the cgroup that both share.

    The badness of a process is its memory, plus oom_score_adj thousandths of the limit, or of the machine
    without one (mm/oom_kill.c: oom_badness). To raise it for a process of ours takes no right, and those that
    it starts inherit it, so the choice among them stays. -1000 exempts both from the choice, and stays.
    """
    page_size = os.sysconf("SC_PAGE_SIZE")
    score = Path(f"/proc/{pid}/oom_score_adj")
    with suppress(OSError, ValueError):
        own_bytes = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * page_size
        whole_bytes = limit_bytes or os.sysconf("SC_PHYS_PAGES") * page_size
        before, more = int(score.read_text("ascii")), math.ceil(1000 * _ROOM * own_bytes / whole_bytes)
        if before > _EXEMPT:
            score.write_text(str(min(before + more, 1000)), "ascii")


def _hierarchy() -> Hierarchy | None:
    with suppress(TracerError):
        return memory_hierarchy()
    return None


def _own_cgroup(stack: ExitStack, options: Options, hierarchy: Hierarchy | None) -> Path | None:
    """Return a cgroup for the command; None if none can be made, and no limit was asked for."""
    limits = (options.limit_bytes, options.swap_bytes)
    try:
        return stack.enter_context(ephemeral_cgroup(options.name, *limits, hierarchy))
    except UsageError:
        raise
    except TracerError:
        if limits != (None, None):
            raise
        return None


def _cgroup_of_job(hierarchy: Hierarchy | None) -> Path | None:
    """Return the cgroup of this process, if it can be seen and has a usage: the root of v2 has none."""
    if hierarchy is None:
        return None
    with suppress(TracerError, OSError):
        directory = hierarchy.directory(own_path(hierarchy))
        if memory_files.read_usage(directory, hierarchy.version) is not None:
            return directory
    return None


def _least_limit(cgroup: Path | None, hierarchy: Hierarchy | None) -> int | None:
    """Return the least limit of a cgroup and those above it that can be seen, in bytes; None: no limit."""
    if cgroup is None or hierarchy is None:
        return None
    chain = [one for one in (cgroup, *cgroup.parents) if one.is_relative_to(hierarchy.mount)]
    limits = [_limit(one, hierarchy.version) for one in chain]
    return min((one for one in limits if one is not None), default=None)


def _limit(cgroup: Path, version: int) -> int | None:
    limit = memory_files.read_limit(cgroup, version)
    return None if limit is None or limit >= UNLIMITED_BYTES else limit


def _less(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
