"""The machine's memory by page frame number: where it is, and the frames of pages that this process has."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.errors import TracerError
from tracer.kernel.process.mapped_ranges import read_maps

_IOMEM: Final = Path("/proc/iomem")
_PAGEMAP: Final = Path("/proc/self/pagemap")
_SELF: Final = Path("/proc/self")
_RAM: Final = re.compile(r"^ *([0-9a-f]+)-([0-9a-f]+) : System RAM", re.MULTILINE)
_ENTRY: Final = struct.Struct("<Q")
_FRAME: Final = (1 << 55) - 1
_OF_FILE: Final = 1 << 63 | 1 << 61  # the page is present, and of a file
_MOST_LANDMARKS: Final = 64


def ram(iomem: str | None = None) -> list[range]:
    """Return the ranges of page frame numbers that are RAM, ascending, without overlap.

    `iomem` is the text of /proc/iomem, which is read if it is not given. RAM that was added later may be
    below another resource, as "System RAM (virtio_mem)" or "System RAM (kmem)". Raises TracerError if the
    kernel shows no addresses to this process (CAP_SYS_ADMIN).
    """
    text = _IOMEM.read_text("ascii", "replace") if iomem is None else iomem
    page_bytes = mmap.PAGESIZE
    found: list[range] = []
    for match in sorted(_RAM.findall(text), key=lambda ends: int(ends[0], 16)):
        first, last = (int(address, 16) for address in match)
        frames = range(-(-first // page_bytes), (last + 1) // page_bytes)
        if found and frames.start < found[-1].stop:  # within a larger resource
            frames = range(found[-1].stop, frames.stop)
        if frames:
            found.append(frames)
    if not found:
        raise TracerError("the kernel does not show where memory is (/proc/iomem): it asks for CAP_SYS_ADMIN")
    return found


@dataclass(frozen=True)
class Landmark:
    """The first page of a file, which this process has mapped at `address`. `fd` is the file, opened."""

    fd: int
    address: int

    def frame(self) -> int | None:
        """Return the page frame number; None if the file's page is not there, or if the kernel hides it
        (Documentation/admin-guide/mm/pagemap.rst). The kernel may move the page at any time."""
        with _PAGEMAP.open("rb", buffering=0) as pagemap:
            pagemap.seek(self.address // mmap.PAGESIZE * _ENTRY.size)
            (entry,) = _ENTRY.unpack(pagemap.read(_ENTRY.size))
        return entry & _FRAME or None if entry & _OF_FILE == _OF_FILE else None


@contextmanager
def landmarks() -> Iterator[list[Landmark]]:
    """Yield pages all over memory: of a file in memory, and of files that this process has mapped, as
    libraries, which got their pages at different times.

    Raises TracerError if the kernel shows no frame numbers to this process (CAP_SYS_ADMIN; pagemap.rst).
    """
    with ExitStack() as stack:
        own = os.memfd_create("memcg-tracer")
        stack.callback(os.close, own)
        os.ftruncate(own, mmap.PAGESIZE)
        mapping = stack.enter_context(mmap.mmap(own, mmap.PAGESIZE))
        mapping[0] = 1
        byte = ctypes.c_char.from_buffer(mapping)
        found = [Landmark(own, ctypes.addressof(byte))]
        try:
            if found[0].frame() is None:
                raise TracerError(
                    "the kernel does not show where a page is (pagemap): it asks for CAP_SYS_ADMIN"
                )
            for start, name in _mapped_beginnings()[:_MOST_LANDMARKS]:
                with suppress(OSError):
                    fd = os.open(_SELF / "map_files" / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                    stack.callback(os.close, fd)
                    found.append(Landmark(fd, start))
            yield found
        finally:
            del byte


def _mapped_beginnings() -> list[tuple[int, str]]:
    """Return where this process has the beginnings of files mapped, with their names in map_files."""
    found: dict[bytes, tuple[int, str]] = {}
    for one in read_maps(_SELF):
        if one.inode and one.offset == 0 and one.name.startswith(b"/"):
            found.setdefault(one.name, (one.start, one.place))
    return list(found.values())
