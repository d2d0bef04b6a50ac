"""One recording, from the first program loaded to the last row written."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.capture.bpf.load import Programs
from tracer.capture.loop import COMMAND_ENDED, Loop, StopSignals, Timer, stop_signals
from tracer.capture.observer import Observer
from tracer.capture.options import Options
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.containers import lookup_name
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup, remove_leftovers
from tracer.kernel.cgroups.selectors import parse_selectors
from tracer.kernel.process.descriptors import as_many_as_allowed
from tracer.kernel.process.priority import HeadStart, Urgency
from tracer.kernel.process.spawn import CommandError, GatedCommand, spawn

if TYPE_CHECKING:
    from tracer.capture.pipeline import Pipeline

_RING_INTERVAL_S: Final = 0.05
_DRAIN_INTERVAL_S: Final = 0.01
_SAMPLE_INTERVAL_S: Final = 0.1
_FLUSH_INTERVAL_S: Final = 0.15  # with the ring's interval before it, less than the 250 ms that may be lost
_TICK_INTERVAL_S: Final = 0.5
_COMMAND_GRACE_S: Final = 2.0


@dataclass(frozen=True)
class Recording:
    """A recording that ended. `status` is the command's (128+N where signal N ended it), 0 without one."""

    path: Path
    status: int


def record(options: Options, observer: Observer, head_start: HeadStart | None = None) -> Recording:
    """Record until the command ends, the time is over, or SIGINT, SIGTERM or SIGHUP comes.

    A command that outlives the recording is asked to end, then made to; what it does until then is recorded.

    `head_start` ends before the command is started, whose priority is that of our caller.

    Where recording fails while the command runs, the command runs on to its end, and the error comes then;
    what was recorded until then is a readable trace.

    Raises TracerError where recording cannot begin, or the trace could not be written to its end.
    CommandError, with a shell's exit status, where the command cannot run.
    """
    began_s = time.monotonic()
    _require_root()
    if options.command:
        _require_command(options.command[0])
    _require_absent(options.ready_file)
    hierarchy = cgroupfs.memory_hierarchy()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())  # first, so that a signal never cuts the tidying up short
        limits = stack.enter_context(as_many_as_allowed())
        for directory in remove_leftovers(hierarchy):
            observer.warn(f"removed {directory.name}, the cgroup of a recording that was killed")
        selectors = parse_selectors(hierarchy, options.cgroups, lookup_name) if options.cgroups else []
        if head_start is not None:
            head_start.end()
        cgroup = command = None
        if options.command:
            cgroup = stack.enter_context(
                ephemeral_cgroup(options.name, options.limit_bytes, options.swap_bytes, hierarchy)
            )
            command = spawn(cgroup, options.command, limits=limits)
            stack.callback(_end_command, command)
        trace_all = not selectors and cgroup is None
        urgency = stack.enter_context(Urgency())  # not before: the command's priority is its own
        btf = Btf.load()
        programs = Programs(
            btf,
            version=hierarchy.version,
            trace_all=trace_all,
            ring_pages=options.ring_pages,
            forced=options.hooks,
            stacks_bytes=options.stacks_bytes,
        )
        # Here, while clang is at work: NumPy and Arrow take a fifth of a second to import.
        from tracer.capture.pipeline import Pipeline  # noqa: PLC0415
        from tracer.capture.selection.cgroup_selection import Following  # noqa: PLC0415

        pipeline = stack.enter_context(
            Pipeline(
                options,
                hierarchy,
                Following(programs, hierarchy, None if trace_all else selectors, cgroup),
                btf=btf,
                programs=programs,
                observer=observer,
                began_s=began_s,
            )
        )
        return _run(options, pipeline, observer, stop, urgency=urgency, command=command)


def _run(
    options: Options,
    pipeline: Pipeline,
    observer: Observer,
    stop: StopSignals,
    *,
    urgency: Urgency,
    command: GatedCommand | None,
) -> Recording:
    pipeline.start()
    if stop.received is not None:  # the command never ran, as if the signal had ended it
        pipeline.finish(signal.Signals(stop.received).name)
        return Recording(options.output, 128 + stop.received if command else 0)
    urgency.watch()
    _say_ready(options.ready_file)
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
        return Recording(options.output, 0)
    try:
        end_reason = _until_command_ends(loop, command, stop, deadline_s)
    except Exception as error:  # whatever failed is ours: the command is not to suffer from it
        pipeline.abort(error)
        observer.warn(f"recording failed ({error}): the command goes on without it")
        _until_command_ends(Loop(stop), command, stop, deadline_s)
        raise
    urgency.close()
    pipeline.finish(end_reason)
    code = command.process.wait()
    return Recording(options.output, code if code >= 0 else 128 - code)


def _timers(pipeline: Pipeline, observer: Observer) -> list[Timer]:
    """What is done again and again; flushing comes before sampling, which may take long."""
    return [
        Timer(_DRAIN_INTERVAL_S, pipeline.drain),
        Timer(_RING_INTERVAL_S, pipeline.read_rings),
        Timer(_FLUSH_INTERVAL_S, pipeline.flush),
        Timer(_SAMPLE_INTERVAL_S, pipeline.sample),
        Timer(_TICK_INTERVAL_S, pipeline.tell_news),
        Timer(_TICK_INTERVAL_S, lambda: observer.tick(pipeline)),
    ]


def _until_command_ends(loop: Loop, command: GatedCommand, stop: StopSignals, deadline_s: float) -> str:
    """Run the loop until the command has ended, which it is made to when the recording is over before.

    Returns what ended the recording.
    """
    pidfd = os.pidfd_open(command.process.pid)
    try:
        end_reason = loop.run(deadline_s, pidfd)
        if end_reason != COMMAND_ENDED:
            number = stop.take() or signal.SIGTERM
            if not _came_to_the_command_too(number):
                signal.pidfd_send_signal(pidfd, number)
            if loop.run(time.monotonic() + _COMMAND_GRACE_S, pidfd) != COMMAND_ENDED:  # or a second signal
                command.process.kill()
    finally:
        os.close(pidfd)
    command.process.wait()
    return end_reason


def _end_command(command: GatedCommand) -> None:
    """Leave no process behind, whatever went wrong."""
    if command.process.poll() is None:
        command.process.kill()
    with suppress(OSError):
        command.abandon()


def _require_command(program: str) -> None:
    """Refuse what no exec could run before anything is made for it, or overwritten."""
    if shutil.which(program):
        return
    places = [Path(program)] if "/" in program else [Path(folder, program) for folder in os.get_exec_path()]
    if program and any(place.exists() for place in places):
        raise CommandError(f"cannot run {program!r}: it is not an executable file", 126)
    raise CommandError(f"command not found: {program!r}", 127)


def _require_absent(ready_file: Path | None) -> None:
    """Whoever waits for the file would take that of an earlier recording for ours."""
    if ready_file is not None and os.path.lexists(ready_file):
        raise TracerError(f"the ready file {ready_file} is there before the recording: remove it first")


def _say_ready(ready_file: Path | None) -> None:
    if ready_file is None:
        return
    try:
        os.close(os.open(ready_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise TracerError(f"cannot create the ready file {ready_file}: {error.strerror}") from error


def _require_root() -> None:
    if os.geteuid() != 0:
        raise TracerError("recording needs root: run it with sudo (reading a trace does not)")


def _came_to_the_command_too(number: int) -> bool:
    """Ctrl-C goes to all of a terminal's foreground group (isig in drivers/tty/n_tty.c): a second one would
    make many programs skip their tidying up. Sent to us alone while we are in the foreground, it looks the
    same: the command then is given its time, and killed.
    """
    if number != signal.SIGINT:
        return False
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:  # noqa: PTH123
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
