"""Works on a CPU in one cgroup after the other: `busy_in_turn.py SECONDS CGROUP...`.

It prints the run time in each, in ns. It moves itself: a move by another process would be at an unknown
moment of its run time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def run_ns() -> int:
    """Return the run time of this process, brought up to date by a switch."""
    time.sleep(0.001)
    return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[0])


def main(seconds: str, *cgroups: str) -> None:
    for cgroup in cgroups:
        Path(cgroup, "cgroup.procs").write_text("0", encoding="ascii")
        begin_ns = run_ns()
        until_ns = time.process_time_ns() + int(float(seconds) * 1e9)
        while time.process_time_ns() < until_ns:
            pass
        print(run_ns() - begin_ns, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
