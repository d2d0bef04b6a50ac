"""The command line of the workload: its steps, one after the other, with barriers between them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from tracer.lab.workload import app, steps

_USAGE: Final = "usage: python3 -m tracer.lab.workload [--barrier] [--pause-ms N] STEP [then STEP]..."

STEPS: Final[dict[str, Callable[..., None]]] = {
    step.__name__: step
    for step in (
        *(steps.read, steps.write, steps.files, steps.execute, steps.leave),
        *(steps.anon, steps.shmem, steps.memfd, steps.mlock),
        *(steps.mlock_file, steps.threads, steps.pipes, steps.page_tables),
        *(steps.sockets, steps.oom_group, steps.high, steps.cgroups),
        *(steps.child, steps.crowd, steps.press, steps.cow),
        *(steps.segment, app.rows),
    )
}


def main(arguments: list[str]) -> int:
    barrier, pause_ms, steps = _parse(arguments)
    _meet(barrier, "start")
    for name, operands in steps:
        STEPS[name](lambda: time.sleep(pause_ms / 1000) if pause_ms else None, *operands)
        _meet(barrier, f"done {name}")
    return 0


def _meet(barrier: bool, line: str) -> None:
    """Print the line and wait for a newline; the end of stdin ends the process."""
    if not barrier:
        return
    print(line, flush=True)
    if not sys.stdin.readline():
        sys.exit(1)


def _parse(arguments: list[str]) -> tuple[bool, float, list[tuple[str, list[str]]]]:
    barrier, pause_ms, words = False, 0.0, list(arguments)
    while words and words[0].startswith("--"):
        option = words.pop(0)
        if option == "--barrier":
            barrier = True
        elif option == "--pause-ms" and words:
            pause_ms = float(words.pop(0))
        else:
            sys.exit(_USAGE)
    steps: list[tuple[str, list[str]]] = []
    for word in ["then", *words]:
        if word == "then":
            steps.append(("", []))
        elif steps[-1][0]:
            steps[-1][1].append(word)
        else:
            steps[-1] = (word, [])
    if any(name not in STEPS for name, _ in steps):
        sys.exit(f"{_USAGE}\nSTEP is one of {', '.join(STEPS)}")
    return barrier, pause_ms, steps


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
