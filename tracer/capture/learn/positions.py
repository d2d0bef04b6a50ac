"""Positions of items in a memcg's counters, learnt by watching the counters while stimuli move them.

A program takes a snapshot of the counters (`watch` in bpf/probe.bpf.c) at each update of an item.
"""

from __future__ import annotations

import os
import select
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.load import Programs, watching
from tracer.capture.bpf.ring import Ring
from tracer.capture.learn.stimuli import STIMULI, moved_items, reclaim_from
from tracer.categories import COUNTERS, RECLAIM_KINDS, WORKINGSET_ITEMS
from tracer.errors import TracerError
from tracer.kernel.btf import KnownTypes
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.probes import Hook, Kind
from tracer.kernel.process.children import forked
from tracer.kernel.process.priority import prefer_this_thread
from tracer.kernel.struct_header import reclaim_counts_are_node_stats
from tracer.wire.dtypes import WATCHED

Acts = Sequence[Callable[[], None]]

_MAX_ROUNDS: Final = 12
_FRUITLESS_ROUNDS: Final = 4  # two rounds missed the page tables, once, in a busy emulated machine
_ATTEMPTS: Final = 3  # in a busy emulated machine, a first attempt at the counts of reclaim found none, once
_READ_INTERVAL_MS: Final = 2
_AGREEMENT: Final = 0.9

_SIZES: Final = {item: counter.item for counter in COUNTERS for item in counter.items} | {
    item: item for item in WORKINGSET_ITEMS.values()
}
"""Item of enum node_stat_item or memcg_stat_item -> the name under which its position is stored. Refaults are
learnt only if some happen."""

RECLAIM_COLUMNS: Final = {"pgscan": "PGSCAN", "pgsteal": "PGSTEAL"}
"""Column of `samples` -> the beginning of the names of its items, one for each kind of reclaim."""


def learn_positions(programs: Programs, types: KnownTypes, hierarchy: Hierarchy) -> dict[str, int]:
    """Return item name -> position in memcg_vmstats_percpu.state; and for the keys of `RECLAIM_COLUMNS`, the
    position of the first kind of reclaim, there or in memcg_vmstats_percpu.events."""
    counts = {f"{count}_{kind}" for count in RECLAIM_COLUMNS.values() for kind in RECLAIM_KINDS}
    sizes_hooks = programs.counter_hooks("node counters", "memcg counters")
    uncounted = {c.item for c in COUNTERS if c.only_version not in (None, hierarchy.version)}
    movable = (moved_items() & set(_SIZES.values())) - uncounted
    acts = [stimulus.act for stimulus in STIMULI]
    ring = Ring(programs.ring_fd("watched"), programs.ring_bytes("watched"), WATCHED)
    with closing(ring), ExitStack() as stack:
        cgroup = None  # without one, the stimuli run in our own: the root has no counters of kernel memory
        with suppress(TracerError):
            cgroup = stack.enter_context(ephemeral_cgroup("calibrate", None, hierarchy=hierarchy))
        learner = _Learner(programs, ring, cgroup, types)
        positions = with_untouched(learner.learn(sizes_hooks, _SIZES, acts, movable), types.enumerators)
        if cgroup is not None:
            are_node_stats = reclaim_counts_are_node_stats(types)
            hooks = sizes_hooks if are_node_stats else programs.counter_hooks("event counters")
            reclaim = [partial(reclaim_from, cgroup, hierarchy.version)]
            kinds = reclaim_kinds(types)
            apart = _node_stats_apart(types.enumerators) if are_node_stats else len(kinds)
            for _ in range(_ATTEMPTS):
                learnt = learner.learn(
                    hooks, {item: item for item in counts}, reclaim, {"PGSCAN_DIRECT", "PGSTEAL_DIRECT"}
                )
                if found := first_kinds(learnt, kinds, apart):
                    positions |= found
                    break
    return positions


def with_untouched(learnt: Mapping[str, int], enumerators: Mapping[str, int]) -> dict[str, int]:
    """Return the positions, also of items that no stimulus moved, such as swap on a machine without it.

    The items of enum memcg_stat_item are kept in the order of the enum (memcg_stat_items[] in
    mm/memcontrol.c). An unknown position follows from the known ones if at least two confirm that.
    """
    items = [item for counter in COUNTERS for item in counter.memcg_items if item in enumerators]
    found = {learnt[item] - enumerators[item] for item in items if item in learnt}
    if len(found) != 1 or sum(item in learnt for item in items) < 2:
        return dict(learnt)
    return {item: enumerators[item] + next(iter(found)) for item in items} | dict(learnt)


def reclaim_kinds(types: KnownTypes) -> list[str]:
    """Return the names in `RECLAIM_KINDS` that this kernel counts."""
    return [kind for kind in RECLAIM_KINDS if f"PGSCAN_{kind}" in types.enumerators]


def first_kinds(learnt: Mapping[str, int], kinds: Sequence[str], apart: int) -> dict[str, int]:
    """Return column -> position of its first kind of reclaim, from the positions of some kinds.

    Only the kinds of reclaim that happen can be learnt. All kinds of a count are adjacent, and the first
    kinds of the two counts are `apart`. The columns are unknown ({}) if the learnt positions contradict that.
    """
    found: dict[str, int] = {}
    for column, prefix in RECLAIM_COLUMNS.items():
        firsts = {
            learnt[item] - at for at, kind in enumerate(kinds) if (item := f"{prefix}_{kind}") in learnt
        }
        if len(firsts) == 1:
            found[column] = firsts.pop()
    distance = abs(found.get("pgscan", 0) - found.get("pgsteal", 0))
    return found if len(found) == len(RECLAIM_COLUMNS) and distance == apart else {}


def _node_stats_apart(enumerators: Mapping[str, int]) -> int:
    """Return how far apart the first kinds of the two counts of reclaim are among the node stats of a memcg.

    PGSTEAL_ANON and PGSTEAL_FILE are between them, in enum node_stat_item and in memcg_node_stat_items[]
    (mm/memcontrol.c) alike. Among the events of a memcg, the two counts are adjacent (memcg_vm_event_stat[]).
    """
    first, second = (enumerators[f"{prefix}_DIRECT"] for prefix in RECLAIM_COLUMNS.values())
    return abs(first - second)


class _Learner:
    def __init__(self, programs: Programs, ring: Ring, cgroup: Path | None, types: KnownTypes) -> None:
        self._programs, self._ring, self._cgroup, self._types = programs, ring, cgroup, types

    def learn(
        self, hooks: Sequence[Hook], items: Mapping[str, str], acts: Acts, movable: Collection[str]
    ) -> dict[str, int]:
        """Return stored name -> position, for the `items` (item -> stored name) whose updates pass `hooks`.

        Learning ends once every name of `movable` is known, or after `_FRUITLESS_ROUNDS` rounds of the acts
        that added nothing.
        """
        names = {value: items[name] for name, value in self._types.enumerators.items() if name in items}
        watchers = [watching(hook) for hook in hooks]
        before = any(hook.kind is not Kind.TYPED_TRACEPOINT for hook in hooks)
        records = np.zeros(0, WATCHED)
        positions: dict[str, int] = {}
        fruitless = 0
        try:
            for hook in watchers:
                self._programs.attach_hook(hook)
            for _ in range(_MAX_ROUNDS if hooks else 0):
                records = np.concatenate([records, *_stimulate(self._cgroup, self._ring, acts)])
                known, positions = positions.keys(), positions_from(records, names, before=before)
                fruitless = fruitless + 1 if known >= positions.keys() else 0
                if positions.keys() >= set(movable) or fruitless == _FRUITLESS_ROUNDS:
                    break
        finally:
            for hook in watchers:
                self._programs.detach_hook(hook)
        return positions


def _stimulate(cgroup: Path | None, ring: Ring, acts: Acts) -> Iterator[npt.NDArray[np.void]]:
    """Run all acts once in a child process, and yield the records that they cause as they come."""

    def work() -> None:
        prefer_this_thread()
        if cgroup is not None:
            Path(cgroup, "cgroup.procs").write_text("0", encoding="ascii")
        for act in acts:
            act()

    child = forked(work)
    ended = os.pidfd_open(child)
    try:
        while not select.select([ended], [], [], _READ_INTERVAL_MS / 1000)[0]:
            yield ring.read()
    finally:
        os.close(ended)
        os.waitpid(child, 0)
    yield ring.read()


def positions_from(
    records: npt.NDArray[np.void], names: Mapping[int, str], *, before: bool
) -> dict[str, int]:
    """Return item name -> position, from `WATCHED` records in the order in which they were made.

    Each record shows the counters after the change of its item, or `before` the change. `names`: item number
    -> item name. An update in an interrupt can go unseen and make an observation wrong. So a position is
    accepted only if nearly all observations of an item agree on it, and no other item has it.
    """
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for place in np.unique(records[["cpu", "memcg"]]):
        rows = records[(records["cpu"] == place["cpu"]) & (records["memcg"] == place["memcg"])]
        changed = rows["state"][1:] != rows["state"][:-1]
        clear = changed.sum(axis=1) == 1
        items = rows["item"][:-1] if before else rows["item"][1:]
        pairs = np.stack([items[clear], changed[clear].argmax(axis=1)], axis=1)
        for (item, position), count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
            if int(item) in names:
                votes[names[int(item)]][int(position)] += int(count)
    elected = {}
    for name, counted in votes.items():
        (position, count), *_ = counted.most_common(1)
        if count >= _AGREEMENT * counted.total():
            elected[name] = position
    taken = Counter(elected.values())
    return {name: position for name, position in elected.items() if taken[position] == 1}
