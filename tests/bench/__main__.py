"""Measure what tracing and reading cost on this machine: `make bench`, as root.

Each work runs untraced and traced in turn, in each round once, so that a drift of the machine affects all
alike. The figures hold for this machine at this time; ratios carry over to other machines better than times.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import perf, postgresql, reading, standing
from bench.results import Results, number
from bench.scope import PINNED, perf_mount
from bench.tables import tables
from bench.tracers import Command, Session
from bench.works import MICRO, compare

from tracer.errors import TracerError
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.lab.scratch import scratch_directory
from tracer.render.terminal.console import write

ROUNDS: Final = 7
QUICK_ROUNDS: Final = 3
QUICK_SCALE: Final = 0.25
NOT_QUICK: Final = ("stacks", "kills", "many kills")

WORKS: Final = (*MICRO, postgresql.WORK)
MEASURES: Final[Mapping[str, Callable[[Session], None]]] = {
    **{work.name: partial(compare, work) for work in WORKS},
    "idle": standing.idle,
    "start": standing.start,
    "watch": standing.watch,
    "top": standing.top,
    "lost": standing.lost,
    "example": standing.example,
    "reading": reading.verbs,
    "export": reading.exports,
    "kills": reading.kills,
    "many kills": reading.many_kills,
}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--only", metavar="NAME,...", help=f"measure only these: {', '.join(MEASURES)}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds of each work [default: {ROUNDS}]")
    parser.add_argument("--quick", action="store_true", help="fewer rounds of less work: below three minutes")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results as JSON")
    parser.add_argument(
        "--command",
        action="append",
        metavar="NAME=PATH",
        help="a memcg-tracer command to measure; several are compared in the same rounds "
        "[default: record=that of this checkout]",
    )
    return parser.parse_args(argv)


def commands_of(given: Sequence[str] | None, folder: Path) -> list[Command]:
    """Return the commands to measure, each with folders of its own for what it keeps.

    Raises TracerError if one of them is not NAME=PATH of a program.
    """
    found = []
    for text in given or (f"record={Path(sys.executable).with_name('memcg-tracer')}",):
        name, _, path = text.partition("=")
        if not name or not os.access(path, os.X_OK):
            raise TracerError(f"{text!r} is not NAME=PATH of a memcg-tracer command")
        found.append(
            Command(name, Path(path).absolute(), folder / f"cache-{name}", folder / f"bytecode-{name}")
        )
    if len({command.name for command in found}) < len(found):
        raise TracerError("two commands have one name")
    return found


def machine() -> dict[str, Any]:
    """Describe the machine: what the figures depend on."""
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "pinned_to_cpu": PINNED,
        "cgroup_version": memory_hierarchy().version,
        "perf_selects_by_cgroup": perf_mount() is not None,
        "load_before": os.getloadavg()[0],
        "load_during": {},
    }


def _commit() -> str | None:
    """Return the commit of this checkout, or None if it is none or git is not installed."""
    try:
        argv = ["git", "rev-parse", "--short", "HEAD"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def measure(name: str, session: Session) -> None:
    """Run one measurement, and add to the results what it finds, or the reason why it failed."""
    begin, results = time.monotonic(), session.results
    # Beside the traces, not in /tmp: a file in tmpfs has no page cache.
    with scratch_directory(Path("traces").resolve()) as folder:
        try:
            MEASURES[name](replace(session, folder=folder))
        except TracerError as error:
            results.left_out.append(f"{name}: {error}")
    load = results.machine["load_during"][name] = os.getloadavg()[0]
    took = time.monotonic() - begin
    print(f"bench: {name}: {took:.0f} s, load average {number(load)} at its end", file=sys.stderr)


def main(argv: Sequence[str]) -> None:
    given = arguments(argv)
    every = [name for name in MEASURES if not (given.quick and name in NOT_QUICK)]
    names = given.only.split(",") if given.only else every
    if unknown := set(names) - set(MEASURES):
        raise TracerError(f"no measurement {', '.join(sorted(unknown))}: choose from {', '.join(MEASURES)}")
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    scale = QUICK_SCALE if given.quick else 1
    results = Results(machine() | {"rounds": rounds, "scale": scale})
    print(f"bench: load average before: {number(results.machine['load_before'])}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-bench-") as caches, perf.tracefs():
        commands = commands_of(given.command, Path(caches))
        for name in names:
            measure(name, Session(commands, rounds, scale, Path(caches), results))
            if given.json:
                results.write(given.json)
    write(sys.stdout, tables(results))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was made is removed
    try:
        main(sys.argv[1:])
    except TracerError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
