"""Readings of the maps that the BPF programs of a recording fill, besides the rings."""

from __future__ import annotations

from itertools import takewhile

from tracer.capture.bpf.load import Programs
from tracer.wire.streams import LOSSES


def residue(programs: Programs) -> dict[tuple[int, int], int]:
    """Return (cgroup id, category) -> bytes of lost sums; exact once all programs are detached."""
    return {(int(k.cgroup_id), int(k.category)): int(v.value) for k, v in programs.map("residue").items()}


def unfinished_swap_io(programs: Programs) -> bytes:
    """Return the records of swap I/O without an end, one after the other. Detach the programs first."""
    return b"".join(bytes(record) for _, record in programs.map("swap_ios").items())


def reclaim_counts(programs: Programs, cgroup_id: int) -> dict[str, int]:
    """Return the kernel's counts of pages scanned and stolen from a cgroup since the recording began.

    {}: they are not counted here.
    """
    if not programs.counts_reclaim:
        return {}
    try:
        counts = programs.map("reclaim_counts")[cgroup_id]
    except KeyError:
        return {"pgscan": 0, "pgsteal": 0}
    return {"pgscan": int(counts.pgscan), "pgsteal": int(counts.pgsteal)}


def stack_at(programs: Programs, stack_id: int) -> list[int]:
    """Return the addresses of a stack in the map `stacks`, innermost first; [] if it is not there."""
    try:
        addresses = programs.map("stacks")[stack_id].ip
    except KeyError:
        return []
    return list(takewhile(bool, addresses))


def lost(programs: Programs) -> dict[str, int]:
    """Return each name of `LOSSES` -> records lost since the recording began."""
    counts = programs.map("lost")
    return {name: sum(count.value for count in counts[number]) for number, name in enumerate(LOSSES.names)}
