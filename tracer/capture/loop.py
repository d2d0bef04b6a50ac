"""The event loop of a recording: timers, descriptors, signals, the end of the command."""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Final

from tracer.trace.recording_ends import COMMAND_ENDED, DURATION

_LONGEST_WAIT_S: Final = 3600.0  # epoll_wait(2) takes an int of ms


class Timer:
    """Runs a function each interval; a long run delays the next one, so that half of a CPU stays free.

    The delay is the CPU time of the run, at most a second. It is not the wall-clock time: on a busy machine a
    run mostly waits for a CPU, and the recorder would only fall further behind. Runs are due at
    multiples of the interval, so that timers of one interval wake the process once, unless `restart` is
    called. The timer exists only while `when` returns true. A run that was due while it did not exist is made
    up for once it does; with `skips`, it is left out. A change of `interval_s` takes effect with the next
    run.
    """

    def __init__(
        self,
        interval_s: float,
        function: Callable[[], object],
        when: Callable[[], bool] = lambda: True,
        *,
        skips: bool = False,
    ) -> None:
        self.interval_s = interval_s
        self._function = function
        self.when = when
        self._skips = skips
        self._origin = 0.0
        self.due = self._next(time.monotonic())

    def restart(self) -> None:
        """Count intervals from now on: the next run is due in a whole interval."""
        self._origin = time.monotonic()
        self.due = self._next(self._origin)

    def leave_out(self) -> None:
        """Leave out the next run: something else has just done the same."""
        self.due = self._next(time.monotonic() + self.interval_s)

    def _next(self, now_s: float) -> float:
        if not self.interval_s:
            return now_s
        return self._origin + ((now_s - self._origin) // self.interval_s + 1) * self.interval_s

    def skip(self, now_s: float) -> None:
        """Leave out a run that was due by now, if the timer does not exist and `skips` is set."""
        if self._skips and self.due <= now_s and not self.when():
            self.due = self._next(now_s)

    def run_if_due(self) -> None:
        """Run the function if its time has come and the timer exists, and set the next time."""
        begin = time.monotonic()
        if begin < self.due or not self.when():
            return
        cpu_begin = time.thread_time()
        self._function()
        cpu_s = time.thread_time() - cpu_begin
        self.due = max(self._next(begin), time.monotonic() + min(cpu_s, 1.0))  # missed runs are not made up


class Loop:
    """Runs timers, and `read` each time that one of `descriptors` becomes readable.

    A ring stays readable while it has a record. So these descriptors are edge-triggered: `read` is called
    when a program wakes this process, and not all the time while a record waits. `inputs` are other
    descriptors, each with a function that is called while the descriptor is readable.
    """

    def __init__(
        self,
        stop: StopSignals,
        timers: Sequence[Timer] = (),
        descriptors: Sequence[int] = (),
        read: Callable[[], object] = lambda: None,
        inputs: Mapping[int, Callable[[], object]] = MappingProxyType({}),
    ) -> None:
        self._stop = stop
        self._timers = timers
        self._descriptors = descriptors
        self._read = read
        self._inputs = inputs

    def _next_s(self, deadline_s: float) -> float:
        """Return the time at which the next timer is due, or the deadline."""
        next_s = deadline_s
        for timer in self._timers:
            if timer.due < next_s and timer.when():
                next_s = timer.due
        return next_s

    def run(self, deadline_s: float, pidfd: int | None = None) -> str:
        """Run until something ends the loop, and return its name.

        `COMMAND_ENDED`: the process of `pidfd` ended. `DURATION`: `deadline_s` (CLOCK_MONOTONIC) has come.
        Otherwise the name of a signal, which stays in `stop` until it is taken.
        """
        if self._stop.received is not None:  # and another loop may have drained the descriptor
            return signal.Signals(self._stop.received).name
        with select.epoll() as poll:
            for fd in self._descriptors:
                poll.register(fd, select.EPOLLIN | select.EPOLLET)
            for fd in (self._stop.fileno(), *self._inputs, *([] if pidfd is None else [pidfd])):
                poll.register(fd, select.EPOLLIN)
            while True:
                now = time.monotonic()
                if now >= deadline_s:
                    return DURATION
                wait_s = min(max(self._next_s(deadline_s) - now, 0.0), _LONGEST_WAIT_S)
                ready = {fd for fd, _ in poll.poll(wait_s)}
                woken_s = time.monotonic()
                for timer in self._timers:  # before `read`, which may bring a timer into existence
                    timer.skip(woken_s)
                if self._stop.fileno() in ready:
                    self._stop.drain()
                if self._stop.received is not None:
                    return signal.Signals(self._stop.received).name
                if pidfd in ready:
                    return COMMAND_ENDED
                if ready - self._inputs.keys() - {self._stop.fileno()}:
                    self._read()
                for fd in self._inputs.keys() & ready:
                    self._inputs[fd]()
                for timer in self._timers:
                    timer.run_if_due()


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP; `received` is the signal that was not taken yet.

    Its descriptor is readable once any signal came that has a handler in Python. The interpreter writes to it
    as soon as the kernel delivers the signal. The handler itself may come too late: a signal just before the
    loop waits does not interrupt the wait, and handlers run after it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, readable once a signal came."""
        return self._woken.fileno()

    def receive(self, number: int, _frame: object) -> None:
        self.received = number

    @contextmanager
    def woken(self) -> Iterator[None]:
        """Let the interpreter write to the descriptor."""
        before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def take(self) -> int | None:
        """Return the signal that was received, if any, and forget it."""
        number, self.received = self.received, None
        return number

    def drain(self) -> None:
        """Make the descriptor unreadable until the next signal."""
        with suppress(BlockingIOError):
            self._woken.recv(1024)

    def close(self) -> None:
        self._wake.close()
        self._woken.close()


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Catch SIGINT, SIGTERM and SIGHUP. A SIGHUP that is ignored (nohup) stays ignored."""
    stop = StopSignals()
    numbers = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.add(signal.SIGHUP)
    try:
        with stop.woken():  # before the handlers: each signal that they take wakes the loop
            before = {number: signal.signal(number, stop.receive) for number in numbers}
            try:
                yield stop
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
    finally:
        stop.close()
