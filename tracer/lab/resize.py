"""Verification of the minimum limit: the same work at its upper end, and well below its lower end.

These runs are not traced, so that the work has the limit to itself. The kernel's count of kills in the cgroup
decides if the work survived. Its time is compared with the time of the same work without a limit. Both kinds
of runs alternate, so that they have the same machine, and both begin with files that are not in the page
cache.

The kernel keeps a page that comes back by counts that may be two seconds old unless somebody reads them
(workingset_test_recent, FLUSH_TIME in mm/memcontrol.c), as a recorder, a kubelet and cAdvisor do. So
memory.stat is read during a run. Otherwise, a run of a second may read again only half of what it reads with
a reader.

Other work of the machine would change the times by more than the limit does. So the work has real-time
scheduling. If that is not permitted, the command's waits for a CPU do not count. The waits of its children do
count, because they are not known after the children have ended.
"""

from __future__ import annotations

import mmap
import os
import resource
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Held
from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import descendants, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.cgroups.memory_files import read_oom_kills, read_peak, read_size, read_stat
from tracer.kernel.process.priority import put_first
from tracer.kernel.process.spawn import spawn
from tracer.lab.checks import Check
from tracer.lab.experiments import Experiment
from tracer.lab.run import Outcome, nearest, own_kills, own_life, record
from tracer.lab.scratch import scratch_directory
from tracer.schema import UNLIMITED_BYTES
from tracer.units import UNKNOWN, duration, size

_BELOW_PERCENT: Final = 80
_SLOWER: Final = 1.2  # a run that takes more than this multiple of the time without a limit is too slow
_PATIENCE: Final = 2 * _SLOWER
"""A run that takes more than this multiple of the time without a limit is ended."""
_POLL_S: Final = 0.1
_BLOCK_BYTES: Final = 512  # of ru_inblock, on any disk (task_io_get_inblock)
_UNBOUNDED_BYTES: Final = 1 << 62
_LARGEST_CHARGE_BYTES: Final = 2 << 20
"""Usage that stayed so far below its limit was never reclaimed for it: no charge exceeds a huge page."""


@dataclass(frozen=True)
class Rerun:
    """The end of the work at a limit: its exit status (negative: a signal; None: ended because it took too
    long), the number of kills in its cgroup, its time without waits for a CPU, and the page cache that its
    limit made it read again by the kernel's count (None: not counted).

    `read_bytes`: what was read from disks for it and those of its children that it waited for, by the
    kernel's count (None: not counted, or memory from swap may be in it).
    """

    status: int | None
    kills: int
    took_s: float
    refaulted_bytes: int | None = None
    read_bytes: int | None = None

    def is_done_within(self, seconds: float) -> bool:
        """Return whether the work ended with status 0, without a kill, and within this time."""
        return self.status == 0 and self.kills == 0 and self.took_s <= seconds


def verified(experiment: Experiment, outcome: Outcome, repeat: int) -> Outcome:
    """Return the outcome with checks of the minimum limit in its trace; each end is tried `repeat` times."""
    checks = verify(experiment, AnalysedTrace(outcome.trace), nearest(outcome.trace), repeat)
    return replace(outcome, checks=(*outcome.checks, *checks))


def verify(experiment: Experiment, trace: AnalysedTrace, near: Path, repeat: int) -> Iterator[Check]:
    """Yield the checks of the minimum limit of `trace`, whose files are made in or near `near`.

    If there is a kill and an upper end is known, the same work is recorded once more at the upper end, where
    it survives, and the minimum limit of that trace is checked as well.
    """
    kills = own_kills(trace)
    if not kills:
        yield from _verify(experiment, own_life(trace), "without a kill", near, repeat)
        return
    yield from _verify(experiment, kills[0], "from a kill", near, repeat)
    _, high = kills[0].sizing.min_limit_bytes or (None, None)
    if high is None:
        return
    with scratch_directory(near) as scratch, experiment.prepare(scratch) as place:
        enough = replace(experiment, limit_bytes=high)
        lived = AnalysedTrace(record(enough, place, scratch / "trace", force=False))
        yield from _verify(experiment, own_life(lived), "without a kill", near, repeat)


def _verify(
    experiment: Experiment, report: OomReport | Held, origin: str, near: Path, repeat: int
) -> Iterator[Check]:
    name = f"the minimum limit is estimated {origin}"
    if report.sizing.min_limit_bytes is None:
        yield Check(name, False, report.quality.unknown.get("sizing.min_limit_bytes", UNKNOWN))
        return
    low, high = report.sizing.min_limit_bytes
    known = f"more than {size(low)}" if high is None else f"{size(low)} to {size(high)}"
    yield Check(name, high is None or low <= high, known)
    usual, at_high = _side_by_side(experiment, high, near, repeat)
    if any(run.status != 0 or run.kills for run in usual):
        yield Check("the work ends well without a limit", False, ", ".join(map(str, usual)))
        return
    usual_s = median(run.took_s for run in usual)
    if high is not None:
        lived = sum(run.is_done_within(_SLOWER * usual_s) for run in at_high)
        killed = sum(run.kills > 0 for run in at_high)
        detail = f"{lived} of {repeat} at {size(high)}, {killed} killed, {_times(at_high)}; "
        detail += f"without a limit {_times(usual)}"
        name = f"at the upper end, the work survives and takes at most {_SLOWER} times as long"
        yield Check(name, lived == repeat, detail)
    below = low * _BELOW_PERCENT // 100
    at_below = [rerun(experiment, below, near, _PATIENCE * usual_s) for _ in range(repeat)]
    killed = sum(run.kills > 0 for run in at_below)
    done = sum(run.is_done_within(_SLOWER * usual_s) for run in at_below)
    detail = f"{repeat - done} of {repeat} at {size(below)}, {killed} of them killed"
    yield Check(f"at {_BELOW_PERCENT} % of the lower end, it is killed or takes longer", done == 0, detail)


def _side_by_side(
    experiment: Experiment, limit_bytes: int | None, near: Path, repeat: int
) -> tuple[list[Rerun], list[Rerun]]:
    """Run the work without a limit and at this limit, in turn; None: only without a limit."""
    usual, limited = [], []
    for _ in range(repeat):
        usual.append(rerun(experiment, None, near))
        if limit_bytes is not None:
            limited.append(rerun(experiment, limit_bytes, near))
    return usual, limited


def _times(runs: Sequence[Rerun]) -> str:
    times = [run.took_s for run in runs]
    return f"{duration(min(times))} to {duration(max(times))}"


def rerun(
    experiment: Experiment,
    limit_bytes: int | None,
    near: Path,
    patience_s: float | None = None,
    *,
    is_timed: bool = True,
) -> Rerun:
    """Run the work of the experiment, untraced, in a fresh cgroup with this limit (None: none) and its swap.

    The limit is memory.high for an experiment that sets it. After `patience_s`, the work is ended.
    `is_timed`: it has real-time scheduling. That may raise its peak: redis held 37 to 38 MiB without it, and
    38 to 49 MiB with it.
    """
    experiment, limit_bytes = limited(experiment, limit_bytes)
    hierarchy = memory_hierarchy()
    # v1 bounds only the sum of both
    swap_bytes = None if hierarchy.version == 1 and limit_bytes is None else experiment.swap_bytes
    with (
        scratch_directory(near) as scratch,
        experiment.prepare(scratch) as place,
        ephemeral_cgroup(f"resize-{experiment.name}", limit_bytes, swap_bytes, hierarchy) as cgroup,
        Path(os.devnull).open("wb") as nowhere,  # the output of the work is not a result
    ):
        before = _read_by_children_bytes()
        command = spawn(cgroup, experiment.command(place), nowhere.fileno())
        own = _read_bytes(command.process.pid)
        if is_timed:
            put_first(command.process.pid)
        clock = Clock(command.process.pid)
        try:
            command.release()
            took_s = time_of(
                command.process, clock, patience_s, partial(read_stat, cgroup, hierarchy.version)
            )
            status = command.process.poll()
        finally:
            command.process.kill()
            command.process.wait()
        kills = sum(read_oom_kills(directory, hierarchy.version) for directory in descendants(cgroup))
        again = refaulted_bytes(cgroup, hierarchy.version, limit_bytes)
        read_bytes = None if own is None or swap_bytes else _read_by_children_bytes() - before - own
    return Rerun(status, kills, took_s, again, read_bytes)


def read_again_bytes(run: Rerun, with_room: Rerun) -> int | None:
    """Return the page cache that a run read again, given another one `with_room` for all of it; None: not
    counted.

    The kernel's count of refaults lacks the pages of files that left the cache whole, since it forgets a file
    without pages together with what they left in it (inode_lru_isolate in fs/inode.c). What the disk gave
    beyond the run with room lacks processes that nobody waited for, and files of FUSE, whose server reads
    them. So the greater one counts. The second has a little too much if programs or libraries have left the
    page cache of the machine since the run with room.
    """
    found = [run.refaulted_bytes]
    if None not in (run.read_bytes, with_room.read_bytes) and with_room.status == 0 and not with_room.kills:
        found.append(max((run.read_bytes or 0) - (with_room.read_bytes or 0), 0))
    return max((count for count in found if count is not None), default=None)


def _read_by_children_bytes() -> int:
    """Return what was read from disks for the children that were waited for, and theirs, in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock * _BLOCK_BYTES


def _read_bytes(pid: int) -> int | None:
    """Return what was read from disks for a process, in bytes; None without CONFIG_TASK_IO_ACCOUNTING."""
    try:
        counts = Path(f"/proc/{pid}/io").read_text("ascii")
    except FileNotFoundError:
        return None
    return next(int(line.split()[1]) for line in counts.splitlines() if line.startswith("read_bytes:"))


def refaulted_bytes(cgroup: Path, version: int, limit_bytes: int | None) -> int | None:
    """Return the page cache that a cgroup read again for its limit or its memory.high, by the kernel's count
    of refaults; None if it does not count them.

    The kernel also counts pages that a shortage of the machine evicted, and those that another cgroup had.
    """
    refaults, peak = read_stat(cgroup, version).get("workingset_refault_file"), read_peak(cgroup, version)
    if refaults is None:
        return None
    high = read_size(cgroup, "memory.high") if version == 2 else None
    bound = min(one for one in (limit_bytes, high, UNLIMITED_BYTES) if one is not None)
    has_room = peak is not None and peak + _LARGEST_CHARGE_BYTES <= bound
    return 0 if has_room else refaults * mmap.PAGESIZE


def limited(experiment: Experiment, limit_bytes: int | None) -> tuple[Experiment, int | None]:
    """Return the experiment with this limit (None: none), and the limit that is left for its cgroup.

    Work that sets memory.high also sets it without a limit, because that step takes 0.5 s under emulation.
    """
    if experiment.high_bytes is None:
        return experiment, limit_bytes
    return replace(experiment, high_bytes=_UNBOUNDED_BYTES if limit_bytes is None else limit_bytes), None


class Clock:
    """The time since its creation, without the first thread's waits for a CPU.

    The kernel counts a wait when it is over. The clock stands still while the thread waits, as far as looks
    at it show: a wait that began since the look before counts as time until it is over.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seconds = 0.0
        self._ran_ns, queued_s = scheduled(pid)
        self._begin_s = time.monotonic() - queued_s

    def seconds(self) -> float:
        """Return the time until now; the process may have ended, but must not have been reaped."""
        ran_ns, queued_s = scheduled(self._pid)
        if ran_ns != self._ran_ns or not is_runnable(self._pid):
            self._ran_ns, self._seconds = ran_ns, time.monotonic() - self._begin_s - queued_s
        return self._seconds


def scheduled(pid: int) -> tuple[int, float]:
    """Return how long a thread has run, in ns, and how long it has waited for a CPU, in s. Without
    CONFIG_SCHED_INFO, it seems to run all the time."""
    try:
        ran, queued, _ = Path(f"/proc/{pid}/schedstat").read_text("ascii").split()
    except FileNotFoundError:
        return time.monotonic_ns(), 0.0
    return int(ran), int(queued) / 1e9


def is_runnable(pid: int) -> bool:
    """Return whether a thread runs or waits for a CPU."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].startswith(b"R")


def time_of(
    process: subprocess.Popen[bytes],
    clock: Clock,
    patience_s: float | None,
    meanwhile: Callable[[], object] = lambda: None,
) -> float:
    """Return the clock's time at the end of a process, or after `patience_s`; until then, `meanwhile` is
    called ten times a second."""
    descriptor = os.pidfd_open(process.pid)
    try:
        while not select.select([descriptor], [], [], _POLL_S)[0]:
            meanwhile()
            if patience_s is not None and (took_s := clock.seconds()) > patience_s:
                return took_s
        return clock.seconds()
    finally:
        os.close(descriptor)
