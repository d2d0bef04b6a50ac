"""A file system whose reads take a few milliseconds each, as on a disk that seeks.

It holds one file, which can be read, mapped and executed, and has the name and the content of a given file
(`tracer.lab.disks.fuse`). The disk reads one part at a time, and does not wait for a CPU. So a part that is
missing from the page cache costs a known time on every machine, whatever its own disks and load are.

The kernel reads ahead in parts of `fuse.READ_AHEAD_BYTES`, and a task waits for a folio as it does on a block
device: the answer to a read ahead comes without the task (FUSE_ASYNC_READ; fs/fuse/file.c, fuse_readahead).
"""

from __future__ import annotations

import os
import struct
import sys
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final

from tracer.lab.disks.fuse import OneFile, Opcode, Request, serve, served

READ_S: Final = 0.004
"""The least time that a read takes."""

_MOST_AT_ONCE: Final = 128
_KEEP_CACHE: Final = 1 << 1  # FOPEN_KEEP_CACHE: the cache of the file survives an open


def slow_reads(content: Path, near: Path) -> AbstractContextManager[Path]:
    """Yield the path of a directory, which any process can use, with one file that has the name and the
    content of `content`.

    No page of the file is in the page cache, and the file is gone at the end. `near` is an empty directory,
    on which the file system is mounted for its server only. Raises TracerError.
    """
    return served("tracer.lab.disks.slow_reads", str(content), str(near))


class _SlowToRead(OneFile):
    """Reads one part after another, each in at least `READ_S`."""

    flags = 1 << 0 | 1 << 22  # FUSE_ASYNC_READ, FUSE_MAX_PAGES
    mode = 0o500

    def __init__(self, connection: int, content: str) -> None:
        super().__init__(connection, _MOST_AT_ONCE)
        self._name = os.fsencode(Path(content).name)
        self._content = os.open(content, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._content).st_size

    def has(self, name: bytes) -> bool:
        return name == self._name

    def answer(self, request: Request) -> None:
        if request.opcode == Opcode.READ:
            offset, length = request.place()
            part = os.pread(self._content, length, offset)
            time.sleep(READ_S)
            self.reply(request, part)
        elif request.opcode == Opcode.OPEN:
            self.reply(request, struct.pack("=QII", 0, _KEEP_CACHE, 0))  # struct fuse_open_out
        else:
            super().answer(request)


def main(content: str, directory: str) -> int:
    """Serve the file system at `directory`, with precedence over other processes if that is permitted."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return serve(directory, lambda connection: _SlowToRead(connection, content))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
