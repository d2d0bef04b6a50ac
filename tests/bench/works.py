"""The works whose slowdown is measured, and how: each with every tracer in each round, in turn."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench.perf import PERF
from bench.results import Figure, Program, Slowdown, in_turn, paired_percent
from bench.scope import scopes
from bench.tracers import AGAIN, UNTRACED, Account, Session, Tracer, empty

from tracer.capture.bpf.syscall import enable_statistics
from tracer.errors import TracerError
from tracer.lab.scratch import write_uncached

MIB: Final = 1 << 20
FILE_BYTES: Final = 256 * MIB
MEMORY: Final = "memory with rings"
"""The beginning of a figure's description that is about the recorder's memory."""
WORK: Final = Path(__file__).with_name("work.py")
PER_PAGE_FAULT: Final = empty("mod_memcg_lruvec_state", "mod_memcg_state", "count_memcg_events")
PER_FOLIO: Final = empty("mm_filemap_add_to_page_cache", "mm_filemap_delete_from_page_cache")
PER_SWITCH: Final = empty("sched_switch")

Spent = Mapping[str, tuple[float, float]]
"""Phase -> (seconds of wall time, seconds of processor time)."""


@dataclass(frozen=True)
class Phase:
    """A timed part of a work. `at_most` is the aim for the slowdown in percent of processor time."""

    what: str
    at_most: float | None = None
    wall_at_most: float | None = None
    is_at_most_perf: bool = False


@dataclass(frozen=True)
class Work:
    """A work, by the name that `--only` takes.

    `place(folder, scale)` is a context with a function that does the work once with a tracer. `others` are
    the tracers beside ours, `options` those of each of our recordings. `events`: (pattern of access, aim in
    seconds) where the recorder's own cost is reported for a million page-cache events. `share_at_most`: the
    aim for the recorder's own processor time in percent of a core, where that is reported.
    """

    name: str
    phases: Mapping[str, Phase]
    place: Callable[[Path, float], AbstractContextManager[Callable[[Tracer], tuple[Spent, Account]]]]
    others: tuple[Tracer, ...] = ()
    options: tuple[tuple[str, ...], ...] = ((),)
    events: tuple[str, float | None] | None = None
    share_at_most: float | None = None
    why_not: Callable[[], str | None] = lambda: None


@contextmanager
def _program(
    phases: str,
    size: int,
    folder: Path,
    scale: float,
    *,
    repeats: int = 1,
    limit_bytes: int | None = None,
    is_outside: bool = False,
) -> Iterator[Callable[[Tracer], tuple[Spent, Account]]]:
    """Give a function that runs phases of work.py in a new cgroup, pinned to a CPU, while it is traced.

    `is_outside`: the work runs in a cgroup beside the traced one.
    """
    size = round(size * min(1, repeats * scale))
    repeats = max(1, round(repeats * scale))

    def run(tracer: Tracer) -> tuple[Spent, Account]:
        argv = [sys.executable, "-I", "-S", str(WORK), phases, str(size), str(repeats)]
        with (
            scopes("traced", limit_bytes) as scope,
            scopes("beside", limit_bytes) as beside,
            tracer.trace(scope, folder) as account,
        ):
            printed = (beside if is_outside else scope).run([*argv, str(folder)])
        spent: dict[str, tuple[float, float]] = {
            phase: (wall, processor) for phase, (wall, processor) in json.loads(printed).items()
        }
        return spent, account

    if phases == "read" and not (folder / "file").exists():
        write_uncached(folder / "file", size)
    yield run


def _no_compiler() -> str | None:
    return None if shutil.which("cc") else "no C compiler (cc) is installed"


MICRO: Final = (
    Work(
        "faults",
        {"fault": Phase("4-KiB page faults", 3), "shared_fault": Phase("the same, shared memory")},
        partial(_program, "fault,shared_fault", 64 * MIB, repeats=16),
        (PER_PAGE_FAULT,),
    ),
    Work(
        "write",
        {"write": Phase("buffered 4-KiB write", 8), "delete": Phase("delete of what is cached", 20)},
        partial(_program, "write,delete", 400 * MIB),
        (PERF, PER_FOLIO),
        events=("sequential", None),
    ),
    Work(
        "read",
        {"read": Phase("sequential read from the disk")},
        partial(_program, "read", FILE_BYTES, repeats=4),
        (PERF, PER_FOLIO),
    ),
    Work(
        "random",
        {"random_read": Phase("random 4-KiB reads, reclaim", is_at_most_perf=True)},
        partial(_program, "random_read", 256 * MIB, repeats=2, limit_bytes=32 * MIB),
        (PERF, PER_FOLIO),
        events=("random", 0.5),
    ),
    Work(
        "pingpong",
        {"ping_pong": Phase("ping-pong in a traced cgroup", 3)},
        partial(_program, "ping_pong", 40_000, repeats=2),
        (PER_SWITCH,),
    ),
    Work(
        "outside",
        {"ping_pong": Phase("ping-pong outside of it", 1)},
        partial(_program, "ping_pong", 40_000, repeats=2, is_outside=True),
        (PER_SWITCH,),
    ),
    Work(
        "sqlite",
        {"sqlite": Phase("SQLite, orders of a shop", 2)},
        partial(_program, "sqlite", 20_000),
    ),
    Work(
        "compile",
        {"compile_c": Phase("a compile of C files", 2)},
        partial(_program, "compile_c", 4),
        why_not=_no_compiler,
    ),
    Work(
        "stacks",
        {"fault": Phase("4-KiB page faults, with stacks")},
        partial(_program, "fault", 64 * MIB, repeats=16),
        options=(("--stacks", "1M"), ("--stacks", "128K")),
    ),
)


def compare(work: Work, session: Session) -> None:
    """Do a work untraced and with each tracer, once in each round, and add what was found to the results."""
    results = session.results
    if reason := work.why_not():
        raise TracerError(reason)
    reasons = {tracer: reason for tracer in work.others if (reason := tracer.why_not())}
    results.left_out += [f"{work.name}, {tracer.name}: {reason}" for tracer, reason in reasons.items()]
    others = [tracer for tracer in work.others if tracer not in reasons]
    ours = [command.tracer(*options) for command in session.commands for options in work.options]
    tracers = [UNTRACED, *ours, *others, AGAIN]
    spent: dict[str, list[Spent]] = {tracer.name: [] for tracer in tracers}
    accounts: dict[str, list[Account]] = {tracer.name: [] for tracer in tracers}
    with work.place(session.folder, session.scale) as run:
        for number in range(session.rounds):
            for tracer in in_turn(tracers, number):
                one, account = run(tracer)
                spent[tracer.name].append(one)
                accounts[tracer.name].append(account)
        results.programs += [program for tracer in ours for program in _programs(work, tracer, run)]
    results.slowdowns += _slowdowns(work, tracers, spent)
    for tracer in tracers:
        durations = [account.traced_s for account in accounts[tracer.name] if account.traced_s]
        idle_s = base_s(tracer, median(durations), session.folder) if work.events and durations else 0.0
        results.figures += _figures(work, tracer, accounts[tracer.name], idle_s)


def base_s(tracer: Tracer, seconds: float, folder: Path, times: int = 3) -> float:
    """Return the processor time of a tracer that traces for some seconds, but no event: a median."""
    used = []
    for _ in range(times):
        with scopes("traced") as scope, tracer.trace(scope, folder) as account:
            time.sleep(seconds)
        used.append(account.processor_s or 0.0)
    return median(used)


def _slowdowns(work: Work, tracers: Sequence[Tracer], spent: Mapping[str, list[Spent]]) -> Iterator[Slowdown]:
    for phase, about in work.phases.items():
        wall, processor = (
            {
                tracer.name: paired_percent(
                    [one[phase][kind] for one in spent[UNTRACED.name]],
                    [one[phase][kind] for one in spent[tracer.name]],
                )
                for tracer in tracers
            }
            for kind in (0, 1)
        )
        at_most = about.at_most
        if about.is_at_most_perf and PERF.name in processor:
            at_most = median(processor[PERF.name])
        for tracer in tracers[1:]:
            aims = (at_most, about.wall_at_most) if tracer.is_ours else (None, None)
            yield Slowdown(
                work.name, phase, about.what, tracer.name, processor[tracer.name], wall[tracer.name], *aims
            )


def _figures(work: Work, tracer: Tracer, accounts: Sequence[Account], idle_s: float) -> Iterator[Figure]:
    """Yield the tracer's own cost and what it recorded. `idle_s` is its processor time without events."""

    def figure(what: str, unit: str, values: list[float], at_most: float | None = None) -> Figure:
        return Figure(work.name, what, tracer.name, unit, values, at_most if tracer.is_ours else None)

    own = [account.processor_s - idle_s for account in accounts if account.processor_s is not None]
    events = [(account.folios or 0) + (account.lost or 0) for account in accounts]
    if work.events and own and all(events):
        access, aim = work.events
        each = [1e6 * used / count for used, count in zip(own, events, strict=True)]
        yield figure(f"CPU for a million {access} events", "s", each, aim)
        stored = [(account.disk_bytes or 0) / (account.folios or 1) for account in accounts]
        yield figure(f"disk for one of the {access} events", "bytes", stored)
        lost = [100 * (account.lost or 0) / count for account, count in zip(accounts, events, strict=True)]
        yield figure(f"lost {access} events", "%", lost, 0)
    shares = [100 * account.share for account in accounts if account.share is not None]
    if work.share_at_most is not None and shares:
        yield figure(f"recorder's CPU: {work.name}", "% of a core", shares, work.share_at_most)
    memory = [account.memory.total_mib for account in accounts if account.memory]
    if memory:
        yield figure(f"{MEMORY}: {work.name}", "MiB", memory, 110)


def _programs(
    work: Work, tracer: Tracer, run: Callable[[Tracer], tuple[Spent, Account]]
) -> Iterator[Program]:
    """Do the work once more while the kernel measures the programs, which takes time: it is not compared."""
    try:
        statistics = enable_statistics()
    except OSError:
        return
    try:
        _, account = run(tracer)
    finally:
        os.close(statistics)
    for runs in sorted(account.programs.values(), key=lambda runs: -runs.total_ns):
        if runs.times:
            yield Program(work.name, tracer.name, runs.name, runs.times, runs.total_ns / runs.times)
