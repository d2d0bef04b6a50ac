"""Files of shared memory of a process: one of each kind, with a size of its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tracer.capture.rows import shmem_rows
from tracer.capture.rows.shmem_rows import SharedFile, SharedFiles

MIB = 1 << 20
SHM = "/dev/shm"
IPC_RMID = 0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="/proc/PID/map_files is for root")


@pytest.fixture
def segment_key() -> Iterator[int]:
    """A System V segment of 5 MiB, of which 1 MiB is touched; its key."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    key = 0x6D000000 | os.getpid()
    number = libc.shmget(key, 5 * MIB, 0o1600)  # IPC_CREAT
    address = libc.shmat(number, None, 0)
    ctypes.memset(address, 1, MIB)
    yield key
    libc.shmdt(ctypes.c_void_p(address))
    libc.shmctl(number, IPC_RMID, None)


@needs_root
def test_each_kind_has_its_name_size_and_pages(segment_key: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shmem_rows, "_MOST_FILES", 1 << 20)  # the tests may have mapped many libraries
    with ExitStack() as held:
        anonymous = held.enter_context(closing(mmap.mmap(-1, 7 * MIB)))
        anonymous[: 2 * MIB] = b"x" * (2 * MIB)
        memfd = os.memfd_create("held")
        held.callback(os.close, memfd)
        os.truncate(memfd, 11 * MIB)
        os.pwrite(memfd, b"x" * 3 * MIB, 0)
        file = held.enter_context(tempfile.NamedTemporaryFile(dir=SHM))
        os.truncate(file.fileno(), 13 * MIB)
        mapped = held.enter_context(closing(mmap.mmap(file.fileno(), 13 * MIB)))
        mapped[: 4 * MIB] = b"x" * (4 * MIB)
        disk = held.enter_context(tempfile.NamedTemporaryFile(dir="/var/tmp"))
        os.truncate(disk.fileno(), MIB)
        held.enter_context(closing(mmap.mmap(disk.fileno(), MIB)))
        found = {(one.kind, one.size_bytes // MIB): one for one in SharedFiles().of_process(os.getpid())}
    assert len({(one.device, one.inode) for one in found.values()}) == len(found)
    assert about(found["anonymous", 7]) == ("/dev/zero", 2, True)
    assert about(found["sysv", 5]) == (f"/SYSV{segment_key:08x}", 1, True)
    assert about(found["memfd", 11]) == ("/memfd:held", 3, False)
    assert about(found["tmpfs", 13]) == (file.name, 4, True)
    assert not any(one.name == disk.name for one in found.values())


def about(one: SharedFile) -> tuple[str, int, bool]:
    return one.name, one.held_bytes // MIB, one.is_mapped


@needs_root
def test_file_of_another_file_system_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server might never answer. A file on a disk stands for it, mapped and open."""
    asked, stat = [], Path.stat

    def noted(path: Path, **how: bool) -> os.stat_result:
        asked.append(str(path.readlink()))
        return stat(path, **how)

    with ExitStack() as held:
        disk = held.enter_context(tempfile.NamedTemporaryFile(dir="/var/tmp"))
        os.truncate(disk.fileno(), MIB)
        held.enter_context(closing(mmap.mmap(disk.fileno(), MIB)))
        file = held.enter_context(tempfile.NamedTemporaryFile(dir=SHM))
        monkeypatch.setattr(Path, "stat", noted)
        SharedFiles().of_process(os.getpid())
        monkeypatch.undo()
    assert file.name in asked
    assert disk.name not in asked


def test_process_that_has_ended_shows_nothing() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert SharedFiles().of_process(child) == []
