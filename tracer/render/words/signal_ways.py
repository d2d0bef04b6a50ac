"""The hook of each signal of a trace, for a reader: the contents of `probes` in meta.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tracer.render.words.escape import visible

EXPLAINED_BY: Final = frozenset(
    {
        *("memory by kind", "cache added", "cache deleted", "memcg reclaim", "reclaim target"),
        *("lists shrunk", "event counters", "OOM kill", "OOM decision", "OOM candidates"),
    }
)
"""The signals (kernel/probes.py) that a post-mortem depends on."""

FORMERLY_EXPLAINED_BY: Final = frozenset({"kernel memory"})
"""Further such signals of older traces, whose recorders hooked the counters."""

ALL_EXACT: Final = "all exact"


def taken(probes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (signal, its hook and how exact the hook is). Both are escaped for a terminal."""
    for name, probe in probes.items():
        yield visible(str(name)), visible(_taken(probe))


def _taken(probe: Any) -> str:
    if probe is None:
        return "absent"
    if not isinstance(probe, Mapping):  # an old trace, which has the hook without its meaning
        return str(probe)
    meaning, hook, detail = (probe.get(key) for key in ("meaning", "hook", "detail"))
    if not hook:
        return ": ".join(filter(None, ("absent", detail)))
    return f"{meaning or 'meaning not known'}: {hook}" + (f" ({detail})" if detail else "")


def not_exact(probes: Mapping[str, Any]) -> str | None:
    """Return `absent: A, B; approximate: C` for the signals that a post-mortem depends on.

    Return `ALL_EXACT` if all of them are exact, and None if the trace has no meanings.
    """
    meanings = {
        name: probe.get("meaning")
        for name, probe in probes.items()
        if name in EXPLAINED_BY | FORMERLY_EXPLAINED_BY and isinstance(probe, Mapping)
    }
    if not meanings:
        return None
    by_meaning = {
        meaning: [name for name, its in meanings.items() if its == meaning]
        for meaning in ("absent", "approximate")
    }
    parts = [f"{meaning}: {', '.join(names)}" for meaning, names in by_meaning.items() if names]
    return "; ".join(parts) or ALL_EXACT
