"""A file system whose disk does not keep up: written pages stay dirty or under writeback while the writer
lives.

It holds one file of any name, which can be written but not read (`tracer.lab.disks.fuse`).

A slow disk would not suffice. Reclaim in a cgroup of v1 waits for writeback, so reclaim is as slow as the
disk, and nothing is killed. Reclaim does not wait for FUSE, because the server may need memory itself (since
0c4f8ed498ce ("mm: skip folio reclaim in legacy memcg contexts for deadlockable mappings"), v6.16). On v2, a
writer does not wait for the dirty pages of its cgroup if the file system does not support cgroup writeback
(SB_I_CGROUPWB). Before 0c58a97f919c ("fuse: remove tmp folio for writebacks and internal rb tree"), v6.16,
FUSE wrote from copies that are charged to no cgroup. So only a few writes are started, and pages written
later stay dirty.
"""

from __future__ import annotations

import struct
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.kernel.cgroups.mounts import MOUNTINFO, parse_mountinfo
from tracer.lab.disks.fuse import OneFile, Opcode, Request, serve, served

_PF_EXITING: Final = 0x00000004  # include/linux/sched.h
_MOST_AT_ONCE: Final = 128
_FEW_AT_ONCE: Final = 16
_SLOW_FOR_S: Final = 600.0  # long enough for slow machines, but the writer must end


def slow_writes(near: Path) -> AbstractContextManager[Path]:
    """Yield the path of a directory for one new file, which any process can use; it is gone at the end.

    `near` is an empty directory, on which the file system is mounted for its server only. Raises TracerError.
    """
    return served("tracer.lab.disks.slow_writes", str(near))


@dataclass(frozen=True)
class _Writer:
    """The process that made the file, and the time (time.monotonic) until which its disk is slow."""

    pid: int
    slow_until: float

    def is_done(self) -> bool:
        """Return whether the writer is exiting, or its time is over."""
        return _is_exiting(self.pid) or time.monotonic() > self.slow_until


class _SlowToWrite(OneFile):
    """Delays writes until the writer is done."""

    flags = 1 << 5 | 1 << 16 | 1 << 22  # FUSE_BIG_WRITES, FUSE_WRITEBACK_CACHE, FUSE_MAX_PAGES
    mode = 0o600

    def __init__(self, connection: int, most_at_once: int) -> None:
        super().__init__(connection, most_at_once)
        self._writer: _Writer | None = None
        self._held: list[tuple[Request, bytes]] = []
        self._is_slow = True

    def has(self, name: bytes) -> bool:
        return self._writer is not None

    def look(self) -> None:
        if self._is_slow and self._writer is not None and self._writer.is_done():
            self._is_slow = False
            for request, answer in self._held:
                self.reply(request, answer)

    def answer(self, request: Request) -> None:
        if request.opcode == Opcode.WRITE:
            self._write(request)
        elif request.opcode == Opcode.CREATE:
            self._writer = _Writer(request.pid, time.monotonic() + _SLOW_FOR_S)
            self.reply(request, self.entry() + struct.pack("=QII", 0, 0, 0))  # and struct fuse_open_out
        else:
            super().answer(request)

    def _write(self, request: Request) -> None:
        offset, length = request.place()
        self.size_bytes = max(self.size_bytes, offset + length)
        answer = struct.pack("=II", length, 0)
        if self._is_slow:
            self._held.append((request, answer))
        else:
            self.reply(request, answer)


def _is_exiting(pid: int) -> bool:
    try:
        line = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(line.rpartition(")")[2].split()[6]) & _PF_EXITING)


def _let_all_be_dirty(directory: str) -> int:
    """Allow the mount as many dirty pages as the machine allows, and return the number of parallel writes.

    By default, a FUSE mount may have a hundredth of the machine's dirty pages (fs/fuse/inode.c,
    fuse_bdi_init). The setting affects this mount only. If the mount's own limit cannot be switched off
    (strict_limit, since 8e9d5ead865a ("mm: add bdi_set_strict_limit() function"), v6.2), a minimum share of
    the machine's dirty pages is reserved for it; pages under writeback count towards that share.
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
    """Serve the file system at `directory`."""
    return serve(directory, lambda connection: _SlowToWrite(connection, _let_all_be_dirty(directory)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
