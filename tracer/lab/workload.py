"""Work of known kinds and amounts, to be done inside a cgroup.

`python3 -m tracer.lab.workload [--barrier] [--pause-ms N] STEP [then STEP]...`, where STEP is one of

    read FILE...        read the files through, so that they come into the page cache
    write FILE BYTES    write a new file and leave its pages dirty
    anon BYTES          touch that much private anonymous memory, page by page, and keep it
    shmem BYTES         the same of shared memory
    threads N           start N threads that wait (kernel stacks)
    files DIR N         make N empty files (slab: inodes and dentries)
    oom_group           have the kernel kill all of this cgroup together (v2)
    cgroups NAME...     make cgroups below this one and go on in the first of them
    child NAME BYTES    fork a process that does `anon BYTES` in that one ("." is this one), and ends with us
    crowd BYTES:ADJ...  fork a process for each that takes this oom_score_adj, does `anon BYTES`, ends with us
    press BYTES         as `anon`, but only until one of our children was killed

This cgroup is the one that we were started in. Nothing is given back before the end, so `anon` with more
bytes than the limit allocates until it is killed, and its number is the ceiling that protects the machine if
no kill comes. A pause follows each MiB (each thread, each file). With `--barrier` it prints `start`, then
`done STEP` after each step, and waits for a newline after each of these lines: between them the cgroup is
quiet and memory.stat can be read. Standard library only as far as can be, and little of that: start-up is
part of what is measured.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache

_CHUNK_BYTES = 1 << 20
_USAGE = "usage: python3 -m tracer.lab.workload [--barrier] [--pause-ms N] STEP [then STEP]..."

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
        for length in _chunks(int(size_bytes)):
            stream.write(b"\xa5" * length)
            pause()


def anon(pause: Pause, size_bytes: str) -> None:
    for _ in _touched(pause, int(size_bytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        pass


def shmem(pause: Pause, size_bytes: str) -> None:
    for _ in _touched(pause, int(size_bytes), mmap.MAP_SHARED | mmap.MAP_ANONYMOUS):
        pass


def threads(pause: Pause, count: str) -> None:
    for _ in range(int(count)):
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
        pause()


def files(pause: Pause, directory: str, count: str) -> None:
    for number in range(int(count)):
        os.close(os.open(f"{directory}/{number:06d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        pause()


def oom_group(_: Pause) -> None:
    _write(f"{_cgroup()}/memory.oom.group", "1")


def cgroups(_: Pause, *names: str) -> None:
    cgroup, entrance = _cgroup(), "entrance"
    if _is_v2():  # there a cgroup can give memory on to its children only while no process is in it
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
    for step in (read, write, anon, shmem, threads, files, oom_group, cgroups, child, crowd, press)
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
    """The directory of the memory cgroup that we were in when this was first asked."""
    from tracer.kernel.cgroupfs import memory_hierarchy, own_path  # noqa: PLC0415  few steps need it

    hierarchy = memory_hierarchy()
    return str(hierarchy.directory(own_path(hierarchy)))


def _is_v2() -> bool:
    return os.path.exists(f"{_cgroup()}/cgroup.subtree_control")  # noqa: PTH110


def _write(file: str, text: str) -> None:
    with open(file, "w", encoding="ascii") as stream:  # noqa: PTH123
        stream.write(text)


def _touched(pause: Pause, size_bytes: int, flags: int) -> Iterator[None]:
    """Touch that much, and stop after each page."""
    memory = mmap.mmap(-1, size_bytes, flags=flags)
    _kept.append(memory)
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # page by page, on every machine
    offset = 0
    for length in _chunks(size_bytes):
        for page in range(offset, offset + length, mmap.PAGESIZE):
            memory[page] = 1
            yield
        offset += length
        pause()


def _fork(work: Callable[[], None]) -> None:
    """Have a child do it, and go on once it has; it stays for as long as we live."""
    ready, done = os.pipe()
    ended, alive = os.pipe()
    if os.fork():
        os.close(done)
        os.close(ended)
        os.read(ready, 1)  # or its end, if the child was killed
        os.close(ready)
        return
    os.close(alive)  # now only the parent holds it, to its end
    work()
    os.write(done, b"d")
    os.read(ended, 1)
    os._exit(0)


def _chunks(size_bytes: int) -> Iterator[int]:
    for offset in range(0, size_bytes, _CHUNK_BYTES):
        yield min(_CHUNK_BYTES, size_bytes - offset)


def _meet(barrier: bool, line: str) -> None:
    """Say where we are and wait to be let on; the end of stdin ends the process."""
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
