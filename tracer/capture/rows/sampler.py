"""Rows of `samples`: the state of each traced cgroup, from its files and from its counters."""

from __future__ import annotations

import errno
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.readings import reclaim_counts
from tracer.capture.learn.calibration import read_counters
from tracer.capture.rows.cgroup_rows import Cgroup
from tracer.capture.rows.decode import sample_row, state_reading
from tracer.categories import CATEGORIES
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.memory_files import MemcgFiles

Row = dict[str, Any]

_KERNEL_COLUMNS: Final = tuple(category.column for category in CATEGORIES if category.v1 is None)
"""Columns that memory.stat of cgroup v1 lacks; there they come from the counters in the kernel."""


class Sampler:
    """Samples the traced cgroups. `positions` are those of `calibrate`, as far as they are known.

    On v1 some columns are sums of the counters of a cgroup and of those below it, which memory.stat prints on
    v2. A sum is null while one of its counters cannot be read. `lost` counts rows of existing cgroups whose
    files could not be read; `warn` is called for the first of them.
    """

    def __init__(
        self,
        programs: Programs,
        hierarchy: Hierarchy,
        positions: Mapping[str, int],
        warn: Callable[[str], None],
    ) -> None:
        self._programs = programs
        self._hierarchy = hierarchy
        self._positions = positions
        self._warn = warn
        self._cgroups: dict[int, tuple[Cgroup, MemcgFiles]] = {}
        self.lost = 0

    def add(self, cgroup: Cgroup) -> None:
        """Sample a cgroup from now on."""
        if cgroup.id not in self._cgroups:
            files = MemcgFiles(self._hierarchy.directory(cgroup.path), self._hierarchy.version, cgroup.id)
            self._cgroups[cgroup.id] = (cgroup, files)

    def discard(self, cgroup_id: int) -> None:
        """Stop sampling a cgroup."""
        self._cgroups.pop(cgroup_id, None)

    def sample_files(self, cgroup_id: int, source: str, clock_offset_ns: int) -> list[Row]:
        """Return the row of one cgroup, from its files alone; no row if they cannot be read."""
        with suppress(OSError, KeyError):
            if reading := self._cgroups[cgroup_id][1].read():
                return [sample_row(time.monotonic_ns() + clock_offset_ns, cgroup_id, source) | reading]
        return []

    def sample(self, source: str, clock_offset_ns: int) -> list[Row]:
        """Return a row for each cgroup that still exists and can be read."""
        rows: dict[int, Row] = {}
        counters: dict[int, dict[str, int]] = {}
        for cgroup_id, (cgroup, files) in list(self._cgroups.items()):
            if self._hierarchy.version == 1:
                counters[cgroup_id] = self._own_counters(cgroup)
            try:
                reading = files.read()
            except OSError as error:
                self._lose(error)
                continue
            if reading is None:
                del self._cgroups[cgroup_id]
                continue
            row = sample_row(time.monotonic_ns() + clock_offset_ns, cgroup_id, source)
            rows[cgroup_id] = row | reading
        if self._hierarchy.version == 1:
            self._add_counters(rows, counters)
        return list(rows.values())

    def _lose(self, error: OSError) -> None:
        if not self.lost:
            remedy = "raise ulimit -n" if error.errno == errno.EMFILE else "see memcg-tracer info"
            self._warn(
                f"a cgroup's memory files cannot be read ({error.strerror}): its samples are missing, its "
                f"charges are recorded; {remedy}"
            )
        self.lost += 1

    def _add_counters(self, rows: Mapping[int, Row], counters: Mapping[int, dict[str, int]]) -> None:
        subtree: defaultdict[int, list[dict[str, int]]] = defaultdict(list)
        for cgroup, _ in self._cgroups.values():
            for cgroup_id in self._upwards(cgroup):
                subtree[cgroup_id].append(counters[cgroup.id])
        for cgroup_id, row in rows.items():
            row["sock_bytes"] = 0  # v1 counts socket memory in tcpmem, outside of usage
            for column in (*_KERNEL_COLUMNS, "pgscan", "pgsteal"):
                values = [own.get(column) for own in subtree[cgroup_id]]
                known = [value for value in values if value is not None]
                if row[column] is None and len(known) == len(values):
                    row[column] = sum(known)

    def _upwards(self, cgroup: Cgroup) -> Iterator[int]:
        """Yield the ids of a cgroup and of those above it, up to the first that is not sampled."""
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
        return counters | reclaim_counts(self._programs, cgroup.id)
