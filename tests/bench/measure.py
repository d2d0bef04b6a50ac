"""What the tracer costs on this machine (`make bench`, as root).

Each piece of work runs in a cgroup of its own, by turns traced and not traced, so that a drift of the machine
meets both alike. Figures are of this machine at this moment; ratios travel better than times.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from recorder import Recorder
from rich.table import Table

from tracer.errors import TracerError
from tracer.kernel.cgroupfs import memory_hierarchy
from tracer.kernel.ephemeral import ephemeral_cgroup
from tracer.kernel.spawn import spawn
from tracer.render.text import write

ROUNDS: Final = 7
MIB: Final = 1 << 20
WORK: Final = Path(__file__).with_name("work.py")


@dataclass(frozen=True)
class Load:
    """A piece of work and the cgroup that it is done in."""

    title: str
    kind: str
    size_bytes: int
    limit_bytes: int


LOADS: Final = (
    Load("page faults, 4 KiB each", "fault", 256 * MIB, 1024 * MIB),
    Load("read a file, no limit in the way", "read", 256 * MIB, 1024 * MIB),
    Load("read a file through a limit of a quarter of it", "read", 256 * MIB, 64 * MIB),
)


@contextmanager
def recording(cgroup: Path, folder: Path) -> Iterator[float]:
    """Record a cgroup; yields the seconds from the command to the moment when all probes were attached."""
    (folder / "ready").unlink(missing_ok=True)
    path = memory_hierarchy().path(cgroup)
    begin = time.monotonic()
    with Recorder(folder, "-f", "-c", path, "--ready-file", "ready") as recorder:
        recorder.wait_until_ready()
        yield time.monotonic() - begin
        recorder.stop()


def timed(load: Load, cgroup: Path, folder: Path) -> float:
    """Seconds that the work takes in that cgroup."""
    out = folder / "seconds"
    argv = [
        sys.executable,
        "-I",
        "-S",
        str(WORK),
        load.kind,
        str(load.size_bytes),
        str(folder / "file"),
        str(out),
    ]
    command = spawn(cgroup, argv)
    command.release()
    if command.process.wait() != 0:
        raise TracerError(f"the work {load.kind!r} ended with status {command.process.returncode}")
    return float(out.read_text())


def compare(load: Load, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Seconds untraced, seconds traced, and seconds that the recordings took to start, by round."""
    untraced, traced, starts = [], [], []
    for _ in range(ROUNDS):
        with ephemeral_cgroup("bench", load.limit_bytes) as cgroup:
            untraced.append(timed(load, cgroup, folder))
        with ephemeral_cgroup("bench", load.limit_bytes) as cgroup, recording(cgroup, folder) as start:
            starts.append(start)
            traced.append(timed(load, cgroup, folder))
    return untraced, traced, starts


def spread(values: list[float], unit: str) -> str:
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g}) {unit}"


def main() -> None:
    table = Table("", "untraced", "traced", "cost", box=None)
    starts: list[float] = []
    # Beside the traces, not in /tmp: a file in tmpfs has no page cache.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir="traces") as name:
        folder = Path(name).resolve()
        with (folder / "file").open("wb") as file:
            file.write(os.urandom(max(load.size_bytes for load in LOADS)))
            file.flush()
            os.fsync(file.fileno())
        for load in LOADS:
            untraced, traced, began = compare(load, folder)
            costs = [100 * (with_it / without - 1) for without, with_it in zip(untraced, traced, strict=True)]
            table.add_row(load.title, spread(untraced, "s"), spread(traced, "s"), spread(costs, "%"))
            starts += began
    write(sys.stdout, [table, f"\nfrom the command to all probes attached: {spread(starts, 's')}"])


if __name__ == "__main__":
    try:
        main()
    except TracerError as error:
        sys.exit(f"bench: {error}")
