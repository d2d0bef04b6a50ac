"""Small deeds, each of which moves some of the memory counters of the cgroup that does them."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.capture.bpf.syscall import create_map

_BPF_MAP_TYPE_ARRAY: Final = 2
_MADV_COLD: Final = 20  # include/uapi/asm-generic/mman-common.h; Python has no names for these
_MADV_PAGEOUT: Final = 21
_libc = ctypes.CDLL(None)


def _touch_anon() -> None:
    """New pages go to one list or the other (that of the active, by the multi-gen LRU), and cold ones to the
    inactive (lru_deactivate in mm/swap.c).
    """
    with mmap.mmap(-1, 64 * mmap.PAGESIZE) as area:
        for page in range(0, len(area), mmap.PAGESIZE):
            area[page] = 1
        with suppress(OSError):
            area.madvise(_MADV_COLD)


def _swap_out() -> None:
    """Pages are swapped out where there is swap, and read back."""
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
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def _make_slab() -> None:
    ends = [os.pipe() for _ in range(8)]
    for read_end, write_end in ends:
        os.close(read_end)
        os.close(write_end)
    for number in range(64):
        with suppress(OSError):  # a look-up that fails leaves a negative dentry: reclaimable slab
            Path(f"/proc/self/cwd/.memcg-tracer-{number}").stat()


def _send_on_loopback() -> None:
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
    """An array map of this size lies in vmalloc memory."""
    with suppress(OSError):
        os.close(create_map(_BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4096, entries=64))


def _make_process() -> None:
    """A process's mm has percpu counters that are charged (mm_init in kernel/fork.c, since 6.2)."""
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)


def _lock_memory() -> None:
    with mmap.mmap(-1, 32 * mmap.PAGESIZE) as area:
        area[:] = bytes(len(area))
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        _libc.mlock(ctypes.c_void_p(start), ctypes.c_size_t(len(area)))


def _use_a_file() -> None:
    """Dirty pages, and their writeback; then pages that are active: those that are read again and again, or,
    by the multi-gen LRU, those that a fault brought in (folio_add_lru in mm/swap.c).
    """
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


PROVOCATIONS: Final[tuple[Callable[[], None], ...]] = (
    _touch_anon,
    _swap_out,
    _touch_shmem,
    _make_thread,
    _make_slab,
    _send_on_loopback,
    _make_map,
    _make_process,
    _lock_memory,
    _use_a_file,
)
