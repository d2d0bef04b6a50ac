"""Steps on files, one for each cause of a page-cache event. test_causes.py runs them in a cgroup.

`python file_steps.py FOLIOS FOLDER NAME...` runs the steps of these names, each on the file of its name.
FOLIOS is `single`, for folios of one page, or `large`, for accesses that make the kernel allocate larger
folios if the file system supports them.
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

CACHED_BEFORE: Final = ("truncate", "unlink", "punch", "forget", "write_past", "drop")
"""Steps that delete their file from the cache, and so need it there."""


def read(path: Path, pages: int) -> None:
    """Read page by page from the last to the first, so that nothing is read ahead."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for page in reversed(range(pages)):
            os.pread(file.fileno(), PAGE, page * PAGE)


def read_at_once(path: Path, pages: int) -> None:
    """Read the first page, and the rest by one sequential call, for which the kernel allocates larger
    folios.
    """
    with path.open("rb", buffering=0) as file:
        os.read(file.fileno(), PAGE)
        os.read(file.fileno(), (pages - 1) * PAGE)


def read_on(path: Path, _pages: int) -> None:
    """Read the file from its start, 16 pages at a time."""
    with path.open("rb", buffering=0) as file:
        while os.read(file.fileno(), 16 * PAGE):
            pass


def readahead(path: Path, _pages: int) -> None:
    """Have the kernel read the file ahead, without reading it."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def begin(path: Path, _pages: int) -> None:
    """Read the first page only; the kernel reads ahead up to the device's read_ahead_kb."""
    with path.open("rb", buffering=0) as file:
        os.read(file.fileno(), PAGE)


def fault(path: Path, pages: int) -> None:
    """Touch each page of a mapping."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), pages * PAGE, prot=mmap.PROT_READ) as area:
        area.madvise(mmap.MADV_RANDOM)
        for page in reversed(range(pages)):
            area[page * PAGE]


def fault_on_huge(path: Path, pages: int) -> None:
    """Touch the pages of a mapping that asks for huge pages; the pages after the first folio are read
    ahead.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), pages * PAGE, prot=mmap.PROT_READ) as area:
        area.madvise(mmap.MADV_HUGEPAGE)
        for page in range(5, pages):
            area[page * PAGE]


def write(path: Path, pages: int) -> None:
    """Write a new file page by page."""
    with path.open("wb", buffering=0) as file:
        for _ in range(pages):
            file.write(bytes(PAGE))


def write_at_once(path: Path, pages: int) -> None:
    """Write a new file by one call."""
    with path.open("wb", buffering=0) as file:
        assert file.write(bytes(pages * PAGE)) == pages * PAGE


def truncate(path: Path, _pages: int) -> None:
    """Truncate the file to size 0."""
    os.truncate(path, 0)


def unlink(path: Path, _pages: int) -> None:
    """Remove the last name of a file that no process has open."""
    path.unlink()


def punch(path: Path, pages: int) -> None:
    """Punch a hole over all but the last page."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    with path.open("r+b") as file:
        size = ctypes.c_long((pages - 1) * PAGE)
        assert fallocate(file.fileno(), 0x02 | 0x01, ctypes.c_long(0), size) == 0


def forget(path: Path, _pages: int) -> None:
    """Drop the file's cache by POSIX_FADV_DONTNEED."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_past(path: Path, pages: int) -> None:
    """Write over the cached pages with O_DIRECT."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, pages * PAGE) as zeros:
        assert os.write(fd, zeros) == pages * PAGE
    os.close(fd)


def drop(_path: Path, _pages: int) -> None:
    """Drop all clean page cache of the machine."""
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
"""Name of a step and of its file -> (function, pages of the file)."""

IN_LARGE: Final = {"read": read_at_once, "begin": read_on, "fault": fault_on_huge, "write": write_at_once}
"""Functions that replace those of `STEPS` for large folios."""

MORE_PAGES: Final = 1024
"""Additional pages of a file then: two huge pages."""


def main(folios: str, folder: Path, names: list[str]) -> None:
    """Run the steps; the files of `CACHED_BEFORE` are brought into the cache first, in folios of that
    kind.
    """
    is_large = folios == "large"
    cache = read_on if is_large else read
    for name in names:
        act, pages = STEPS[name]
        pages += MORE_PAGES if is_large else 0
        if name in CACHED_BEFORE:
            cache(folder / name, pages)
        (IN_LARGE.get(name, act) if is_large else act)(folder / name, pages)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
