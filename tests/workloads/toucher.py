"""Touches, frees and moves on command: each line is an order, and "done" answers it.

Orders: `touch PAGES` touches new anonymous pages, in small turns between which other processes run; `hold
SECONDS` touches one each millisecond without leaving the CPU; `free` frees them all; `write FILE PAGES`
writes a file in such turns, `move DIRECTORY` moves this process into a cgroup, and `cpu NUMBER` keeps it on
a CPU.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

TURN_PAGES = 61

areas: list[mmap.mmap] = []


def touch(pages: int) -> None:
    area = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(pages):
        area[page * mmap.PAGESIZE] = 1
        if page % TURN_PAGES == 0:
            time.sleep(0.001)
    areas.append(area)


def write(path: str, pages: int) -> None:
    with Path(path).open("wb", buffering=0) as file:
        for begin in range(0, pages, TURN_PAGES):
            file.write(bytes(min(TURN_PAGES, pages - begin) * mmap.PAGESIZE))
            time.sleep(0.001)


def hold(seconds: float) -> None:
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    area = mmap.mmap(-1, round(1000 * seconds) * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    begin = time.monotonic()
    for page in range(len(area) // mmap.PAGESIZE):
        while time.monotonic() < begin + page / 1000:
            pass
        area[page * mmap.PAGESIZE] = 1
    areas.append(area)


print("ready", flush=True)
while line := sys.stdin.readline():
    order, *words = line.split()
    match order:
        case "touch":
            touch(int(words[0]))
        case "hold":
            hold(float(words[0]))
        case "free":
            while areas:
                areas.pop().close()
        case "write":
            write(words[0], int(words[1]))
        case "move":
            Path(words[0], "cgroup.procs").write_text("0", encoding="ascii")
        case "cpu":
            os.sched_setaffinity(0, {int(words[0])})
    print("done", flush=True)
