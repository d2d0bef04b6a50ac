"""The children of this process."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def own_children() -> list[int]:
    """Return the pids of the children of this process, also of those that nobody has waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            found += [int(stat.parent.name)] if parent == os.getpid() else []
    return found
