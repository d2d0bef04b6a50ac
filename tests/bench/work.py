"""The work that `measure.py` times.

`work.py PHASES BYTES REPEATS FILE OUT` runs the phases (names separated by commas) one after the other, and
writes the seconds that each took to OUT, as a JSON object.

Short work is repeated so often that the interpreter's own time does not matter.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path

READ_BYTES = 1 << 20
WRITE_BYTES = 4 << 10


def fault(size_bytes: int, _file: Path) -> None:
    """Cause one page fault for each page of fresh anonymous memory, without huge pages."""
    with mmap.mmap(-1, size_bytes) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[:: mmap.PAGESIZE] = bytes(size_bytes // mmap.PAGESIZE)


def read(size_bytes: int, file: Path) -> None:
    """Read a file that is not in the page cache; at a limit, this evicts other cache."""
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = bytearray(READ_BYTES)
    for offset in range(0, size_bytes, READ_BYTES):
        os.preadv(descriptor, [buffer], offset)
    os.close(descriptor)


def write(size_bytes: int, file: Path) -> None:
    """Write a new file beside `file` into the page cache, in small pieces, without waiting for the disk."""
    descriptor = os.open(written(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    piece = bytes(WRITE_BYTES)
    for _ in range(0, size_bytes, WRITE_BYTES):
        os.write(descriptor, piece)
    os.close(descriptor)


def delete(_size_bytes: int, file: Path) -> None:
    """Remove the file of `write`, and with it all of its page cache."""
    written(file).unlink()


def written(file: Path) -> Path:
    return file.with_name("written")


PHASES = {phase.__name__: phase for phase in (fault, read, write, delete)}


def main(names: list[str], size_bytes: int, repeats: int, file: Path, out: Path) -> None:
    seconds = dict.fromkeys(names, 0.0)
    for turn in range(-1, repeats):  # the first turn is not timed: it fills the caches
        for name in names:
            begin = time.perf_counter()
            PHASES[name](size_bytes, file)
            if turn >= 0:
                seconds[name] += time.perf_counter() - begin
    out.write_text(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
