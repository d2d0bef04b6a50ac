"""A process that holds memory of known kinds: `holding.py CGROUP FOLDER BYTES small|huge COUNT-FD`.

It enters the cgroup and fills it: page cache of a sparse file in the folder (60 %), anonymous memory (30 %),
shmem (10 %), and names of the folder that do not exist, which are slab. `small`: pages of 4 KiB; `huge`: huge
pages for anonymous memory, and the folios that the file system chooses. Then it prints `ready`.

After a line of input it frees one part (a 256th, or 2 MiB) after the other and fills it again, in random
order, until the input ends. It counts the bytes in the shared memory at COUNT-FD.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import select
import sys
from collections.abc import Callable
from pathlib import Path

NAMES = 40_000
_MOST_PARTS = 256
_CHUNK_BYTES = 1 << 20
_HUGE_BYTES = 2 << 20

Fill = Callable[[int, int], None]


def _page_cache(file: Path, size_bytes: int, *, is_small: bool) -> tuple[Fill, Fill]:
    """Return functions that bring a part of a new file into the page cache, and that drop it."""
    fd = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.truncate(fd, size_bytes)
    if is_small:  # it is read without larger folios (force_page_cache_ra() in mm/readahead.c)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    buffer = bytearray(_CHUNK_BYTES)

    def fill(begin: int, end: int) -> None:
        for at in range(begin, end, _CHUNK_BYTES):
            os.preadv(fd, [memoryview(buffer)[: end - at]], at)

    return fill, lambda begin, end: os.posix_fadvise(fd, begin, end - begin, os.POSIX_FADV_DONTNEED)


def _mapped(size_bytes: int, flags: int, advice: int, frees: int) -> tuple[Fill, Fill]:
    """Return functions that touch a part of new memory, and that free it."""
    memory = mmap.mmap(-1, size_bytes + _HUGE_BYTES, flags=flags)
    memory.madvise(advice)
    first = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _HUGE_BYTES

    def fill(begin: int, end: int) -> None:
        pages = b"\xa5" * ((end - begin) // mmap.PAGESIZE)
        memory[first + begin : first + end : mmap.PAGESIZE] = pages

    return fill, lambda begin, end: memory.madvise(frees, first + begin, end - begin)


def main(cgroup: str, folder: str, size_bytes: int, pages: str, count_fd: int) -> None:
    """Fill the cgroup, and follow the lines of the input."""
    (Path(cgroup) / "cgroup.procs").write_text("0", encoding="ascii")
    is_small = pages == "small"
    counted = mmap.mmap(count_fd, mmap.PAGESIZE)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    shared = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
    advice = mmap.MADV_NOHUGEPAGE if is_small else mmap.MADV_HUGEPAGE
    unit = mmap.PAGESIZE if is_small else _HUGE_BYTES
    held: list[tuple[int, int, Fill, Fill]] = []
    kinds: list[tuple[int, Callable[[int], tuple[Fill, Fill]]]] = [
        (60, lambda size: _page_cache(Path(folder) / "held", size, is_small=is_small)),
        (30, lambda size: _mapped(size, private, advice, mmap.MADV_DONTNEED)),
        (10, lambda size: _mapped(size, shared, mmap.MADV_NOHUGEPAGE, mmap.MADV_REMOVE)),
    ]
    for share, made in kinds:
        part = max(size_bytes * share // 100 // _MOST_PARTS // unit, 1) * unit
        count = size_bytes * share // 100 // part
        held.append((part, count, *made(part * count)))
    for part, count, fill, _ in held:
        for number in range(count):
            fill(part * number, part * (number + 1))
    for number in range(NAMES):
        Path(f"{folder}/missing-{number}").exists()
    print("ready", flush=True)
    sys.stdin.readline()
    chosen, done = random.Random(7), 0
    while not select.select([0], [], [], 0)[0]:
        part, count, fill, frees = chosen.choices(held, [part * count for part, count, *_ in held])[0]
        begin = part * chosen.randrange(count)
        frees(begin, begin + part)
        fill(begin, begin + part)
        done += part
        counted[:8] = done.to_bytes(8, sys.byteorder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
