"""From the rings to the trace: one pass of everything that a recording does again and again."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final

import numpy as np

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records, Ring
from tracer.capture.learn import calibration
from tracer.capture.new_trace import create_trace
from tracer.capture.observer import Observer
from tracer.capture.options import Options
from tracer.capture.rows import cgroup_rows
from tracer.capture.rows.decode import Decoder, stack_columns
from tracer.capture.rows.kmsg_stream import READ, open_kernel_log
from tracer.capture.rows.log_filter import LogFilter
from tracer.capture.rows.loss_rows import Losses
from tracer.capture.rows.sampler import Sampler
from tracer.capture.selection.cgroup_selection import Following
from tracer.capture.selection.recorder_cgroup import find_own_bounded
from tracer.capture.selection.traced_cgroups import TracedCgroups
from tracer.capture.symbols.address_names import Program
from tracer.capture.symbols.stack_names import Stacks
from tracer.capture.symbols.symbol_process import user_symbols
from tracer.errors import TraceError
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.mounts import Mounts
from tracer.kernel.process.spawn import CommandError
from tracer.stored_names import stored_path
from tracer.trace.arrow_columns import rows_of
from tracer.wire.dtypes import WIRE
from tracer.wire.streams import STREAM_AT, STREAMS

_DRAIN_TRIES: Final = 100
_DECISION: Final = ["trigger_pid", "invocation"]  # what the records of one OOM decision share
_DECISIONS_HELD: Final = 64


class Pipeline:
    """The programs, their rings, and the trace that they are written to.

    `following` says which cgroups `programs` trace, and is closed with this. `began_s` is when the recorder
    was asked to start (CLOCK_MONOTONIC). Raises TracerError where the kernel, BCC or the output directory
    does not take part.
    """

    def __init__(
        self,
        options: Options,
        hierarchy: Hierarchy,
        following: Following,
        *,
        btf: Btf,
        programs: Programs,
        observer: Observer,
        began_s: float,
    ) -> None:
        self._began = began_s
        self._programs = programs
        self._hierarchy = hierarchy
        self._observer = observer
        self._following = following
        self._btf = btf
        self._losses = Losses()
        self.kills = 0
        self.startup_s = 0.0
        programs.wait(observer.warn)
        with ExitStack() as owned:
            owned.callback(programs.close)
            owned.callback(following.close)
            self._positions = calibration.calibrate(programs, btf, hierarchy)
            self._rings: dict[str, Ring] = {}
            for name in programs.streams:
                self._rings[name] = Ring(programs.ring_fd(name), programs.ring_bytes(name), WIRE[name])
                owned.callback(self._rings[name].close)
            self._sampler = Sampler(programs, hierarchy, self._positions, observer.warn)
            mounts = Mounts()
            owned.callback(mounts.close)
            self._files = cgroup_rows.Files(mounts)
            self._kernel_log = open_kernel_log()
            owned.callback(self._kernel_log.close)
            self._stacks = Stacks(programs.kernel_frames, user_symbols(programs.bcc_symbols))
            owned.callback(self._stacks.close)
            self._writer = create_trace(options, hierarchy, observer)
            self._owned = owned.pop_all()
        clock = self._writer.meta["clock"]
        self._clock_offset_ns = clock["realtime_ns"] - clock["monotonic_ns"]
        self._decoder = Decoder(self._clock_offset_ns)
        self._cgroups = cgroup_rows.Cgroups(hierarchy)
        self._traced = TracedCgroups(
            programs, hierarchy, following, self._cgroups, self._sampler, self._clock_offset_ns
        )
        self._log_filter = LogFilter(following.concerns)
        self._tasks = cgroup_rows.Tasks()
        self._triggers: set[int] = set()  # the numbers of stacks
        self._candidates: dict[Any, list[Records]] = {}
        self._marked_ns: dict[int, int] = {}
        self._finished = False

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.abort(error)

    def abort(self, error: BaseException | None) -> None:
        """Detach, and end the trace as far as that can be done, because of `error`."""
        try:
            if not self._finished:
                with suppress(Exception):  # `error` came first
                    self.finish(_failure(error))
        finally:
            self.close()

    @property
    def rows(self) -> Mapping[str, int]:
        """Rows written so far, by table."""
        return self._writer.rows

    @property
    def lost(self) -> Mapping[str, int]:
        """Records lost so far, by stream: for which a ring had no room, or the disk."""
        return self._writer.lost + self._losses.counts

    def fds(self) -> list[int]:
        """What to poll: readable when a decision waits, when a ring is half full, when the kernel logs."""
        return [*(self._programs.ring_fd(name) for name in self._rings), *self._kernel_log.fds()]

    def start(self) -> None:
        """Take up the cgroups that are there, and attach: from here on the ledger counts."""
        self._following.begin()
        self._traced.find(self._rings["cgroup"].read)
        if self._kernel_log.state != READ:
            self._observer.warn(f"the kernel log cannot be read ({self._kernel_log.state})")
        self._programs.attach(self._observer.warn)
        self._traced.find(self._rings["cgroup"].read)  # those that were made in between, without an event
        if "stack_sample" in self._rings:  # a process may not live long enough to wait for it
            self._programs.read_kernel_symbols()
        for line in self._following.waiting():
            self._observer.notice(line)
        if own := find_own_bounded(self._hierarchy, self._following.is_asked_for):
            self._writer.meta["recorder_cgroup"] = stored_path(own.path)
            self._observer.warn(own.warning)
        self._writer.meta["kernel_log"] = self._kernel_log.state
        self._writer.meta["probes"] = calibration.describe(self._programs.choices, self._btf, self._positions)
        self._write_meta()
        self._writer.open_journals()
        self._write_samples(self._sampler.sample("start", self._clock_offset_ns))
        self.drain()
        self.read_rings()  # once before it matters: the first pass takes several times as long as others
        self.flush()
        self._writer.require_written()
        self.startup_s = time.monotonic() - self._began

    # What runs again and again

    def drain(self) -> None:
        """Have the kernel programs send the sums that they hold."""
        self._programs.drain()

    def read_rings(self) -> None:
        """Write everything that waits in the rings, and in the kernel log.

        Kills come first, and outlive us at once; then names, so that an actor is known before its acts.
        """
        log = self._kernel_log.read()  # early: how late it is read tells how its clock goes
        decided = self._rings["oom"].read()
        self._take_cgroups()
        decided = self._following.sift("oom", decided)
        kills = self._save_kills(decided)
        waiting = {name: ring.read() for name, ring in self._rings.items() if name not in ("cgroup", "oom")}
        self._take_cgroups()  # last: all of which there is a record are known then
        waiting = {name: self._following.sift(name, records) for name, records in waiting.items()}
        waiting["oom"] = decided
        self._take_names(waiting)
        self._write_log(log)
        for stream in STREAMS:
            records = waiting.get(stream.name)
            if stream.is_bulk and records is not None and len(records):
                columns = stack_columns(*self._stacks.number(records)) if stream.needs_stacks else {}
                self._writer.append(stream.table, self._decoder.rows(stream, records, **columns))
        self._hold_candidates(waiting["candidate"])
        if kills:
            self._take_kills(kills, decided)
        self._following.tidy()
        self._count_loss()

    def _take_cgroups(self) -> None:
        self._write_samples(self._traced.take_events(self._rings["cgroup"].read()))

    def sample(self) -> None:
        """A row for each traced cgroup."""
        self._write_samples(self._sampler.sample("periodic", self._clock_offset_ns))

    def tell_news(self, *, is_last: bool = False) -> None:
        """What was asked for has come, or is gone; meta.json says what it was."""
        for line in self._following.news(is_last=is_last):
            self._observer.notice(line)
        if self._writer.meta["filters"]["cgroups"] != self._following.matched_paths():
            with suppress(TraceError):  # it is written again at the end
                self._write_meta()

    def _write_meta(self) -> None:
        self._writer.meta["filters"]["cgroups"] = self._following.matched_paths()
        self._writer.write_meta()

    def flush(self) -> None:
        """Make what was read outlive us."""
        self._write_names()
        self._writer.flush()

    def finish(self, end_reason: str) -> None:
        """The last sums, samples and rows; then the trace is closed, also where those cannot be had.

        Raises TraceError where it could not be written to its end.
        """
        self._finished = True
        try:
            self._take_last()
            self.tell_news(is_last=True)
        finally:
            left_out = self._log_filter.left_out
            self._writer.close(end_reason, cost=self._cost(), kernel_log_left_out=left_out)
        for name in self._following.never_came():
            self._observer.warn(f"no cgroup or container was {name} while the recording went on")

    def _take_last(self) -> None:
        for _ in range(_DRAIN_TRIES):
            drained = self._programs.drain()
            self.read_rings()
            if drained:
                break
        self._write_samples(self._sampler.sample("end", self._clock_offset_ns))
        self._write_log(self._kernel_log.read_until_killed(self._marked_ns))
        self._programs.detach_all()
        calibration.settle(self._programs, self._following.memcgs())
        self._programs.drain()
        self.read_rings()
        self._write_kept(self._log_filter.end())
        residue = self._following.residue(self._programs.take_residue())
        if residue:
            self._writer.append("charge", self._decoder.residue(time.monotonic_ns(), residue))
        unfinished = np.frombuffer(self._programs.unfinished_swap_io(), WIRE["swap_io"])
        unfinished = self._following.sift("swap_io", unfinished)
        if len(unfinished):
            self._writer.append("swap_io", self._decoder.rows(STREAM_AT["swap_io"], unfinished))
        self._stacks.finish()
        self._count_loss()
        self._write_names()

    def close(self) -> None:
        """Detach, unmap, close files."""
        self._owned.close()

    def _cost(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            "wall_s": round(time.monotonic() - self._began, 3),
            "startup_s": round(self.startup_s, 3),
            "max_rss_bytes": usage.ru_maxrss * 1024,
        }

    # Names

    def _take_names(self, waiting: Mapping[str, Records]) -> None:
        self._tasks.look_again()
        self._tasks.take_events(waiting["task"], self._clock_offset_ns)
        if len(waiting["inode"]):
            self._writer.append("inodes", rows_of("inodes", self._files.rows(waiting["inode"])))
        self._cgroups.need(
            cgroup_rows.actors(*(waiting[one.name][field] for one in STREAMS for field in one.actors))
        )

    def _write_names(self) -> None:
        if stacks := self._stacks.take_rows():
            self._writer.append("stacks", rows_of("stacks", stacks))
        for table, rows in (("cgroups", self._cgroups.rows), ("tasks", self._tasks.rows)):
            if rows:
                self._writer.append(table, rows_of(table, rows))
                rows.clear()

    # Decisions

    def _hold_candidates(self, records: Records) -> None:
        """Until the kill comes that they were weighed for: a decision that kills nobody leaves no row."""
        for key in np.unique(records[_DECISION]):
            self._candidates.setdefault(key.item(), []).append(records[records[_DECISION] == key])
        for key in list(self._candidates)[:-_DECISIONS_HELD]:
            del self._candidates[key]

    def _write_candidates(self, records: Records) -> None:
        for record in records:
            weighed = self._candidates.pop(record[_DECISION].item(), [])
            for batch in weighed:
                rows = self._decoder.candidates(
                    batch, self._decoder.kill_id(record), int(record["victim_tgid"])
                )
                self._writer.append("oom_candidates", rows_of("oom_candidates", rows))
                self._tasks.look_again({row["tgid"] for row in rows})

    def _save_kills(self, records: Records) -> list[dict[str, Any]]:
        """Write the rows of `oom`, and have them outlive us, whatever the rest takes."""
        kills = [self._decoder.oom(record) for record in records]
        if kills:
            self.kills += len({kill["kill_id"] for kill in kills})
            self._writer.append("oom", rows_of("oom", kills))
            self._writer.flush()
            self._marked_ns = {kill["pid"]: kill["ktime_ns"] for kill in kills}
        return kills

    def _take_kills(self, kills: list[dict[str, Any]], records: Records) -> None:
        """Write all else that belongs to kills."""
        self._write_candidates(records)
        self._writer.flush()
        counted = self._programs.counts_reclaim
        samples = {
            self._decoder.kill_id(record): self._decoder.oom_sample(
                record, self._positions, version=self._hierarchy.version, counted=counted
            )
            for record in records[::-1]
        }
        self._write_samples([row for row in samples.values() if row is not None])
        for kill, record in zip(kills, records, strict=True):
            self._name_stacks(kill, Program(int(record["start_code"]), int(record["start_stack"])))
        self._write_samples(self._sampler.sample("periodic", self._clock_offset_ns))
        self._write_log(self._kernel_log.read())  # most of its lines on this kill are there by now
        self.flush()
        for kill in kills:
            self._observer.killed(kill)

    def _name_stacks(self, kill: Mapping[str, Any], program: Program) -> None:
        """The trigger's, which ran `program`."""
        kinds = {kill["kernel_stack_id"]: None, kill["user_stack_id"]: program}
        for number in kinds.keys() - self._triggers - {None}:
            self._stacks.name(number, kill["trigger_tgid"], kinds[number], self._programs.stack(number))
            self._triggers.add(number)

    # The rest

    def _write_samples(self, rows: list[dict[str, Any]]) -> None:
        if rows := self._following.hold.sift_rows(rows):
            self._writer.append("samples", rows_of("samples", rows))

    def _write_log(self, rows: list[dict[str, Any]]) -> None:
        self._write_kept(self._log_filter.take(rows))

    def _write_kept(self, log: list[dict[str, Any]]) -> None:
        if log:
            offset = self._clock_offset_ns
            rows = [row | {"time": row["time"] + offset} for row in log]
            self._writer.append("kernel_log", rows_of("kernel_log", rows))

    def _count_loss(self) -> None:
        """A row for each stream that lost records since the last look."""
        counts = Counter(self._programs.lost())
        counts.update(self._following.hold.lost)
        counts["kernel_log"] = self._kernel_log.lost
        counts["samples"] = self._sampler.lost
        counts["stack_names"] = self._stacks.failed
        if rows := self._losses.rows(counts, self._clock_offset_ns):
            self._writer.append("loss", rows_of("loss", rows))


def _failure(error: BaseException | None) -> str:
    return "command_not_started" if isinstance(error, CommandError) else "failed"
