"""glibc: the arenas of malloc, and what is free inside of its heaps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tracer.analysis.explain.runtimes.runtime_record import Killed, LookedAt, RuntimeRecord
from tracer.analysis.results.memory import ProcessMemory, Runtime
from tracer.units import count, size

_FREE: Final = ("", "pages_")
_LEAST_SHARE: Final = 0.1
_MANY_ARENAS: Final = 4


def _numbers(look: LookedAt) -> dict[str, Any]:
    """Return the arenas, and how much of malloc's heaps is free and present.

    A free page need not be present: malloc_trim(3) gives it back and keeps the chunk. What is present and not
    used is.
    """
    found, memory = look.numbers(), look.memory
    if arenas := memory.count("arena"):
        found |= {"arenas": arenas, "arena_bytes": memory.anon_bytes("arena")}
    free, pages = (found.get(f"free_{name}bytes", found.get(f"free_{name}at_least_bytes")) for name in _FREE)
    if free is not None and pages is not None:
        used = found["system_bytes"] - free - found["top_bytes"]
        present = memory.anon_bytes("heap") + memory.anon_bytes("arena")
        found["free_present_bytes"] = max(min(pages, present - used), 0)
    return found


def _lines(it: Runtime, memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    free = it.get("free_present_bytes") or 0
    if free < _LEAST_SHARE * memory.rss_bytes:
        return
    least = "" if "free_bytes" in it else "at least "
    arenas = count(it["arena_count"])
    ending = "" if it["arena_count"] == 1 else "s"
    yield "malloc", f"{least}{size(free)} was free inside of its heaps ({arenas} arena{ending})"


def _advice(killed: Killed, glibc: Runtime) -> Iterator[str]:
    """Yield advice if much memory was free inside of malloc's heaps."""
    free, much = glibc.get("free_present_bytes") or 0, killed.much_bytes
    if free <= much:
        return
    held, arenas = glibc.get("arena_bytes") or 0, glibc.get("arenas") or 0
    if held > much and arenas >= _MANY_ARENAS:
        yield (
            f"Set MALLOC_ARENA_MAX=2 in the environment of {killed.name}: {size(free)} was free inside of "
            f"malloc's heaps, of which {count(arenas)} ({size(held)}) are those of threads. What one arena "
            "has freed, another one does not use."
        )
        return
    yield (
        f"Call malloc_trim(0) in {killed.name} after it has freed much: {size(free)} was free inside of "
        "malloc's heap, between pieces in use, and was not given back."
    )


RUNTIME = RuntimeRecord(_numbers, _lines, _advice)
