"""The steps of the workload: work with files, with memory, and with cgroups and processes."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Final

CHUNK_BYTES: Final = 1 << 20
PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SHARED: Final = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS

Pause = Callable[[], None]

kept: Final[list[object]] = []
"""Files and mappings that stay open until the process ends."""


def parts(size_bytes: int) -> Iterator[range]:
    """Yield the range from 0 to `size_bytes` in parts of 1 MiB."""
    for offset in range(0, size_bytes, CHUNK_BYTES):
        yield range(offset, min(offset + CHUNK_BYTES, size_bytes))


def mapped(size_bytes: int, flags: int) -> mmap.mmap:
    """Return memory that is charged page by page (no huge pages) and kept until the process ends."""
    memory = mmap.mmap(-1, size_bytes, flags=flags)
    kept.append(memory)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def touched(pause: Pause, memory: mmap.mmap) -> Iterator[None]:
    """Write to all pages of the memory, and yield after each page."""
    for part in parts(len(memory)):
        for page in part[:: mmap.PAGESIZE]:
            memory[page] = 1
            yield
        pause()


def read(pause: Pause, *files: str) -> None:
    buffer = bytearray(CHUNK_BYTES)
    for file in files:
        with open(file, "rb", buffering=0) as stream:  # noqa: PTH123  (pathlib would cost its import)
            while stream.readinto(buffer):
                pause()


def write(pause: Pause, file: str, size_bytes: str) -> None:
    with open(file, "xb", buffering=0) as stream:  # noqa: PTH123
        for part in parts(int(size_bytes)):
            stream.write(b"\xa5" * len(part))
            pause()


def files(pause: Pause, directory: str, count: str) -> None:
    for number in range(int(count)):
        os.close(os.open(f"{directory}/{number:06d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        pause()


def execute(__: Pause, program: str, times: str) -> None:
    if not os.path.samefile("/proc/self/exe", program):  # noqa: PTH121
        # The copy is not where its libraries are. Without the site-packages, it starts fast.
        os.environ["PYTHONHOME"] = sys.base_prefix
        os.environ["PYTHONPATH"] = os.path.abspath(f"{__file__}/../../../..")  # noqa: PTH100
        os.execv(program, [program, "-S", "-P", "-m", __package__, *sys.argv[1:]])
    with open(program, "rb") as stream:  # noqa: PTH123
        text = mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    for _ in range(int(times)):
        for page in range(0, len(text), mmap.PAGESIZE):
            sum(text[page : page + mmap.PAGESIZE])  # some work, which takes less time than a read


def leave(pause: Pause, directory: str, size_bytes: str) -> None:
    from tracer.lab.workload.namespaces import mount_privately  # noqa: PLC0415  few steps need it

    mount_privately("tmpfs", directory, "mode=0700")
    writer = os.fork()
    if not writer:
        write(pause, f"{directory}/left-behind", size_bytes)
        os._exit(0)
    os.waitpid(writer, 0)


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


def oom_group(_: Pause) -> None:
    _write(f"{_cgroup()}/memory.oom.group", "1")


def high(_: Pause, size_bytes: str) -> None:
    _write(f"{_cgroup()}/memory.high", size_bytes)


def cgroups(_: Pause, *names: str) -> None:
    cgroup, entrance = _cgroup(), "entrance"
    if _is_v2():  # on v2, only a cgroup without processes can enable memory for its children
        os.mkdir(f"{cgroup}/{entrance}")  # noqa: PTH102
        _write(f"{cgroup}/{entrance}/cgroup.procs", "0")
        _write(f"{cgroup}/cgroup.subtree_control", "+memory")
    for name in names:
        os.mkdir(f"{cgroup}/{name}")  # noqa: PTH102
    _write(f"{cgroup}/{names[0]}/cgroup.procs", "0")
    if _is_v2():
        os.rmdir(f"{cgroup}/{entrance}")  # noqa: PTH106


def child(pause: Pause, name: str, size_bytes: str) -> None:
    cgroup = _cgroup()

    def work() -> None:
        _write(f"{cgroup}/{name}/cgroup.procs", "0")
        anon(pause, size_bytes)

    _fork_companion(work)


def crowd(pause: Pause, *members: str) -> None:
    for member in members:
        size_bytes, adj = _sized(member)

        def work(size_bytes: int = size_bytes, adj: str = adj) -> None:
            _set_oom_score_adj(adj)
            anon(pause, str(size_bytes))

        _fork_companion(work)


def press(pause: Pause, size_bytes: str) -> None:
    for _ in touched(pause, mapped(int(size_bytes), PRIVATE)):
        if os.waitpid(-1, os.WNOHANG)[0]:
            return


def cow(pause: Pause, sized: str) -> None:
    size_bytes, adj = _sized(sized)
    memory = mapped(size_bytes, PRIVATE)
    for _ in touched(pause, memory):
        pass
    ended, alive = os.pipe()
    reader = os.fork()
    if not reader:
        os.close(alive)
        _set_oom_score_adj(adj)
        for part in parts(size_bytes):
            hash(memory[part.start : part.stop])
        os.read(ended, 1)  # the end of the file, when the parent has written all of it
        os._exit(0)
    for _ in touched(pause, memory):
        if os.waitpid(reader, os.WNOHANG)[0]:
            return
    os.close(alive)
    os.waitpid(reader, 0)


def segment(pause: Pause, size_bytes: str, count: str) -> None:
    memory, members = mapped(int(size_bytes), SHARED), []
    busy, done = os.pipe()
    ended, alive = os.pipe()
    for first in range(int(count)):
        members.append(os.fork())
        if not members[-1]:
            os.close(alive)
            for part in parts(len(memory)):
                for page in part[first * mmap.PAGESIZE :: int(count) * mmap.PAGESIZE]:
                    memory[page] = 1
                pause()
            os.close(done)
            os.read(ended, 1)  # the end of the file, when no other has work left: the peak is the sum of all
            os._exit(0)
    os.close(done)
    os.read(busy, 1)  # the end of the file, when each has done its part or was killed
    os.close(alive)
    for member in members:
        os.waitpid(member, 0)


@cache
def _cgroup() -> str:
    """Return the directory of the memory cgroup of the process at the first call."""
    from tracer.kernel.cgroups.cgroupfs import memory_hierarchy, own_path  # noqa: PLC0415  few steps need it

    hierarchy = memory_hierarchy()
    return str(hierarchy.directory(own_path(hierarchy)))


def _is_v2() -> bool:
    return os.path.exists(f"{_cgroup()}/cgroup.subtree_control")  # noqa: PTH110


def _sized(member: str) -> tuple[int, str]:
    """Return the bytes and the oom_score_adj of `BYTES:ADJ`."""
    size_bytes, _, adj = member.partition(":")
    return int(size_bytes), adj


def _set_oom_score_adj(adj: str) -> None:
    _write("/proc/self/oom_score_adj", adj)


def _write(file: str, text: str) -> None:
    with open(file, "w", encoding="ascii") as stream:  # noqa: PTH123
        stream.write(text)


def _fork_companion(work: Callable[[], None]) -> None:
    """Run the work in a child and wait for it; the child stays until this process ends."""
    ready, done = os.pipe()
    ended, alive = os.pipe()
    if os.fork():
        os.close(done)
        os.close(ended)
        os.read(ready, 1)  # or the end of the file, if the child was killed
        os.close(ready)
        return
    os.close(alive)  # from now on, only the parent has it open, until the parent ends
    work()
    os.write(done, b"d")
    os.read(ended, 1)
    os._exit(0)
