"""The flight recorder: a recording whose rows stay in memory until a trigger comes."""

from __future__ import annotations

import math
import mmap
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from tracer.analysis.results import sigkill
from tracer.capture.loop import Loop, StopSignals, Timer, stop_signals
from tracer.capture.observer import Events, Progress, Sigkilled
from tracer.capture.options import Options
from tracer.capture.pipeline import Pipeline
from tracer.capture.rows.kmsg_stream import load_parsers
from tracer.capture.session import create_ready_file, make_pipeline, require_absent
from tracer.errors import UsageError
from tracer.kernel.capabilities import OOM_SCORE_ADJ
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cpu_quota import quota_cpus
from tracer.kernel.cgroups.selectors import parse_selectors
from tracer.kernel.naming.host_names import HostNames
from tracer.kernel.privileges import require_root
from tracer.kernel.process.priority import Urgency
from tracer.render.words import sigkill_words
from tracer.render.words.alarm_words import alarm_sentence
from tracer.trace.history.history import Follower, History
from tracer.trace.row_sink import RowSink
from tracer.units import duration
from tracer.watch import growing_code
from tracer.watch.alarms import Alarms, ids_of_removed
from tracer.watch.copying import Copying
from tracer.watch.cost import EVERY_S, Cost, collect_cycles, drop_code, resident_bytes, return_early, trim
from tracer.watch.finishing import Finished, Finishing, Told
from tracer.watch.first_verdicts import (
    GOOD_HISTORY_BYTES,
    MEMORY_BYTES,
    SCARCE_CPUS,
    FirstVerdict,
    FirstVerdicts,
)
from tracer.watch.growing_code import GrowingCode
from tracer.watch.place import Place, parse_name
from tracer.watch.pod_account import PodAccount
from tracer.watch.pod_events import PodEvents
from tracer.watch.service import ServiceManager, watchdog_interval_s
from tracer.watch.stories import REQUEST, Stories, Trigger, kills_of


@dataclass(frozen=True)
class Guest:
    """Functions that `watch` calls in its loop. The loop waits for them.

    `follow` gets each batch of rows, with the table's name, from the first batch on. Before the first batch,
    `join` gets the history, and a function that passes all pending rows to `follow` at once; otherwise they
    come within a second. `timers` run beside the timers of `watch`, even at rest. `inputs` maps descriptors
    to functions that are called while the descriptor is readable. `begun` gets the path of each trace that
    begins, and its new path if a kill renames it; `ended` gets the path of each trace that grows no more. A
    trace can be read while it grows. `settled` is called after kills when nothing is left that could explain
    any of them. `pod_event` gets `sent` or `dropped`, and the number of events of pods.
    """

    follow: Follower
    timers: Sequence[Timer] = ()
    inputs: Mapping[int, Callable[[], object]] = field(default_factory=dict)
    begun: Callable[[Path], object] = lambda _: None
    ended: Callable[[Path], object] = lambda _: None
    settled: Callable[[], object] = lambda: None
    pod_event: Callable[[str, int], object] = lambda _result, _count: None
    join: Callable[[History, Callable[[], None]], object] = lambda _history, _flush: None


class Calls:
    """The SIGUSR1 and SIGUSR2 that came. Each wakes the loop, as each signal that Python handles."""

    def __init__(self, stop: StopSignals) -> None:
        self.stop = stop
        self._come: list[int] = []

    @property
    def has_come(self) -> bool:
        """Return whether a signal came that `take` has not returned."""
        return bool(self._come)

    def receive(self, number: int, _frame: object) -> None:
        if number not in self._come:
            self._come.append(number)

    def take(self) -> list[int]:
        """Return and forget the signals that came."""
        come, self._come = self._come, []
        return come


@contextmanager
def calls_of_users(*, ignores_hangup: bool = True) -> Iterator[Calls]:
    """Catch SIGUSR1, SIGUSR2 and the signals that end `watch`. SIGHUP ends it unless `ignores_hangup`."""
    before = signal.getsignal(signal.SIGHUP)
    if ignores_hangup:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signals() as stop:
        calls = Calls(stop)
        others = {number: signal.signal(number, calls.receive) for number in (signal.SIGUSR1, signal.SIGUSR2)}
        try:
            yield calls
        finally:
            for number, handler in others.items():
                signal.signal(number, handler)
    signal.signal(signal.SIGHUP, before)


_RING_BYTES: Final = {
    "charge": 1 << 20,
    "pagecache": 2 << 20,
    "reclaim": 1 << 20,
    "stall": 512 << 10,
    "swap_io": 256 << 10,
    "inode": 512 << 10,
    "code_sample": 512 << 10,
    "stack_copy": 1 << 20,
    "cgroup": 512 << 10,  # larger than in `record`: a recorder that waits for a CPU must not lose a name
}
"""Rings mostly smaller than those of `record`: a whole ring is resident, and `--max-memory` includes it.
Events that find no room are summed: only their tasks and times are lost."""

_REMOVED_INTERVAL_S: Final = 0.01
_SAMPLE_INTERVAL_S: Final = 0.1
_READ_INTERVAL_S: Final = 0.2
_LEAST_PASS_S: Final = 0.025
_SECOND_S: Final = 1.0
_AGE_INTERVAL_S: Final = 2.0
_CHILDREN_INTERVAL_S: Final = 5.0  # at rest
_STEP_INTERVAL_S: Final = 0.1
_VERDICT_INTERVAL_S: Final = 0.05
_LEAST_HISTORY_BYTES: Final = 2 << 20
_MUCH: Final = 0.75
"""The share of `--max-memory` above which code is unmapped. Minor faults map the needed pages again."""
_MOMENT_BYTES: Final = 8 << 20  # the memory that thinning or a new trace needs for a moment
_SPARE_BYTES: Final = _MOMENT_BYTES + (8 << 20)  # at the start: also for code that is mapped again
_ASKED: Final = "a trace of the last minutes was asked for (SIGUSR1)."
_HELD_BYTES: Final = 8 << 20
_EVENTS_WITHIN_S: Final = 5.0  # at the end of `watch`


@dataclass(frozen=True)
class WatchOptions:
    """The settings of `watch`.

    `directory` receives traces of the last `keep_s` seconds at each OOM kill and at the alarms `on` ("limit",
    "soon"), and if all tasks of a cgroup waited for memory for `psi_percent` of 10 s. `most_memory_bytes`
    bounds the recorder's memory; without `is_memory_asked`, nobody chose it, and a recorder that alone takes
    more begins with the least history. `keep_traces` and `most_disk_bytes` bound the directory. `command` is
    run with the path of each trace. `ring_pages`, `hooks` and `stacks_bytes` are passed to `Options`. With
    `ignores_hangup`, SIGHUP does not end `watch`, so that it outlives a terminal. At the end of `watch`,
    traces are completed for at most `ending_s`; without `has_successor`, they are not explained then, since
    no later `watch` would complete what is left. Traces are copied to `url`. With `pod_account`, pods with a
    kill get an event.
    """

    directory: Path
    cgroups: tuple[str, ...] = ()
    keep_s: float = 300.0
    most_memory_bytes: int = 100 << 20
    is_memory_asked: bool = True
    on: frozenset[str] = frozenset()
    psi_percent: float | None = None
    keep_traces: int | None = None
    most_disk_bytes: int | None = None
    command: tuple[str, ...] = ()
    ready_file: Path | None = None
    ring_pages: dict[str, int] = field(default_factory=dict)
    hooks: str | None = None
    ignores_hangup: bool = True
    ending_s: float = 20.0
    has_successor: bool = True
    url: str | None = None
    stacks_bytes: int | None = None
    pod_account: PodAccount | None = None


class Reporter(Events, Protocol):
    """Receives the events of `watch`."""

    def ready(self, progress: Progress) -> None:
        """Report that all probes are attached."""

    def alarmed(self, sentence: str, cgroup: str | None) -> None:
        """Report an alarm. `cgroup` is the name of its container, else its path."""

    def judged(self, verdict: FirstVerdict) -> None:
        """Report the cause of a kill, within seconds after `killed`; not each kill has it."""

    def finished(self, story: Finished) -> None:
        """Report a trace that is complete."""


class HistoryLength:
    """Says when the history is shorter than asked, because more would take more than `most_bytes`, and when
    it is whole again. The first is said again each time that the history has half of what was said."""

    def __init__(
        self,
        history: History,
        most_bytes: int,
        notice: Callable[[str], object],
        warn: Callable[[str], object],
    ) -> None:
        self._history = history
        self._most_bytes = most_bytes
        self._notice = notice
        self._warn = warn
        self._said_s: float | None = None

    def look(self, now_ns: int) -> None:
        """Look at the length of the history; `now_ns` as for `History.age`."""
        seconds, asked = self._history.shortened_to_s(now_ns), duration(self._history.keep_ns / 1e9)
        if seconds is None:
            if self._said_s is not None:
                self._notice(f"the history has the last {asked} again")
            self._said_s = None
        elif self._said_s is None or seconds < self._said_s / 2:
            self._said_s = seconds
            self._warn(
                f"the history has the last {duration(seconds)} instead of {asked}: more does not fit into "
                f"--max-memory ({self._most_bytes >> 20} MiB)"
            )


def watch(options: WatchOptions, reporter: Reporter, guest: Guest | None = None) -> None:
    """Watch until SIGINT, SIGTERM, or SIGHUP if it is not ignored. SIGUSR1 asks for a trace, SIGUSR2 for the
    cost. The loop also calls the functions of `guest`.

    Raises TracerError if watching cannot begin, or cannot go on.
    """
    began_s = time.monotonic()
    require_root("recording")
    require_absent(options.ready_file)
    return_early()
    hierarchy = cgroupfs.memory_hierarchy()
    with ExitStack() as stack:
        calls = stack.enter_context(calls_of_users(ignores_hangup=options.ignores_hangup))
        place = Place(
            options.directory,
            keep_traces=options.keep_traces,
            max_disk_bytes=options.most_disk_bytes,
            warn=reporter.warn,
        )
        stack.callback(place.close)
        left = place.sweep()
        selectors = parse_selectors(hierarchy, options.cgroups, HostNames().find) if options.cgroups else []
        _protect(reporter.warn)
        urgency = stack.enter_context(Urgency())
        watcher = _Watcher(options, reporter, place, guest)
        asked = Options(
            options.directory,
            cgroups=options.cgroups,
            ring_pages=_ring_pages() | options.ring_pages,
            hooks=options.hooks,
            stacks_bytes=options.stacks_bytes,
            held_bytes=_HELD_BYTES,
        )
        pipeline = make_pipeline(
            asked, hierarchy, selectors, None, watcher, open_sink=watcher.open_sink, began_s=began_s
        )
        stack.enter_context(pipeline)
        pipeline.start()
        urgency.watch()
        load_parsers()
        watcher.begin(pipeline, left)
        create_ready_file(options.ready_file)
        watcher.manager.ready()
        reporter.ready(pipeline)
        watcher.run(calls, [Timer(_READ_INTERVAL_S, urgency.adjust, lambda: not pipeline.is_resting)])
        urgency.close()


def _ring_pages() -> dict[str, int]:
    return {name: max(size_bytes // mmap.PAGESIZE, 1) for name, size_bytes in _RING_BYTES.items()}


class _Watcher:
    """Takes the events of the pipeline, and does the rest of `watch`."""

    def __init__(
        self, options: WatchOptions, reporter: Reporter, place: Place, guest: Guest | None = None
    ) -> None:
        self._guest = guest or Guest(lambda table, batch: None)
        self._options = options
        self._reporter = reporter
        self._place = place
        self._alarms = Alarms(options.on, options.psi_percent)
        self._has_alarms = bool(options.on - {"sigkill"}) or options.psi_percent is not None
        self._flushing = Timer(
            _SAMPLE_INTERVAL_S if self._has_alarms else _SECOND_S,
            self._flush,
            lambda: not self._pipeline.is_resting,
            skips=True,
        )
        self._growing = GrowingCode()
        self._is_to_read, self._read_s = False, 0.0
        self._is_too_large = False  # true once it was reported
        self.manager = ServiceManager()
        has_events = options.pod_account is not None
        self._finishing = Finishing(options.command, self._finished, reporter.warn, finds_pods=has_events)
        self._pod_events = PodEvents(
            options.directory,
            options.pod_account,
            reporter.notice,
            reporter.warn,
            counted=self._guest.pod_event,
        )
        self._copying = Copying(options.directory, options.url, reporter.notice, reporter.warn)
        self.warn = reporter.warn
        self._has_begun = False
        self._children_bytes = 0
        self._has_unsettled = False  # kills since `settled` was called
        self._kills_of_start: list[tuple[dict[str, Any], str]] = []

    # The events of the pipeline

    def notice(self, message: str) -> None:
        """Report messages of the start, but not each pod that comes or goes later."""
        if not self._has_begun:
            self._reporter.notice(message)

    def killed(self, kill: dict[str, Any], place: str) -> None:
        """Trigger a story. A kill that comes before `begin` is kept, and `begin` triggers its story."""
        if not self._has_begun:
            self._kills_of_start.append((kill, place))
            return
        self._stories.trigger(kills_of([kill]))
        self._alarms.killed((kill["cgroup_id"], kill["limit_owner_cgroup_id"] or 0), kill["time"])
        self._reporter.killed(kill, place)
        self._verdicts.add(kill, place)
        self._has_unsettled = True

    def sigkilled(self, kills: Sequence[Sigkilled]) -> None:
        """Report SIGKILLs of other senders, and trigger a story with `--on sigkill`."""
        self._reporter.sigkilled(kills)
        if not self._has_begun:
            return
        for row, *_ in kills:
            if self._alarms.takes_sigkill(time.monotonic_ns()):
                kill = sigkill.from_row(row, {})
                sentence = sigkill_words.sentence(kill)
                trigger = Trigger("sigkill", row["time"], row["cgroup_id"], sentence=sentence)
                self._stories.trigger([trigger])

    # The parts

    def open_sink(self, meta: Any) -> RowSink:
        options = self._options
        self._history = History(
            meta, keep_ns=round(options.keep_s * 1e9), most_bytes=options.most_memory_bytes // 4
        )
        self._length = HistoryLength(
            self._history, options.most_memory_bytes, self._reporter.notice, self._reporter.warn
        )
        self._guest.join(self._history, self._flush)
        self._history.followers += [self._look, self._guest.follow]
        return self._history

    def begin(self, pipeline: Pipeline, left: list[Path]) -> None:
        """Make the parts that need the running pipeline. `left` are earlier traces to complete."""
        self._pipeline = pipeline
        self._cost = Cost(pipeline.programs.run_ns)
        self._history.named_files = lambda: np.frombuffer(
            pipeline.programs.map("seen_inodes").read_elements()[0], np.int64
        )
        self._stories = Stories(
            self._history,
            self._place,
            self._finishing,
            closing_facts=self._closing_facts,
            warn=self._reporter.warn,
            begun=self._guest.begun,
            ended=self._guest.ended,
        )
        for trace in left:
            if (name := parse_name(trace.name)) is not None:
                self._finishing.add(Told(trace, name.reason, name.time_ns, None, None))
        collect_cycles()
        drop_code()
        if self._options.is_memory_asked and self._room_bytes() < _LEAST_HISTORY_BYTES:
            own_bytes = resident_bytes()
            needed_mib = -(-(own_bytes + _SPARE_BYTES + _LEAST_HISTORY_BYTES) >> 20)
            raise UsageError(
                f"--max-memory is too little: the recorder itself takes {own_bytes >> 20} MiB; give at least "
                f"{needed_mib}M"
            )
        fits = self._room_bytes() >= MEMORY_BYTES + GOOD_HISTORY_BYTES
        is_kept = fits or (quota_cpus() or math.inf) < SCARCE_CPUS
        self._verdicts = FirstVerdicts(self._history, self._reporter.judged, is_kept=is_kept)
        self._children_bytes = MEMORY_BYTES if fits else 0
        self._history.most_bytes = max(self._room_bytes(), _LEAST_HISTORY_BYTES)
        self._has_begun = True
        for kill, place in self._kills_of_start:
            self.killed(kill, place)

    def run(self, calls: Calls, more: list[Timer]) -> None:
        """Run until a signal ends `watch`, then end all stories."""
        pipeline = self._pipeline
        answering = Timer(0.0, lambda: self._answer(calls), lambda: calls.has_come)
        timers = [*self._timers(), *more, *self._guest.timers, answering]
        reason = "failed"
        try:
            loop = Loop(calls.stop, timers, pipeline.fds(), self._read_soon, self._guest.inputs)
            reason = loop.run(math.inf)
            self.manager.stopping()
            pipeline.finish(reason)
        finally:
            self._verdicts.close()
            self._stories.close(reason)
            deadline_s = time.monotonic() + self._options.ending_s
            self._finishing.finish(deadline_s, explains=self._options.has_successor)
            self._pod_events.finish(min(deadline_s, time.monotonic() + _EVENTS_WITHIN_S))
            self._copying.finish(deadline_s)

    def _timers(self) -> list[Timer]:
        """Return the periodic work. At rest, only the watchdog of a service manager is due, once the children
        of before have ended."""
        pipeline, stories, cost = self._pipeline, self._stories, self._cost
        finishing, copying, verdicts = self._finishing, self._copying, self._verdicts
        pod_events = self._pod_events

        def awake() -> bool:
            return not pipeline.is_resting

        timers = [
            Timer(_REMOVED_INTERVAL_S, pipeline.look, lambda: pipeline.has_removed),
            Timer(_READ_INTERVAL_S, pipeline.look, awake, skips=True),
            Timer(_READ_INTERVAL_S, self._read, awake, skips=True),
            Timer(_LEAST_PASS_S, self._read, lambda: self._is_to_read),
            Timer(_SAMPLE_INTERVAL_S, pipeline.sample, awake, skips=True),
            self._flushing,
            Timer(_READ_INTERVAL_S, pipeline.flush, lambda: stories.is_active),
            Timer(
                _CHILDREN_INTERVAL_S, pipeline.flush, lambda: pipeline.is_resting and pipeline.has_children
            ),
            Timer(_SECOND_S, pipeline.take_counts, awake),
            Timer(_SECOND_S, pipeline.report_news, awake),
            Timer(_SECOND_S, trim, awake),
            Timer(_AGE_INTERVAL_S, self._age, awake),
            Timer(EVERY_S, cost.open_window, awake),
            Timer(_STEP_INTERVAL_S, cost.close_window, lambda: cost.is_measuring),
            Timer(_STEP_INTERVAL_S, self._step, lambda: stories.is_active),
            Timer(_READ_INTERVAL_S, stories.flush, lambda: stories.is_active),
            Timer(_VERDICT_INTERVAL_S, verdicts.step, lambda: verdicts.is_active),
            Timer(_SECOND_S, verdicts.rest, lambda: verdicts.may_rest),
            Timer(_STEP_INTERVAL_S, self._finish, lambda: finishing.is_active),
            Timer(_SECOND_S, self._finish, lambda: finishing.due_s < math.inf),
            Timer(_SECOND_S, self._settle, self._can_settle),
            Timer(_SECOND_S, lambda: copying.step(time.monotonic()), lambda: copying.due_s < math.inf),
            Timer(_SECOND_S, lambda: pod_events.step(time.monotonic()), lambda: pod_events.due_s < math.inf),
        ]
        if (watchdog_s := watchdog_interval_s()) is not None:
            timers.append(Timer(watchdog_s, self.manager.alive))
        return timers

    # Periodic work

    def _read_soon(self) -> None:
        """Read the rings at once, or soon if they were just read: each new cgroup calls this."""
        if time.monotonic() - self._read_s < _LEAST_PASS_S:
            self._is_to_read = True
        else:
            self._read()

    def _read(self) -> None:
        self._pipeline.read_rings()
        self._is_to_read, self._read_s = False, time.monotonic()

    def _flush(self) -> None:
        """Pass pending rows on at once, and leave out the next timed pass: a view does so for each frame."""
        self._pipeline.flush()
        self._flushing.leave_out()

    def _look(self, table: str, batch: pa.RecordBatch) -> None:
        """Look for alarms in new samples, and for signs of a kill."""
        if table == "samples" and self._has_begun:
            self._verdicts.look(batch)
            if self._has_alarms:
                self._alarm(batch)
        elif table == "code_samples" and "soon" in self._options.on:
            self._growing.take(batch, time.monotonic_ns())
        elif table == "cgroups" and self._has_alarms:
            self._alarms.forget(ids_of_removed(batch))

    def _alarm(self, samples: pa.RecordBatch) -> None:
        for alarm in self._alarms.take(samples, time.monotonic_ns()):
            sentence = alarm_sentence(alarm)
            if alarm.reason == "soon":
                code = self._growing.grown(alarm.cgroup_id, self._history.names, time.monotonic_ns())
                sentence += growing_code.sentence(code)
            trigger = Trigger(alarm.reason, alarm.time_ns, alarm.cgroup_id, sentence=sentence)
            self._stories.trigger([trigger])
            self._reporter.alarmed(sentence, self._stories.name_of(alarm.cgroup_id))

    def _step(self) -> None:
        before = self._stories.in_use
        self._stories.step()
        if self._stories.in_use != before:
            self._retain()

    def _finish(self) -> None:
        self._finishing.step(time.monotonic())

    def _can_settle(self) -> bool:
        is_busy = self._stories.is_active or self._verdicts.is_active or self._finishing.due_s < math.inf
        return self._has_unsettled and not is_busy

    def _settle(self) -> None:
        self._has_unsettled = False
        self._guest.settled()

    def _age(self) -> None:
        if self._stories.is_active:
            self._retain()  # an open trace grows
        self._history.age(self._now_ns())
        if self._options.is_memory_asked:  # else nobody chose how long the history is
            self._length.look(self._now_ns())
        trim()
        room_bytes = self._room_bytes(_MOMENT_BYTES)  # before code is unmapped, most of which comes back
        if resident_bytes() > self._options.most_memory_bytes * _MUCH:
            drop_code()
        self._history.most_bytes = max(room_bytes, _LEAST_HISTORY_BYTES)
        if room_bytes < -_MOMENT_BYTES and not self._is_too_large:
            self._is_too_large = True
            most_mib = self._options.most_memory_bytes >> 20
            bound = "--max-memory" if self._options.is_memory_asked else f"{most_mib} MiB"
            self.warn(
                f"the recorder takes more than {bound}: {resident_bytes() >> 20} MiB, "
                f"{self._history.size_bytes >> 20} MiB of them for the history"
            )

    def _now_ns(self) -> int:
        """Return the time on CLOCK_REALTIME by the clock pair of the history."""
        clock = self._history.meta["clock"]
        return time.monotonic_ns() + clock["realtime_ns"] - clock["monotonic_ns"]

    def _room_bytes(self, spare_bytes: int = _SPARE_BYTES) -> int:
        """Return the memory that the rest of this process, a child that always stays, and `spare_bytes` leave
        for the history."""
        rest_bytes = resident_bytes() - self._history.size_bytes + self._children_bytes
        return self._options.most_memory_bytes - rest_bytes - spare_bytes

    def _retain(self) -> None:
        completing = self._finishing.in_use
        removed = self._place.retain([*self._stories.in_use, *([completing] if completing else [])])
        self._finishing.removed(removed)
        self._copying.removed(removed)

    def _finished(self, story: Finished) -> None:
        self._reporter.finished(story)
        self._copying.add(story.trace)
        self._pod_events.add(story)
        self._retain()

    def _closing_facts(self) -> dict[str, Any]:
        facts = self._pipeline.closing_facts()
        return {**facts, "cost": {**facts["cost"], **self._cost.describe()}}

    def _answer(self, calls: Calls) -> None:
        for number in calls.take():
            now_ns = self._now_ns()
            if number == signal.SIGUSR1:
                self._pipeline.read_rings()
                self._pipeline.flush()
                for path in self._stories.in_use:
                    self._reporter.notice(f"what was asked for will be in {path}, which is being written")
                self._stories.trigger([Trigger(REQUEST, now_ns, sentence=_ASKED)])
            else:
                self._reporter.notice(f"{self._cost.sentence()}; {self._history.sentence(now_ns)}")


def _protect(warn: Callable[[str], None]) -> None:
    """Protect this process from the OOM killer, if that is permitted.

    Its memory is not locked: memory that malloc frees inside locked memory would stay resident.
    """
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ), encoding="ascii")
    except OSError as error:
        warn(
            f"the OOM killer may choose this process: its oom_score_adj cannot be lowered ({error.strerror})"
        )
