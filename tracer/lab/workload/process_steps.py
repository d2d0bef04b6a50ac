"""Steps with cgroups and with more than one process."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from functools import cache

from tracer.lab.workload.amounts import PRIVATE, SHARED, Pause, mapped, parts, touched
from tracer.lab.workload.memory_steps import anon


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
