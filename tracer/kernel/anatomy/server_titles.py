"""The titles of processes of servers, which say what a process is for: they write it over their command line.

PostgreSQL: `postgres: USER DATABASE CLIENT COMMAND` (src/backend/utils/misc/ps_status.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.kernel.anatomy.shown import Shown
from tracer.kernel.process.resident import command_line

_KINDS: Final = {b"postgres: ": "postgresql"}
_MOST_BYTES: Final = 256


def shown(process: Path) -> Iterator[Shown]:
    """Yield the title of a process (a directory of /proc); nothing if it is of no server that is known."""
    with suppress(OSError):
        title = command_line(process, _MOST_BYTES).partition(b"\0")[0].strip()
        for prefix, kind in _KINDS.items():
            if title.startswith(prefix):
                yield Shown(kind, "title", text=title.decode(errors="surrogateescape"))
