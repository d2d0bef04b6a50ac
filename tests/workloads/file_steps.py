"""What is done to files, a cause each: test_causes.py runs it in a cgroup, and knows how many pages it takes.

`python causes.py FOLIOS FOLDER NAME...` does the steps of these names, each to its file. FOLIOS is `single`,
for folios of one page each, or `large`, for what makes the kernel take larger ones where the file system has
any.
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
"""Steps whose file must be in the cache, so that they take it out."""


def read(path: Path, pages: int) -> None:
    """One page at a time, from the last to the first: nothing to read ahead."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for page in reversed(range(pages)):
            os.pread(file.fileno(), PAGE, page * PAGE)


def read_at_once(path: Path, pages: int) -> None:
    """The first page, and the rest by a call that reads on: for that the kernel takes larger folios."""
    with path.open("rb", buffering=0) as file:
        os.read(file.fileno(), PAGE)
        os.read(file.fileno(), (pages - 1) * PAGE)


def read_on(path: Path, _pages: int) -> None:
    """From the first page to the last, in pieces."""
    with path.open("rb", buffering=0) as file:
        while os.read(file.fileno(), 16 * PAGE):
            pass


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


def fault_on_huge(path: Path, pages: int) -> None:
    """Touch one page of a map that asks for huge pages; what follows on its folio is read ahead."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), pages * PAGE, prot=mmap.PROT_READ) as area:
        area.madvise(mmap.MADV_HUGEPAGE)
        for page in range(5, pages):
            area[page * PAGE]


def write(path: Path, pages: int) -> None:
    """Page by page, into a new file."""
    with path.open("wb", buffering=0) as file:
        for _ in range(pages):
            file.write(bytes(PAGE))


def write_at_once(path: Path, pages: int) -> None:
    """All of it by one call, into a new file."""
    with path.open("wb", buffering=0) as file:
        assert file.write(bytes(pages * PAGE)) == pages * PAGE


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

IN_LARGE: Final = {"read": read_at_once, "begin": read_on, "fault": fault_on_huge, "write": write_at_once}
"""What is done otherwise where folios are to be large."""

MORE_PAGES: Final = 1024
"""How many a file has more then: two huge pages."""


def main(folios: str, folder: Path, names: list[str]) -> None:
    """Do the steps; what takes a file out of the cache finds it there in folios of that kind."""
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
