"""The live view of a running recording: on a terminal with keys, or as lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tracer.capture.loop import Timer
from tracer.capture.observer import Progress, Sigkilled
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.process.children import argv_of_module, environment_of_modules
from tracer.render.terminal.console import columns_for, is_coloured
from tracer.render.words.escape import visible
from tracer.top import frame
from tracer.top.details import FILES
from tracer.top.feed import NOTE, Decision, with_decision
from tracer.top.files_now import FilesReader
from tracer.top.recording_view import RecordingView
from tracer.top.screen.paint import Painter, lines_of_output
from tracer.top.screen.terminal import Terminal
from tracer.top.view_state import EXPLAIN, QUIT, READ, REDRAW, WRITE, ViewState, arranged, reduce
from tracer.trace import layout
from tracer.units import size
from tracer.watch.child import Child
from tracer.watch.finishing import Finished
from tracer.watch.first_verdicts import FirstVerdict
from tracer.watch.place import parse_name
from tracer.watch.watching import Guest, Reporter, WatchOptions, watch

_MOST_MEMORY_BYTES: Final = 110 << 20
_KEEP_S: Final = 300.0
_KEEP_TRACES: Final = 100
_STACKS_BYTES: Final = 1 << 20
_MOST_DISK_BYTES: Final = 1 << 30
_EXPLAIN_WITHIN_S: Final = 60.0
_ENDING_S: Final = 60.0
_POLL_S: Final = 0.1
_MOST_KILLED: Final = 4096
_MOST_SAID: Final = 64 << 10


@dataclass(frozen=True)
class TopOptions:
    """The settings of a live view of `cgroups` (all if empty), updated every `interval_s`.

    The view ends after `intervals`; None: when the user ends it. `sort` is one of `quantities.SORT_KEYS`.
    Traces are written to `directory`, which is removed at the end if no trace was written.
    """

    directory: Path
    cgroups: tuple[str, ...] = ()
    interval_s: float = 1.0
    intervals: int | None = None
    sort: str = "usage"
    as_json: bool = False
    ring_pages: dict[str, int] | None = None
    hooks: str | None = None


def top(options: TopOptions) -> None:
    """Show the cgroups until the view ends: on a terminal as a screen, else as lines on stdout.

    Raises TracerError as `watch` does.
    """
    is_screen = not options.as_json and sys.stdin.isatty() and sys.stdout.isatty()
    is_screen = is_screen and os.environ.get("TERM", "dumb") != "dumb"
    has_parent = options.directory.parent.exists()
    try:
        if is_screen:
            with _said_later():
                _Screen(options).run()
        else:
            _Lines(options).run()
    finally:
        if traces := _traces_in(options.directory):
            there = "1 trace is" if len(traces) == 1 else f"{len(traces)} traces are"
            written = size(sum(map(layout.size_bytes, traces)))
            left = sum((trace / layout.JOURNAL).exists() for trace in traces)
            open_ = f"; {left} not completed: readable, but larger" if left else ""
            print(
                f"memcg-tracer: {there} in {visible(str(options.directory))} ({written}{open_})",
                file=sys.stderr,
            )
        with suppress(OSError):  # the directory has traces, or could not be made
            options.directory.rmdir()
            if not has_parent:
                options.directory.parent.rmdir()


def _watch(options: TopOptions, reporter: Reporter, guest: Guest) -> None:
    asked = WatchOptions(
        directory=options.directory,
        cgroups=options.cgroups,
        keep_s=_KEEP_S,
        most_memory_bytes=_MOST_MEMORY_BYTES,
        is_memory_asked=False,
        keep_traces=_KEEP_TRACES,
        most_disk_bytes=_MOST_DISK_BYTES,
        ring_pages=options.ring_pages or {},
        stacks_bytes=_STACKS_BYTES,
        hooks=options.hooks,
        ignores_hangup=False,
        ending_s=_ENDING_S,
        has_successor=False,
    )
    watch(asked, reporter, guest)


def _traces_in(directory: Path) -> list[Path]:
    """Return the traces that were written."""
    try:
        return [entry for entry in directory.iterdir() if parse_name(entry.name) is not None]
    except OSError:
        return []


def _end() -> None:
    """End the recording, as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


class _Lines:
    """Prints the cgroups each interval, as a table or as a JSON line each. Decisions go to stderr."""

    def __init__(self, options: TopOptions) -> None:
        self._options = options
        self._data = RecordingView(memory_hierarchy(), options.directory, self._decided)
        self._printed = 0
        self._timer = Timer(options.interval_s, self._tick)

    def run(self) -> None:
        guest = Guest(self._data.follow, timers=[self._timer], join=self._data.join)
        _watch(self._options, self, guest)

    def ready(self, progress: Progress) -> None:
        self.notice(f"watching (ready in {progress.startup_s:.2f} s)")
        self._data.take()  # the first rates cover the time from here
        self._timer.restart()

    def alarmed(self, sentence: str, cgroup: str | None) -> None:
        """Do nothing: the data has alarms of its own."""

    def killed(self, kill: dict[str, Any], place: str) -> None:
        self._data.killed(kill, place)

    def sigkilled(self, kills: Sequence[Sigkilled]) -> None:
        self._data.sigkilled(kills)

    def judged(self, verdict: FirstVerdict) -> None:
        self._data.judged(verdict)

    def finished(self, story: Finished) -> None:
        self._data.finished(story)

    def notice(self, message: str) -> None:
        print(f"memcg-tracer: {visible(message)}", file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        self.notice(f"warning: {message}")

    def _decided(self, decision: Decision) -> None:
        self.notice(f"{decision.clock()} {decision.words()}")

    def _tick(self) -> None:
        rows = self._data.take()
        time_ns = self._data.now_ns
        if self._options.as_json:
            moment = datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
            text = "".join(json.dumps({"time": moment, **row.document()}) + "\n" for row in rows)
        else:
            state = ViewState(rows=rows, time_ns=time_ns, sort=self._options.sort)
            state = replace(state, interval_s=self._options.interval_s, machine=self._data.machine())
            text = "\n".join([*frame.table(arranged(state), columns_for(sys.stdout)), "", ""])
        sys.stdout.write(text)
        sys.stdout.flush()
        self._printed += 1
        if self._printed == self._options.intervals:
            _end()


class _Screen:
    """Shows the cgroups on a terminal."""

    def __init__(self, options: TopOptions) -> None:
        self._options = options
        self._state = ViewState(interval_s=options.interval_s, sort=options.sort, message="starting ...")
        self._data = RecordingView(memory_hierarchy(), options.directory, self._decided)
        self._painter = Painter(colour=is_coloured(sys.stdout))
        self._timer = Timer(options.interval_s, self._tick)
        self._drawn = 0
        self._trace: Path | None = None  # the trace that began last
        self._is_growing = False
        self._kill_ids: set[int] = set()
        self._kill_traces = _KillTraces()
        self._wanted: str | None = None  # a cgroup to explain when a trace has begun
        self._child: Child | None = None
        self._reader = FilesReader()

    def run(self) -> None:
        with Terminal(self._pressed, self._resized, _end) as terminal:
            self._terminal = terminal
            self._resized()
            guest = Guest(
                self._data.follow,
                timers=[
                    self._timer,
                    Timer(_POLL_S, self._poll, lambda: self._child is not None),
                    Timer(_POLL_S, self._poll_reader, lambda: self._reader.is_reading),
                ],
                inputs=terminal.inputs,
                begun=self._begun,
                ended=self._ended,
                join=self._data.join,
            )
            try:
                _watch(self._options, self, guest)
            finally:
                self._reader.end()
                if self._child is not None:
                    self._child.end()

    # As the reporter

    def ready(self, progress: Progress) -> None:
        self._decided(
            Decision(
                self._data.now_ns,
                NOTE,
                "",
                f"all probes are attached, {progress.startup_s:.2f} s after the start",
            )
        )
        self._state = replace(self._state, message="")
        self._tick()
        self._timer.restart()

    def alarmed(self, sentence: str, cgroup: str | None) -> None:
        """Do nothing: the data has alarms of its own."""

    def killed(self, kill: dict[str, Any], place: str) -> None:
        self._data.killed(kill, place)
        self._kill_ids.add(kill["kill_id"])
        paths = {self._data.path_of(kill[name]) for name in ("limit_owner_cgroup_id", "cgroup_id")}
        self._kill_traces.killed(filter(None, paths), self._trace if self._is_growing else None)
        self._state = replace(self._state, kills=len(self._kill_ids))
        self._draw()

    def sigkilled(self, kills: Sequence[Sigkilled]) -> None:
        self._data.sigkilled(kills)
        self._draw()

    def judged(self, verdict: FirstVerdict) -> None:
        self._data.judged(verdict)
        self._draw()

    def finished(self, story: Finished) -> None:
        self._state = replace(self._state, message="")
        self._data.finished(story)
        self._draw()

    def notice(self, message: str) -> None:
        self._say(message)

    def warn(self, message: str) -> None:
        self._decided(Decision(self._data.now_ns, NOTE, "", f"warning: {message}"))

    def _begun(self, trace: Path) -> None:
        self._kill_traces.begun(trace, renamed=self._trace if self._is_growing else None)
        self._trace, self._is_growing = trace, True
        if self._wanted is not None:
            self._start_explaining(trace, self._wanted)
        else:
            self._say(f"a trace is being written: {self._options.directory / trace.name}")

    def _ended(self, _trace: Path) -> None:
        self._is_growing = False

    def _decided(self, decision: Decision) -> None:
        self._state = replace(self._state, feed=with_decision(self._state.feed, decision))

    # Drawing

    def _tick(self) -> None:
        rows, machine = self._data.take(), self._data.machine()  # even while paused: intervals go on
        if not self._state.is_paused:
            state = replace(self._state, rows=rows, machine=machine, time_ns=self._data.now_ns)
            self._state = arranged(state)
            self._draw()
        self._drawn += 1
        if self._options.intervals is not None and self._drawn > self._options.intervals:
            _end()

    def _draw(self) -> None:
        state = self._state
        if state.screen == "cgroup" and state.selected is not None and not (state.is_paused and state.sheets):
            if state.sheet == FILES and (row := state.selected_row) is not None:
                self._reader.want(row.cgroup_id, row.usage_bytes)
            sheets = self._data.sheets(state.selected, self._reader.of(state.selected))
            sheet = min(state.sheet, max(len(sheets) - 1, 0))
            state = frame.fit(replace(state, sheets=sheets, sheet=sheet), self._terminal.size)
            self._state = state
        self._terminal.write(self._painter.paint(frame.render(state, self._terminal.size)))

    def _say(self, message: str) -> None:
        self._state = replace(self._state, message=message)
        self._draw()

    def _resized(self) -> None:
        self._painter.forget()
        self._terminal.clear()
        self._state = frame.fit(self._state, self._terminal.size)
        self._draw()

    # Keys

    def _pressed(self, keys: list[str]) -> None:
        for key in keys:
            self._state = frame.fit(reduce(self._state, key), self._terminal.size)
            asks = self._state.asks
            self._state = replace(self._state, asks=())
            for one in asks:
                self._do(one)
        self._timer.interval_s = self._state.interval_s
        self._timer.due = min(self._timer.due, time.monotonic() + self._state.interval_s)
        self._draw()

    def _do(self, ask: str) -> None:
        if ask == QUIT:
            self._terminal.leave()  # at once, before traces are completed
            _end()
        elif ask == REDRAW:
            self._resized()
        elif ask == WRITE:
            self._wanted = None
            signal.raise_signal(signal.SIGUSR1)
        elif ask == EXPLAIN:
            self._explain()
        elif ask == READ and (row := self._state.selected_row) is not None:
            self._reader.want(row.cgroup_id, row.usage_bytes, at_once=True)

    def _poll_reader(self) -> None:
        self._reader.poll()
        self._draw()

    # Explanations

    def _explain(self) -> None:
        row = self._state.selected_row
        if row is None or self._child is not None:
            return
        has_kill, trace = self._kill_traces.newest(row.path)
        if not has_kill and self._is_growing:
            trace = self._trace
        if trace is not None:
            self._start_explaining(trace, row.path)
        elif has_kill:
            self._wanted = row.path
            self._say("the trace of the kill is about to be written, to explain it ...")
        else:
            self._wanted = row.path
            signal.raise_signal(signal.SIGUSR1)
            self._say("writing a trace of the last minutes, to explain it ...")

    def _start_explaining(self, trace: Path, cgroup: str) -> None:
        self._wanted = None
        argv = (*argv_of_module("tracer.top.explaining"), str(trace), cgroup)
        columns = min(self._terminal.size.columns, frame.MOST_COLUMNS)
        environment = environment_of_modules() | {"COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"}
        environment |= {"FORCE_COLOR": "1"} if self._painter.is_coloured else {"NO_COLOR": "1"}
        try:
            self._child = Child(argv, environment, _EXPLAIN_WITHIN_S, subprocess.PIPE, is_awaited=True)
        except OSError as error:
            self._say(f"no process can be started: {error.strerror}")
            return
        self._explained = f"{cgroup}, in {self._options.directory / trace.name}"
        self._say("explaining ...")

    def _poll(self) -> None:
        assert self._child is not None
        status = self._child.poll(time.monotonic())
        if status is None:
            return
        child, self._child = self._child, None
        said = child.output.decode("utf-8", "replace").rstrip() or f"explain {child.how_it_ended(status)}"
        lines = lines_of_output(said)
        state = replace(self._state, screen="text", text_title=self._explained, text=lines, text_first=0)
        self._state = frame.fit(replace(state, message=""), self._terminal.size)
        self._draw()


class _KillTraces:
    """The trace in which the newest kill of each cgroup is; None: the trace that will begin next."""

    def __init__(self) -> None:
        self._traces: dict[str, Path | None] = {}  # path of the cgroup -> trace, the newest kill last

    def killed(self, paths: Iterable[str], trace: Path | None) -> None:
        """Take a kill at the limit of one of these cgroups, of a task of another one."""
        for path in paths:
            self._traces.pop(path, None)
            self._traces[path] = trace
        while len(self._traces) > _MOST_KILLED:
            del self._traces[next(iter(self._traces))]

    def begun(self, trace: Path, renamed: Path | None) -> None:
        """Take a trace that begins, or the new path of a growing trace, whose path was `renamed`."""
        for path, old in self._traces.items():
            if old is None or old == renamed:
                self._traces[path] = trace

    def newest(self, top: str) -> tuple[bool, Path | None]:
        """Return whether a kill in a cgroup or below is known, and the trace of the newest one."""
        for path, trace in reversed(self._traces.items()):
            if path == top or path.startswith(top.rstrip("/") + "/"):
                return (True, trace) if trace is None or trace.exists() else (False, None)
        return False, None


@contextmanager
def _said_later() -> Iterator[None]:
    """Collect stderr of this process and its children until the view has left the screen, then print it."""
    said = os.memfd_create("memcg-tracer-stderr", os.MFD_CLOEXEC)
    stderr = os.dup(2)
    os.dup2(said, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        text = os.pread(said, _MOST_SAID, 0).decode("utf-8", "surrogateescape")
        os.close(said)
        for line in text.splitlines():
            print(visible(line), file=sys.stderr)
