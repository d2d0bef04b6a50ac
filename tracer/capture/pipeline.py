"""From the rings to the trace: the work that a recording repeats, and how it starts and finishes."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final

import numpy as np

from tracer.capture.bpf import readings
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Ring
from tracer.capture.kill_assembly import KillAssembly
from tracer.capture.learn import calibration
from tracer.capture.names import Names
from tracer.capture.new_trace import create_trace
from tracer.capture.observer import Observer
from tracer.capture.options import Options
from tracer.capture.rows.cgroup_rows import CgroupRows
from tracer.capture.rows.decode import Decoder, stack_columns
from tracer.capture.rows.kmsg_stream import READ, open_kernel_log
from tracer.capture.rows.log_filter import LogFilter
from tracer.capture.rows.loss_rows import LossRows
from tracer.capture.rows.sampler import Sampler
from tracer.capture.selection.cgroup_selection import CgroupSelection
from tracer.capture.selection.recorder_cgroup import find_recorder_cgroup
from tracer.capture.selection.traced_cgroups import TracedCgroups
from tracer.capture.symbols.kernel_names import KernelNames
from tracer.capture.symbols.stack_names import Stacks
from tracer.capture.symbols.symbol_process import user_symbols
from tracer.errors import TraceError
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.mounts import Mounts
from tracer.kernel.process.spawn import CommandError
from tracer.stored_names import stored_path
from tracer.wire.dtypes import WIRE
from tracer.wire.streams import STREAM_AT, STREAMS

_DRAIN_TRIES: Final = 100


class Pipeline:
    """The BPF programs, their rings, and the trace that the records become.

    `selection` decides which cgroups `programs` trace; both are closed with the pipeline. `began_s` is the
    time at which the recorder started (CLOCK_MONOTONIC). Raises TracerError if the kernel, BCC or the output
    directory refuses.
    """

    def __init__(
        self,
        options: Options,
        hierarchy: Hierarchy,
        selection: CgroupSelection,
        *,
        btf: Btf,
        programs: Programs,
        observer: Observer,
        began_s: float,
    ) -> None:
        self._began_s = began_s
        self._programs = programs
        self._hierarchy = hierarchy
        self._observer = observer
        self._selection = selection
        self._enumerators = btf.enumerators
        self.startup_s = 0.0
        programs.wait(observer.warn)
        with ExitStack() as owned:
            owned.callback(programs.close)
            owned.callback(selection.close)
            self._positions = calibration.calibrate(programs, btf, hierarchy)
            self._rings: dict[str, Ring] = {}
            for name in programs.streams:
                self._rings[name] = Ring(programs.ring_fd(name), programs.ring_bytes(name), WIRE[name])
                owned.callback(self._rings[name].close)
            self._sampler = Sampler(programs, hierarchy, self._positions, observer.warn)
            mounts = Mounts()
            owned.callback(mounts.close)
            self._kernel_log = open_kernel_log()
            owned.callback(self._kernel_log.close)
            self._kernel_names = KernelNames(programs.kernel_symbol_at)
            self._stacks = Stacks(self._kernel_names.frames, user_symbols(programs.bcc_symbols))
            owned.callback(self._stacks.close)
            self._writer = create_trace(options, hierarchy, observer)
            self._owned = owned.pop_all()
        clock = self._writer.meta["clock"]
        self._clock_offset_ns = clock["realtime_ns"] - clock["monotonic_ns"]
        self._decoder = Decoder(self._clock_offset_ns)
        cgroups = CgroupRows(hierarchy)
        self._traced = TracedCgroups(
            programs, hierarchy, selection, cgroups, self._sampler, self._clock_offset_ns
        )
        self._names = Names(cgroups, mounts, self._stacks, self._writer, self._clock_offset_ns)
        self._kills = KillAssembly(programs, self._decoder, self._writer, self._names.tasks, self._stacks)
        self._log_filter = LogFilter(selection.concerns)
        self._losses = LossRows(lambda: readings.lost(programs), lambda: selection.hold.lost, self._lost_here)
        self._is_finished = False

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
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
        return self._writer.rows

    @property
    def lost(self) -> Mapping[str, int]:
        """Return the number of records lost so far, by stream: no room in a ring, in memory or on disk."""
        return self._writer.lost + self._losses.counts

    @property
    def kills(self) -> int:
        """Return the number of OOM decisions seen so far; one may kill many tasks."""
        return self._kills.count

    def fds(self) -> list[int]:
        """Return descriptors that are readable at a kill, a half-full ring, or a line of the kernel log."""
        return [*(self._programs.ring_fd(name) for name in self._rings), *self._kernel_log.fds()]

    def start(self) -> None:
        """Add the existing cgroups, and attach the programs: from here on the ledger counts."""
        self._selection.begin()
        self._traced.find(self._rings["cgroup"].read)
        if self._kernel_log.state != READ:
            self._observer.warn(f"the kernel log cannot be read ({self._kernel_log.state})")
        self._programs.attach(self._observer.warn)
        self._traced.find(self._rings["cgroup"].read)  # again: cgroups made before the attach caused no event
        if "stack_sample" in self._rings:  # now: a sampled process may be gone before they are read
            self._kernel_names.load()
        for line in self._selection.waiting():
            self._observer.notice(line)
        if recorder := find_recorder_cgroup(self._hierarchy, self._selection.includes):
            self._writer.meta["recorder_cgroup"] = stored_path(recorder.path)
            self._observer.warn(recorder.warning)
        self._writer.meta["kernel_log"] = self._kernel_log.state
        self._writer.meta["probes"] = calibration.describe(
            self._programs.choices, self._enumerators, self._hierarchy.version, self._positions
        )
        self._write_meta()
        self._writer.open_journals()
        self._write_samples(self._sampler.sample("start", self._clock_offset_ns))
        self.drain()
        self.read_rings()  # the first pass is several times slower than others: do it now
        self.flush()
        self._writer.require_written()
        self.startup_s = time.monotonic() - self._began_s

    # Periodic work

    def drain(self) -> None:
        """Have the BPF programs send the sums that they hold."""
        self._programs.drain()

    def read_rings(self) -> None:
        """Write everything that waits in the rings and in the kernel log.

        Kills come first, and survive the recorder at once. Names come before other records, so that a reader
        of the journal has the name of a process before its records.
        """
        log = self._kernel_log.read()  # early: the delay shows the difference of the clocks
        decided = self._rings["oom"].read()
        self._take_cgroups()
        decided = self._selection.sift("oom", decided)
        kills = self._kills.save(decided)
        waiting = {name: ring.read() for name, ring in self._rings.items() if name not in ("cgroup", "oom")}
        self._take_cgroups()  # after the other rings: now every cgroup with a record is known
        waiting = {name: self._selection.sift(name, records) for name, records in waiting.items()}
        waiting["oom"] = decided
        self._names.take(waiting)
        self._write_log(self._log_filter.take(log))
        for stream in STREAMS:
            records = waiting.get(stream.name)
            if stream.is_bulk and records is not None and len(records):
                columns = stack_columns(*self._stacks.number(records)) if stream.needs_stacks else {}
                self._writer.append(stream.table, self._decoder.rows(stream, records, **columns))
        self._kills.hold_candidates(waiting["candidate"])
        if kills:
            self._kills.write_candidates(decided)
            self._write_samples(self._kills.owner_samples(decided, self._positions, self._hierarchy.version))
            self._kills.name_stacks(kills, decided)
            self.sample()
            self._write_log(self._log_filter.take(self._kernel_log.read()))  # most of the kill's lines exist
            self.flush()
            for kill in kills:
                self._observer.killed(kill)
        self._selection.purge()
        self._write_losses()

    def sample(self) -> None:
        """Write a row of `samples` for each traced cgroup."""
        self._write_samples(self._sampler.sample("periodic", self._clock_offset_ns))

    def flush(self) -> None:
        """Make everything that was read survive the recorder."""
        self._names.write()
        self._writer.flush()

    def report_news(self, *, is_last: bool = False) -> None:
        """Report requested cgroups that appeared or are gone, and keep their paths in meta.json."""
        for line in self._selection.requests.news(is_last=is_last):
            self._observer.notice(line)
        if self._writer.meta["filters"]["cgroups"] != self._selection.requests.matched_paths():
            with suppress(TraceError):  # it is written again at the end
                self._write_meta()

    # The end

    def finish(self, end_reason: str) -> None:
        """Write the last sums, samples and rows, and close the trace even if some of these cannot be read.

        Raises TraceError if the trace could not be completed.
        """
        self._is_finished = True
        try:
            self._take_last()
            self.report_news(is_last=True)
        finally:
            left_out = self._log_filter.left_out
            self._writer.close(end_reason, cost=self._cost(), kernel_log_left_out=left_out)
        for name in self._selection.requests.never_matched():
            self._observer.warn(f"no cgroup or container matched {name} during the recording")

    def _take_last(self) -> None:
        for _ in range(_DRAIN_TRIES):
            is_drained = self._programs.drain()
            self.read_rings()
            if is_drained:
                break
        self._write_samples(self._sampler.sample("end", self._clock_offset_ns))
        log = self._kernel_log.read_until_killed(self._kills.marked_ns)
        self._write_log(self._log_filter.take(log))
        self._programs.detach_all()
        calibration.settle(self._programs, self._selection.memcgs())
        self._programs.drain()
        self.read_rings()
        self._write_log(self._log_filter.end())
        residue = self._selection.residue(readings.residue(self._programs))
        if residue:
            self._writer.append("charge", self._decoder.residue(time.monotonic_ns(), residue))
        unfinished = np.frombuffer(readings.unfinished_swap_io(self._programs), WIRE["swap_io"])
        unfinished = self._selection.sift("swap_io", unfinished)
        if len(unfinished):
            self._writer.append("swap_io", self._decoder.rows(STREAM_AT["swap_io"], unfinished))
        self._stacks.finish()
        self._write_losses()
        self._names.write()

    def _cost(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            "wall_s": round(time.monotonic() - self._began_s, 3),
            "startup_s": round(self.startup_s, 3),
            "max_rss_bytes": usage.ru_maxrss * 1024,
        }

    def _take_cgroups(self) -> None:
        self._write_samples(self._traced.take_events(self._rings["cgroup"].read()))

    def _write_meta(self) -> None:
        self._writer.meta["filters"]["cgroups"] = self._selection.requests.matched_paths()
        self._writer.write_meta()

    def _write_samples(self, rows: list[dict[str, Any]]) -> None:
        self._writer.append_rows("samples", self._selection.hold.sift_rows(rows))

    def _write_log(self, rows: list[dict[str, Any]]) -> None:
        shifted = [row | {"time": row["time"] + self._clock_offset_ns} for row in rows]
        self._writer.append_rows("kernel_log", shifted)

    def _write_losses(self) -> None:
        self._writer.append_rows("loss", self._losses.take(self._clock_offset_ns))

    def _lost_here(self) -> dict[str, int]:
        """Return stream -> lost records, for the tables without a ring."""
        return {
            "kernel_log": self._kernel_log.lost,
            "samples": self._sampler.lost,
            "stack_names": self._stacks.failed,
        }
