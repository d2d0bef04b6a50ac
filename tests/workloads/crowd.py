"""Crowds: processes of given sizes and oom_score_adj in one cgroup, under pressure until the kernel kills
one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tracer.analysis.explain.victim_selection import OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN

MIB: Final = 1 << 20
LIMIT_BYTES: Final = 96 * MIB
_MOST_BYTES: Final = LIMIT_BYTES * 3 // 4
_CAP_SYS_RESOURCE: Final = 24  # include/uapi/linux/capability.h
_BURST: Final = (
    10  # reports of OOM kills that the kernel prints per interval (oom_kill_process in mm/oom_kill.c)
)
_INTERVAL_S: Final = 5.0
_CROWDS_FOR_A_REPORT: Final = 3


class Member(NamedTuple):
    """One process."""

    size_bytes: int
    adj: int


def may_lower_adj() -> bool:
    """Return whether this process may lower its oom_score_adj."""
    status = Path("/proc/self/status").read_text("ascii")
    able = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(able, 16) >> _CAP_SYS_RESOURCE & 1)


def random_crowd(random: Random) -> list[Member]:
    """Return 2 to 9 members that fit below the limit; about a third have no oom_score_adj."""
    sizes = [random.choice((MIB // 4, MIB)) * random.randint(1, 20) for _ in range(random.randint(2, 9))]
    too_much = max(sum(sizes) / _MOST_BYTES, 1)
    ranges = [(0, 0), (0, 60), (0, OOM_SCORE_ADJ_MAX)]
    if may_lower_adj():
        ranges += [(OOM_SCORE_ADJ_MIN, 0), (OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MIN)]
    return [Member(int(size / too_much), random.randint(*random.choice(ranges))) for size in sizes]


def press(memcg: Path, members: Sequence[Member], own_adj: int = 0) -> int:
    """Run the members and one growing process until one of them is killed.

    Returns the exit status of the growing process: -9 if it was killed itself.
    """
    enter = f'echo {own_adj} > /proc/self/oom_score_adj && echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    crowd = [f"{member.size_bytes}:{member.adj}" for member in members]
    steps = ["crowd", *crowd, "then", "press", str(2 * LIMIT_BYTES)]
    command = ["sh", "-c", enter, sys.executable, "-m", "tracer.lab.workload", *steps]
    return subprocess.run(command, check=False).returncode


class Reports:
    """The kernel's reports of kills, at most 10 in 5 s for the whole machine."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)
        self._seen_s = deque([time.monotonic()] * _BURST)  # assume that all were just printed

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)

    def wait(self) -> None:
        """Wait until the kernel would report the next kill."""
        self.printed("")
        if (early_s := self._seen_s[-_BURST + 1] + _INTERVAL_S - time.monotonic()) > 0:
            time.sleep(early_s)

    def printed(self, cgroup: str) -> int:
        """Return how many reports since the last call are on a cgroup of this name."""
        texts = list(self._texts())
        self._seen_s.extend(time.monotonic() for text in texts if "invoked oom-killer" in text)
        about = re.compile(rf"oom-kill:.*oom_memcg=[^,]*{re.escape(cgroup)},")
        return sum(about.search(text) is not None for text in texts)

    def _texts(self) -> Iterator[str]:
        while True:
            try:
                yield os.read(self._fd, 16384).decode("ascii", "replace")
            except BlockingIOError:
                return
            except BrokenPipeError:  # some records were overwritten
                continue


def press_reported(memcg: Path, crowd: Sequence[Member], reports: Reports, own_adj: int = 0) -> int:
    """Call `press` until the kernel has reported a kill, and return the number of calls.

    Kills elsewhere may use up the reports of an interval.
    """
    for tries in range(1, _CROWDS_FOR_A_REPORT + 1):
        reports.wait()
        press(memcg, crowd, own_adj)
        if reports.printed(memcg.name):
            return tries
    raise AssertionError(f"of {_CROWDS_FOR_A_REPORT} kills the kernel has reported none")
