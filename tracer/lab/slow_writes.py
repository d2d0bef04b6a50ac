"""A file system whose disk does not keep up: written pages stay dirty or under writeback while the writer
lives.

It is a FUSE file system (Documentation/filesystems/fuse, include/uapi/linux/fuse.h). A process of the lab
serves it and mounts it in its own mount namespace, so no other process sees it, and it disappears with the
server, which ends with its maker. It holds one file of any name, which can be written but not read.

A slow disk would not suffice. Reclaim in a cgroup of v1 waits for writeback, so it is as slow as the disk,
and nothing is killed. For FUSE, it does not wait, because the server may need memory itself (since v6.16,
"mm: skip folio reclaim in legacy memcg contexts for deadlockable mappings"). On v2, a writer does not wait
for the dirty pages of its cgroup if the file system does not support cgroup writeback (SB_I_CGROUPWB). Before
v6.16, FUSE wrote from copies that are charged to no cgroup: so only a few writes are started, and pages
written later stay dirty.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from tracer.errors import TracerError
from tracer.kernel.cgroups.mounts import MOUNTINFO, parse_mountinfo
from tracer.lab.workload.namespaces import mount_privately

_PF_EXITING: Final = 0x00000004  # include/linux/sched.h
_VERSION: Final = (7, 31)
_FLAGS: Final = 1 << 5 | 1 << 16 | 1 << 22  # FUSE_BIG_WRITES, FUSE_WRITEBACK_CACHE, FUSE_MAX_PAGES
_WRITE_BYTES: Final = 1 << 20
_MOST_AT_ONCE: Final = 128
_FEW_AT_ONCE: Final = 16
_ROOT, _FILE = 1, 2  # node ids
_VALID_S: Final = 3600
_POLL_S: Final = 0.05
_SLOW_FOR_S: Final = 600.0  # long enough for slow machines, but the writer must end
_HEADER: Final = struct.Struct("=IIQQIIII")  # struct fuse_in_header


class _Request(IntEnum):
    """The values of enum fuse_opcode that the server answers."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    WRITE = 16
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    CREATE = 35
    INTERRUPT = 36
    BATCH_FORGET = 42


@contextmanager
def slow_writes(near: Path) -> Iterator[Path]:
    """Return a directory for one new file, by a path that any process can use; it is gone at the end.

    `near` is an empty directory, on which it is mounted for its server only. Raises TracerError.
    """
    command = [sys.executable, "-m", "tracer.lab.slow_writes", str(near)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            answer = os.fsdecode(server.stdout.readline()).rstrip("\n")
            if not answer.startswith("/"):
                raise TracerError(answer or f"the slow file system ended with status {server.wait()}")
            yield Path(answer)
        finally:
            server.kill()


@dataclass(frozen=True)
class _Writer:
    """The process that made the file, and the time (time.monotonic) until which its disk is slow."""

    pid: int
    slow_until: float

    def is_done(self) -> bool:
        """Return True if the writer is exiting, or if its time is over."""
        return _is_exiting(self.pid) or time.monotonic() > self.slow_until


class _Server:
    """Answers the kernel's requests on `connection`, and delays writes until the writer is done."""

    def __init__(self, connection: int, most_at_once: int) -> None:
        self._connection = connection
        self._most_at_once = most_at_once
        self._size_bytes = 0
        self._writer: _Writer | None = None
        self._held: list[tuple[int, bytes]] = []
        self._is_slow = True

    def serve(self, until_readable: int) -> None:
        while True:
            readable, _, _ = select.select([self._connection, until_readable], [], [], _POLL_S)
            if until_readable in readable:
                return
            if self._connection in readable:
                self._answer(os.read(self._connection, _WRITE_BYTES + 4096))
            if self._is_slow and self._writer is not None and self._writer.is_done():
                self._is_slow = False
                for unique, answer in self._held:
                    self._reply(unique, answer)

    def _answer(self, request: bytes) -> None:
        _, number, unique, node, _, _, pid, _ = _HEADER.unpack_from(request)
        body = request[_HEADER.size :]
        if number in (_Request.FORGET, _Request.BATCH_FORGET, _Request.INTERRUPT):
            return  # these have no answer
        if number == _Request.LOOKUP and self._writer is None:
            self._reply(unique, error=errno.ENOENT)
        elif number == _Request.WRITE:
            self._write(unique, body)
        else:
            if number == _Request.CREATE:
                self._writer = _Writer(pid, time.monotonic() + _SLOW_FOR_S)
            answer = self._plain_answer(number, node)
            self._reply(unique, answer or b"", 0 if answer is not None else errno.ENOSYS)

    def _plain_answer(self, number: int, node: int) -> bytes | None:
        match number:
            case _Request.INIT:  # struct fuse_init_out
                limits = (
                    0xFFFF,
                    self._most_at_once,
                    _WRITE_BYTES,
                    1,
                    _WRITE_BYTES // os.sysconf("SC_PAGESIZE"),
                )
                return struct.pack("=4I2H2IH34x", *_VERSION, 1 << 17, _FLAGS, *limits)
            case _Request.GETATTR | _Request.SETATTR:  # struct fuse_attr_out
                return struct.pack("=QII", _VALID_S, 0, 0) + self._attributes(node)
            case _Request.LOOKUP:
                return self._entry()
            case _Request.CREATE:  # and struct fuse_open_out
                return self._entry() + struct.pack("=QII", 0, 0, 0)
            case _Request.FLUSH | _Request.RELEASE:
                return b""
        return None

    def _write(self, unique: int, body: bytes) -> None:
        offset, length = struct.unpack_from("=8xQI", body)  # struct fuse_write_in
        self._size_bytes = max(self._size_bytes, offset + length)
        answer = struct.pack("=II", length, 0)
        if self._is_slow:
            self._held.append((unique, answer))
        else:
            self._reply(unique, answer)

    def _entry(self) -> bytes:
        """Return a struct fuse_entry_out for the file."""
        return struct.pack("=4Q2I", _FILE, 0, _VALID_S, _VALID_S, 0, 0) + self._attributes(_FILE)

    def _attributes(self, node: int) -> bytes:
        """Return a struct fuse_attr for a node."""
        mode = stat.S_IFDIR | 0o700 if node == _ROOT else stat.S_IFREG | 0o600
        size_bytes = 0 if node == _ROOT else self._size_bytes
        return struct.pack("=6Q10I", node, size_bytes, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _reply(self, unique: int, answer: bytes = b"", error: int = 0) -> None:
        try:
            os.write(self._connection, struct.pack("=IiQ", 16 + len(answer), -error, unique) + answer)
        except FileNotFoundError:
            return  # the request was interrupted


def _is_exiting(pid: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(line.rpartition(")")[2].split()[6]) & _PF_EXITING)


def _mount(directory: str) -> int:
    """Mount the file system for this process alone, and return the connection to the kernel."""
    connection = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mount_privately("fuse", directory, f"fd={connection},rootmode=40000,user_id=0,group_id=0")
    return connection


def _let_all_be_dirty(directory: str) -> int:
    """Let the mount have as many dirty pages as the machine allows, and return the number of parallel writes.

    By default, a FUSE mount may have a hundredth of the machine's dirty pages (fs/fuse/inode.c,
    fuse_bdi_init). The setting affects this mount only. If the mount's own limit cannot be switched off
    (strict_limit, since v6.2, "mm: add bdi_set_strict_limit() function"), a minimum share of the machine's
    dirty pages is reserved for it; pages under writeback count towards that share.
    """
    device = next(
        mount.device for mount in parse_mountinfo(MOUNTINFO.read_bytes()) if mount.mount_point == directory
    )
    settings = Path("/sys/class/bdi/{}:{}".format(*device))
    (settings / "max_ratio").write_text("100")
    if (settings / "strict_limit").exists():
        (settings / "strict_limit").write_text("0")
        return _MOST_AT_ONCE
    (settings / "min_ratio").write_text("50")
    return _FEW_AT_ONCE


def main(directory: str) -> int:
    """Mount, print the path and serve until the end of standard input, or print in one line why not."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the maker, which must end the processes that wait for the server
    try:
        connection = _mount(directory)
        most_at_once = _let_all_be_dirty(directory)
    except OSError as error:
        print(f"cannot make a slow file system ({error}): it needs root and FUSE (modprobe fuse)", flush=True)
        return 1
    print(f"/proc/{os.getpid()}/root{directory}", flush=True)
    _Server(connection, most_at_once).serve(until_readable=sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
