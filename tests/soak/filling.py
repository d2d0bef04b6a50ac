"""A small disk of our own, which no other process sees, and which can be full."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from tracer.lab.workload.namespaces import mount_privately

_MNT_DETACH = 2  # include/linux/fs.h
_STEPS = (1 << 20, 1 << 16, 1 << 12)


class Disk:
    """A tmpfs at `directory`, in a mount namespace of this process and of the children that it starts then.

    `full` has the times (time.time) between which it was full; None: it still is.
    """

    def __init__(self, directory: Path, size_bytes: int) -> None:
        mount_privately("tmpfs", str(directory), f"size={size_bytes},mode=0755")
        self._directory = directory
        self._ballast = directory / "ballast"
        self.full: list[tuple[float, float | None]] = []

    def close(self) -> None:
        """Unmount it, even if something still uses it."""
        ctypes.CDLL(None).umount2(os.fsencode(self._directory), _MNT_DETACH)

    @property
    def is_full(self) -> bool:
        """Return whether `fill` was called last."""
        return bool(self.full) and self.full[-1][1] is None

    def fill(self) -> None:
        """Take all space that is left; call it repeatedly, for others free some."""
        if not self.is_full:
            self.full.append((time.time(), None))
        descriptor = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for step in _STEPS:
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, step)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Give the space back."""
        if self.is_full:
            self.full[-1] = self.full[-1][0], time.time()
        try:
            self._ballast.unlink()
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
