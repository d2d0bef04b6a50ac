"""A process that makes and removes cgroups: `python -m soak.churning DIRECTORY`.

It reads the rate (cgroups a second) from stdin, a line for each change, and ends with stdin. Every second
cgroup has a process that takes some memory and ends; the others are empty. At the end it prints the number of
cgroups.
"""

from __future__ import annotations

import mmap
import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_TAKEN_BYTES: Final = 37 * mmap.PAGESIZE
_IDLE_S: Final = 0.2


def main(directory: str) -> int:
    """Make cgroups below `directory` until the end of stdin."""
    rate = made = 0
    due_s = time.monotonic()
    stdin = sys.stdin.fileno()
    os.set_blocking(stdin, False)
    while True:
        wait_s = max(0.0, due_s - time.monotonic()) if rate else _IDLE_S
        if select.select([stdin], [], [], wait_s)[0]:
            read = os.read(stdin, 1 << 12)
            if not read:
                break
            rate = int(read.split()[-1])
            due_s = time.monotonic()
        if rate:
            _live_and_die(Path(directory, f"churn-{made}"), has_process=made % 2 == 1)
            made += 1
            due_s = max(due_s + 1 / rate, time.monotonic() - 1)
    print(made, flush=True)
    return 0


def _live_and_die(cgroup: Path, *, has_process: bool) -> None:
    cgroup.mkdir()
    if has_process:
        child = os.fork()
        if not child:
            with suppress(OSError):
                (cgroup / "cgroup.procs").write_text("0", encoding="ascii")
                with mmap.mmap(-1, _TAKEN_BYTES) as memory:
                    memory.write(b"\x01" * _TAKEN_BYTES)
            os._exit(0)
        os.waitpid(child, 0)
    while True:
        try:
            cgroup.rmdir()
        except OSError:  # the process is not gone from it yet
            time.sleep(0)
            continue
        return


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
