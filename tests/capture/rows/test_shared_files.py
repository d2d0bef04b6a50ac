"""Files of shared memory of a process: one of each kind, with a size of its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tracer.capture.rows import shmem_rows
from tracer.capture.rows.shmem_rows import SharedFile, SharedFiles
from tracer.kernel.cgroups import mounts
from tracer.stored_names import stored_path

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


HOSTILE_NAME = "a\rb\r7f00-7f10 rw-s 0 00:01 e /x"


class Process:
    """Process 7 of a stand-in for /proc. Its files lie in `folder`, whose device it sees as a tmpfs."""

    def __init__(self, folder: Path) -> None:
        self.proc, self._files = folder / "proc", folder / "files"
        self._process = self.proc / "7"
        for made in (
            self.proc / "self",
            self._files,
            *map(self._process.joinpath, ("fd", "fdinfo", "map_files")),
        ):
            made.mkdir(parents=True)
        status = folder.stat()
        self._device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        self.mounts("7", "31 1 {} / / rw - tmpfs tmpfs rw\n32 1 0:0 / /d rw - ext4 /dev/vda rw\n")
        self.mounts("self", "")

    def mounts(self, process: str, mountinfo: str) -> None:
        (self.proc / process / "mountinfo").write_text(mountinfo.format(self._device))

    def maps(self, name: str) -> None:
        """Map a file of this name shared."""
        (self._files / name).parent.mkdir(exist_ok=True)
        (self._files / name).write_bytes(b"x")
        major, _, minor = self._device.partition(":")
        number = len(list((self._process / "map_files").iterdir())) + 1
        place, device = f"{number:x}000-{number:x}800", f"{int(major):02x}:{int(minor):02x}"
        (self._process / "map_files" / place).symlink_to(self._files / name)
        with (self._process / "maps").open("ab") as maps:
            maps.write(os.fsencode(f"{place} rw-s 00000000 {device} 9    {self._files / name}\n"))

    def opens(self, number: int, name: str, mount_id: int = 31) -> None:
        (self._files / name).write_bytes(b"x")
        self.holds(number, str(self._files / name), mount_id)

    def holds(self, number: int, link: str, mount_id: int) -> None:
        (self._process / "fd" / str(number)).symlink_to(link)
        (self._process / "fdinfo" / str(number)).write_text(
            f"pos:\t0\nflags:\t02\nmnt_id:\t{mount_id}\nino:\t3\n"
        )

    def files(self) -> set[tuple[str, bool]]:
        found = SharedFiles(self.proc).of_process(7)
        return {(one.name.removeprefix(f"{self._files}/"), one.is_mapped) for one in found}


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


def test_file_mapped_under_a_hostile_name_is_read_and_so_are_the_others(process: Process) -> None:
    for name in (HOSTILE_NAME, "plain"):
        process.maps(name)
    process.opens(3, "open")
    assert process.files() == {(stored_path(HOSTILE_NAME), True), ("plain", True), ("open", False)}


def test_process_that_shows_no_mappings_shows_its_open_files(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bounded(asked: str, call: Callable[[Path], Any], folder: Path) -> Any:
        if "mappings" in asked:
            raise TimeoutError
        return call(folder)

    monkeypatch.setattr(shmem_rows, "bounded", bounded)
    process.maps("plain")
    process.opens(3, "open")
    assert process.files() == {("open", False)}


def test_open_file_of_our_mounts_is_found_and_of_unknown_mounts_not(process: Process) -> None:
    """A process may have opened it before it entered its mount namespace."""
    for number, (name, mount_id) in enumerate(
        {"disk": 32, "ours": 33, "our disk": 34, "unknown": 35}.items()
    ):
        process.opens(number, name, mount_id)
    process.mounts("self", "33 1 0:77 / / rw - tmpfs tmpfs rw\n34 1 0:78 / /d rw - ext4 /dev/vdb rw\n")
    assert process.files() == {("ours", False)}


def test_so_many_descriptors_are_looked_at_and_of_sockets_nothing_more(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, mount_id = [], mounts.mount_id_of
    files = SharedFiles(process.proc)
    monkeypatch.setattr(shmem_rows, "_MOST_DESCRIPTORS", 5)

    def noted(information: str) -> int:
        looked.append(information)
        return mount_id(information)

    monkeypatch.setattr(shmem_rows, "mount_id_of", noted)
    for number in range(9):
        process.holds(number, f"socket:[{number}]", 8)
    files.of_process(7)
    assert looked == []
    for number in range(10, 20):
        process.opens(number, f"file {number}")
    files.of_process(7)
    assert len(looked) <= 5


def test_process_that_has_ended_shows_nothing() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert SharedFiles().of_process(child) == []
