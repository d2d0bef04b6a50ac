"""The event loop: what ends it, and when timers run."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tracer.capture import loop as loop_module
from tracer.capture.loop import Loop, StopSignals, Timer, stop_signals
from tracer.trace.recording_ends import COMMAND_ENDED, DURATION

EPOLL_WAITS = {"232", "281", "22"}
"""The numbers of epoll_wait and epoll_pwait on x86-64, and of epoll_pwait on arm64."""


@pytest.fixture
def stop() -> Iterator[StopSignals]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started the tests
    with stop_signals() as signals:
        yield signals
    signal.signal(signal.SIGHUP, before)


def test_loop_ends_at_the_deadline(stop: StopSignals) -> None:
    begin = time.monotonic()
    assert Loop(stop).run(begin + 0.05) == DURATION
    assert time.monotonic() >= begin + 0.05


def test_loop_ends_with_the_command(stop: StopSignals) -> None:
    with subprocess.Popen(["true"]) as command:
        pidfd = os.pidfd_open(command.pid)
        try:
            assert Loop(stop).run(time.monotonic() + 60, pidfd) == COMMAND_ENDED
        finally:
            os.close(pidfd)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_loop_once(stop: StopSignals, number: signal.Signals) -> None:
    ended = Loop(stop, [Timer(0.0, lambda: os.kill(os.getpid(), number))]).run(math.inf)
    assert (ended, stop.take(), stop.take()) == (number.name, number, None)
    assert Loop(stop).run(time.monotonic() + 0.05) == DURATION


def test_signal_ends_a_wait_that_it_does_not_interrupt(stop: StopSignals) -> None:
    """As one that comes just before the wait: here it comes during the wait, in another thread."""
    syscall = Path(f"/proc/self/task/{threading.get_native_id()}/syscall")

    def send() -> None:
        while syscall.read_text().split()[0] not in EPOLL_WAITS:
            time.sleep(0.001)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        assert Loop(stop).run(math.inf) == "SIGTERM"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        thread.join()


def test_signal_that_came_before_ends_the_loop(stop: StopSignals) -> None:
    signal.raise_signal(signal.SIGTERM)
    stop.drain()
    assert Loop(stop).run(time.monotonic() + 60) == "SIGTERM"


def test_ignored_sighup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signal_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_readable_descriptor_is_read(stop: StopSignals) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"x")
        read: list[bytes] = []
        loop = Loop(stop, descriptors=[reader], read=lambda: read.append(os.read(reader, 1)))
        loop.run(time.monotonic() + 0.05)
    finally:
        os.close(reader)
        os.close(writer)
    assert read == [b"x"]


def test_input_that_stays_readable_has_its_own_function_called_again(stop: StopSignals) -> None:
    reader, writer = os.pipe()
    read: list[bytes] = []

    def read_one() -> None:
        read.append(os.read(reader, 1))
        if len(read) == 3:
            signal.raise_signal(signal.SIGINT)

    try:
        os.write(writer, b"xyz")
        loop = Loop(stop, read=lambda: read.append(b"rings"), inputs={reader: read_one})
        assert loop.run(time.monotonic() + 60) == "SIGINT"
    finally:
        os.close(reader)
        os.close(writer)
    assert read == [b"x", b"y", b"z"]


def test_timer_takes_a_changed_interval_with_its_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    made = SimpleNamespace(monotonic=lambda: now_s, thread_time=lambda: 0.0)
    monkeypatch.setattr(loop_module, "time", made)
    timer = Timer(1.0, lambda: None)
    timer.interval_s = 10.0
    assert timer.due == 101.0
    now_s = 101.0
    timer.run_if_due()
    assert timer.due == 110.0


def test_descriptor_that_stays_readable_is_read_once(stop: StopSignals) -> None:
    reader, writer = os.pipe()
    read: list[None] = []
    try:
        os.write(writer, b"x")
        Loop(stop, descriptors=[reader], read=lambda: read.append(None)).run(time.monotonic() + 0.05)
    finally:
        os.close(reader)
        os.close(writer)
    assert len(read) == 1


def test_timer_runs_only_while_it_is_wanted(stop: StopSignals) -> None:
    runs: list[str] = []

    def rest() -> None:
        runs.append("rest")
        if runs.count("rest") == 4:
            signal.raise_signal(signal.SIGINT)

    timers = [Timer(0.01, lambda: runs.append("tick"), lambda: "rest" not in runs), Timer(0.02, rest)]
    assert Loop(stop, timers).run(time.monotonic() + 60) == "SIGINT"
    assert "tick" not in runs[runs.index("rest") :]


@pytest.mark.parametrize(("skips", "made_up"), [(False, 1), (True, 0)])
def test_run_that_was_due_before_the_timer_existed_is_made_up_for_unless_it_skips(
    stop: StopSignals, skips: bool, made_up: int
) -> None:
    """The timer begins to exist with the first `read`, as when a rest ends, long after its time."""
    reader, writer = os.pipe()
    events: list[str] = []

    def read() -> None:
        events.append("read")
        signal.raise_signal(signal.SIGINT)

    timer = Timer(3600.0, lambda: events.append("run"), lambda: bool(events), skips=skips)
    timer.due = 0.0
    try:
        os.write(writer, b"x")
        assert Loop(stop, [timer], [reader], read).run(math.inf) == "SIGINT"
    finally:
        os.close(reader)
        os.close(writer)
    assert events == ["read", *["run"] * made_up]
    assert timer.due > time.monotonic()


class Clock:
    """The clocks that a timer reads; `runs` holds the times of its runs."""

    def __init__(self) -> None:
        self.now_s = self.cpu_s = 100.0
        self.runs: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def thread_time(self) -> float:
        return self.cpu_s

    def run(self, cpu_s: float, wall_s: float) -> None:
        self.runs.append(self.now_s)
        self.cpu_s += cpu_s
        self.now_s += wall_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(loop_module, "time", made)
    return made


@pytest.mark.parametrize(
    ("cpu_s", "wall_s", "next_s"),
    [
        (0.0, 0.0, 102.0),
        (0.3, 0.3, 102.0),
        (1.0, 1.5, 103.5),
        (0.0, 5.0, 106.0),
        (4.0, 4.0, 106.0),
    ],
    ids=["short", "within the interval", "long", "waiting for a CPU", "at most a second"],
)
def test_timer_delays_the_next_run_by_the_cpu_time_of_a_run(
    clock: Clock, cpu_s: float, wall_s: float, next_s: float
) -> None:
    timer = Timer(1.0, lambda: clock.run(cpu_s, wall_s))
    timer.run_if_due()
    assert clock.runs == []
    clock.now_s = 101.0
    timer.run_if_due()
    assert clock.runs == [101.0]
    assert timer.due == pytest.approx(next_s)


def test_restarted_timer_is_due_after_whole_intervals(clock: Clock) -> None:
    timer = Timer(10.0, lambda: clock.run(0.0, 0.0))
    clock.now_s = 109.5
    timer.restart()
    assert timer.due == 119.5
    clock.now_s = 119.6
    timer.run_if_due()
    assert timer.due == 129.5


def test_timer_that_leaves_out_a_run_keeps_its_phase(clock: Clock) -> None:
    clock.now_s = 100.3
    timer = Timer(1.0, lambda: clock.run(0.0, 0.0))
    clock.now_s = 100.8
    timer.leave_out()
    assert timer.due == 102.0
    clock.now_s = 101.8
    timer.leave_out()
    assert timer.due == 103.0


def test_timers_of_one_interval_are_due_together(clock: Clock) -> None:
    clock.now_s = 100.3
    first = Timer(0.5, lambda: clock.run(0.0, 0.1))
    clock.now_s = 100.4
    second = Timer(0.5, lambda: clock.run(0.0, 0.1))
    assert first.due == second.due == 100.5
    clock.now_s = 100.6  # woken late
    for timer in (first, second):
        timer.run_if_due()
    assert first.due == second.due == 101.0
