"""Work of known kinds and amounts inside a cgroup.

`python3 -m tracer.lab.workload [--barrier] [--pause-ms N] STEP [then STEP]...`, where STEP is one of

    read FILE...        read the files completely, into the page cache
    write FILE BYTES    write a new file and leave its pages dirty
    anon BYTES          touch this much private anonymous memory, page by page, and keep it
    shmem BYTES         the same with shared memory
    memfd BYTES         write this much into a file in memory (shmem that no process has mapped)
    mlock BYTES         the same as anon, with locked memory
    mlock_file FILE     map a file and lock it, part by part
    threads N           start N threads that wait (kernel stacks)
    files DIR N         make N empty files (slab: inodes and dentries)
    pipes BYTES         make pipes with this much memory for their buffer tables (slab, in use)
    page_tables BYTES   read zero pages so far apart that each needs its own page table
    sockets BYTES       send this much over TCP to this process, and receive nothing
    oom_group           set memory.oom.group, so that the kernel kills this whole cgroup (v2)
    cgroups NAME...     make cgroups below this one, and move to the first of them
    child NAME BYTES    fork a process that runs `anon BYTES` in cgroup NAME ("." is this one)
    crowd BYTES:ADJ...  fork a process for each, which sets its oom_score_adj and runs `anon BYTES`
    press BYTES         the same as anon, but only until a child of this process is killed

Forked processes end with their parent. "This cgroup" is the one in which the process was started. Nothing is
freed before the end, so `anon` with more bytes than the limit allocates until it is killed; its number is a
ceiling that protects the machine if no kill comes. A pause follows each MiB (each thread, each file). With
`--barrier`, the process prints `start`, then `done STEP` after each step, and waits for a newline after each
of these lines: meanwhile the cgroup is quiet, and memory.stat can be read. Imports are few, because the
start-up is part of the measured work.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache

_CHUNK_BYTES = 1 << 20
_USAGE = "usage: python3 -m tracer.lab.workload [--barrier] [--pause-ms N] STEP [then STEP]..."

_MAP_NORESERVE = 0x4000  # include/uapi/asm-generic/mman.h; in the mmap module since Python 3.12
_PIPE_ROOM_BYTES = 1 << 20  # fs.pipe-max-size, as the kernel sets it
_PIPE_BYTES = 16 << 10  # of slab: 256 struct pipe_buffer (include/linux/pipe_fs_i.h), as kmalloc rounds them
_PAGE_TABLE_COVERS = mmap.PAGESIZE // 8 * mmap.PAGESIZE  # entries of 8 bytes, each for a page

Pause = Callable[[], None]
_kept: list[object] = []


def read(pause: Pause, *files: str) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    for file in files:
        with open(file, "rb", buffering=0) as stream:  # noqa: PTH123  (pathlib would cost its import)
            while stream.readinto(buffer):
                pause()


def write(pause: Pause, file: str, size_bytes: str) -> None:
    with open(file, "xb", buffering=0) as stream:  # noqa: PTH123
        for part in _parts(int(size_bytes)):
            stream.write(b"\xa5" * len(part))
            pause()


def anon(pause: Pause, size_bytes: str) -> None:
    for _ in _touched(pause, int(size_bytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        pass


def shmem(pause: Pause, size_bytes: str) -> None:
    for _ in _touched(pause, int(size_bytes), mmap.MAP_SHARED | mmap.MAP_ANONYMOUS):
        pass


def memfd(pause: Pause, size_bytes: str) -> None:
    descriptor = os.memfd_create("workload")
    _kept.append(descriptor)
    for part in _parts(int(size_bytes)):
        os.write(descriptor, b"\xa5" * len(part))
        pause()


def mlock(pause: Pause, size_bytes: str) -> None:
    _lock(pause, _map(int(size_bytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def mlock_file(pause: Pause, file: str) -> None:
    with open(file, "r+b") as stream:  # noqa: PTH123
        memory = mmap.mmap(stream.fileno(), 0)  # shared, so that locking reads and copies nothing
    _kept.append(memory)
    _lock(pause, memory)


def threads(pause: Pause, count: str) -> None:
    for _ in range(int(count)):
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
        pause()


def files(pause: Pause, directory: str, count: str) -> None:
    for number in range(int(count)):
        os.close(os.open(f"{directory}/{number:06d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        pause()


def pipes(pause: Pause, size_bytes: str) -> None:
    count = int(size_bytes) // _PIPE_BYTES
    _allow_descriptors(2 * count)
    for number in range(count):
        ends = os.pipe()
        _kept.append(ends)
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_ROOM_BYTES)
        if number * _PIPE_BYTES % _CHUNK_BYTES == 0:
            pause()


def page_tables(pause: Pause, size_bytes: str) -> None:
    count = int(size_bytes) // mmap.PAGESIZE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    memory = _map(count * _PAGE_TABLE_COVERS, flags)
    for number in range(count):
        _ = memory[number * _PAGE_TABLE_COVERS]
        if number * mmap.PAGESIZE % _CHUNK_BYTES == 0:
            pause()


def sockets(pause: Pause, size_bytes: str) -> None:
    import socket  # noqa: PLC0415  few steps need it

    listener = socket.create_server(("127.0.0.1", 0))
    left = int(size_bytes)
    while left > 0:
        sender = socket.create_connection(listener.getsockname())
        _kept.append((sender, listener.accept()))
        sender.setblocking(False)
        with suppress(BlockingIOError):
            while left > 0:
                left -= sender.send(bytes(_CHUNK_BYTES))
                pause()


def oom_group(_: Pause) -> None:
    _write(f"{_cgroup()}/memory.oom.group", "1")


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

    _fork(work)


def crowd(pause: Pause, *members: str) -> None:
    for member in members:
        size_bytes, _, adj = member.partition(":")

        def work(size_bytes: str = size_bytes, adj: str = adj) -> None:
            _write("/proc/self/oom_score_adj", adj)
            anon(pause, size_bytes)

        _fork(work)


def press(pause: Pause, size_bytes: str) -> None:
    for _ in _touched(pause, int(size_bytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        if os.waitpid(-1, os.WNOHANG)[0]:
            return


STEPS: dict[str, Callable[..., None]] = {
    step.__name__: step
    for step in (
        *(read, write, anon, shmem, memfd, mlock, mlock_file, threads, files, pipes, page_tables, sockets),
        *(oom_group, cgroups, child, crowd, press),
    )
}


def main(arguments: list[str]) -> int:
    barrier, pause_ms, steps = _parse(arguments)
    _meet(barrier, "start")
    for name, operands in steps:
        STEPS[name](lambda: time.sleep(pause_ms / 1000) if pause_ms else None, *operands)
        _meet(barrier, f"done {name}")
    return 0


@cache
def _cgroup() -> str:
    """Return the directory of the memory cgroup of the process at the first call."""
    from tracer.kernel.cgroups.cgroupfs import memory_hierarchy, own_path  # noqa: PLC0415  few steps need it

    hierarchy = memory_hierarchy()
    return str(hierarchy.directory(own_path(hierarchy)))


def _is_v2() -> bool:
    return os.path.exists(f"{_cgroup()}/cgroup.subtree_control")  # noqa: PTH110


def _write(file: str, text: str) -> None:
    with open(file, "w", encoding="ascii") as stream:  # noqa: PTH123
        stream.write(text)


def _touched(pause: Pause, size_bytes: int, flags: int) -> Iterator[None]:
    """Touch this much memory, and yield after each page."""
    memory = _map(size_bytes, flags)
    for part in _parts(size_bytes):
        for page in part[:: mmap.PAGESIZE]:
            memory[page] = 1
            yield
        pause()


def _map(size_bytes: int, flags: int) -> mmap.mmap:
    """Return memory that is charged page by page (no huge pages) and kept until the process ends."""
    memory = mmap.mmap(-1, size_bytes, flags=flags)
    _kept.append(memory)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _lock(pause: Pause, memory: mmap.mmap) -> None:
    import ctypes  # noqa: PLC0415  few steps need it

    libc = ctypes.CDLL(None, use_errno=True)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for part in _parts(len(memory)):
        if libc.mlock(ctypes.c_void_p(start + part.start), ctypes.c_size_t(len(part))):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        pause()


def _fork(work: Callable[[], None]) -> None:
    """Run the work in a child and wait for it; the child stays until this process ends."""
    ready, done = os.pipe()
    ended, alive = os.pipe()
    if os.fork():
        os.close(done)
        os.close(ended)
        os.read(ready, 1)  # or the end of the file, if the child was killed
        os.close(ready)
        return
    os.close(alive)  # now only the parent has it open, until it ends
    work()
    os.write(done, b"d")
    os.read(ended, 1)
    os._exit(0)


def _parts(size_bytes: int) -> Iterator[range]:
    """Yield the range from 0 to `size_bytes` in parts of 1 MiB."""
    for offset in range(0, size_bytes, _CHUNK_BYTES):
        yield range(offset, min(offset + _CHUNK_BYTES, size_bytes))


def _allow_descriptors(count: int) -> None:
    """Raise the limit of open files to `count` and a few more, or as far as permitted."""
    import resource  # noqa: PLC0415  few steps need it

    wanted, (_, most) = count + 64, resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, most)))
    except (ValueError, OSError):  # without CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _meet(barrier: bool, line: str) -> None:
    """Print the line and wait for a newline; the end of stdin ends the process."""
    if not barrier:
        return
    print(line, flush=True)
    if not sys.stdin.readline():
        sys.exit(1)


def _parse(arguments: list[str]) -> tuple[bool, float, list[tuple[str, list[str]]]]:
    barrier, pause_ms, words = False, 0.0, list(arguments)
    while words and words[0].startswith("--"):
        option = words.pop(0)
        if option == "--barrier":
            barrier = True
        elif option == "--pause-ms" and words:
            pause_ms = float(words.pop(0))
        else:
            sys.exit(_USAGE)
    steps: list[tuple[str, list[str]]] = []
    for word in ["then", *words]:
        if word == "then":
            steps.append(("", []))
        elif steps[-1][0]:
            steps[-1][1].append(word)
        else:
            steps[-1] = (word, [])
    if any(name not in STEPS for name, _ in steps):
        sys.exit(f"{_USAGE}\nSTEP is one of {', '.join(STEPS)}")
    return barrier, pause_ms, steps


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
