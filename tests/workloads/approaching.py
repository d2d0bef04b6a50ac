"""A process that approaches its memory limit in a planned way: `approaching.py FOLDER SEED STEPS`.

STEPS is a JSON list of steps, each a list of a name and numbers: MiB, MiB a second, seconds.

    grow RATE TO              grow to TO MiB of anonymous memory
    ease TIME TO              approach TO MiB: the rest shrinks by a factor e in each TIME
    accelerate RATE TIME TO   grow to TO; the rate doubles in each TIME
    bursts SIZE TIME TO       grow to TO by SIZE at once, a TIME apart on average
    free TO                   free anonymous memory down to TO
    rest TIME                 do nothing
    shmem RATE TO             write a file in memory up to TO; a smaller TO truncates it
    read RATE SIZE            read a sparse file of SIZE
    reread RATE SIZE TIME     read it again and again for TIME
    write RATE SIZE SYNC      write SIZE to a file on disk, and wait for the disk after each SYNC (0: never)
    slab RATE SIZE            make pipes with SIZE of buffer tables
    files RATE NUMBER         make empty files, RATE a second
    beside STEPS              run steps in a child, and go on
    repeat NUMBER STEPS       do the steps so often
    child STEPS               run steps in a child, and wait for its end
    supervise NUMBER STEPS    the same; start again if it was killed, at most so often
    join                      wait for the children of `beside`, or end with the first that is killed

Growth is uneven: each tick adds between nothing and twice its share. SEED decides how much.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

MIB: Final = 1 << 20
_MOST_MIB: Final = 2048
_TICK_S: Final = 0.02
_REST: Final = b"\xa5" * MIB
_PIPE_MIB: Final = (16 << 10) / MIB  # of slab: 256 struct pipe_buffer (include/linux/pipe_fs_i.h), rounded up
_PIPE_BYTES: Final = 1 << 20


class Approach:
    """The state of one process: what it holds."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.chance = random.Random(seed)
        self.children: list[int] = []
        self._new_memory()

    def _new_memory(self) -> None:
        self.area = mmap.mmap(-1, _MOST_MIB * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.area.madvise(mmap.MADV_NOHUGEPAGE)
        self.held = 0  # bytes
        self.memory_file = os.memfd_create("approach")
        self.pipes: list[tuple[int, int]] = []

    def run(self, steps: list[list[Any]]) -> None:
        for name, *given in steps:
            getattr(self, name)(*given)

    def _ticks(self) -> Iterator[tuple[float, float]]:
        """Yield (seconds since the begin, seconds since the last tick), with the unevenness of growth."""
        begin = last = time.monotonic()
        while True:
            now = time.monotonic()
            yield now - begin, (now - last) * 2 * self.chance.random()
            last = now
            time.sleep(_TICK_S)

    def _hold(self, size_mib: float) -> None:
        end = int(min(size_mib, _MOST_MIB) * MIB) // mmap.PAGESIZE * mmap.PAGESIZE
        while self.held < end:
            size = min(end - self.held, MIB)
            self.area[self.held : self.held + size] = _REST[:size]
            self.held += size
        if self.held > end:
            self.area.madvise(mmap.MADV_DONTNEED, end, self.held - end)
            self.held = end

    def _by_rate(self, rate: float, size: float) -> Iterator[float]:
        """Yield sizes that grow to `size`."""
        done = 0.0
        for _, tick in self._ticks():
            done += rate * tick
            yield min(done, size)
            if done >= size:
                return

    def grow(self, rate: float, to: float) -> None:
        base = self.held / MIB
        for size in self._by_rate(rate, to - base):
            self._hold(base + size)

    def ease(self, time_s: float, to: float) -> None:
        base = self.held / MIB
        for at, _ in self._ticks():
            self._hold(base + (to - base) * (1 - math.exp(-at / time_s)))
            if at > 6 * time_s:
                return

    def accelerate(self, rate: float, time_s: float, to: float) -> None:
        size = self.held / MIB
        for at, tick in self._ticks():
            size = min(size + rate * 2 ** (at / time_s) * tick, to)
            self._hold(size)
            if size == to:
                return

    def bursts(self, size: float, time_s: float, to: float) -> None:
        while self.held < to * MIB:
            self._hold(min(self.held / MIB + size * 2 * self.chance.random(), to))
            time.sleep(time_s * 2 * self.chance.random())

    def free(self, to: float) -> None:
        self._hold(min(to, self.held / MIB))

    def rest(self, time_s: float) -> None:
        time.sleep(time_s)

    def shmem(self, rate: float, to: float) -> None:
        base = os.fstat(self.memory_file).st_size / MIB
        if to < base:
            os.ftruncate(self.memory_file, int(to * MIB))
            return
        os.lseek(self.memory_file, 0, os.SEEK_END)
        written = 0
        for size in self._by_rate(rate, to - base):
            while written < size * MIB:
                written += os.write(self.memory_file, _REST[: max(int(size * MIB) - written, 1)])

    def read(self, rate: float, size: float) -> None:
        self.reread(rate, size, size / rate)

    def reread(self, rate: float, size: float, time_s: float) -> None:
        path = self.folder / f"read-{self.seed}"
        with path.open("ab+") as file:
            file.truncate(int(size * MIB))
            done = read = 0.0
            for at, tick in self._ticks():
                done += rate * tick
                while read < done:
                    file.seek(int(read * MIB) % int(size * MIB))
                    file.read(MIB // 2)
                    read += 0.5
                if at > time_s:
                    return

    def write(self, rate: float, size: float, sync: float) -> None:
        written = synced = 0.0
        with (self.folder / f"write-{self.seed}").open("wb", buffering=0) as file:
            for done in self._by_rate(rate, size):
                while written < done:
                    file.write(_REST)
                    written += 1
                if sync and written - synced >= sync:
                    os.fsync(file.fileno())
                    synced = written

    def slab(self, rate: float, size: float) -> None:
        most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
        for done in self._by_rate(rate, size):
            while len(self.pipes) * _PIPE_MIB < done:
                self.pipes.append(os.pipe())
                fcntl.fcntl(self.pipes[-1][0], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def files(self, rate: float, number: int) -> None:
        made = 0
        for done in self._by_rate(rate, number):
            while made < done:
                (self.folder / f"empty-{self.seed}-{made}").touch()
                made += 1

    def beside(self, steps: list[list[Any]]) -> None:
        self.children.append(self._fork(steps))

    def join(self) -> None:
        while self.children:
            pid, status = os.wait()
            if os.WIFSIGNALED(status):
                sys.exit(1)  # those that are left are killed with the cgroup
            self.children.remove(pid)

    def repeat(self, number: int, steps: list[list[Any]]) -> None:
        for _ in range(number):
            self.run(steps)

    def child(self, steps: list[list[Any]]) -> None:
        os.waitpid(self._fork(steps), 0)

    def supervise(self, number: int, steps: list[list[Any]]) -> None:
        for _ in range(number):
            _, status = os.waitpid(self._fork(steps), 0)
            if not os.WIFSIGNALED(status):
                return
            time.sleep(0.5 + 2 * self.chance.random())

    def _fork(self, steps: list[list[Any]]) -> int:
        self.seed += 1
        pid = os.fork()
        if pid:
            return pid
        status = 1
        with suppress(BaseException):
            inherited = self.chance.random()
            self.chance = random.Random(f"{self.seed} {inherited}")
            self.seed *= 100
            self._new_memory()
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
            self.run(steps)
            status = 0
        os._exit(status)


def main(folder: str, seed: str, steps: str) -> None:
    run: Callable[[list[list[Any]]], None] = Approach(Path(folder), int(seed)).run
    run(json.loads(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
