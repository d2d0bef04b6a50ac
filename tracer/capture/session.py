"""One recording, from the first program loaded to the last row written."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from tracer.capture.pipeline import Pipeline
from tracer.errors import TraceError, TracerError
from tracer.kernel import cgroupfs
from tracer.kernel.ephemeral import ephemeral_cgroup
from tracer.kernel.spawn import GatedCommand, spawn

_RING_INTERVAL_S: Final = 0.05
_DRAIN_INTERVAL_S: Final = 0.01
_SAMPLE_INTERVAL_S: Final = 0.1
_FLUSH_INTERVAL_S: Final = 0.2
_TICK_INTERVAL_S: Final = 0.5
_COMMAND_GRACE_S: Final = 2.0


@dataclass(frozen=True)
class Options:
    """What to record. `limit_bytes` and `swap_bytes` bound the cgroup made for `command`."""

    output: Path
    cgroups: tuple[str, ...] = ()
    duration_s: float | None = None
    limit_bytes: int | None = None
    swap_bytes: int | None = None
    name: str = "trace"
    force: bool = False
    command: tuple[str, ...] = ()
    ready_file: Path | None = None
    ring_pages: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """A recording that ended. `status` is the command's exit status, 128+N where a signal ended it."""

    path: Path
    status: int
    end_reason: str


class Observer(Protocol):
    """Who is told how a recording goes."""

    def ready(self, pipeline: Pipeline) -> None:
        """All probes are attached; the command starts now."""

    def tick(self, pipeline: Pipeline, elapsed_s: float) -> None:
        """Now and then."""

    def killed(self, kill: dict[str, Any]) -> None:
        """An OOM kill, as a row of `oom`."""

    def warn(self, message: str) -> None:
        """Something is not as it should be, and recording goes on."""


def record(options: Options, observer: Observer) -> Recording:
    """Record until the command ends, the time is over, or SIGINT or SIGTERM comes.

    Raises TracerError where recording cannot begin, or cannot go on (the disk is full): what was recorded until then
    is a readable trace.
    """
    _require_root()
    hierarchy = cgroupfs.memory_hierarchy()
    with ExitStack() as stack:
        roots = [directory for pattern in options.cgroups for directory in cgroupfs.resolve(hierarchy, pattern)]
        command = None
        if options.command:
            cgroup = stack.enter_context(
                ephemeral_cgroup(options.name, options.limit_bytes, options.swap_bytes, hierarchy)
            )
            command = spawn(cgroup, options.command)
            stack.callback(_end_command, command)
            roots.append(cgroup)
        stop = stack.enter_context(_stop_signals())
        pipeline = stack.enter_context(Pipeline(options, hierarchy, roots or None, observer))
        return _run(options, pipeline, observer, stop, command)


def _run(
    options: Options,
    pipeline: Pipeline,
    observer: Observer,
    stop: _StopSignals,
    command: GatedCommand | None,
) -> Recording:
    pipeline.start()
    if command is not None:
        command.release()
    _say_ready(options.ready_file)
    observer.ready(pipeline)
    try:
        end_reason = _loop(options, pipeline, observer, stop, command)
        status = _status(command, stop, end_reason)
    except TraceError:
        with suppress(TracerError):
            pipeline.finish("write_failed")
        raise
    pipeline.finish(end_reason)
    return Recording(options.output, status, end_reason)


def _loop(
    options: Options,
    pipeline: Pipeline,
    observer: Observer,
    stop: _StopSignals,
    command: GatedCommand | None,
) -> str:
    """Run the timers until something ends the recording; returns what did."""
    started = time.monotonic()
    timers = [
        _Timer(_DRAIN_INTERVAL_S, pipeline.drain),
        _Timer(_RING_INTERVAL_S, pipeline.read_rings),
        _Timer(_SAMPLE_INTERVAL_S, pipeline.sample),
        _Timer(_FLUSH_INTERVAL_S, pipeline.flush),
        _Timer(_TICK_INTERVAL_S, lambda: observer.tick(pipeline, time.monotonic() - started)),
    ]
    poll = select.epoll()
    for fd in (*pipeline.ring_fds(), stop.fileno()):
        poll.register(fd, select.EPOLLIN)
    pidfd = os.pidfd_open(command.process.pid) if command is not None else -1
    if pidfd >= 0:
        poll.register(pidfd, select.EPOLLIN)
    try:
        while True:
            now = time.monotonic()
            if options.duration_s is not None and now - started >= options.duration_s:
                return "duration"
            wait = max(0.0, min(timer.due for timer in timers) - now)
            ready = {fd for fd, _ in poll.poll(wait)}
            if stop.received is not None:
                return signal.Signals(stop.received).name
            if pidfd in ready:
                return "command_ended"
            if ready - {stop.fileno()}:
                pipeline.read_rings()
            for timer in timers:
                timer.run_if_due()
    finally:
        poll.close()
        if pidfd >= 0:
            os.close(pidfd)


class _Timer:
    """Runs a function each interval; a run that takes long pushes the next one back, so that half the time is free."""

    def __init__(self, interval_s: float, function: Callable[[], object]) -> None:
        self._interval_s = interval_s
        self._function = function
        self.due = time.monotonic() + interval_s

    def run_if_due(self) -> None:
        begin = time.monotonic()
        if begin < self.due:
            return
        self._function()
        end = time.monotonic()
        self.due = max(self.due + self._interval_s, end + min(end - begin, 1.0))


def _status(command: GatedCommand | None, stop: _StopSignals, end_reason: str) -> int:
    """The command's exit status; a command that outlives the recording is asked to end, then made to."""
    if command is None:
        return 0
    process = command.process
    if end_reason != "command_ended":
        process.send_signal(stop.received or signal.SIGTERM)
        try:
            process.wait(_COMMAND_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _end_command(command: GatedCommand) -> None:
    """Leave no process behind, whatever went wrong."""
    if command.process.poll() is None:
        command.process.kill()
    with suppress(OSError):
        command.abandon()


def _say_ready(ready_file: Path | None) -> None:
    if ready_file is None:
        return
    try:
        os.close(os.open(ready_file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise TracerError(f"cannot create the ready file {ready_file}: {error.strerror}") from error


def _require_root() -> None:
    if os.geteuid() != 0:
        raise TracerError("recording needs root: run it with sudo (reading a trace does not)")


class _StopSignals:
    """SIGINT and SIGTERM as something to poll."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)

    def fileno(self) -> int:
        return self._woken.fileno()

    def take(self, number: int, _frame: object) -> None:
        self.received = number
        with suppress(BlockingIOError):
            self._wake.send(b"s")

    def close(self) -> None:
        self._wake.close()
        self._woken.close()


@contextmanager
def _stop_signals() -> Iterator[_StopSignals]:
    stop = _StopSignals()
    before = {number: signal.signal(number, stop.take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
