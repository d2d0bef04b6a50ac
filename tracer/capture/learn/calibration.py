"""Calibration: facts that the kernel's types do not show, found by running the programs of
bpf/probe.bpf.c."""

from __future__ import annotations

import ctypes
import os
import select
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.hooks import Choice
from tracer.capture.bpf.load import Programs, watching
from tracer.capture.bpf.ring import Ring
from tracer.capture.bpf.syscall import syscall_number
from tracer.capture.learn.stimuli import STIMULI, moved_items
from tracer.categories import CATEGORIES, COUNTERS, WORKINGSET_ITEMS
from tracer.categories import Counter as MemoryCounter
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.probes import Kind
from tracer.kernel.process.priority import prefer_this_thread
from tracer.wire.dtypes import WATCHED

_SETTLE_TRIES: Final = 100
_INSIDE_A_SLOT: Final = 2  # the result of `settle` if it interrupted another program of ours

_MAX_ROUNDS: Final = 12
_FRUITLESS_ROUNDS: Final = 2
_READ_INTERVAL_MS: Final = 2
_AGREEMENT: Final = 0.9
_LEARNT: Final = {item: counter.item for counter in COUNTERS for item in counter.items} | {
    item: item for item in WORKINGSET_ITEMS.values()
}
"""Item of either enum -> the name under which its position is stored. Refaults are learnt only if some
happen."""

_LEDGER_ITEMS: Final[Mapping[str, Callable[[MemoryCounter], tuple[str, ...]]]] = {
    "memory by kind": lambda category: category.node_items,
    "kernel memory": lambda category: category.memcg_items,
}
"""Signal -> the items of a category whose changes it reports (tracer/kernel/probes.py)."""


def calibrate(programs: Programs, btf: Btf, hierarchy: Hierarchy) -> Mapping[str, int]:
    """Calibrate the programs, before they are attached. Return item name -> position in
    memcg_vmstats_percpu.state.

    A fact that cannot be learnt stays unknown. Causes by system call are then `other`, a category without a
    position is as exact as its hook (see `describe`), and composition comes from memory.stat alone.
    """
    _find_cpu_offsets(programs)
    programs.run("find_registers", [syscall_number()])
    root = _find_root(programs, hierarchy.mount)
    positions = learn_positions(programs, btf, hierarchy)
    calibration = programs.map("calibration")
    known = calibration[0]
    known.cgroup_root = root
    for number, category in enumerate(CATEGORIES):
        known.counter_index[number] = positions.get(category.item, -1) + 1
    calibration[0] = known
    return positions


def describe(
    choices: Sequence[Choice], enumerators: Container[str], version: int, positions: Mapping[str, int]
) -> dict[str, dict[str, str | None]]:
    """Return signal name -> its hook and meaning, as in meta.json.

    `enumerators` are those of the kernel, and `version` is that of cgroups. The detail names the categories
    whose totals are not exact: the position of the counter is not known, and the hook does not report every
    change in full.
    """
    documents = {choice.signal.name: choice.document() for choice in choices}
    for choice in choices:
        unknown = [
            category.name
            for category in _counted(choice, enumerators, version)
            if category.item not in positions
        ]
        if unknown:
            found = documents[choice.signal.name]
            missing = f"totals of {', '.join(unknown)} are not exact: their counters were not found"
            found["meaning"] = "approximate"
            found["detail"] = "; ".join(filter(None, (found["detail"], missing)))
    return documents


def _counted(choice: Choice, enumerators: Container[str], version: int) -> list[MemoryCounter]:
    """Return the categories of a signal for which the ledger needs the kernel's counter (`is_counted` in
    bpf/charge.bpf.c).
    """
    if choice.way is None or choice.signal.name not in _LEDGER_ITEMS:
        return []
    by_function = choice.way.hooks[0].kind is not Kind.RAW_TRACEPOINT
    items = _LEDGER_ITEMS[choice.signal.name]
    return [
        category
        for category in CATEGORIES
        if (by_function or not category.is_reported_exactly)
        and category.only_version in (None, version)
        and any(item in enumerators for item in items(category))
    ]


def _find_cpu_offsets(programs: Programs) -> None:
    if programs.run("find_map", [programs.map("landmark").fd]):
        return
    address = programs.map("answer")[0].memcg
    for cpu in range(programs.cpus):
        with suppress(OSError):  # offline
            programs.run("find_cpu_offset", [address], cpu)


def _find_root(programs: Programs, hierarchy_root: Path) -> int:
    find_memcg(programs, hierarchy_root)
    return int(programs.map("answer")[0].cgroup_root)


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


def learn_positions(programs: Programs, btf: Btf, hierarchy: Hierarchy) -> dict[str, int]:
    """Return item name -> position, learnt by watching the counters (`watch` in bpf/probe.bpf.c) while the
    stimuli move them.

    Learning ends once every item that the stimuli move is known, or after two rounds that added nothing.
    """
    names = {value: _LEARNT[name] for name, value in btf.enumerators.items() if name in _LEARNT}
    uncounted = {c.item for c in COUNTERS if c.only_version not in (None, hierarchy.version)}
    movable = (moved_items() & set(names.values())) - uncounted
    hooks = [watching(hook) for hook in programs.ledger_hooks]
    before = hooks[0].kind is not Kind.RAW_TRACEPOINT
    ring = Ring(programs.ring_fd("watched"), programs.ring_bytes("watched"), WATCHED)
    try:
        for hook in hooks:
            programs.attach_hook(hook)
        records = np.zeros(0, WATCHED)
        positions: dict[str, int] = {}
        fruitless = 0
        with _stimulated_cgroup(hierarchy) as cgroup:
            for _ in range(_MAX_ROUNDS):
                records = np.concatenate([records, *_stimulate(cgroup, ring)])
                known, positions = positions.keys(), positions_from(records, names, before=before)
                fruitless = fruitless + 1 if known >= positions.keys() else 0
                if positions.keys() >= movable or fruitless == _FRUITLESS_ROUNDS:
                    break
        return positions
    finally:
        for hook in hooks:
            programs.detach_hook(hook)
        ring.close()


@contextmanager
def _stimulated_cgroup(hierarchy: Hierarchy) -> Iterator[Path | None]:
    """Make a cgroup for the stimuli: the root cgroup, where we may be, has no counters of kernel memory.
    Yield None if no cgroup can be made; the stimuli then run in our own.
    """
    with ExitStack() as stack:
        cgroup = None
        with suppress(TracerError):
            cgroup = stack.enter_context(ephemeral_cgroup("calibrate", None, hierarchy=hierarchy))
        yield cgroup


def _stimulate(cgroup: Path | None, ring: Ring) -> Iterator[npt.NDArray[np.void]]:
    """Run all stimuli once in a child process, and yield the records that they cause as they come."""
    child = os.fork()
    if child == 0:
        try:
            prefer_this_thread()
            if cgroup is not None:
                Path(cgroup, "cgroup.procs").write_text("0", encoding="ascii")
            for stimulus in STIMULI:
                stimulus.act()
        finally:
            os._exit(0)
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
    for cpu in np.unique(records["cpu"]):
        rows = records[records["cpu"] == cpu]
        changed = rows["state"][1:] != rows["state"][:-1]
        clear = (rows["memcg"][1:] == rows["memcg"][:-1]) & (changed.sum(axis=1) == 1)
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


def read_counters(
    programs: Programs, memcg: int, cgroup_id: int, positions: Mapping[str, int]
) -> dict[str, int] | None:
    """Return item name -> value of a memcg's own counters, in the kernel's units (bytes, KiB or pages).

    `memcg` is an address from `find_memcg` or from a cgroup event. Return None if the address is no longer
    that of the cgroup, or cannot be read.
    """
    if programs.run("read_memcg", [memcg]):
        return None
    answer = programs.map("answer")[0]
    if answer.cgroup_id != cgroup_id:
        return None
    state = answer.counters.state
    return {name: ctypes.c_int64(state[position]).value for name, position in positions.items()}


def prime(programs: Programs, memcg: int, cgroup_id: int) -> None:
    """Make the present counters of a cgroup the zero of the ledger, on every CPU."""
    _settle(programs, memcg, cgroup_id, add=False)


def settle(programs: Programs, memcgs: Mapping[int, int]) -> None:
    """Add to the ledger, as sums without a process, the changes of its cgroups' counters that it lacks. A
    cgroup of which no program saw a change is added whole: it was made during the trace.

    `memcgs`: cgroup id -> address, for the cgroups that still exist. A change that no program saw is found at
    the next update of the same counter (`combine_update` in charge.bpf.c); this finds the last ones. The sums
    of a removed cgroup stay as they are: its address may be another memcg's by now.
    """
    for cgroup_id, memcg in memcgs.items():
        _settle(programs, memcg, cgroup_id, add=True)


def _settle(programs: Programs, memcg: int, cgroup_id: int, *, add: bool) -> None:
    for cpu in range(programs.cpus):
        with suppress(OSError):  # offline
            for _ in range(_SETTLE_TRIES):
                if programs.run("settle", [memcg, cgroup_id, add], cpu) != _INSIDE_A_SLOT:
                    break
