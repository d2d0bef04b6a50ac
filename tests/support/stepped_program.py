"""Programs of tests/workloads that go on step by step, and what of their growth each function has."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def started(program: Path, memcg: Path, *phases: str) -> Iterator[subprocess.Popen[str]]:
    """Start the program in the cgroup, and yield it ready for its first phase."""
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    command = ["sh", "-c", enter, str(program), *phases]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            await_ready(process)
            yield process
        finally:
            process.kill()


def await_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def go_on(process: subprocess.Popen[str], line: str = "") -> None:
    """Run the next phase to its end."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    await_ready(process)


def weights_of(trace: Any, samples: pd.DataFrame) -> Counter[str]:
    """Return function -> bytes of samples, by the innermost function."""
    frames = dict(zip(trace.stacks["stack_id"], trace.stacks["frames"], strict=True))
    sums: Counter[str] = Counter()
    for stack_id, weight in zip(samples["stack_id"], samples["bytes"], strict=True):
        sums[frames[stack_id][0].partition(" ")[0]] += weight
    return sums
