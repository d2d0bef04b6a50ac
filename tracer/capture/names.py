"""The names behind a recording's ids: rows of `cgroups`, `tasks`, `inodes` and `stacks`."""

from __future__ import annotations

from collections.abc import Mapping

from tracer.capture.bpf.ring import Records
from tracer.capture.rows.cgroup_rows import CgroupRows
from tracer.capture.rows.inode_rows import InodeRows
from tracer.capture.rows.task_rows import TaskRows
from tracer.capture.symbols.stack_names import Stacks
from tracer.kernel.cgroups.mounts import Mounts
from tracer.trace.row_sink import RowSink
from tracer.wire.streams import STREAMS


class Names:
    """Collects names and writes them; `cgroups` also receives the cgroups that are selected."""

    def __init__(
        self, cgroups: CgroupRows, mounts: Mounts, stacks: Stacks, sink: RowSink, clock_offset_ns: int
    ) -> None:
        self.tasks = TaskRows()
        self._cgroups = cgroups
        self._inodes = InodeRows(mounts)
        self._stacks = stacks
        self._sink = sink
        self._clock_offset_ns = clock_offset_ns

    def take(self, waiting: Mapping[str, Records]) -> None:
        """Add the tasks, files and cgroups of these records, given by stream."""
        self.tasks.reread_titles()
        self.tasks.take_events(waiting["task"], self._clock_offset_ns)
        self._sink.append_rows("inodes", self._inodes.rows_for(waiting["inode"]))
        actors = [waiting[stream.name][field] for stream in STREAMS for field in stream.actors]
        self._cgroups.require({value for ids in actors for value in ids.tolist()})

    def write(self, late_within_s: float = 0.0) -> None:
        """Write the rows that are new or changed since the last call; wait at most `late_within_s` for names
        of containers that were requested."""
        self._cgroups.add_late_names(late_within_s)
        self._sink.append_rows("stacks", self._stacks.take_rows())
        for table, rows in (("cgroups", self._cgroups.rows), ("tasks", self.tasks.rows)):
            self._sink.append_rows(table, rows)
            rows.clear()
