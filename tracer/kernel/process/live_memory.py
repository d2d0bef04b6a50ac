"""The memory of a process that runs, read from outside. Nothing is written into it, it is not stopped, and
nothing is brought back from swap.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from tracer.kernel.process.resident import check_resident

_PROC: Final = Path("/proc")
_END_OF_ADDRESSES: Final = 1 << 63


class Memory:
    """The memory of a process, read through descriptors that stay with that process."""

    def __init__(self, tgid: int, proc: Path = _PROC) -> None:
        self._fd = os.open(proc / str(tgid) / "mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._pagemap_fd = os.open(proc / str(tgid) / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._fd)
            raise

    def read(self, address: int, size: int) -> bytes:
        """Return bytes. Raises OSError if they cannot be read, or are in swap."""
        if not 0 < address < _END_OF_ADDRESSES - size:
            raise OSError(f"{address:#x} is no address of a program")
        check_resident(self._pagemap_fd, address, size)
        found = os.pread(self._fd, size, address)
        if len(found) < size:
            raise OSError(f"{address:#x} is not mapped as a whole")
        return found

    def number(self, address: int) -> int:
        """Return the 8 bytes at an address as a number. Raises OSError."""
        return int.from_bytes(self.read(address, 8), "little")

    def numbers(self, address: int, count: int) -> tuple[int, ...]:
        """Return `count` numbers of 8 bytes from an address on. Raises OSError."""
        return struct.unpack(f"<{count}Q", self.read(address, 8 * count))

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._pagemap_fd)
