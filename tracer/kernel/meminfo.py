"""The memory of the machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def meminfo_bytes() -> dict[str, int]:
    """Return the sizes of /proc/meminfo (proc_meminfo(5)) in bytes; {} if it cannot be read."""
    sizes = {}
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text("ascii", "replace").splitlines():
            name, _, value = line.partition(":")
            number, *unit = value.split() or [""]
            if number.isdigit() and unit == ["kB"]:
                sizes[name] = int(number) << 10
    return sizes
