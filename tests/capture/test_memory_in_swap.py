"""A recorder brings nothing back from swap: the cgroup of the process would be charged for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tracer.capture.rows.task_rows import read_title
from tracer.kernel.anatomy.process_anatomy import node_options, server_title
from tracer.kernel.process.live_memory import Memory

_PAGES_OUT = """
import array, ctypes, mmap
MADV_PAGEOUT = 21
held = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held[:] = b"x" * len(held)
held_at = ctypes.addressof(ctypes.c_char.from_buffer(held))
at = [int(one) for one in open("/proc/self/stat").read().rpartition(")")[2].split()[45:49]]
begin, end = at[0] // mmap.PAGESIZE * mmap.PAGESIZE, -(-at[3] // mmap.PAGESIZE) * mmap.PAGESIZE
areas = ((held_at, len(held), 0), (begin, end - begin, 1))  # address, size, pages that may stay
libc, pagemap = ctypes.CDLL(None), open("/proc/self/pagemap", "rb", buffering=0)

def pages_in_memory(address, size):
    pagemap.seek(address // mmap.PAGESIZE * 8)
    return sum(not entry >> 62 & 1 for entry in array.array("Q", pagemap.read(size // mmap.PAGESIZE * 8)))

print(held_at, flush=True)
for line in open(0):
    while any(pages_in_memory(address, size) > most for address, size, most in areas):
        for address, size, _ in areas:
            libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), MADV_PAGEOUT)
    print(flush=True)
"""
"""The page of the first argument may be one of the stack that is in use."""
_TITLE = "postgres: app shop"


@pytest.fixture
def on_one_cpu() -> Iterator[None]:
    """Let the test and its processes run on one CPU.

    A page that was added or read lately waits for the LRU lists on that CPU, and cannot be paged out.
    MADV_PAGEOUT takes those of the caller's CPU first (lru_add_drain() in mm/swap.c).
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def process(on_one_cpu: None) -> Iterator[subprocess.Popen[str]]:
    argv = [_TITLE, "-I", "-S", "-c", _PAGES_OUT]
    environment = {"NODE_OPTIONS": "--max-old-space-size=300", "FILL": "x" * (64 << 10)}
    with subprocess.Popen(
        argv,
        executable=sys.executable,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        yield child
        child.communicate()


def swapped_bytes(pid: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmSwap"].split()[0]) << 10


@pytest.mark.kernel
def test_what_is_in_swap_is_not_read(swap: None, process: subprocess.Popen[str]) -> None:
    """All that a recorder reads from a process is read before, and left alone once it is paged out."""
    assert process.stdin is not None
    assert process.stdout is not None
    held_at, folder = int(process.stdout.readline()), Path(f"/proc/{process.pid}")
    start_ticks = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
    start_ns = start_ticks * 10_000_000  # USER_HZ is 100

    def read(memory: Memory) -> tuple[object, ...]:
        try:
            held = memory.read(held_at + (4 << 20), 64)
        except OSError:
            held = None
        titles = [one.text for one in server_title(folder)]
        options = [one.text for one in node_options(folder)]
        return held, read_title(process.pid, start_ns), titles, options

    with closing(Memory(process.pid)) as memory:
        held, title, titles, options = read(memory)
        assert held == 64 * b"x"
        assert isinstance(title, str)
        assert title.startswith(f"{_TITLE} -I -S -c")
        assert (titles, options) == ([_TITLE], ["--max-old-space-size=300"])
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        before_bytes = swapped_bytes(process.pid)
        assert before_bytes >= (8 << 20) + (64 << 10)
        assert read(memory) == (None, None, [], [])
        assert swapped_bytes(process.pid) == before_bytes
