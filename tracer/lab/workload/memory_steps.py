"""Steps that grow the memory of this process, or the kernel's memory for this process."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from contextlib import suppress
from typing import Final

from tracer.lab.workload.amounts import CHUNK_BYTES, PRIVATE, SHARED, Pause, kept, mapped, parts, touched

_MAP_NORESERVE: Final = 0x4000  # include/uapi/asm-generic/mman.h; in the mmap module since Python 3.12
_PIPE_ROOM_BYTES: Final = 1 << 20  # fs.pipe-max-size, as the kernel sets it
_PIPE_BYTES: Final = 16 << 10  # of slab: 256 struct pipe_buffer (include/linux/pipe_fs_i.h), rounded up
_PAGE_TABLE_COVERS: Final = mmap.PAGESIZE // 8 * mmap.PAGESIZE  # entries of 8 bytes, each for a page


def anon(pause: Pause, size_bytes: str) -> None:
    for _ in touched(pause, mapped(int(size_bytes), PRIVATE)):
        pass


def shmem(pause: Pause, size_bytes: str) -> None:
    for _ in touched(pause, mapped(int(size_bytes), SHARED)):
        pass


def memfd(pause: Pause, size_bytes: str) -> None:
    descriptor = os.memfd_create("workload")
    kept.append(descriptor)
    for part in parts(int(size_bytes)):
        os.write(descriptor, b"\xa5" * len(part))
        pause()


def mlock(pause: Pause, size_bytes: str) -> None:
    _lock(pause, mapped(int(size_bytes), PRIVATE))


def mlock_file(pause: Pause, file: str) -> None:
    with open(file, "r+b") as stream:  # noqa: PTH123
        memory = mmap.mmap(stream.fileno(), 0)  # shared, so that locking reads and copies nothing
    kept.append(memory)
    _lock(pause, memory)


def threads(pause: Pause, count: str) -> None:
    for _ in range(int(count)):
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
        pause()


def pipes(pause: Pause, size_bytes: str) -> None:
    count = int(size_bytes) // _PIPE_BYTES
    _allow_descriptors(2 * count)
    for number in range(count):
        ends = os.pipe()
        kept.append(ends)
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_ROOM_BYTES)
        if number * _PIPE_BYTES % CHUNK_BYTES == 0:
            pause()


def page_tables(pause: Pause, size_bytes: str) -> None:
    count = int(size_bytes) // mmap.PAGESIZE
    memory = mapped(count * _PAGE_TABLE_COVERS, PRIVATE | _MAP_NORESERVE)
    for number in range(count):
        _ = memory[number * _PAGE_TABLE_COVERS]
        if number * mmap.PAGESIZE % CHUNK_BYTES == 0:
            pause()


def sockets(pause: Pause, size_bytes: str) -> None:
    import socket  # noqa: PLC0415  few steps need it

    listener = socket.create_server(("127.0.0.1", 0))
    left = int(size_bytes)
    while left > 0:
        sender = socket.create_connection(listener.getsockname())
        kept.append((sender, listener.accept()))
        sender.setblocking(False)
        with suppress(BlockingIOError):
            while left > 0:
                left -= sender.send(bytes(CHUNK_BYTES))
                pause()


def _lock(pause: Pause, memory: mmap.mmap) -> None:
    import ctypes  # noqa: PLC0415  few steps need it

    libc = ctypes.CDLL(None, use_errno=True)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for part in parts(len(memory)):
        if libc.mlock(ctypes.c_void_p(start + part.start), ctypes.c_size_t(len(part))):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        pause()


def _allow_descriptors(count: int) -> None:
    """Raise the limit of open files to `count` and a few more, or as far as permitted."""
    import resource  # noqa: PLC0415  few steps need it

    wanted, (_, most) = count + 64, resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, most)))
    except (ValueError, OSError):  # without CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
