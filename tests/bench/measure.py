"""Measurement of the tracer's cost on this machine (`make bench`, as root).

Each piece of work runs in a cgroup of its own, traced and untraced by turns, so that a drift of the machine
affects both alike. The figures hold for this machine at this time; ratios carry over to other machines better
than times.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench.perf import EVENTS, PERF, tracefs, why_not
from bench.reading import costs as reading_costs
from bench.starting import starts
from bench.tracers import RECORD, WITH_STACKS, Seconds, Traced, Tracer
from rich.table import Table

from tracer.capture.bpf.syscall import enable_statistics
from tracer.errors import TracerError
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.process.spawn import spawn
from tracer.lab.scratch import scratch_directory, write_uncached
from tracer.render.terminal.console import write

ROUNDS: Final = 5
MEASURED_ROUNDS: Final = 3
MIB: Final = 1 << 20
FILE_BYTES: Final = 256 * MIB
WORK: Final = Path(__file__).with_name("work.py")


@dataclass(frozen=True)
class Load:
    """A piece of work in a cgroup with a limit; it takes `room_bytes` on the disk.

    `phases` maps a phase of work.py to its description. With `is_of_events`, page-cache events are counted
    and the runs of the BPF programs are measured.
    """

    phases: Mapping[str, str]
    size_bytes: int
    limit_bytes: int | None
    room_bytes: int = 0
    repeats: int = 4
    tracers: tuple[Tracer, ...] = (RECORD,)
    is_of_events: bool = False


LOADS: Final = (
    Load({"fault": "page faults, 4 KiB each"}, 256 * MIB, 1024 * MIB, tracers=(RECORD, WITH_STACKS)),
    Load({"read": "read a file, no limit in the way"}, FILE_BYTES, 1024 * MIB),
    Load({"read": "read a file through a limit of a quarter of it"}, FILE_BYTES, FILE_BYTES // 4),
    # The heaviest load for the page-cache stream: an event for each page that is added or deleted.
    Load(
        {"write": "write a file of 800 MiB, 4 KiB each", "delete": "delete it, while it is cached"},
        size_bytes=800 * MIB,
        limit_bytes=None,
        room_bytes=2048 * MIB,
        repeats=1,
        tracers=(RECORD, PERF),
        is_of_events=True,
    ),
)


@dataclass
class Rounds:
    """The results of the rounds of one load, in order; those of traced rounds by tracer."""

    untraced: list[Seconds] = field(default_factory=list)
    traced: dict[Tracer, list[Traced]] = field(default_factory=dict)


def timed(load: Load, cgroup: Path, folder: Path) -> Seconds:
    """Run the work in a cgroup, and return the seconds that each phase took."""
    out = folder / "seconds"
    numbers = (str(load.size_bytes), str(load.repeats))
    argv = [
        *(sys.executable, "-I", "-S", str(WORK)),
        *(",".join(load.phases), *numbers, str(folder / "file"), str(out)),
    ]
    command = spawn(cgroup, argv)
    command.release()
    if command.process.wait() != 0:
        raise TracerError(f"the work {', '.join(load.phases)} ended with status {command.process.returncode}")
    seconds: Seconds = json.loads(out.read_text())
    return seconds


def traced(load: Load, tracer: Tracer, folder: Path) -> Traced:
    with ephemeral_cgroup("bench", load.limit_bytes) as cgroup:
        return tracer.trace(cgroup, folder, partial(timed, load, cgroup, folder))


def compare(load: Load, folder: Path) -> Rounds:
    """Run the work untraced and with each tracer, by turns."""
    rounds = Rounds(traced={tracer: [] for tracer in load.tracers})
    for _ in range(ROUNDS):
        with ephemeral_cgroup("bench", load.limit_bytes) as cgroup:
            rounds.untraced.append(timed(load, cgroup, folder))
        for tracer in load.tracers:
            rounds.traced[tracer].append(traced(load, tracer, folder))
    return rounds


def program_ns(load: Load, folder: Path) -> Iterator[tuple[str, list[float]]]:
    """Yield each tracepoint of the page-cache stream, and the mean ns of a run of its program in each round.

    These rounds are not timed, because the measurement takes time itself. Yield nothing if the kernel does
    not measure programs.
    """
    try:
        statistics = enable_statistics()
    except OSError:
        return
    try:
        runs = [traced(load, RECORD, folder).program_ns for _ in range(MEASURED_ROUNDS)]
    finally:
        os.close(statistics)
    for event in (event.partition(":")[2] for event in EVENTS):
        yield event, [run[event] for run in runs]


def spread(values: Iterable[float], unit: str) -> str:
    """Return the median, the minimum and the maximum as text."""
    values = list(values)
    middle, least, most = (
        f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        for value in (median(values), min(values), max(values))
    )
    return f"{middle} ({least} to {most}) {unit}"


def rows(load: Load, rounds: Rounds) -> Iterator[tuple[str, ...]]:
    """Yield a row of the table for each phase and tracer."""
    for phase, title in load.phases.items():
        without = [seconds[phase] for seconds in rounds.untraced]
        for tracer, runs in rounds.traced.items():
            with_it = [run.seconds[phase] for run in runs]
            costs = [100 * (slow / fast - 1) for fast, slow in zip(without, with_it, strict=True)]
            yield title, spread(without, "s"), tracer.name, spread(with_it, "s"), spread(costs, "%")


def recorded_events(tracer: Tracer, runs: list[Traced]) -> str:
    """Return a sentence on a tracer's page-cache events: recorded, lost, and bytes on the disk."""
    lost = [100 * run.lost / (run.events + run.lost) for run in runs if run.lost is not None]
    return (
        f"{tracer.name}: {spread((run.events for run in runs), 'page-cache events')}, lost "
        f"{spread(lost, '%') if lost else 'an unknown number'}; "
        f"{spread((run.disk_bytes / run.events for run in runs), 'bytes an event on disk')}"
    )


def possible_loads(folder: Path) -> Iterator[Load]:
    """Yield the loads that this machine can run, with the tracers that it has.

    Print each load or comparison that is left out, with the reason, to stderr.
    """
    free_bytes = shutil.disk_usage(folder).free
    without_perf = why_not()
    for load in LOADS:
        if free_bytes < load.room_bytes:
            left_out = f"{', '.join(load.phases.values())}: needs {load.room_bytes >> 20} MiB on the disk"
        elif PERF in load.tracers and without_perf:
            left_out = f"the comparison with perf record: {without_perf}"
            yield replace(load, tracers=tuple(tracer for tracer in load.tracers if tracer is not PERF))
        else:
            yield load
            continue
        print(f"bench: left out {left_out}", file=sys.stderr)


def main() -> None:
    table = Table("", "untraced", "by", "traced", "cost", box=None)
    notes = []
    # Beside the traces, not in /tmp: a file in tmpfs has no page cache.
    with scratch_directory(Path("traces").resolve()) as folder, tracefs():
        write_uncached(folder / "file", FILE_BYTES)
        for load in possible_loads(folder):
            rounds = compare(load, folder)
            for row in rows(load, rounds):
                table.add_row(*row)
            if load.is_of_events:
                notes += [recorded_events(tracer, runs) for tracer, runs in rounds.traced.items()]
                notes += [
                    f"{event}: {spread(ns, 'ns')} in our program" for event, ns in program_ns(load, folder)
                ]
        notes += reading_costs(folder)
        notes += [
            f"from the command to all probes attached, {kind}: {spread(seconds, 's')}, {spread(mib, 'MiB')}"
            for kind, seconds, mib in starts(folder)
        ]
    write(sys.stdout, [table, "", *notes])


if __name__ == "__main__":
    try:
        main()
    except TracerError as error:
        sys.exit(f"bench: {error}")
