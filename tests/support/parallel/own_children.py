"""The children of this process that a test starts: other tests may have left some, in the same process."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class OwnChildren:
    def __init__(self) -> None:
        self._before = set(_pids())

    def new(self) -> list[int]:
        """Return the pids of children that came since, also of those that nobody has waited for."""
        return [pid for pid in _pids() if pid not in self._before]


def _pids() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            found += [int(stat.parent.name)] if parent == os.getpid() else []
    return found
