"""Rows of `samples`: what the kernel says of each traced cgroup, by its files and by its counters."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tracer.capture.calibrate import read_counters
from tracer.capture.decode import sample_row, state_reading
from tracer.capture.identity import Cgroup
from tracer.capture.load import Programs
from tracer.kernel.cgroupfs import Hierarchy
from tracer.kernel.memory_files import MemcgFiles

Row = dict[str, Any]

_KERNEL_COLUMNS: Final = (
    "slab_reclaimable_bytes",
    "slab_unreclaimable_bytes",
    "kernel_bytes",
    "kernel_stack_bytes",
    "page_tables_bytes",
    "percpu_bytes",
    "vmalloc_bytes",
)
"""What memory.stat of cgroup v1 does not print; there it comes from the counters themselves."""


class Sampler:
    """Samples the traced cgroups. `positions` are those of `calibrate`: {} where they could not be learnt.

    On v1 some columns come from each cgroup's own counters, added up over the cgroups below it, as
    memory.stat's are on v2; they are null while one of those cannot be read.
    """

    def __init__(self, programs: Programs, hierarchy: Hierarchy, positions: Mapping[str, int]) -> None:
        self._programs = programs
        self._hierarchy = hierarchy
        self._positions = positions
        self._cgroups: dict[int, tuple[Cgroup, MemcgFiles]] = {}

    def add(self, cgroup: Cgroup) -> None:
        """Sample this cgroup from now on."""
        if cgroup.id not in self._cgroups:
            files = MemcgFiles(self._hierarchy.directory(cgroup.path), self._hierarchy.version)
            self._cgroups[cgroup.id] = (cgroup, files)

    def sample(self, source: str, clock_offset_ns: int) -> list[Row]:
        """A row for each cgroup that is still there."""
        rows: dict[int, Row] = {}
        counters: dict[int, dict[str, int]] = {}
        for cgroup_id, (cgroup, files) in list(self._cgroups.items()):
            reading = files.read()
            if reading is None:
                self._forget(cgroup_id)
                continue
            if self._hierarchy.version == 1:
                counters[cgroup_id] = self._own_counters(cgroup)
            row = sample_row(time.monotonic_ns() + clock_offset_ns, cgroup_id, source)
            rows[cgroup_id] = row | reading
        if self._hierarchy.version == 1:
            self._add_counters(rows, counters)
        return list(rows.values())

    def close(self) -> None:
        """Close the files of all cgroups."""
        for cgroup_id in list(self._cgroups):
            self._forget(cgroup_id)

    def _forget(self, cgroup_id: int) -> None:
        self._cgroups.pop(cgroup_id)[1].close()

    def _add_counters(self, rows: Mapping[int, Row], counters: Mapping[int, dict[str, int]]) -> None:
        subtree: defaultdict[int, list[dict[str, int]]] = defaultdict(list)
        for cgroup, _ in self._cgroups.values():
            for cgroup_id in self._upwards(cgroup):
                subtree[cgroup_id].append(counters[cgroup.id])
        for cgroup_id, row in rows.items():
            row["sock_bytes"] = 0  # v1 counts socket memory apart, outside of usage (tcpmem)
            for column in (*_KERNEL_COLUMNS, "pgscan", "pgsteal"):
                values = [own.get(column) for own in subtree[cgroup_id]]
                known = [value for value in values if value is not None]
                if row[column] is None and len(known) == len(values):
                    row[column] = sum(known)

    def _upwards(self, cgroup: Cgroup) -> Iterator[int]:
        """The ids of a cgroup and of those above it, as far as they are sampled."""
        above: Cgroup | None = cgroup
        while above is not None:
            yield above.id
            parent = self._cgroups.get(above.parent_id) if above.parent_id is not None else None
            above = parent and parent[0]

    def _own_counters(self, cgroup: Cgroup) -> dict[str, int]:
        counters: dict[str, int] = {}
        if cgroup.memcg:
            state = read_counters(self._programs, cgroup.memcg, cgroup.id, self._positions)
            counters = state_reading(state) if state else {}
        return counters | self._programs.reclaim_counts(cgroup.id)
