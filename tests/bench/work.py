"""The work that `measure.py` times: `work.py KIND BYTES FILE OUT` writes the seconds that KIND took to OUT.

The work is repeated for long enough that what the interpreter does around it does not count.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path

REPEATS = 4
CHUNK_BYTES = 1 << 20


def fault(size_bytes: int, _file: Path) -> None:
    """One page fault for each page of fresh anonymous memory, without huge pages."""
    with mmap.mmap(-1, size_bytes) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[:: mmap.PAGESIZE] = bytes(size_bytes // mmap.PAGESIZE)


def read(size_bytes: int, file: Path) -> None:
    """Read a file that is not in the page cache, and leave it in there: at a limit, by evicting what was."""
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = bytearray(CHUNK_BYTES)
    for offset in range(0, size_bytes, CHUNK_BYTES):
        os.preadv(descriptor, [buffer], offset)
    os.close(descriptor)


def main(kind: str, size_bytes: int, file: Path, out: Path) -> None:
    work = {"fault": fault, "read": read}[kind]
    work(size_bytes, file)  # once untimed: the first time pays for what the others find ready
    begin = time.perf_counter()
    for _ in range(REPEATS):
        work(size_bytes, file)
    out.write_text(str(time.perf_counter() - begin))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
