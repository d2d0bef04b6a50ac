"""The title of a process: its command line, or the text that it has written over that (setproctitle)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tracer.stored_names import stored_name

MOST_BYTES: Final = 256
"""The most bytes of a title; the rest is left out."""

_PROC: Final = Path("/proc")
_NS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def read_title(tgid: int, start_ns: int, proc: Path = _PROC) -> str | None:
    """Return /proc/PID/cmdline of the process that started at `start_ns` (CLOCK_BOOTTIME), with spaces
    between words.

    None if the process has ended, has no address space left, or is a kernel thread.
    """
    try:
        with open(proc / str(tgid) / "cmdline", "rb", buffering=0) as stream:  # noqa: PTH123  hot
            title = stream.read(MOST_BYTES)
        with open(proc / str(tgid) / "stat", "rb", buffering=0) as stream:  # noqa: PTH123  hot
            fields = stream.read(1024).rpartition(b")")[2].split()
        if int(fields[19]) != start_ns // _NS_PER_TICK:
            return None
    except (OSError, ValueError, IndexError):
        return None
    return stored_name(title.rstrip(b"\0 ").replace(b"\0", b" ")) or None
