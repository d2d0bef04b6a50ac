"""What the runtimes of processes showed of their memory, at looks of the recorder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from tracer.analysis.core.columns import integers, optional, records, times_ns
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.heap_bounds import heap_bound
from tracer.analysis.results.memory import CodeFrame, HeapSite, ProcessMemory, Runtime

_FRAME: Final = re.compile(r"(?P<function>.*) \((?P<file>.*):(?P<line>\d{1,9})\)", re.DOTALL)
_FREE: Final = ("", "pages_")
_GO_NO_LIMIT: Final = (1 << 63) - 1  # math.MaxInt64

Rows = Sequence[Mapping[str, Any]]


def of_processes(subtree: Subtree, looked_at: Sequence[ProcessMemory]) -> tuple[Runtime, ...]:
    """Return what the runtimes of processes showed at these looks at them."""
    return tuple(runtime for one in looked_at for runtime in _of_process(subtree, one))


def _of_process(subtree: Subtree, one: ProcessMemory) -> Iterator[Runtime]:
    time_ns = one.time.as_unit("ns").value
    table = subtree.runtimes
    rows = records(table[(integers(table["tgid"]) == one.pid) & (times_ns(table) == time_ns)])
    by_kind: dict[str, list[Any]] = {}
    for row in rows:
        by_kind.setdefault(str(row["kind"]), []).append(row)
    title = subtree.whole.processes.cmdline_at(one.pid, time_ns, time_ns)
    for kind, of_kind in _KINDS.items():
        found = of_kind(by_kind.get(kind, []), one, title)
        if found:
            yield {"pid": one.pid, "kind": kind, **found}


def _numbers(rows: Rows) -> dict[str, int | str | None]:
    """Return name -> number; a row without a number has a text."""
    return {
        str(row["name"]): str(row["text"]) if (value := optional(row["value"])) is None else int(value)
        for row in rows
    }


def _jvm(rows: Rows, one: ProcessMemory, title: str | None) -> dict[str, Any]:
    if not rows:
        return {}
    bound = heap_bound("java", title)
    outside = one.anon_bytes() - one.anon_bytes("java heap")
    return _numbers(rows) | {"outside_bytes": outside, "option": None if bound is None else bound.option}


def _go(rows: Rows, one: ProcessMemory, _title: str | None) -> dict[str, Any]:
    if not rows:
        return {}
    sites = [row for row in rows if row["name"] == "site_bytes"]
    found = _numbers([row for row in rows if row["name"] != "site_bytes"])
    if found.get("memory_limit_bytes") == _GO_NO_LIMIT:
        found["memory_limit_bytes"] = None
    whole = int(found.get("profiled_bytes") or 0)
    profile = tuple(
        HeapSite(int(row["value"]) / whole, int(row["value"]), _frames(str(row["text"])))
        for row in sites
        if whole
    )
    return found | {"outside_bytes": one.anon_bytes() - one.anon_bytes("go heap"), "profile": profile}


def _frames(text: str) -> tuple[CodeFrame, ...]:
    """Return the frames of a stack as the recorder writes it, innermost first."""
    return tuple(
        CodeFrame(it["function"], it["file"], int(it["line"]), None)
        if (it := _FRAME.fullmatch(frame))
        else CodeFrame(frame, None, None, None)
        for frame in text.split(";")
    )


def _glibc(rows: Rows, one: ProcessMemory, _title: str | None) -> dict[str, Any]:
    """Return the arenas, and how much of malloc's heaps is free and present.

    A free page need not be present: malloc_trim(3) gives it back and keeps the chunk. What is present and not
    used is.
    """
    found: dict[str, Any] = _numbers(rows)
    if arenas := one.count("arena"):
        found |= {"arenas": arenas, "arena_bytes": one.anon_bytes("arena")}
    free, pages = (found.get(f"free_{name}bytes", found.get(f"free_{name}at_least_bytes")) for name in _FREE)
    if free is not None and pages is not None:
        used = found["system_bytes"] - free - found["top_bytes"]
        present = one.anon_bytes("heap") + one.anon_bytes("arena")
        found["free_present_bytes"] = max(min(pages, present - used), 0)
    return found


_KINDS: Final[Mapping[str, Callable[[Rows, ProcessMemory, str | None], dict[str, Any]]]] = {
    "jvm": _jvm,
    "go": _go,
    "glibc": _glibc,
}
