"""Calibration: facts that the kernel's types do not show, found by running the programs of
bpf/probe.bpf.c.

Positions of counters are kept on disk beside the compiled programs. They follow from how the kernel was
built, so they hold for every start in this boot. Learning them takes a tenth of a second of CPU, and seconds
on a busy machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.capture.bpf.compiled.cache import Cache, cache_folder, cache_key
from tracer.capture.bpf.hooks import Choice
from tracer.capture.bpf.load import Programs
from tracer.capture.learn.positions import RECLAIM_COLUMNS, learn_positions, reclaim_kinds
from tracer.categories import CATEGORIES
from tracer.kernel.btf import KnownTypes
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.config import uncharged
from tracer.kernel.process.children import call_in_child
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


_VALUE_BYTES: Final = 8  # of a counter: a long
_ALL_BITS: Final = 2**64 - 1


def calibrate(programs: Programs, types: KnownTypes, hierarchy: Hierarchy) -> Mapping[str, int]:
    """Calibrate the programs, before they are attached. Return item name -> position in
    memcg_vmstats_percpu.state; and for the keys of `RECLAIM_COLUMNS`, the position of the first kind of
    reclaim, there or in memcg_vmstats_percpu.events.

    A fact that cannot be learnt stays unknown. A category without a position has no rows (see `unrecorded`).
    """
    if not programs.run("find_map", [programs.map("landmark").fd]):
        programs.run("find_cpu_offsets", [programs.map("answer")[0].memcg])
    find_memcg(programs, hierarchy.mount)
    root = int(programs.map("answer")[0].cgroup_root)
    positions = kept_positions(
        Cache(cache_folder()),
        hierarchy.version,
        lambda: learn_positions(programs, types, hierarchy),
        lambda found: (
            RECLAIM_COLUMNS.keys() <= found.keys()
            and not unrecorded(found, types.enumerators, hierarchy.version)
        ),
    )
    calibration = programs.map("calibration")
    known = calibration[0]
    known.cgroup_root = root
    counted = {
        category.item: positions[category.item] for category in CATEGORIES if category.item in positions
    }
    if counted:
        first, last = min(counted.values()), max(counted.values())
        known.span_offset, known.span_bytes = first * _VALUE_BYTES, (last + 1 - first) * _VALUE_BYTES
        for number, category in enumerate(CATEGORIES):
            if category.item in counted:
                known.positions[number].offset_bytes = (counted[category.item] - first) * _VALUE_BYTES
                known.positions[number].mask = _ALL_BITS
    if RECLAIM_COLUMNS.keys() <= positions.keys():
        known.pgscan_at, known.pgsteal_at = (positions[column] for column in RECLAIM_COLUMNS)
        known.reclaim_kinds = len(reclaim_kinds(types))
    calibration[0] = known
    return positions


def describe(choices: Sequence[Choice], lacking: Collection[str]) -> dict[str, dict[str, str | None]]:
    """Return signal name -> hook and meaning, for meta.json; the ledger's detail names the `lacking`."""
    documents = {choice.signal.name: choice.document() for choice in choices}
    if lacking:
        ledger = documents[next(choice.signal.name for choice in choices if choice.signal.stream == "charge")]
        ledger["meaning"] = "approximate"
        ledger["detail"] = f"{', '.join(lacking)} are not recorded: their counters were not found"
    return documents


def unrecorded(positions: Mapping[str, int], enumerators: Container[str], version: int) -> list[str]:
    """Return the categories whose counter this kernel has, and whose position is not known.

    `enumerators` are the kernel's enumerators, and `version` is the version of cgroups. Memory that the
    kernel was booted not to charge is left out: its counters rightly stay 0.
    """
    never_charged = uncharged()
    return [
        category.name
        for category in CATEGORIES
        if category.item not in positions
        and category.name not in never_charged
        and category.only_version in (None, version)
        and any(item in enumerators for item in category.items)
    ]


def find_memcg(programs: Programs, directory: Path) -> int:
    """Return the kernel address of the memcg of a cgroup directory; 0: it has none.

    Raises OSError if the directory is gone.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        programs.run("find_memcg", [fd])
    finally:
        os.close(fd)
    return int(programs.map("answer")[0].memcg)
