"""The machine's memory by page frame number: where it is, and the frame of a page of our own."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tracer.errors import TracerError

_IOMEM: Final = Path("/proc/iomem")
_PAGEMAP: Final = Path("/proc/self/pagemap")
_RAM: Final = re.compile(r"^ *([0-9a-f]+)-([0-9a-f]+) : System RAM", re.MULTILINE)
_ENTRY: Final = struct.Struct("<Q")
_FRAME: Final = (1 << 55) - 1
_PRESENT: Final = 1 << 63


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


@contextmanager
def landmark() -> Iterator[tuple[int, int]]:
    """Make a file in memory, and yield its descriptor and the page frame number of its first page.

    Raises TracerError if the kernel shows no frame numbers to this process (CAP_SYS_ADMIN; pagemap.rst).
    """
    fd = os.memfd_create("memcg-tracer")
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        with mmap.mmap(fd, mmap.PAGESIZE) as mapping:
            mapping[0] = 1
            byte = ctypes.c_char.from_buffer(mapping)
            address = ctypes.addressof(byte)
            with _PAGEMAP.open("rb", buffering=0) as pagemap:
                pagemap.seek(address // mmap.PAGESIZE * _ENTRY.size)
                (entry,) = _ENTRY.unpack(pagemap.read(_ENTRY.size))
            try:
                if not entry & _PRESENT or not entry & _FRAME:
                    raise TracerError(
                        "the kernel does not show where a page is (pagemap): it asks for CAP_SYS_ADMIN"
                    )
                yield fd, entry & _FRAME
            finally:
                del byte
    finally:
        os.close(fd)
