"""The cost of `explain` on traces that differ only in their number of kills or cgroups."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from synthetic.restarts import Restarts

import tracer
from tracer.analysis.trace import AnalysedTrace

FEW: Final = 100
MANY: Final = 1000

SHAPES: Final[dict[str, tuple[Callable[[int], Restarts], Callable[[AnalysedTrace], Any]]]] = {
    "kill, all for one limit": (Restarts, AnalysedTrace.explain),
    "kill, each for the limit of another cgroup": (
        lambda count: Restarts(count, count),
        AnalysedTrace.explain,
    ),
    "cgroup that lived": (lambda count: Restarts(count, count, None), AnalysedTrace.held),
}
"""The repeated thing -> (maker of a trace with a number of them, the analysis that is timed)."""


def costs(folder: Path) -> Iterator[str]:
    """Yield a sentence for each shape: the processor time per thing, without that of reading the tables."""
    for what, (restarts, look) in SHAPES.items():
        few, many = (
            each_ms(restarts(count).write(folder / f"{what} {count}"), look) for count in (FEW, MANY)
        )
        yield (
            f"explain: {few:.1f} ms a {what}, with {FEW}; {many:.1f} ms with {MANY} ({many / few:.2f} times)"
        )


def each_ms(path: Path, look: Callable[[AnalysedTrace], Any]) -> float:
    trace = tracer.open(path)
    for table in ("charge", "pagecache", "reclaim", "samples", "waits", "needed_again"):
        getattr(trace, table)
    begin = time.process_time()
    found = look(trace)
    return (time.process_time() - begin) * 1e3 / len(found)
