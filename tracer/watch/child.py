"""A child process that works beside the recorder's loop."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from tracer.kernel.process.children import cpu_s
from tracer.kernel.process.priority import HeadStart

_WAIT_S: Final = 0.1  # a child whose pipe is full waits for `poll`
_MOST_BYTES: Final = 1 << 20
_LEAST_CPU_S: Final = 0.5  # a child that has taken less since its last deadline hangs
_LEAST_WAIT_S: Final = 60.0  # between two deadlines
_HEAD_START_S: Final = 5.0


class Child:
    """A child in a session of its own, with `text` as its standard input. Its process group is killed at
    `deadline_s`: after `within_s`, or, if the limit `is_of_cpu`, when it has taken so much CPU time, or none
    for so long. On a busy machine, or under a CPU quota, a child that does its work takes any time.

    If a user waits for the child (`is_awaited`), it gets more of a busy CPU in its first seconds: a child of
    1 s of CPU time would take 4 s under a load of 7, and 8 s under a load of 15.

    The argument `output` is its stdout: a descriptor, or `subprocess.PIPE`. With a pipe, the attribute
    `output` gets the first MiB. Raises OSError if the child cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        within_s: float,
        output: int,
        *,
        is_of_cpu: bool = False,
        is_awaited: bool = False,
        text: str = "",
    ):
        self.within_s = within_s
        self._is_of_cpu = is_of_cpu
        self._cpu_s = 0.0  # at the last deadline
        self.was_late = False
        self.hurries_s = math.inf
        self.output = bytearray()
        with _file_with(text) as given:
            self._process = subprocess.Popen(
                argv, stdin=given, stdout=output, start_new_session=True, env=environment
            )
        self._head_start = HeadStart(self._process.pid) if is_awaited else None
        self._head_start_ends_s = time.monotonic() + _HEAD_START_S if is_awaited else math.inf
        self._pipe = -1
        if self._process.stdout is not None:
            self._pipe = os.dup(self._process.stdout.fileno())
            self._process.stdout.close()
            os.set_blocking(self._pipe, False)
        self.deadline_s = time.monotonic() + within_s

    @property
    def due_s(self) -> float:
        """Return the time at which `poll` must be called, on CLOCK_MONOTONIC."""
        return min(self.deadline_s, self.hurries_s, self._head_start_ends_s)

    def wait(self, until_s: float) -> None:
        """Wait a moment, but not beyond the end of the child, or `until_s` (CLOCK_MONOTONIC)."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(
                max(0.0, min(_WAIT_S, self.due_s - time.monotonic(), until_s - time.monotonic()))
            )

    def poll(self, now_s: float) -> int | None:
        """Read the output; return the exit status once the child has ended, -N for signal N."""
        status = self._process.poll()
        self._read()
        if status is not None:
            self._close()
        elif now_s >= self.deadline_s and not self._extend(now_s):
            self.was_late = True
            self.kill()
            self.deadline_s = now_s + 1
        elif now_s >= self._head_start_ends_s:
            self._head_start_ends_s = math.inf
            if self._head_start is not None:
                self._head_start.end()
        elif now_s >= self.hurries_s:
            self.hurries_s = math.inf
            with suppress(OSError):  # a higher priority may not be permitted
                os.setpriority(os.PRIO_PGRP, self._process.pid, 0)
        return status

    def _extend(self, now_s: float) -> bool:
        """Set a later deadline for a child that works, and return whether it may have one."""
        if not self._is_of_cpu or self.was_late:
            return False
        try:
            taken_s = cpu_s(self._process.pid)
        except OSError:
            return False
        if taken_s >= self.within_s or taken_s - self._cpu_s < _LEAST_CPU_S:
            return False
        self._cpu_s = taken_s
        self.deadline_s = now_s + max(self.within_s - taken_s, min(self.within_s, _LEAST_WAIT_S))
        return True

    def how_it_ended(self, status: int) -> str:
        """Return words for an exit status that `poll` returned."""
        if status < 0:
            of_cpu = " of CPU time, or hung," if self._is_of_cpu else ""
            late = f"took longer than {self.within_s:.0f} s{of_cpu} and was killed"
            return late if self.was_late else f"was ended by signal {-status}"
        return f"ended with exit status {status}"

    def kill(self) -> None:
        """Kill the process group of the child, whose exit status has not been collected yet."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the child and wait at most a second: a child that waits for a disk cannot end."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._close()

    def _read(self) -> None:
        while self._pipe >= 0:
            try:
                read = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not read:
                self._close()
            elif len(self.output) < _MOST_BYTES:
                self.output += read

    def _close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


@contextmanager
def _file_with(text: str) -> Iterator[int]:
    """Yield a descriptor to read the text from: a file in memory, because a pipe could be full."""
    fd = os.memfd_create("memcg-tracer-input", os.MFD_CLOEXEC)
    try:
        with open(fd, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
