"""Positions of counters, kept on disk beside the compiled programs.

They follow from how the kernel was built, so they hold for every start in this boot. Learning them takes a
tenth of a second of CPU, and seconds on a busy machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.capture.bpf.compiled.cache import Cache, cache_key
from tracer.kernel.process.forked_child import call_in_child
from tracer.wire.fields import LENGTHS

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def kept_positions(
    cache: Cache,
    version: int,
    learn: Callable[[], Mapping[str, int]],
    is_complete: Callable[[Mapping[str, int]], bool],
) -> Mapping[str, int]:
    """Return item name -> position, as `learn` returned it at an earlier start of this boot, or returns it
    now, in a child: the records from which it learns take 50 MiB.

    `version` is the version of cgroups. Positions are kept if `is_complete` returns true for them.
    """
    modules = (file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    key = cache_key("positions", _BOOT_ID.read_bytes(), str(version), *modules)
    with suppress(ValueError, AttributeError):
        positions = _positions(json.loads(cache.get(key) or b""))
        if is_complete(positions):
            return positions
    learnt: Mapping[str, int] = call_in_child(learn)
    if is_complete(learnt):
        cache.put(key, json.dumps(dict(learnt)).encode())
    return learnt


def _positions(document: dict[str, object]) -> dict[str, int]:
    """Return the positions in a document. Raises ValueError if one of them cannot be a position."""
    positions = {}
    for name, position in document.items():
        if type(position) is not int or not 0 <= position < LENGTHS["TRACER_STATE_ITEMS"]:
            raise ValueError(f"{name} is at no position")
        positions[name] = position
    return positions
