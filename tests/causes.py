"""What is done to files, a cause each: test_causes.py runs it in a cgroup, and knows how many pages it takes.

`python causes.py FOLDER` waits for a line on stdin between its steps, and does one at each.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

PAGE: Final = mmap.PAGESIZE


def read(path: Path, pages: int) -> None:
    """One page at a time, from the last to the first: nothing to read ahead."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for page in reversed(range(pages)):
            os.pread(file.fileno(), PAGE, page * PAGE)


def readahead(path: Path, _pages: int) -> None:
    """Asked for in advance, and read by nobody."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def begin(path: Path, _pages: int) -> None:
    """The first page only; the kernel takes some more, as much as the device's read_ahead_kb."""
    with path.open("rb", buffering=0) as file:
        os.read(file.fileno(), PAGE)


def fault(path: Path, pages: int) -> None:
    """Touch each page of a map."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), pages * PAGE, prot=mmap.PROT_READ) as area:
        area.madvise(mmap.MADV_RANDOM)
        for page in reversed(range(pages)):
            area[page * PAGE]


def write(path: Path, pages: int) -> None:
    """Page by page, into a new file."""
    with path.open("wb", buffering=0) as file:
        for _ in range(pages):
            file.write(bytes(PAGE))


def truncate(path: Path, _pages: int) -> None:
    """To nothing."""
    os.truncate(path, 0)


def unlink(path: Path, _pages: int) -> None:
    """The last name of a file that nobody has open."""
    path.unlink()


def punch(path: Path, pages: int) -> None:
    """A hole, of all but the last page."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    with path.open("r+b") as file:
        size = ctypes.c_long((pages - 1) * PAGE)
        assert fallocate(file.fileno(), 0x02 | 0x01, ctypes.c_long(0), size) == 0


def forget(path: Path, _pages: int) -> None:
    """By fadvise."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_past(path: Path, pages: int) -> None:
    """A direct write over what is cached."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, pages * PAGE) as zeros:
        assert os.write(fd, zeros) == pages * PAGE
    os.close(fd)


def drop(_path: Path, _pages: int) -> None:
    """All clean cache of the machine."""
    Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")


STEPS: Final[dict[str, tuple[Callable[[Path, int], None], int]]] = {
    "read": (read, 37),
    "readahead": (readahead, 61),
    "begin": (begin, 211),
    "fault": (fault, 29),
    "write": (write, 43),
    "truncate": (truncate, 53),
    "unlink": (unlink, 59),
    "punch": (punch, 73),
    "forget": (forget, 67),
    "write_past": (write_past, 71),
    "drop": (drop, 79),
}
"""Name of a step, and of its file -> what it does, and the file's pages."""


def main(folder: Path, names: list[str]) -> None:
    """Do the steps."""
    print("ready", flush=True)
    for name in names:
        sys.stdin.readline()
        act, pages = STEPS[name]
        act(folder / name, pages)
        print(name, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
