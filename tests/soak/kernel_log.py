"""OOM kills as the kernel reports them: the truth that traces are compared with."""

from __future__ import annotations

import os
import re
import time
from typing import Final, NamedTuple

_ABOUT: Final = re.compile(r"oom-kill:.*oom_memcg=([^,]*),task_memcg=[^,]*,task=(.*),pid=(\d+),uid=\d+")
_MOST_BYTES: Final = 16384


class Logged(NamedTuple):
    """A kill: the cgroup whose limit was hit, the victim, and the time at which it was read (time.time)."""

    cgroup: str
    comm: str
    pid: int
    time_s: float


class KernelLog:
    """The kills since now; the kernel prints at most 10 in 5 s, for the whole machine."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)
        self.overwritten = 0

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)

    def read(self) -> list[Logged]:
        """Return the kills since the last call; call it several times a second."""
        kills: list[Logged] = []
        while True:
            try:
                text = os.read(self._fd, _MOST_BYTES).decode("utf-8", "replace")
            except BlockingIOError:
                return kills
            except BrokenPipeError:  # some records were overwritten
                self.overwritten += 1
                continue
            if (found := _ABOUT.search(text)) is not None:
                kills.append(Logged(found[1], found[2], int(found[3]), time.time()))
