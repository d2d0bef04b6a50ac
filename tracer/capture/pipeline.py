"""From the rings to the trace: the work that a recording repeats, and how it starts and finishes."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from typing import Any, Final

import numpy as np

from tracer.capture.arming import Arming
from tracer.capture.bpf import readings
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records, Ring, rings_of
from tracer.capture.bulk_records import BulkRecords
from tracer.capture.charge_records import Ledger
from tracer.capture.contents.content_rows import ContentRows
from tracer.capture.kill_assembly import KillAssembly
from tracer.capture.learn import calibration
from tracer.capture.observer import Events, Sigkilled
from tracer.capture.options import Options
from tracer.capture.overhead import Overhead, cost, overhead_of
from tracer.capture.rows.cgroup_rows import CgroupRows
from tracer.capture.rows.decode import Decoder
from tracer.capture.rows.inode_rows import InodeRows
from tracer.capture.rows.kmsg_stream import READ, LogFilter, open_kernel_log
from tracer.capture.rows.mapping_rows import MappingRows
from tracer.capture.rows.page_sums import PageSums
from tracer.capture.rows.sampler import Sampler
from tracer.capture.rows.shmem_rows import SharedFiles, ShmemRows
from tracer.capture.rows.task_rows import TaskRows, TaskTimes, task_time_rows
from tracer.capture.selection.cgroup_selection import CgroupSelection
from tracer.capture.selection.traced_cgroups import TracedCgroups, find_recorder_cgroup
from tracer.capture.sigkill_rows import SigkillReports, SigkillRows
from tracer.capture.symbols.cpython_names import PythonFrames
from tracer.capture.symbols.kernel_names import KernelNames
from tracer.capture.symbols.program_files import ProgramFiles
from tracer.capture.symbols.stack_names import Stacks
from tracer.capture.symbols.symbol_tables import BccSymbols, user_symbols
from tracer.errors import TraceError
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.mounts import Mounts
from tracer.kernel.process import bounded_call
from tracer.kernel.process.children import collect_ended, has_uncollected
from tracer.kernel.process.spawn import CommandError
from tracer.stored_names import stored_path
from tracer.trace.meta import utc_time
from tracer.trace.row_sink import RowSink
from tracer.wire.dtypes import WIRE
from tracer.wire.streams import STACK_COPY, STREAM_AT, STREAMS


class Names:
    """Collects names and writes them; `cgroups` also receives the cgroups that are selected."""

    def __init__(
        self,
        cgroups: CgroupRows,
        mounts: Mounts,
        stacks: Stacks,
        sink: RowSink,
        clock_offset_ns: int,
        *,
        programs: ProgramFiles,
    ) -> None:
        self.tasks = TaskRows()
        self._programs = programs
        self._cgroups = cgroups
        self._inodes = InodeRows(mounts)
        self._stacks = stacks
        self._sink = sink
        self._clock_offset_ns = clock_offset_ns

    def take(self, waiting: Mapping[str, Records]) -> None:
        """Add the tasks, files and cgroups of these records, given by stream."""
        self.tasks.reread_titles()
        self.tasks.take_events(waiting["task"], self._clock_offset_ns)
        inodes = self._inodes.rows_for(waiting["inode"])
        self._programs.take(waiting["task"], inodes, self._clock_offset_ns)
        self._sink.append_rows("inodes", inodes)
        actors = [waiting[stream.name][field] for stream in STREAMS for field in stream.actors]
        self._cgroups.require({value for ids in actors for value in ids.tolist()})

    def shown_name(self, cgroup_id: int) -> str:
        """Return the name of a cgroup for a line of text, not escaped."""
        return self._cgroups.shown_name(cgroup_id) or "a cgroup that is gone"

    def write(self, late_within_s: float = 0.0) -> None:
        """Write new and changed rows; wait at most `late_within_s` for requested names of containers."""
        self._cgroups.add_late_names(late_within_s)
        self._sink.append_rows("stacks", self._stacks.take_rows())
        for table, rows in (("cgroups", self._cgroups.rows), ("tasks", self.tasks.rows)):
            self._sink.append_rows(table, rows)
            rows.clear()


class LossRows:
    """Sums the losses that several parties count, and makes rows of the new ones.

    Each of `counters` returns stream -> records lost since the recording began. The interval of the first row
    begins now. `counts` are the sums at the last call.
    """

    def __init__(self, *counters: Callable[[], Mapping[str, int]]) -> None:
        self.counts: Counter[str] = Counter()
        self._counters = counters
        self._seen_ns = time.monotonic_ns()

    def take(self, clock_offset_ns: int) -> list[dict[str, Any]]:
        """Return a row for each stream that lost records since the last call.

        `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC.
        """
        now_ns = time.monotonic_ns()
        interval = {"time": now_ns + clock_offset_ns, "begin": self._seen_ns + clock_offset_ns}
        self._seen_ns = now_ns
        counts: Counter[str] = Counter()
        for counter in self._counters:
            counts.update(counter())
        lost = {stream: count - self.counts[stream] for stream, count in counts.items()}
        self.counts = counts
        return [interval | {"stream": stream, "lost": count} for stream, count in lost.items() if count > 0]


_NO_COPIES: Final = np.empty(0, WIRE[STACK_COPY.name])
_DRAIN_TRIES: Final = 100
_REST_AFTER_S: Final = 0.1


class Pipeline:
    """The BPF programs, their rings, and the rows that the records become.

    `selection` decides which cgroups `programs` trace; both are closed with the pipeline. `open_sink` is
    called after everything else that can fail. `began_s` is the time at which the recorder started
    (CLOCK_MONOTONIC). Raises TracerError if the kernel, BCC or the sink refuses.
    """

    def __init__(
        self,
        options: Options,
        hierarchy: Hierarchy,
        selection: CgroupSelection,
        *,
        programs: Programs,
        events: Events,
        open_sink: Callable[[], RowSink],
        began_s: float,
    ) -> None:
        self._began_s = began_s
        self.programs = programs
        self._hierarchy = hierarchy
        self._events = events
        self._selection = selection
        self.startup_s = 0.0
        bounded_call.make_ready()
        programs.wait(events.warn, events.notice)
        with ExitStack() as owned:
            owned.callback(programs.close)
            owned.callback(selection.close)
            self._positions = calibration.calibrate(programs, programs.types, hierarchy)
            self._task_times = owned.enter_context(closing(TaskTimes(programs)))
            self._arming = options.stacks_bytes and Arming(
                programs, options.stacks_bytes, events.warn, needs_limit=selection.requests.is_everything
            )
            self._ledger = Ledger(programs, self._close_account, events.warn)
            self._rings = owned.enter_context(rings_of(programs))
            self._page_sums = owned.enter_context(closing(PageSums(programs)))
            self._sampler = Sampler(programs, hierarchy, self._positions, events.warn)
            owned.callback(self._sampler.close)
            mounts = owned.enter_context(closing(Mounts()))
            self._kernel_log = owned.enter_context(closing(open_kernel_log()))
            self._kernel_names = KernelNames()
            python = PythonFrames(programs, events.warn) if options.stacks_bytes else None
            ran = ProgramFiles()
            self._stacks = Stacks(self._kernel_names.frames, user_symbols(BccSymbols, ran), python)
            owned.callback(self._stacks.close)
            self._sink = open_sink()
            self._owned = owned.pop_all()
        clock = self._sink.meta["clock"]
        offset_ns = self._clock_offset_ns = clock["realtime_ns"] - clock["monotonic_ns"]
        self._decoder = Decoder(self._clock_offset_ns)
        cgroups = self._owned.enter_context(closing(CgroupRows(hierarchy)))
        self._traced = TracedCgroups(
            programs, self._ledger.accounts, hierarchy, selection, cgroups, self._sampler, offset_ns
        )
        self._names = Names(cgroups, mounts, self._stacks, self._sink, offset_ns, programs=ran)
        self._kills = KillAssembly(programs, self._decoder, self._sink, self._names.tasks, self._stacks)
        self._sigkills = SigkillRows(self._decoder)
        self._sigkill_reports = SigkillReports()
        self._records = BulkRecords(self._decoder, self._sink, self._stacks)
        self._shmem = ShmemRows(SharedFiles())
        self._mappings = self._owned.enter_context(
            closing(MappingRows(self._sampler.directory_of, events.warn))
        )
        self._contents = self._owned.enter_context(closing(ContentRows()))
        self._log_filter = LogFilter(selection.concerns)
        self._skipped: Counter[str] = Counter()
        self._losses = LossRows(
            lambda: readings.lost(programs),
            lambda: self._skipped,
            lambda: selection.hold.lost,
            lambda: {"samples": self._sampler.lost, "stack_names": self._stacks.failed},
            lambda: {STACK_COPY.name: self._stacks.dropped_copies},
            lambda: {"kernel_log": self._kernel_log.lost},
        )
        self._active_s = time.monotonic()
        self.is_resting = self.has_removed = self._is_finished = False
        self._known_silent = bounded_call.first_silent()
        self._ended: dict[str, str] = {}  # the trace lacks what comes after this time, such as kills
        self._most_percent = options.most_overhead_percent
        self._overhead: Overhead | None = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        self.abort(error)

    def abort(self, error: BaseException | None) -> None:
        """Detach, and end the trace as far as possible, because of `error`."""
        try:
            if not self._is_finished:
                with suppress(Exception):  # `error` came first
                    self.finish("command_not_started" if isinstance(error, CommandError) else "failed")
        finally:
            self.close()

    def close(self) -> None:
        """Detach, unmap, close files."""
        self._owned.close()

    @property
    def rows(self) -> Mapping[str, int]:
        """Return the number of rows written so far, by table."""
        return self._sink.rows

    @property
    def lost(self) -> Mapping[str, int]:
        """Return the number of records lost so far, by stream: no room in a ring, in memory or on disk."""
        return self._sink.lost + self._losses.counts

    @property
    def kills(self) -> int:
        """Return the number of OOM decisions seen so far; one may kill many tasks."""
        return self._kills.count

    def fds(self) -> list[int]:
        """Return descriptors that are readable at a kill, a half-full ring, the end of rest or a log line."""
        return [*map(self.programs.ring_fd, self._rings), *self._kernel_log.fds()]

    def start(self) -> None:
        """Add the existing cgroups, and attach the programs: from here on the ledger counts."""
        self._ledger.accounts.open()
        self._selection.begin()
        self._traced.find(self._rings["cgroup"].read)
        if self._kernel_log.state != READ:
            self._events.warn(f"the kernel log cannot be read ({self._kernel_log.state})")
        self.programs.attach(self._events.warn)
        self._traced.find(self._rings["cgroup"].read)  # again: cgroups made before the attach caused no event
        self._ledger.accounts.count_new()
        if self._most_percent is not None:
            self._overhead = overhead_of(self.programs, self._most_percent, self._task_times.work_ns)
            self._owned.callback(self._overhead.close)
        for line in self._selection.waiting():
            self._events.notice(line)
        if recorder := find_recorder_cgroup(self._hierarchy, self._selection.includes):
            own, warning = recorder
            self._sink.meta["recorder_cgroup"] = stored_path(own)
            self._events.warn(warning)
        self._sink.meta["kernel_log"] = self._kernel_log.state
        lacking = self._sink.meta["unrecorded_categories"] = self._sampler.lacking
        self._sink.meta["probes"] = calibration.describe(self.programs.choices, lacking)
        self._sink.meta["filters"]["cgroups"] = self._selection.requests.matched_paths()
        self._sink.write_meta()
        self._sink.open_journals()
        if self._arming:
            self._arming.expect()
        self._sampler.sample("start")
        self.look()
        self.read_rings()  # the first pass is several times slower than others: do it now
        self.flush()
        self._sink.require_written()
        self.startup_s = time.monotonic() - self._began_s

    def look(self) -> None:
        """Run the BPF programs that find changes to the counters of the traced cgroups from outside, or by
        tasks that do not leave their CPUs, and that send all sums and runs. A rest ends if there are any, and
        begins if nothing has happened for a while. If `has_removed` is then true, look again in 10 ms."""
        self.has_removed = self._ledger.look(is_at_rest=self.is_resting)
        if self._arming:
            self._arming.expire()
        if self.programs.drain() or self.has_removed:
            self._active_s = time.monotonic()
            if self.is_resting:
                self._end_rest()
        elif not self.is_resting and time.monotonic() - self._active_s > _REST_AFTER_S:
            self._begin_rest()

    @property
    def has_children(self) -> bool:
        """Return whether there are children that end when they have had no work for a while, or that are
        ending. Call `flush` now and then, also at rest, until there are none."""
        return self._mappings.has_child or self._stacks.has_tables or has_uncollected()

    @property
    def is_measuring(self) -> bool:
        """Return whether the cost of tracing is measured now."""
        return self._overhead is not None and not self.is_resting

    def measure(self) -> None:
        """Measure the cost of tracing, and turn the summing of runs on while it is too high."""
        assert self._overhead is not None
        self._overhead.step()
        self._page_sums.sum_while(self._overhead.is_exceeded)

    def take_counts(self) -> None:
        """Count the events at which the kernel skipped a program, and write the CPU time of the cgroups."""
        self._skipped = self.programs.skipped()
        if len(spent := self._selection.sift("task_time", self._task_times.take())):
            self._sink.append("task_time", task_time_rows(spent, self._clock_offset_ns))

    def _begin_rest(self) -> None:
        """Read and write everything, and let the programs wake this process at the next event, unless one
        came meanwhile or something waits that no event announces."""
        self.read_rings()
        if self._has_reason_to_stay():
            return
        self.flush()
        self.programs.rest(True)
        self.is_resting = not (self.programs.is_active() or any(map(Ring.is_filled, self._rings.values())))
        if not self.is_resting:
            self._end_rest()
        elif self._overhead is not None:
            self._overhead.close()

    def _has_reason_to_stay(self) -> bool:
        """Return whether something happened a moment ago, or something waits that no event announces."""
        has_names = self._names.tasks.has_young or bool(self._selection.undecided())
        has_names |= self._sigkills.is_waiting or self._sigkill_reports.is_waiting
        has_names |= self._contents.is_busy
        is_soon = time.monotonic() - self._active_s < _REST_AFTER_S
        return is_soon or has_names or self._page_sums.is_waiting()

    def _end_rest(self) -> None:
        self.is_resting = False
        self._active_s = time.monotonic()
        self.programs.rest(False)
        self._rings["wake"].read()

    def read_rings(self) -> None:
        """Read everything that waits in the rings and in the kernel log; `flush` writes most of it. Kills
        come first and survive the recorder at once, and names come before the records that refer to them."""
        if self.is_resting:
            self._end_rest()
        log = self._kernel_log.read()  # early: the delay shows the difference of the clocks
        oom_read_ns = time.monotonic_ns()
        decided = self._rings["oom"].read()
        if len(decided):
            self.programs.drain()  # all that led to the kill comes before its report
        self._take_cgroups()
        decided = self._selection.sift("oom", decided)
        kills = self._kills.save(decided)
        rings = (item for item in self._rings.items() if item[0] not in ("cgroup", "oom", "wake"))
        waiting = {name: ring.read() for name, ring in rings}
        self._stacks.take_copies(waiting.pop(STACK_COPY.name, _NO_COPIES))
        waiting["charge"] = self._ledger.take(waiting["charge"], self._rings["charge"], decided)
        if self._arming:
            self._arming.killed({*decided["victim_cgroup_id"].tolist(), *decided["owner_cgroup_id"].tolist()})
            self._arming.take(waiting["charge"])
        waiting["pagecache"] = self._page_sums.add_to(waiting["pagecache"], is_last=bool(self._ended))
        if has_come := any(map(len, (decided, *waiting.values()))):
            self._active_s = time.monotonic()
        self._take_cgroups()  # after the other rings: now every cgroup with a record is known
        if is_to_take := has_come or self._selection.hold.is_in_use:
            waiting = {name: self._selection.sift(name, records) for name, records in waiting.items()}
            # The processes that have the files may be killed next: look at them before all that takes time.
            shmem = self._shmem.take(waiting["charge"], self._clock_offset_ns, is_at_kill=bool(kills))
            self._sink.append_rows("shmem_files", [*shmem])
        self._write_log(self._log_filter.take(log))
        if is_to_take:
            self._take_records(waiting, decided, kills)
        else:
            self._names.tasks.reread_titles()
        self._write_sigkills(oom_read_ns)
        self._kills.drop_candidates(self._selection.hold.held("oom"))
        self._selection.purge()
        self._write_sums(self._ledger.take_sums())
        self._sink.append_rows("summed", self._page_sums.take_rows(self._clock_offset_ns))
        self._write_armed()

    def _take_records(self, waiting: dict[str, Records], decided: Records, kills: list[Any]) -> None:
        """Take the records of the traced cgroups; `kills` are the rows of `decided`."""
        waiting["oom"] = decided
        self._sampler.wake(set(waiting["charge"]["cgroup_id"].tolist()))
        self._names.take(waiting)
        self._records.add(waiting)
        if self._records.is_full:
            self._write_records()
        self._sigkills.add(waiting["sigkill"], decided)
        self._kills.hold_candidates(waiting["candidate"])
        if kills:
            self._kills.write_candidates(decided)
            owners = self._kills.owner_samples(decided, self._positions, self._hierarchy.version)
            self._sink.append_rows("samples", self._selection.hold.sift_rows(owners))
            self._kills.name_stacks()
            self.sample()
            self._write_log(self._log_filter.take(self._kernel_log.read()))  # most of the kill's lines exist
            self.flush()
            for kill in kills:
                owner = kill["limit_owner_cgroup_id"] or kill["cgroup_id"]
                self._events.killed(kill, self._names.shown_name(owner))

    def _write_sigkills(self, oom_read_ns: int | None = None) -> None:
        """Write and report the SIGKILLs that the OOM killer did not send, as `SigkillRows.take` has them."""
        if rows := self._sigkills.take(oom_read_ns):
            self._names.write()  # first, as `_write_records` does
            self._sink.append_rows("sigkills", rows)
            self._sink.flush()
        named = (Sigkilled(row, self._names.shown_name(row["cgroup_id"])) for row in rows)
        now_s = math.inf if oom_read_ns is None else time.monotonic()
        if due := self._sigkill_reports.take(named, now_s):
            self._events.sigkilled(due)

    def sample(self) -> None:
        """Take a sample of each traced cgroup that changed."""
        self._sampler.sample("periodic")

    def flush(self) -> None:
        """Make everything that was read survive the recorder, and count what was lost until now."""
        self._write_records()
        self._write_samples()
        self._write_tables(self._mappings.take(self._clock_offset_ns))
        self._write_tables(self._contents.take(self._clock_offset_ns))
        collect_ended()
        if not self.is_resting:  # at rest nothing is lost
            self._sink.append_rows("loss", self._losses.take(self._clock_offset_ns))
        self._sink.flush()

    def report_news(self, *, is_last: bool = False) -> None:
        """Report requested cgroups that appeared or are gone, and keep their paths in meta.json."""
        for line in self._selection.requests.news(is_last=is_last):
            self._events.notice(line)
        if (silent := bounded_call.first_silent()) is not None and silent != self._known_silent:
            self._known_silent = silent
            self._events.warn(
                f"{stored_path(silent)} did not answer in time: paths, titles or shared files are missing"
            )
        filters, paths = self._sink.meta["filters"], self._selection.requests.matched_paths()
        if filters["cgroups"] != paths:
            filters["cgroups"] = paths
            with suppress(TraceError):  # it is written again at the end
                self._sink.write_meta()

    def finish(self, end_reason: str, *, command_status: int | None = None) -> None:
        """Write the last sums, samples and rows, and close the trace even if some of these cannot be read.

        `command_status` is the exit status of the command, as `Popen.returncode`; None: there was no command.
        Raises TraceError if the trace could not be completed.
        """
        self._is_finished = True
        try:
            self._take_last()
            self.report_news(is_last=True)
        finally:
            self.close()  # the last rows need memory: give back that of the rings
            status = {} if command_status is None else {"command_status": command_status}
            self._sink.close(end_reason, **self._ended, **self.closing_facts(), **status)
        for name in self._selection.requests.never_matched():
            self._events.warn(f"no cgroup or container matched {name} during the recording")

    def closing_facts(self) -> dict[str, Any]:
        """Return the facts about the recording until now that meta.json gets when a trace of it ends."""
        spent = cost(self._began_s, self.startup_s, self._overhead)
        return {
            "cost": spent,
            "kernel_log_left_out": self._log_filter.left_out,
            "contents_left_out": self._contents.why_left_out,
        }

    def _has_kernel_stacks(self) -> bool:
        """Return whether a stack of the kernel has come, or may wait in a ring."""
        rings = (ring for name, ring in self._rings.items() if name in ("oom", "code_sample"))
        return self._stacks.has_kernel_stacks or any(map(Ring.is_filled, rings))

    def _take_last(self) -> None:
        self._write_tables(self._mappings.finish(self._clock_offset_ns, within_s=1.0))
        self._write_tables(self._contents.finish(self._clock_offset_ns, within_s=1.0))
        self._take_waiting()
        self._sampler.sample("end")
        self._write_log(self._log_filter.take(self._kernel_log.read_until_killed(self._kills.marked_ns)))
        self.programs.drain()
        self._ended = {"ended": utc_time(self._sink.meta["clock"], time.monotonic_ns())}
        self._write_armed(is_last=True)
        self._arming = None
        if self.programs.hooks_functions and self._has_kernel_stacks():
            self._kernel_names.load()
        self.programs.detach_all()
        self._page_sums.wait_for_programs()  # those that still run have records to submit
        self._ledger.look(is_last=True)
        self._take_waiting()
        self._write_sigkills()
        self._write_log(self._log_filter.end())
        self._write_sums(readings.residue(self.programs))
        self._append_left("swap_io", readings.unfinished_swap_io(self.programs))
        self._append_left("pagecache", readings.unsent_runs(self.programs))
        self._stacks.finish()
        self._task_times.add_left()
        self.take_counts()
        self._names.write(late_within_s=3.0)
        self.flush()

    def _append_left(self, stream: str, records: bytes) -> None:
        """Append records that the programs hold and did not send."""
        if len(left := self._selection.sift(stream, np.frombuffer(records, WIRE[stream]))):
            self._sink.append(stream, self._decoder.rows(STREAM_AT[stream], left))

    def _take_waiting(self) -> None:
        """Write the sums and runs that wait in the kernel, again if a ring was full."""
        for _ in range(_DRAIN_TRIES):
            self.programs.drain()
            is_drained = not self.programs.is_busy()
            self.read_rings()
            if is_drained:
                break
        self._write_records()

    def _take_cgroups(self) -> None:
        records = self._rings["cgroup"].read()
        if (new := self._traced.take_events(records)) and self._arming:
            self._arming.expect()
        self._sampler.sample_these(new, "start")
        self.has_removed |= len(records) > 0  # maybe: `look` knows

    def _write_records(self) -> None:
        """Write the new names, and then the records: followers of the rows know every cgroup of a record."""
        self._names.write()
        self._records.write()

    def _write_samples(self) -> None:
        """Write the samples since the last flush together: in a batch, the first row is the expensive one."""
        taken = self._sampler.take()
        if self._arming:
            self._arming.take_samples(taken)
        if len(samples := self._selection.sift("samples", taken)):
            rows = self._sampler.rows(samples, self._clock_offset_ns)
            self._mappings.look(rows)
            self._contents.look(rows)
            self._sink.append("samples", rows)

    def _write_tables(self, tables: Mapping[str, list[dict[str, Any]]]) -> None:
        for table, rows in tables.items():
            self._sink.append_rows(table, rows)

    def _write_sums(self, sums: Mapping[tuple[int, int], int]) -> None:
        """Write sums of the ledger, (cgroup id, category) -> bytes, of no known process."""
        if wanted := self._selection.residue(sums):
            self._sink.append("charge", self._decoder.residue(time.monotonic_ns(), wanted))

    def _write_armed(self, *, is_last: bool = False) -> None:
        if self._arming:
            rows = self._arming.take_rows(self._clock_offset_ns, is_last=is_last)
            self._sink.append_rows("armed", rows)

    def _close_account(self, slot: int, cgroup_id: int, cpu_ns: int) -> None:
        self._task_times.close_account(slot, cgroup_id, cpu_ns)
        if self._arming:
            self._arming.forget(cgroup_id)

    def _write_log(self, rows: list[dict[str, Any]]) -> None:
        offset_ns = self._clock_offset_ns
        self._sink.append_rows("kernel_log", [row | {"time": row["time"] + offset_ns} for row in rows])
