"""Stimuli: small operations, each of which moves some memory counters of the cgroup that runs it."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.capture.bpf.syscall import RETURN_0, ProgramType, create_map, load_program
from tracer.kernel.cgroups.ephemeral import machine_has_swap

_BPF_MAP_TYPE_ARRAY: Final = 2  # enum bpf_map_type
_MADV_COLD: Final = 20  # include/uapi/asm-generic/mman-common.h; Python has no name for these
_MADV_PAGEOUT: Final = 21
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Stimulus:
    """An operation, and the items of enum node_stat_item or memcg_stat_item that it certainly changes, if
    they are counted. `only_with_swap`: it changes them only where there is swap."""

    act: Callable[[], None]
    moves: frozenset[str]
    only_with_swap: bool = False


def moved_items() -> set[str]:
    """Return the items that `STIMULI` move on this machine."""
    has_swap = machine_has_swap()
    return {
        item for stimulus in STIMULI if has_swap or not stimulus.only_with_swap for item in stimulus.moves
    }


def _touch_anon() -> None:
    """Touch new pages, and make them cold. New pages go to the active list with the multi-gen LRU, else to
    the inactive one; cold pages go to the inactive list (lru_deactivate in mm/swap.c)."""
    with mmap.mmap(-1, 64 * mmap.PAGESIZE) as area:
        for page in range(0, len(area), mmap.PAGESIZE):
            area[page] = 1
        with suppress(OSError):
            area.madvise(_MADV_COLD)


def _make_page_tables() -> None:
    """Read pages that are so far apart that each needs a page table of its own. A table has an entry of 8
    bytes for each page. The mapping cannot be written, so it reserves no memory."""
    apart, tables = mmap.PAGESIZE * (mmap.PAGESIZE // 8), 16
    with mmap.mmap(-1, tables * apart, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ) as area:
        with suppress(OSError):
            area.madvise(mmap.MADV_NOHUGEPAGE)
        for number in range(tables):
            area[number * apart]


def _swap_out() -> None:
    """Swap pages out, and read them back. Without swap they stay in memory."""
    with mmap.mmap(-1, 16 * mmap.PAGESIZE) as area:
        area[:] = b"\xa5" * len(area)
        with suppress(OSError):
            area.madvise(_MADV_PAGEOUT)
        for page in range(0, len(area), mmap.PAGESIZE):
            area[page]


def _touch_shmem() -> None:
    fd = os.memfd_create("memcg-tracer")
    try:
        os.write(fd, bytes(64 * mmap.PAGESIZE))
    finally:
        os.close(fd)


def _make_thread() -> None:
    """Start a thread, which gets a kernel stack."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def _make_slab() -> None:
    """Make pipes (unreclaimable slab), and negative dentries (reclaimable slab) by failing look-ups."""
    ends = [os.pipe() for _ in range(8)]
    for read_end, write_end in ends:
        os.close(read_end)
        os.close(write_end)
    for number in range(64):
        with suppress(OSError):
            Path(f"/proc/self/cwd/.memcg-tracer-{number}").stat()


def _send_on_loopback() -> None:
    """Send data through a TCP connection to this process."""
    with (
        suppress(OSError),
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
    ):
        theirs, _ = server.accept()
        with theirs:
            ours.sendall(bytes(64 << 10))
            theirs.recv(64 << 10, socket.MSG_WAITALL)


def _make_map() -> None:
    """Make a BPF array map. One of this size is in vmalloc memory."""
    with suppress(OSError):
        os.close(create_map(_BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4096, entries=64))


def _load_program() -> None:
    """Load a BPF program. Its counts of runs are in per-CPU memory (bpf_prog_alloc in kernel/bpf/core.c)."""
    with suppress(OSError):
        os.close(load_program(RETURN_0, ProgramType.RAW_TRACEPOINT, "stimulus"))


def _make_process() -> None:
    """Start a process. Its mm has per-CPU counters that are charged since f1a7941243c1
    ("mm: convert mm's rss stats into percpu_counter"), v6.2."""
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)


def _lock_memory() -> None:
    with mmap.mmap(-1, 32 * mmap.PAGESIZE) as area:
        area[:] = bytes(len(area))
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        _libc.mlock(ctypes.c_void_p(start), ctypes.c_size_t(len(area)))


def _use_a_file() -> None:
    """Make dirty pages, write them back, then make pages active. Active pages are pages that are read
    repeatedly, or, with the multi-gen LRU, pages that a fault added (folio_add_lru in mm/swap.c)."""
    with suppress(OSError, ValueError), tempfile.TemporaryFile(dir="/var/tmp", buffering=0) as file:
        size = 32 * mmap.PAGESIZE
        file.write(bytes(size))
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as area:
            for page in range(0, size, mmap.PAGESIZE):
                area[page]
        for _ in range(3):
            for page in range(0, size, mmap.PAGESIZE):
                os.pread(file.fileno(), mmap.PAGESIZE, page)


def reclaim_from(cgroup: Path, version: int) -> None:
    """Add page cache and request its reclaim, again and again, without a limit: no OOM kill follows."""
    with suppress(OSError), tempfile.TemporaryFile(dir="/var/tmp", buffering=0) as file:
        for _ in range(4):
            os.pwrite(file.fileno(), bytes(64 * mmap.PAGESIZE), 0)
            os.fdatasync(file.fileno())
            if version == 1:
                (cgroup / "memory.force_empty").write_text("0", encoding="ascii")
            else:
                (cgroup / "memory.high").write_text("0", encoding="ascii")
                (cgroup / "memory.high").write_text("max", encoding="ascii")


STIMULI: Final = (
    Stimulus(_touch_anon, frozenset({"NR_ANON_MAPPED", "NR_INACTIVE_ANON"})),
    Stimulus(_make_page_tables, frozenset({"NR_PAGETABLE"})),
    Stimulus(_swap_out, frozenset({"MEMCG_SWAP"}), only_with_swap=True),
    Stimulus(_touch_shmem, frozenset({"NR_SHMEM", "NR_FILE_PAGES"})),
    Stimulus(_make_thread, frozenset({"NR_KERNEL_STACK_KB", "MEMCG_KMEM"})),
    Stimulus(_make_slab, frozenset({"NR_SLAB_RECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE_B"})),
    Stimulus(_send_on_loopback, frozenset({"MEMCG_SOCK"})),
    Stimulus(_make_map, frozenset({"MEMCG_VMALLOC"})),
    Stimulus(_load_program, frozenset({"MEMCG_PERCPU_B"})),
    Stimulus(_make_process, frozenset({"MEMCG_PERCPU_B"})),
    Stimulus(_lock_memory, frozenset({"NR_UNEVICTABLE"})),
    Stimulus(
        _use_a_file,
        frozenset({"NR_INACTIVE_FILE", "NR_ACTIVE_FILE", "NR_FILE_MAPPED", "NR_FILE_DIRTY", "NR_WRITEBACK"}),
    ),
)
