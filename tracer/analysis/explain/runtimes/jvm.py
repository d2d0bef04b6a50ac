"""Java: the heap and what is outside of it, by the counters of the HotSpot virtual machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tracer.analysis.explain.measure.heap_bounds import heap_bound
from tracer.analysis.explain.runtimes.runtime_record import Killed, LookedAt, RuntimeRecord
from tracer.analysis.results.memory import ProcessMemory, Runtime
from tracer.units import count, size


def _numbers(look: LookedAt) -> dict[str, Any]:
    if not look.rows:
        return {}
    bound = heap_bound("java", look.cmdline)
    outside = look.memory.anon_bytes() - look.memory.anon_bytes("java heap")
    return look.numbers() | {"outside_bytes": outside, "option": None if bound is None else bound.option}


def _lines(it: Runtime, memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    option = f" ({it['option']})" if it.get("option") else ""
    collected = it.get("collections")
    since = "" if collected is None else f" after {count(collected)} collections"
    metaspace = it.get("metaspace_used_bytes")
    others = ["direct buffers", f"metaspace ({size(metaspace)})" if metaspace else "metaspace"]
    yield (
        "java",
        f"{size(memory.rss_bytes)}: heap at most {size(it.get('heap_max_bytes'))}{option}, "
        f"{size(it.get('heap_used_bytes'))} of it in use{since}; {size(it['outside_bytes'])} outside of it: "
        f"{', '.join([*others, 'code', 'stacks'])}",
    )


def _advice(killed: Killed, jvm: Runtime) -> Iterator[str]:
    """Yield advice if the heap may grow beyond what other memory leaves of the limit."""
    owner = killed.findings.owner
    heap, outside = jvm.get("heap_max_bytes") or 0, jvm["outside_bytes"]
    if owner.limit_bytes is None or not owner.has_limit or heap + outside <= owner.limit_bytes:
        return
    option = jvm["option"] or "by default a part of the limit or of the machine's memory"
    room = (owner.limit_bytes - outside - killed.unseen_bytes) >> 20
    smaller = f", or a heap of at most {room} MiB (-Xmx{room}m)" if room > 0 else ""
    yield (
        f"Give {killed.name} a limit of at least {size(heap + outside)}{smaller}: the heap "
        f"may grow to {size(heap)} ({option}), and {size(outside)} was outside of it, such as direct "
        "buffers, metaspace, code and stacks."
    )


RUNTIME = RuntimeRecord(_numbers, _lines, _advice)
