"""The runtimes of processes: what looks at them showed, in the order of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tracer.analysis.core.columns import integers, records, times_ns
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.runtimes import glibc, go, jvm, node, postgresql
from tracer.analysis.explain.runtimes.runtime_record import Killed, LookedAt, RuntimeRecord
from tracer.analysis.results.memory import ProcessMemory, Runtime

RUNTIMES: Final[Mapping[str, RuntimeRecord]] = {
    "jvm": jvm.RUNTIME,
    "go": go.RUNTIME,
    "node": node.RUNTIME,
    "postgresql": postgresql.RUNTIME,
    "glibc": glibc.RUNTIME,
}
"""Kind, as in the rows of `runtimes` -> its record."""


def of_processes(subtree: Subtree, looked_at: Sequence[ProcessMemory]) -> tuple[Runtime, ...]:
    """Return what the runtimes of processes showed at these looks at them."""
    return tuple(runtime for one in looked_at for runtime in _of_process(subtree, one))


def _of_process(subtree: Subtree, one: ProcessMemory) -> Iterator[Runtime]:
    time_ns = one.time.as_unit("ns").value
    table = subtree.runtimes
    by_kind: dict[str, list[Any]] = {}
    for row in records(table[(integers(table["tgid"]) == one.pid) & (times_ns(table) == time_ns)]):
        by_kind.setdefault(str(row["kind"]), []).append(row)
    cmdline = subtree.whole.processes.cmdline_at(one.pid, time_ns, time_ns)
    for kind, record in RUNTIMES.items():
        if found := record.numbers(LookedAt(by_kind.get(kind, []), one, cmdline)):
            yield {"pid": one.pid, "kind": kind, **found}


def lines(listed: Sequence[Runtime], looked_at: Sequence[ProcessMemory]) -> Iterator[tuple[str, str]]:
    """Yield a label and words on each runtime of the first process of a look."""
    for one in looked_at[:1]:
        for runtime in listed:
            if runtime["pid"] == one.pid and runtime["kind"] in RUNTIMES:
                yield from RUNTIMES[runtime["kind"]].lines(runtime, one)


def advice(findings: Findings, one: ProcessMemory, name: str) -> Iterator[str]:
    """Yield advice on a killed process, from the last look at it."""
    killed = Killed(findings, one, name)
    for runtime in findings.runtimes:
        record = RUNTIMES.get(runtime["kind"]) if runtime["pid"] == one.pid else None
        if record is not None and (killed.was_seen or not record.is_from_look):
            yield from record.advice(killed, runtime)
