"""One recording, from loading the BPF programs to the last row written."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.capture.bpf.load import Programs, accounts_for
from tracer.capture.loop import Loop, StopSignals, Timer, stop_signals
from tracer.capture.observer import Events, Observer
from tracer.capture.options import Options
from tracer.capture.symbols import unwinding
from tracer.directory import require_own_links
from tracer.errors import TracerError
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup, remove_leftovers
from tracer.kernel.cgroups.selectors import Selector, parse_selectors
from tracer.kernel.naming.host_names import HostNames
from tracer.kernel.privileges import require_root
from tracer.kernel.process.priority import HeadStart, Urgency
from tracer.kernel.process.spawn import CommandError, GatedCommand, spawn
from tracer.stored_names import stored_path
from tracer.trace.recording_ends import COMMAND_ENDED
from tracer.urls import shown_url

if TYPE_CHECKING:
    from tracer.capture.pipeline import Pipeline
    from tracer.trace.meta import Meta
    from tracer.trace.row_sink import RowSink
    from tracer.trace.write.writer import TraceWriter


def first_meta(options: Options, hierarchy: Hierarchy) -> Meta:
    """Return the metadata of a recording that begins now."""
    from tracer.trace.meta import begin  # noqa: PLC0415  it imports Arrow

    return begin(
        command_line=["memcg-tracer", *(stored_path(shown_url(word)) for word in sys.argv[1:])],
        cgroup_version=hierarchy.version,
        cgroup_mount_options=map(stored_path, hierarchy.options),
        filters={
            "asked": [stored_path(argument) for argument in options.cgroups],
            "cgroups": None,  # the matched paths are added as they are found
            "limit_bytes": options.limit_bytes,
            "swap_bytes": options.swap_bytes,
            "command": [stored_path(shown_url(word)) for word in options.command] or None,
            "stacks_bytes": options.stacks_bytes,
            "most_overhead_percent": options.most_overhead_percent,
        },
        probes={},
    )


_GRACE_S: Final = 2.0


def require_command(program: str) -> None:
    """Raise CommandError, with a shell's exit status, for a program that exec cannot run."""
    if shutil.which(program):
        return
    places = [Path(program)] if "/" in program else [Path(folder, program) for folder in os.get_exec_path()]
    if program and any(place.exists() for place in places):
        raise CommandError(f"cannot run {program!r}: it is not an executable file", 126)
    raise CommandError(f"command not found: {program!r}", 127)


def run_until_command_ends(loop: Loop, command: GatedCommand, stop: StopSignals, deadline_s: float) -> str:
    """Run the loop until the command has ended. Return the end reason of the recording.

    If the recording ends first, the command gets the signal that ended the recording (SIGTERM at the
    deadline), and SIGKILL two seconds later or at a second signal.
    """
    pidfd = os.pidfd_open(command.process.pid)
    try:
        end_reason = loop.run(deadline_s, pidfd)
        if end_reason != COMMAND_ENDED:
            number = stop.take() or signal.SIGTERM
            if not _has_reached_command(number):
                signal.pidfd_send_signal(pidfd, number)
            if loop.run(time.monotonic() + _GRACE_S, pidfd) != COMMAND_ENDED:  # or at a second signal
                command.process.kill()
    finally:
        os.close(pidfd)
    command.process.wait()
    return end_reason


def end_command(command: GatedCommand) -> None:
    """Kill the command if it still runs, so that no process is left behind."""
    if command.process.poll() is None:
        command.process.kill()
    with suppress(OSError):
        command.abandon()


def _has_reached_command(number: int) -> bool:
    """Return whether the command has already received the signal.

    Ctrl-C goes to all of a terminal's foreground group (isig in drivers/tty/n_tty.c). A second SIGINT would
    make many programs skip their clean-up. A SIGINT that was sent to the recorder alone, while it is in the
    foreground, looks the same: the command then gets no signal, and is killed after the grace period.
    """
    if number != signal.SIGINT:
        return False
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:  # noqa: PTH123
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


_REMOVED_INTERVAL_S: Final = 0.01
_MEASURE_INTERVAL_S: Final = 0.025
_SAMPLE_INTERVAL_S: Final = 0.1
_WRITE_INTERVAL_S: Final = 0.2  # less than the 250 ms that may be lost
_TICK_INTERVAL_S: Final = 0.5
_SECOND_S: Final = 1.0

_LEAN: Final = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Settings of NumPy and Arrow that save memory: Arrow's own pool takes huge pages, 4 MiB for a few KiB."""


@dataclass(frozen=True)
class Recording:
    """A recording that ended.

    `path` is where the trace is at the end, also if its directory was renamed meanwhile. `returncode` is the
    command's, as `Popen.returncode`: -N if signal N ended it. It is 0 without a command.
    """

    path: Path
    returncode: int

    @property
    def status(self) -> int:
        """Return the exit status that a shell would give: 128+N if signal N ended the command."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode


def record(options: Options, observer: Observer, head_start: HeadStart | None = None) -> Recording:
    """Record until the command ends, the duration is over, or SIGINT, SIGTERM or SIGHUP arrives.

    A command that runs longer than the recording gets that signal, and SIGKILL after two seconds; it is
    recorded until then. If the recording fails while the command runs, the command runs on to its end, and
    the error is raised after that; the records from before the failure are a readable trace.

    `head_start` ends before the command starts: the command has the caller's priority.

    Raises TracerError if recording cannot begin or the trace could not be completed; CommandError, with a
    shell's exit status, if the command cannot run.
    """
    began_s = time.monotonic()
    require_root("recording")
    if options.command:
        require_command(options.command[0])
    require_absent(options.ready_file)
    hierarchy = cgroupfs.memory_hierarchy()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())  # first: no signal may interrupt the clean-up below
        for directory in remove_leftovers(hierarchy):
            observer.warn(f"removed {directory.name}, the cgroup of a recording that was killed")
        selectors = parse_selectors(hierarchy, options.cgroups, HostNames().find) if options.cgroups else []
        if head_start is not None:
            head_start.end()
        cgroup = command = None
        if options.command:
            cgroup = stack.enter_context(
                ephemeral_cgroup(options.name, options.limit_bytes, options.swap_bytes, hierarchy)
            )
            command = spawn(cgroup, options.command)
            stack.callback(end_command, command)
        urgency = stack.enter_context(Urgency())  # after the spawn: the command keeps the caller's priority
        trace: TraceWriter | None = None

        def create_trace(first: Meta) -> RowSink:
            from tracer.trace.write.writer import TraceWriter  # noqa: PLC0415  it imports Arrow

            nonlocal trace
            trace = TraceWriter(options.output, first, force=options.force, warn=observer.warn)
            return trace

        pipeline = make_pipeline(
            options,
            hierarchy,
            selectors,
            cgroup,
            observer,
            open_sink=create_trace,
            began_s=began_s,
        )
        stack.enter_context(pipeline)
        returncode = _run(options, pipeline, observer, stop, urgency=urgency, command=command)
        return Recording(options.output if trace is None else trace.path, returncode)


def save_memory() -> None:
    """Make NumPy and Arrow take less memory. Call it before they are imported."""
    for name, value in _LEAN.items():
        os.environ.setdefault(name, value)


def make_pipeline(
    options: Options,
    hierarchy: cgroupfs.Hierarchy,
    selectors: list[Selector],
    command_cgroup: Path | None,
    events: Events,
    *,
    open_sink: Callable[[Meta], RowSink],
    began_s: float,
) -> Pipeline:
    """Begin to compile the programs, and make the pipeline meanwhile.

    `open_sink` is called after everything else that can fail. So an earlier trace is overwritten only if the
    recording can begin, and each new trace has a pipeline that ends it.
    """
    trace_all = not selectors and command_cgroup is None
    programs = Programs(
        version=hierarchy.version,
        trace_all=trace_all,
        accounts=accounts_for(cgroupfs.count_cgroups(hierarchy) if trace_all or selectors else 0),
        ring_pages=options.ring_pages,
        forced=options.hooks,
        stacks_bytes=options.stacks_bytes,
        copies_stacks=unwinding.why_not() is None,
    )
    save_memory()  # now: the command was started with the environment as it was
    # NumPy and Arrow take a fifth of a second to import: do it while clang compiles.
    from tracer.capture.pipeline import Pipeline  # noqa: PLC0415
    from tracer.capture.selection.cgroup_selection import CgroupSelection  # noqa: PLC0415

    return Pipeline(
        options,
        hierarchy,
        CgroupSelection(
            programs,
            hierarchy,
            None if trace_all else selectors,
            command_cgroup,
            held_bytes=options.held_bytes,
        ),
        programs=programs,
        events=events,
        open_sink=lambda: open_sink(first_meta(options, hierarchy)),
        began_s=began_s,
    )


def _run(
    options: Options,
    pipeline: Pipeline,
    observer: Observer,
    stop: StopSignals,
    *,
    urgency: Urgency,
    command: GatedCommand | None,
) -> int:
    """Run the recording, and return its `returncode`."""
    pipeline.start()
    if stop.received is not None:  # the command never ran: report it as ended by the signal
        pipeline.finish(signal.Signals(stop.received).name)
        return -stop.received if command else 0
    urgency.watch()
    create_ready_file(options.ready_file)
    if command is not None:
        command.release()
    deadline_s = math.inf if options.duration_s is None else time.monotonic() + options.duration_s
    observer.ready(pipeline)
    timers = [*_timers(pipeline, observer), Timer(_TICK_INTERVAL_S, urgency.adjust)]
    loop = Loop(stop, timers, pipeline.fds(), pipeline.read_rings)
    if command is None:
        end_reason = loop.run(deadline_s)
        urgency.close()
        pipeline.finish(end_reason)
        return 0
    try:
        end_reason = run_until_command_ends(loop, command, stop, deadline_s)
    except Exception as error:  # a failure of the recorder must not disturb the command
        pipeline.abort(error)
        observer.warn(f"recording failed ({error}): the command goes on without it")
        run_until_command_ends(Loop(stop), command, stop, deadline_s)
        raise
    urgency.close()
    returncode = command.process.wait()
    pipeline.finish(end_reason, command_status=returncode)
    return returncode


def _timers(pipeline: Pipeline, observer: Observer) -> list[Timer]:
    """Return the periodic work; flushing comes last, because it makes the rest survive.

    While the recorder rests, it still looks at what may change without an event.
    """
    return [
        Timer(_REMOVED_INTERVAL_S, pipeline.look, lambda: pipeline.has_removed),
        Timer(_MEASURE_INTERVAL_S, pipeline.measure, lambda: pipeline.is_measuring),
        Timer(_SECOND_S, pipeline.take_counts),
        Timer(_WRITE_INTERVAL_S, pipeline.look),
        Timer(_WRITE_INTERVAL_S, pipeline.read_rings, lambda: not pipeline.is_resting, skips=True),
        Timer(_SAMPLE_INTERVAL_S, pipeline.sample),
        Timer(_WRITE_INTERVAL_S, pipeline.flush),
        Timer(_TICK_INTERVAL_S, pipeline.report_news),
        Timer(_TICK_INTERVAL_S, lambda: observer.tick(pipeline)),
    ]


def require_absent(ready_file: Path | None) -> None:
    """Raise TracerError if the file exists: a process that waits for it would take it for ours."""
    if ready_file is not None and os.path.lexists(ready_file):
        raise TracerError(f"the ready file {ready_file} exists already: remove it first")


def create_ready_file(ready_file: Path | None) -> None:
    """Create the file that says that all probes are attached; raises TracerError."""
    if ready_file is None:
        return
    try:
        require_own_links(ready_file.parent)
        os.close(os.open(ready_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise TracerError(f"cannot create the ready file {ready_file}: {error.strerror}") from error
