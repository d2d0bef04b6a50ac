"""Readings of the maps that the BPF programs of a recording fill, besides the rings."""

from __future__ import annotations

import mmap
from collections import Counter
from itertools import takewhile

import numpy as np

from tracer.capture.bpf.load import Programs
from tracer.categories import CATEGORIES
from tracer.wire.streams import LOSSES


def residue(programs: Programs) -> dict[tuple[int, int], int]:
    """Return (cgroup id, category) -> bytes of lost sums; exact once all programs are detached."""
    units = [category.unit_bytes(mmap.PAGESIZE) for category in CATEGORIES]
    return {
        (int(cgroup_id.value), number): int(value) * unit
        for cgroup_id, sums in programs.map("residue").items()
        for number, (value, unit) in enumerate(zip(sums.values, units, strict=True))
        if value
    }


def unfinished_swap_io(programs: Programs) -> bytes:
    """Return the records of swap I/O without an end, one after the other. Detach the programs first."""
    return b"".join(bytes(record) for _, record in programs.map("swap_ios").items())


def unsent_runs(programs: Programs) -> bytes:
    """Return the records of runs that no CPU sent, one after the other. Drain first: then only offline CPUs
    have such runs.
    """
    runs = (run for cpu in programs.map("page_runs")[0] for one in cpu.sets for run in one.runs)
    return b"".join(bytes(run.record) for run in runs if run.record.folios)


def stack_at(programs: Programs, stack_id: int) -> list[int]:
    """Return the addresses of a stack in the map `stacks`, innermost first; [] if it is not there."""
    try:
        addresses = programs.map("stacks")[stack_id].ip
    except KeyError:
        return []
    return list(takewhile(bool, addresses))


def lost(programs: Programs) -> Counter[str]:
    """Return name of `LOSSES` -> records for which the programs found no room since the recording began."""
    _, counts = programs.map("lost").read_elements()
    lost = np.frombuffer(counts, "<u8").reshape(len(LOSSES.names), -1).sum(axis=1)
    return Counter(dict(zip(LOSSES.names, lost.tolist(), strict=True)))
