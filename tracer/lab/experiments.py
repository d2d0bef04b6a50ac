"""The experiments: each provokes one situation in its own cgroup, and its label is the expected answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.kernel.process.children import argv_of_module
from tracer.lab import checks, survival
from tracer.lab.checks import Check, Evidence, first_kill, only_kill
from tracer.lab.disks.slow_reads import READ_S, slow_reads
from tracer.lab.disks.slow_writes import slow_writes
from tracer.lab.scratch import write_uncached
from tracer.lab.survival import Survival
from tracer.lab.workload.app import SHARE_OF_ROWS

if TYPE_CHECKING:
    from tracer.analysis.results.kill import Cause, OomReport

_MIB = 1 << 20
_PAUSE_MS = 5  # after each MiB, so that each act lasts long enough for a timeline


@dataclass(frozen=True)
class Experiment:
    """An experiment. `cause` is its label: the cause that `explain` must find, or None if nothing is killed.

    With a cause, `kills` checks the number of kills, and `checks` the first kill. Without a cause, `survival`
    is checked, and `state` is the label: the state of the cgroup that `explain` must find, or None if it
    depends on the speed of the disk. `prepare` makes the files of the work in a scratch directory, outside of
    the cgroup. `steps` gets the place of these files, and returns the steps of `tracer.lab.workload`.
    `needs_v2` names the feature of cgroup v2 that the experiment needs. `swap_bytes`: the swap beside the
    limit, of which the machine must have as much. `high_bytes` is memory.high; if it is
    set, it is the limit that `explain` must find too small.
    """

    name: str
    summary: str
    cause: Cause | None
    steps: Callable[[Path], list[str]]
    checks: tuple[Callable[[Evidence], Check], ...] = ()
    survival: tuple[Callable[[Survival], Check], ...] = ()
    kills: Callable[[Sequence[OomReport]], Check] = only_kill
    limit_bytes: int = 100 * _MIB
    prepare: Callable[[Path], AbstractContextManager[Path]] = nullcontext
    needs_v2: str | None = None
    state: str | None = None
    high_bytes: int | None = None
    swap_bytes: int = 0

    def command(self, place: Path) -> list[str]:
        """Return the command to record; `place` is the result of `prepare`."""
        workload = [*argv_of_module("tracer.lab.workload", "--pause-ms", str(_PAUSE_MS))]
        high = [] if self.high_bytes is None else ["high", str(self.high_bytes), "then"]
        return workload + high + self.steps(place)


def _with_file(size_bytes: int) -> Callable[[Path], AbstractContextManager[Path]]:
    """Return a `prepare` that makes a file `read-me` that is not in the page cache."""

    @contextmanager
    def prepare(scratch: Path) -> Iterator[Path]:
        write_uncached(scratch / "read-me", size_bytes)
        yield scratch

    return prepare


def _with_program(size_bytes: int) -> Callable[[Path], AbstractContextManager[Path]]:
    """Return a `prepare` that makes `run-me` on a slow disk: the interpreter, padded to this size."""

    @contextmanager
    def prepare(scratch: Path) -> Iterator[Path]:
        write_uncached(scratch / "run-me", size_bytes, Path("/proc/self/exe").read_bytes())
        (scratch / "disk").mkdir()
        with slow_reads(scratch / "run-me", scratch / "disk") as place:
            yield place

    return prepare


@contextmanager
def _with_folder(scratch: Path) -> Iterator[Path]:
    """Make the empty folder `in-memory`."""
    (scratch / "in-memory").mkdir()
    yield scratch


def _in_turn(*steps: list[str]) -> list[str]:
    return [word for step in steps for word in ("then", *step)][1:]


_LIMIT_BYTES: Final = 100 * _MIB
_CEILING_BYTES: Final = 4 * _LIMIT_BYTES  # without a kill, the workload ends here
_FILE_BYTES: Final = 117 * _MIB
_CHILDREN_BYTES: Final = (7 * _MIB, 19 * _MIB)  # all sizes differ, so that they cannot be confused
_BIG_BYTES: Final = 61 * _MIB
_GROWN_BYTES: Final = 47 * _MIB  # more than the limit leaves free, but less than the big process has
_MEMFD_BYTES: Final = 37 * _MIB
_LOCKED_FILE_BYTES: Final = 41 * _MIB
_DIRTY_LIMIT_BYTES: Final = 64 * _MIB  # far below the dirty limit of a machine with 1 GiB
_THRASH_LIMIT_BYTES: Final = 40 * _MIB
_REREAD_BYTES: Final = 83 * _MIB
_READ_TIMES: Final = 3
_PROGRAM_BYTES: Final = 37 * _MIB
_EXECUTE_TIMES: Final = 4
_LIVELOCK_LIMIT_BYTES: Final = 24 * _MIB
_HIGH_BYTES: Final = 41 * _MIB
_ABOVE_BYTES: Final = 37 * _MIB  # a few MiB more with the interpreter: each MiB takes longer than the last
_LEFT_BYTES: Final = 83 * _MIB
_COPIED_BYTES: Final = 47 * _MIB
_READERS_ADJ: Final = 300  # so that the child is killed, not its parent
_SEGMENT_BYTES: Final = 117 * _MIB
_MEMBERS: Final = 3
_GROWN: Final = {"load_rows": SHARE_OF_ROWS, "build_index": 1 - SHARE_OF_ROWS}
_FORK_LIMIT_BYTES: Final = 83 * _MIB
_CROWD: Final = (
    *((17 * _MIB, 500), (5 * _MIB, 570), (3 * _MIB, 550), (1 * _MIB, 490), (23 * _MIB, 150)),
    *((2 * _MIB, 333), (1 * _MIB, 80), (4 * _MIB, 30), (2 * _MIB, 0)),
)
"""(bytes, oom_score_adj), ordered by the bytes plus oom_score_adj thousandths of the limit.

The first is neither the largest nor the one with the greatest oom_score_adj.
"""
_ALWAYS: Final = (checks.killed_at_the_limit, checks.cause_is_named, checks.composition_adds_up)

EXPERIMENTS: Final = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            name="page-cache",
            summary="read a 117-MiB file at a limit of 100 MiB, then allocate to the kill",
            cause="anon_growth",
            prepare=_with_file(_FILE_BYTES),
            steps=lambda place: _in_turn(["read", str(place / "read-me")], ["rows", str(_CEILING_BYTES)]),
            checks=(
                *_ALWAYS,
                checks.evictions_equal_pgsteal,
                checks.cache_fills_to_the_limit,
                checks.cache_gives_way,
                checks.cache_is_used_up,
                partial(checks.code_is_named, shares=_GROWN),
            ),
        ),
        Experiment(
            name="anon",
            summary="allocate at a limit of 100 MiB until the kill, without page cache",
            cause="anon_growth",
            steps=lambda _: ["anon", str(_CEILING_BYTES)],
            checks=(*_ALWAYS, checks.evictions_equal_pgsteal, checks.little_was_evicted),
        ),
        Experiment(
            name="shmem",
            summary="fill an unmapped memfd, then touch shared memory until the kill",
            cause="shmem",
            steps=lambda _: _in_turn(["memfd", str(_MEMFD_BYTES)], ["shmem", str(_CEILING_BYTES)]),
            checks=(
                *_ALWAYS,
                partial(checks.full_of, classes=("shmem",)),
                partial(checks.shmem_of_no_process, unmapped_bytes=_MEMFD_BYTES),
            ),
        ),
        Experiment(
            name="slab",
            summary="make pipes (kernel memory, in no process's RSS) until the kill",
            cause="kernel_memory",
            steps=lambda _: ["pipes", str(_CEILING_BYTES)],
            checks=(
                *_ALWAYS,
                partial(checks.full_of, classes=("slab_unreclaimable",)),
                checks.little_was_mapped,
            ),
        ),
        Experiment(
            name="dirty",
            summary="write to a file system whose disk does not keep up, until the kill",
            cause="dirty_writeback",
            limit_bytes=_DIRTY_LIMIT_BYTES,
            prepare=slow_writes,
            steps=lambda place: ["write", str(place / "write-me"), str(4 * _DIRTY_LIMIT_BYTES)],
            checks=(
                *_ALWAYS,
                partial(checks.full_of, classes=("file_dirty", "writeback")),
                checks.reclaim_met_unwritten_pages,
            ),
        ),
        Experiment(
            name="mlock",
            summary="lock a mapped 41-MiB file, then process memory, until the kill",
            cause="unevictable",
            prepare=_with_file(_LOCKED_FILE_BYTES),
            steps=lambda place: _in_turn(
                ["mlock_file", str(place / "read-me")], ["mlock", str(_CEILING_BYTES)]
            ),
            checks=(
                *_ALWAYS,
                partial(checks.full_of, classes=("unevictable",)),
                partial(checks.locked_file, size_bytes=_LOCKED_FILE_BYTES),
            ),
        ),
        Experiment(
            name="thrash",
            summary="read an 83-MiB file three times at a limit of 40 MiB",
            cause=None,
            limit_bytes=_THRASH_LIMIT_BYTES,
            prepare=_with_file(_REREAD_BYTES),
            steps=lambda place: ["read", *[str(place / "read-me")] * _READ_TIMES],
            kills=survival.nothing_killed,
            survival=(
                survival.at_the_limit,
                survival.cache_gave_way,
                survival.evictions_equal_pgsteal,
                partial(survival.read_again, file_bytes=_REREAD_BYTES, times=_READ_TIMES),
                survival.refaults_equal_the_kernels,
                partial(survival.thrash_is_seen, file_bytes=_REREAD_BYTES),
                survival.state_is_as_defined,
            ),
        ),
        Experiment(
            name="parent-limit",
            summary="allocate in a cgroup until its sibling dies at the parent's limit",
            cause="anon_growth",
            steps=lambda _: _in_turn(
                ["cgroups", "small", "big"], ["child", "big", str(_BIG_BYTES)], ["anon", str(_GROWN_BYTES)]
            ),
            kills=first_kill,
            checks=(*_ALWAYS, partial(checks.three_cgroups, trigger="small", victim="big")),
        ),
        Experiment(
            name="group-kill",
            summary="allocate until three processes die together (memory.oom.group, v2)",
            cause="anon_growth",
            steps=lambda _: _in_turn(
                ["oom_group"],
                *(["child", ".", str(size)] for size in _CHILDREN_BYTES),
                ["anon", str(_CEILING_BYTES)],
            ),
            checks=(*_ALWAYS, partial(checks.killed_together, others_bytes=_CHILDREN_BYTES)),
            needs_v2="memory.oom.group",
        ),
        Experiment(
            name="fork",
            summary="allocate until one of ten processes of different oom_score_adj dies",
            cause="anon_growth",
            steps=lambda _: _in_turn(
                ["crowd", *(f"{size}:{adj}" for size, adj in _CROWD)], ["press", str(_CEILING_BYTES)]
            ),
            kills=first_kill,
            checks=(
                *_ALWAYS,
                partial(checks.worst_is_killed, crowd=_CROWD),
                partial(checks.all_are_candidates, crowd=_CROWD),
            ),
        ),
        Experiment(
            name="livelock",
            summary="read a program's 37-MiB text four times at a limit of 24 MiB",
            cause=None,
            state="thrashing",
            limit_bytes=_LIVELOCK_LIMIT_BYTES,
            prepare=_with_program(_PROGRAM_BYTES),
            steps=lambda place: ["execute", str(place / "run-me"), str(_EXECUTE_TIMES)],
            kills=survival.nothing_killed,
            survival=(
                survival.at_the_limit,
                survival.cache_gave_way,
                survival.evictions_equal_pgsteal,
                survival.refaults_equal_the_kernels,
                partial(survival.state_is, label="thrashing"),
                partial(survival.own_program_is_foremost, program="run-me"),
                partial(survival.waits_are_those_of_the_disk, read_s=READ_S),
            ),
        ),
        Experiment(
            name="throttle",
            summary="allocate more than memory.high, which slows the process down (v2)",
            cause=None,
            state="throttled",
            high_bytes=_HIGH_BYTES,
            steps=lambda _: ["anon", str(_ABOVE_BYTES)],
            kills=survival.nothing_killed,
            survival=(
                partial(survival.is_slowed_above, high_bytes=_HIGH_BYTES),
                partial(survival.state_is, label="throttled"),
            ),
            needs_v2="memory.high",
        ),
        Experiment(
            name="leftover",
            summary="fill a tmpfs, end its writer, then allocate until another is killed",
            cause="shmem",
            prepare=_with_folder,
            steps=lambda place: _in_turn(
                ["leave", str(place / "in-memory"), str(_LEFT_BYTES)], ["anon", str(_CEILING_BYTES)]
            ),
            checks=(
                *_ALWAYS,
                partial(checks.full_of, classes=("shmem",)),
                partial(checks.shmem_of_no_process, unmapped_bytes=_LEFT_BYTES),
                partial(checks.writer_has_ended, left_bytes=_LEFT_BYTES),
            ),
        ),
        Experiment(
            name="cow",
            summary="write all memory again while a forked child has it, until the kill",
            cause="anon_growth",
            limit_bytes=_FORK_LIMIT_BYTES,
            steps=lambda _: ["cow", f"{_COPIED_BYTES}:{_READERS_ADJ}"],
            checks=(*_ALWAYS, partial(checks.memory_was_copied, size_bytes=_COPIED_BYTES)),
        ),
        Experiment(
            name="sharedbuffers",
            summary="touch a 117-MiB segment from three processes until the kill",
            cause="shmem",
            limit_bytes=_FORK_LIMIT_BYTES,
            steps=lambda _: ["segment", str(_SEGMENT_BYTES), str(_MEMBERS)],
            kills=first_kill,
            checks=(
                *_ALWAYS,
                partial(checks.full_of, classes=("shmem",)),
                partial(checks.segment_is_the_ceiling, size_bytes=_SEGMENT_BYTES, members=_MEMBERS),
            ),
        ),
    )
}
