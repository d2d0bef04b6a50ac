"""A child process that works beside the recorder's loop."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

_WAIT_S: Final = 0.1  # a child whose pipe is full waits for `poll`
_MOST_BYTES: Final = 1 << 20


class Child:
    """A child in a session of its own, without input. Its process group is killed at `deadline_s`.

    The argument `output` is its stdout: a descriptor, or `subprocess.PIPE`. With a pipe, the attribute
    `output` gets the first MiB. Raises OSError if the child cannot be started.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], within_s: float, output: int):
        self.within_s = within_s
        self.was_late = False
        self.hurries_s = math.inf
        self.output = bytearray()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True, env=environment
        )
        self._pipe = -1
        if self._process.stdout is not None:
            self._pipe = os.dup(self._process.stdout.fileno())
            self._process.stdout.close()
            os.set_blocking(self._pipe, False)
        self.deadline_s = time.monotonic() + within_s

    @property
    def due_s(self) -> float:
        """Return the time at which `poll` must be called, on CLOCK_MONOTONIC."""
        return min(self.deadline_s, self.hurries_s)

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
        elif now_s >= self.deadline_s:
            self.was_late = True
            self.kill()
            self.deadline_s = now_s + 1
        elif now_s >= self.hurries_s:
            self.hurries_s = math.inf
            with suppress(OSError):  # a higher priority may not be permitted
                os.setpriority(os.PRIO_PGRP, self._process.pid, 0)
        return status

    def how_it_ended(self, status: int) -> str:
        """Return words for an exit status that `poll` returned."""
        if status < 0:
            late = f"took longer than {self.within_s:.0f} s and was killed"
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
