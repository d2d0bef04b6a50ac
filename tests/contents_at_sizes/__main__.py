"""Compare `contents` with memory.stat: `PYTHONPATH=tests python -m contents_at_sizes GIB...`, as root.

The output has a row of the table of docs/kernels.md for each size, with small and with huge pages. A cgroup
holds page cache, anonymous memory, shmem and slab of that size, first idle, and then while a process frees
and fills one part after the other: memory.stat is then a range, of readings during the pass. The exit status
is 1 if a difference is too large.
"""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from support.memcg_files import read_columns
from support.settled import settle

from contents_at_sizes import holding
from tracer.capture.contents.pass_over_pages import Found, PassOverPages
from tracer.enumerations import CONTENTS
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.meminfo import meminfo_bytes
from tracer.lab.scratch import scratch_directory

KINDS: Final = ("anon", "file", "shmem", "slab")
TOLERANCE: Final = {"anon": 0.0, "file": 0.0, "shmem": 0.0, "slab": 0.01}
"""Of an idle cgroup: the share by which a kind may differ from memory.stat."""
CHURNING_TOLERANCE: Final = 0.02
PASSES: Final = 5
"""Passes while the cgroup churns, of which the one that differs most counts."""
_SPARE_BYTES: Final = 1 << 30
_SAMPLE_S: Final = 0.01

Sizes = Mapping[str, float]


def counted(memcg: Path) -> dict[str, float]:
    """Return the bytes of each kind by memory.stat; slab only on v2."""
    version = memory_hierarchy().version
    columns = {name: float(value or 0) for name, value in read_columns(memcg, version).items()}
    sizes = {
        "anon": columns["anon_bytes"],
        "file": columns["file_bytes"] - columns["shmem_bytes"],
        "shmem": columns["shmem_bytes"],
    }
    if version == 2:
        sizes["slab"] = columns["slab_reclaimable_bytes"] + columns["slab_unreclaimable_bytes"]
    return sizes


def met(found: Found) -> dict[str, float]:
    """Return the bytes of each kind by the pass."""
    kinds = found.totals["kind"]
    return {kind: float(found.totals[kinds == CONTENTS.number(kind)]["bytes"].sum()) for kind in KINDS}


@contextmanager
def sampled(memcg: Path) -> Iterator[list[dict[str, float]]]:
    """Read memory.stat again and again, from before the work to after it."""
    samples, ended = [counted(memcg)], threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            samples.append(counted(memcg))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
        samples.append(counted(memcg))


def shares(found: Sizes, by_stat: Sizes) -> dict[str, float]:
    """Return by which share each kind differs from memory.stat."""
    return {kind: found[kind] / size - 1 for kind, size in by_stat.items()}


def beyond(found: Sizes, samples: Sequence[Sizes]) -> dict[str, float]:
    """Return by which share each kind is outside of the range that memory.stat went through."""
    differences = {}
    for kind in samples[0]:
        counted_bytes = [one[kind] for one in samples]
        nearest = min(max(found[kind], min(counted_bytes)), max(counted_bytes))
        differences[kind] = found[kind] / nearest - 1
    return differences


def idle(memcg: Path) -> tuple[dict[str, float], float]:
    """Return the differences of an idle cgroup, and the seconds that the pass took."""
    while True:
        with PassOverPages() as passing:
            settle(memcg)
            before, begin_s = counted(memcg), time.monotonic()
            found = met(passing.scan([cgroup_id(memcg)], objects=False))
            took_s = time.monotonic() - begin_s
        settle(memcg)
        if before == counted(memcg):
            return shares(found, before), took_s


def churning(memcg: Path, count: mmap.mmap) -> tuple[dict[str, float], float, float]:
    """Return the largest differences of several passes, the least share of the cgroup that was freed and
    filled during one of them, and the seconds of the longest one."""
    worst: dict[str, float] = {}
    moved, took_s = [], 0.0
    for _ in range(PASSES):
        with PassOverPages() as passing, sampled(memcg) as samples:
            begin, begin_s = int.from_bytes(count[:8], sys.byteorder), time.monotonic()
            found = met(passing.scan([cgroup_id(memcg)], objects=False))
            end = int.from_bytes(count[:8], sys.byteorder)
            took_s = max(took_s, time.monotonic() - begin_s)
        for kind, share in beyond(found, samples).items():
            worst[kind] = max(worst.get(kind, 0.0), share, key=abs)
        moved.append((end - begin) / sum(samples[0].values()))
    return worst, min(moved), took_s


def row(head: Sequence[str], state: str, differences: Sizes) -> str:
    """Return a row of the table; a kind without a line in memory.stat is empty."""
    cells = [f"{100 * differences[kind]:+.2f} %" if kind in differences else "" for kind in KINDS]
    return f"| {' | '.join([*head, state, *cells])} |"


def compared(size_bytes: int, pages: str) -> bool:
    """Print the rows of one size, and return whether all differences are within their bounds."""
    head = (platform.release(), f"{size_bytes / (1 << 30):g} GiB", pages)
    with (
        ephemeral_cgroup("contents-at-sizes", None) as memcg,
        scratch_directory(Path.cwd()) as folder,
        os.fdopen(os.memfd_create("count"), "r+b") as memory,
    ):
        memory.truncate(mmap.PAGESIZE)
        count = mmap.mmap(memory.fileno(), mmap.PAGESIZE)
        count[:8] = bytes(8)
        arguments = (memcg, folder, size_bytes, pages, memory.fileno())
        program = subprocess.Popen(
            [sys.executable, "-I", "-S", holding.__file__, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[memory.fileno()],
            text=True,
        )
        with program as holder:
            assert holder.stdin is not None and holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            at_rest, took_s = idle(memcg)
            print(row(head, f"idle, {took_s:.2f} s", at_rest), flush=True)
            holder.stdin.write("\n")
            holder.stdin.flush()
            while not any(count[:8]):
                time.sleep(_SAMPLE_S)
            moving, moved, took_s = churning(memcg, count)
            print(row(head, f"{100 * moved:.0f} % churned, {took_s:.2f} s", moving), flush=True)
            holder.stdin.close()
    return all(abs(share) <= TOLERANCE[kind] for kind, share in at_rest.items()) and all(
        abs(share) <= CHURNING_TOLERANCE for share in moving.values()
    )


def main(sizes: Sequence[str]) -> int:
    """Print the table, and return the exit status."""
    print("| kernel | size | pages | state | anon | file | shmem | slab |\n|---|---|---|---|---|---|---|---|")
    is_within = True
    for size_bytes in (int(float(size) * (1 << 30)) for size in sizes):
        free_bytes = meminfo_bytes()["MemAvailable"]
        if free_bytes < size_bytes + _SPARE_BYTES:
            sys.exit(f"{size_bytes >> 20} MiB and 1 GiB are wanted, and {free_bytes >> 20} MiB are available")
        for pages in ("small", "huge"):
            is_within &= compared(size_bytes, pages)
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
