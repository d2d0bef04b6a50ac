"""PostgreSQL: what a backend has of its own, and what its title says that it was doing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tracer.analysis.explain.runtimes.runtime_record import Killed, LookedAt, RuntimeRecord
from tracer.analysis.results.memory import ProcessMemory, Runtime
from tracer.units import size

_OF_MAINTENANCE: Final = ("autovacuum worker", "VACUUM", "CREATE INDEX", "REINDEX", "ALTER TABLE")


def _numbers(look: LookedAt) -> dict[str, Any]:
    if not look.rows:
        return {}
    memory = look.memory
    shared = sum(part.rss_bytes for part in memory.parts if part.kind == "shared")
    return look.numbers() | {"own_bytes": memory.anon_bytes(), "touched_shared_bytes": shared}


def _lines(it: Runtime, _memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    yield (
        "postgresql",
        f"`{it['title']}`: {size(it['own_bytes'])} of its own ({_setting(it)}, caches); it touched "
        f"{size(it['touched_shared_bytes'])} of the shared memory (shared_buffers)",
    )


def _setting(it: Runtime) -> str:
    """Return the setting that bounds most memory of such a process."""
    is_maintenance = any(words in str(it["title"]) for words in _OF_MAINTENANCE)
    return "maintenance_work_mem" if is_maintenance else "work_mem"


def _advice(killed: Killed, it: Runtime) -> Iterator[str]:
    """Yield advice if a killed backend had much memory of its own."""
    if killed.held_bytes <= killed.much_bytes:
        return
    setting = _setting(it)
    of_each = "" if setting != "work_mem" else ", which each sort and hash of each query may use"
    yield (
        f"Lower {setting}{of_each}, if it is large: {killed.name}, `{it['title']}`, had "
        f"{size(killed.held_bytes)} of its own. SELECT pg_log_backend_memory_contexts(PID) logs what a "
        "backend uses it for."
    )


RUNTIME = RuntimeRecord(_numbers, _lines, _advice, is_from_look=False)
