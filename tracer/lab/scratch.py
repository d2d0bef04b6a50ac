"""Files on a disk for an experiment: they are not in the page cache at its start, and are removed at its
end."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tracer.directory import Directory, is_safe, remove_left_behind
from tracer.errors import TracerError
from tracer.kernel.cgroups.mounts import first_on_a_disk

_PREFIX = ".memcg-tracer-"
_CHUNK_BYTES = 1 << 20
_DROP_WITHIN_S = 5.0


@contextmanager
def scratch_directory(near: Path) -> Iterator[Path]:
    """Make a temporary directory (0700) in `near`, and remove it at the end. It is made in /var/tmp if `near`
    is in memory, or if other users could exchange the directory, whose programs are run.

    Directories of killed makers are removed first. Raises TracerError if neither place is writable and on a
    disk.
    """
    parent = first_on_a_disk(place for place in (near, Path("/var/tmp")) if is_safe(place))
    if parent is None:
        raise TracerError(
            f"neither {near} nor /var/tmp is a writable directory on a disk that is safe from other users: "
            "choose another with -o"
        )
    remove_left_behind(parent, _PREFIX, partial(shutil.rmtree, ignore_errors=True))
    with (
        tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent) as directory,
        Directory.open(Path(directory)) as locked,
    ):
        fcntl.flock(locked.fileno(), fcntl.LOCK_EX)
        yield Path(directory)


def write_uncached(file: Path, size_bytes: int, begin: bytes = b"") -> None:
    """Make a file of this size on the disk, without pages in the page cache.

    The file has the bytes of `begin`, then incompressible content. Raises TracerError if it cannot be
    written, or if its pages do not leave the page cache.
    """
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            for offset in range(0, size_bytes, _CHUNK_BYTES):
                os.pwrite(descriptor, os.urandom(min(_CHUNK_BYTES, size_bytes - offset)), offset)
            os.pwrite(descriptor, begin, 0)
            os.fsync(descriptor)
            _drop(descriptor, size_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise TracerError(f"cannot write {file} ({error.strerror}): choose another place with -o") from error


def cached_pages(descriptor: int, size_bytes: int) -> int:
    """Return the number of pages of an open, writable file that are in the page cache (mincore(2))."""
    pages = -(-size_bytes // mmap.PAGESIZE)
    with mmap.mmap(descriptor, size_bytes, flags=mmap.MAP_PRIVATE) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        resident = (ctypes.c_ubyte * pages)()
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size_bytes), resident)
        del start  # the mapping cannot be closed while it is exported
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return sum(page & 1 for page in resident)


def _drop(descriptor: int, size_bytes: int) -> None:
    """Drop one file from the page cache; repeat this until no page is left.

    The first call leaves pages that are in the LRU batch of another CPU (mm/fadvise.c).
    """
    deadline = time.monotonic() + _DROP_WITHIN_S
    while True:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if cached_pages(descriptor, size_bytes) == 0:
            return
        if time.monotonic() > deadline:
            raise TracerError("the scratch file stays in the page cache: choose a place on a disk with -o")
        time.sleep(0.02)
