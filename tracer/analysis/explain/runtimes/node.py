"""Node.js: V8's heap and what is outside of it, by mapping, and the options that bound the heap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from tracer.analysis.explain.measure.heap_bounds import MOST_YOUNG_BYTES, SEMI_SPACES, heap_bound
from tracer.analysis.explain.runtimes.runtime_record import SPARE_DIVISOR, Killed, LookedAt, RuntimeRecord
from tracer.analysis.results.memory import ProcessMemory, Runtime
from tracer.units import size

_NAMES_FUNCTIONS: Final = "--perf-basic-prof"
_NAMES: Final = re.compile(r"(?:^| )--perf[-_]basic[-_]prof(?= |$)")
_LEAST_OLD_BYTES: Final = 256 << 20
_LEAST_YOUNG_BYTES: Final = SEMI_SPACES << 20
_YOUNG_DIVISOR: Final = 64
"""V8 sizes its heap by the limit of the cgroup that Node.js is in: the old space may have half of the limit,
at least 256 MiB, and a semi-space a 64th (Node.js 24) or a 256th (20 and 22) of it, within bounds (measured).
"""

_LEAST_HEAP_BYTES: Final = 16 << 20  # with less, Node.js hardly starts


def _numbers(look: LookedAt) -> dict[str, Any]:
    heap = look.memory.anon_bytes("v8 heap")
    if not heap:
        return {}
    _, _, arguments = (look.cmdline or "").partition(" ")
    line = f"node {look.numbers().get('options', '')} {arguments}"
    bound = heap_bound("node", line)
    return {
        "heap_bytes": heap,
        "outside_bytes": look.memory.anon_bytes() - heap,
        "option": bound and bound.option,
        "old_space_max_bytes": bound and bound.set_bytes,
        "young_max_bytes": bound and bound.young_bytes,
        "names_functions": bool(_NAMES.search(line)),
    }


def _lines(it: Runtime, _memory: ProcessMemory) -> Iterator[tuple[str, str]]:
    bound = it["option"] or "no --max-old-space-size"
    hint = "" if it["names_functions"] else f"; {_NAMES_FUNCTIONS} would name its functions in `what grew`"
    yield (
        "node",
        f"{size(it['heap_bytes'])} in V8's heap ({bound}); {size(it['outside_bytes'])} outside of it: "
        f"Buffers, code, stacks{hint}",
    )


def _advice(killed: Killed, node: Runtime) -> Iterator[str]:
    """Yield advice on the heap if it may outgrow its room, and on the rest if that is most."""
    heap, outside = node["heap_bytes"], node["outside_bytes"]
    if outside > heap and outside > killed.much_bytes:
        yield (
            f"Look for Buffers in {killed.name}: {size(outside)} was outside of V8's heap, which held "
            f"{size(heap)}. --max-old-space-size does not bound it; process.memoryUsage() shows it as "
            "external and arrayBuffers."
        )
    room = killed.room_bytes()
    if room is None or heap <= killed.much_bytes:
        return
    owner = killed.findings.owner
    limit, bound = owner.limit_bytes or 0, node["old_space_max_bytes"]
    by_default = MOST_YOUNG_BYTES if owner.is_ancestor else limit // _YOUNG_DIVISOR * SEMI_SPACES
    young = node["young_max_bytes"] or min(max(by_default, _LEAST_YOUNG_BYTES), MOST_YOUNG_BYTES)
    room -= outside + killed.unseen_bytes + young + limit // SPARE_DIVISOR
    if room < _LEAST_HEAP_BYTES or (bound is not None and bound <= room):
        return
    if bound is None:
        grows = f"it may grow to {size(_LEAST_OLD_BYTES)} or more without that option"
    else:
        grows = f"it may grow to {size(bound)} ({node['option']})"
    yield (
        f"Set --max-old-space-size={room >> 20} for {killed.name}, as an argument or in NODE_OPTIONS: V8's "
        f"heap held {size(heap)}, {grows}, and {size(outside)} was outside of it. With it, V8 frees "
        'garbage before the limit is hit; if more than that is live, Node.js ends with "heap out of memory".'
    )


RUNTIME = RuntimeRecord(_numbers, _lines, _advice)
