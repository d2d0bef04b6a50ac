"""The circumstances of a kill: growth and its pace, swap, protection, and the cgroups below the limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    Int64s,
    limit_of,
    optional,
    swap_room_of,
)
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.rows import RowsByThing, RunningSums, TableRows
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import page_size, unrecorded_categories
from tracer.analysis.explain.measure import growth, shared_memory
from tracer.analysis.explain.measure.composition import Memory
from tracer.analysis.explain.measure.findings import Circumstances, Holder, Mover, Rise, Swap
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.results.kill import Candidate
from tracer.analysis.views.reclaim import requested_pages, swapped, waited_ns
from tracer.schema import LIMITS, UNLIMITED_BYTES

_BOUNDS: Final = ("limit_bytes", "swap_limit_bytes", "effective_swap_limit_bytes", "swap_room_bytes")
_SWAP_LIMITS: Final = (*_BOUNDS, *(LIMITS[name] for name in _BOUNDS), "swap_bound_levels")


@dataclass(frozen=True, slots=True)
class SampledLimits:
    """The samples of the cgroups of a subtree, each by its position in `members`; `owner` is the position of
    its top.

    `children` are the cgroups right below the owner. `read` has the times of the samples, which are readings
    of files. `kept_bytes` is the usage in each sample that
    memory.min protects. Memory under memory.low is not in it: the kernel reclaims that before a kill
    (shrink_node_memcgs and memcg_low_skipped in mm/vmscan.c).
    """

    labels: list[str]
    owner: int
    children: Int64s
    samples: TableRows
    kept_bytes: Int64s
    read: RowsByThing

    @classmethod
    def from_subtree(cls, subtree: Subtree) -> SampledLimits:
        """Index the samples of a subtree by cgroup."""
        members = subtree.members
        ids = members.tolist()
        labels = [subtree.whole.places.label_of(number) for number in ids]
        owner = ids.index(subtree.cgroup_id)
        depth = len(labels[owner].rstrip("/").split("/")) + 1 if labels[owner].startswith("/") else None
        samples = subtree.rows("samples")
        samples = samples.where(~samples.are("source", ["oom"]))
        return cls(
            labels=labels,
            owner=owner,
            children=np.array([i for i, one in enumerate(labels) if len(one.split("/")) == depth], np.int64),
            samples=samples,
            kept_bytes=np.maximum(
                np.minimum(samples.numbers("min_bytes"), samples.numbers("usage_bytes")), 0
            ),
            read=RowsByThing.from_rows(samples.times, np.searchsorted(members, samples.cgroup_ids), len(ids)),
        )

    def swap_limits_at(self, position: int) -> dict[str, Any]:
        """Return the limits of memory and swap of one of `samples`, by the names of their columns."""
        return self.samples.table.columns(_SWAP_LIMITS).row(int(self.samples.positions[position]))


@dataclass(frozen=True, slots=True)
class SubtreeLevels:
    """The levels of the cgroups of a subtree, each by its position in `members`.

    `paths` numbers the paths of all cgroups; `parents` has the number of each path's parent, -1 if no cgroup
    has that path. `counts_for` holds pairs of positions: a charge to the cgroup in row 0 counts for the
    cgroup in row 1, which is the same or above it.
    """

    members: Int64s
    paths: Int64s
    parents: Int64s
    removed_ns: Int64s
    counts_for: Int64s
    charged: RunningSums
    base: Int64s
    is_known: Bools

    @classmethod
    def from_subtree(cls, subtree: Subtree, labels: list[str]) -> SubtreeLevels:
        """Index the rows of a subtree by cgroup; `labels` are the paths of its members."""
        members, charges = subtree.members, subtree.charges
        ids = members.tolist()
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        charged, bytes_ = charges.weighted(ledger.CHARGED)
        unrecorded = unrecorded_categories(subtree.whole)
        base, is_known = ledger.base_levels(
            subtree.rows("samples"), subtree.whole.places, ids, ledger.CHARGED, unrecorded
        )
        return cls(
            members=members,
            paths=np.array([numbers[label] for label in labels]),
            parents=np.array([numbers.get(label.rpartition("/")[0], -1) for label in labels]),
            removed_ns=np.array([subtree.whole.places.lifetime_ns(number)[1] for number in ids], np.int64),
            counts_for=_counts_for(subtree, ids),
            charged=RunningSums.from_rows(
                charges.time[charged],
                np.searchsorted(members, charges.cgroup_id[charged]),
                bytes_[charged],
                len(ids),
            ),
            base=base,
            is_known=is_known,
        )

    def levels_at(self, time_ns: int) -> Int64s:
        """Return the level of each cgroup with all below it, in bytes; without meaning where `is_known` is
        False."""
        levels = self.base.copy()
        of, counts_for = self.counts_for
        np.add.at(levels, counts_for, self.charged.sums_at(time_ns)[of])
        return levels

    def gone_tops(self, time_ns: int) -> Int64s:
        """Return the positions of removed cgroups, without those below another removed one."""
        gone = self.removed_ns <= time_ns
        # The last element is for parents without a cgroup, whose position is -1.
        is_path_of_gone = np.zeros(len(self.members) + 1, dtype=bool)
        is_path_of_gone[self.paths[gone]] = True
        return np.flatnonzero(gone & ~is_path_of_gone[self.parents])

    def without_freed(self, levels: Int64s, tops: Int64s, late_bytes: int) -> Int64s:
        """Return levels without the memory of removed cgroups (`gone_tops`) that was freed already.

        Tasks of other cgroups reclaim it, and then its rows reach the ledger late: up to seconds after a
        kill. As much was freed as the ledger has more than usage (`late_bytes`).
        """
        gone = np.maximum(levels[tops], 0)
        freed = np.zeros_like(levels)
        freed[tops] = np.diff(np.minimum(np.cumsum(gone), max(late_bytes, 0)), prepend=0)
        found = levels.copy()
        of, counts_for = self.counts_for
        np.subtract.at(found, counts_for, freed[of])
        return found

    def positions_above(self, cgroup_id: int) -> set[int]:
        """Return the positions of a cgroup and of those above it; empty if it is not a member."""
        of, counts_for = self.counts_for
        return set(counts_for[self.members[of] == cgroup_id].tolist())


def _counts_for(subtree: Subtree, ids: list[int]) -> Int64s:
    if len(ids) == 1:  # most limit owners: there is nothing below them
        return np.zeros((2, 1), np.int64)
    above = naming.positions_above(subtree.cgroups, ids)
    pairs = [(of, one) for of, number in enumerate(ids) for one in above[number]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


_GROWING: Final = tuple(ledger.NOT_CACHE)
_RISE_PERCENT: Final = 80
_MOST_MOVERS: Final = 10
_EXIT_NS: Final = 1_000_000_000
"""A process that ends so soon after a kill may have been exiting: it is then not weighed either."""
_SWAP_REFUSALS: Final = (("swap_max_events", "swap_fail_events"), ("swap_max_events",))
"""The counters of all failures to swap, and of those at a limit of a cgroup
(__mem_cgroup_try_charge_swap in mm/memcontrol.c)."""


def weighed(
    subtree: Subtree, window: Window, sample: Mapping[str, Any] | None, held: Memory
) -> Circumstances:
    """Return the circumstances of a kill at `window.end` for the limit of a subtree, by which causes are
    weighed.

    `sample`: the row of `samples` of the limit owner at the kill. `held`: its memory then.
    """
    below = _sampled(subtree)
    return Circumstances(
        grown_bytes=_grown(subtree, window, held.at.sizes, held.locked_cache_bytes),
        swap=_swap(subtree, below, window, sample),
        protected_bytes=_protected_bytes(below, window.end, sample),
        **held.circumstances(),
    )


def _sampled(subtree: Subtree) -> SampledLimits:
    return subtree.once("circumstances.sampled", lambda: SampledLimits.from_subtree(subtree))


def _below(subtree: Subtree) -> SubtreeLevels:
    labels = _sampled(subtree).labels
    return subtree.once("circumstances.below", lambda: SubtreeLevels.from_subtree(subtree, labels))


def around(
    found: Circumstances,
    subtree: Subtree,
    window: Window,
    *,
    trigger_id: int,
    usage_bytes: int | None,
    has_shmem: bool,
    candidates: Sequence[Candidate],
    weighed_tgids: frozenset[int] | None,
) -> Circumstances:
    """Return the circumstances `weighed` of a kill with all others.

    `usage_bytes`: the usage of the limit owner at the kill. `has_shmem`: there was shared memory then.
    `candidates`: the tasks that the kernel weighed. `weighed_tgids`: all processes among them; None: some may
    be missing.
    """
    below = _below(subtree)
    page, asked = page_size(subtree.whole), requested_pages(subtree, window.begin, window.end)
    tops = below.gone_tops(window.end)
    levels = below.levels_at(window.end)
    if usage_bytes is not None and below.is_known[_sampled(subtree).owner]:
        late = int(levels[_sampled(subtree).owner]) - usage_bytes
        levels = below.without_freed(levels, tops, late)
    return replace(
        found,
        rise=_rise(subtree, window),
        pace=growth.measured_pace(subtree, window),
        thrashing=growth.thrashing_before_a_kill(subtree, window.at_limit, window.end),
        holders=_holders(_sampled(subtree), below, levels, trigger_id),
        # Page cache and kernel objects outlive their cgroup, which is then dying.
        dying_bytes=int(np.where(below.is_known, np.maximum(levels, 0), 0)[tops].sum()),
        dirty_wait_ms=waited_ns(subtree, "dirty", window.begin, window.end) / 1e6,
        requested_cache_bytes=asked[0] * page,
        requested_anon_bytes=asked[1] * page,
        ended_writer=shared_memory.ended_writer(subtree, window.end) if has_shmem else None,
        fork=shared_memory.fork_at_kill(subtree, candidates, window.end),
        moved=() if weighed_tgids is None else _moved(subtree, window.end, weighed_tgids),
    )


def _holders(
    sampled: SampledLimits, below: SubtreeLevels, levels: Int64s, trigger_id: int
) -> tuple[Holder, ...]:
    """Return the children that held memory, the largest first; the rest of the level is the owner's own."""
    all_held = int(levels[sampled.owner]) if below.is_known[sampled.owner] else None
    with_trigger = below.positions_above(trigger_id)
    children = sampled.children[(below.is_known & (levels != 0))[sampled.children]]
    holders = [
        Holder(sampled.labels[child].rpartition("/")[2], held, child in with_trigger)
        for child, held in zip(children.tolist(), levels[children].tolist(), strict=True)
    ]
    own = (all_held or 0) - sum(holder.held_bytes for holder in holders)
    if holders and all_held is not None and own > 0:
        holders.append(Holder(None, own, is_triggers=False))
    return tuple(sorted(holders, key=lambda holder: -holder.held_bytes))


def _grown(
    subtree: Subtree, window: Window, sizes: Mapping[str, int | None], locked_cache_bytes: int
) -> dict[str, int]:
    """Return the growth of each class above its least level in the window, in bytes, without what was read
    back from swap.

    The ledger counts locked page cache as cache. As much of it grew as the unevictable list grew. It has no
    category for zswap, which `kernel` contains: that is by the samples.

    Changes that a CPU had not handed over at the kill (up to 256 KiB) reach the ledger later. For a small
    limit that can be all of the growth, so the level in `sizes` is preferred.
    """
    grown = {}
    sizes = {**sizes, "kernel": _size(sizes, ledger.kernel_weights(subtree))}
    for name, (change, base) in subtree.once("circumstances.growing", lambda: _growing(subtree)).items():
        steps, at_kill = change.within(window.begin, window.end), sizes.get(name)
        last = steps.at(window.end) or 0 if base is None or at_kill is None else at_kill - base
        grown[name] = max(last - _least(steps, window), 0)
    read_back = _read_back(subtree, window, grown["anon"] + grown["shmem"])
    for name in ("anon", "shmem"):
        taken = min(read_back, grown[name])
        grown[name] -= taken
        read_back -= taken
    if compressed := sizes.get("zswap"):
        read = ledger.reading(subtree, "zswap_bytes").within(window.begin, window.end)
        grown["zswap"] = max(compressed - (read.least() or 0), 0)
    if locked_cache_bytes:
        locked = ledger.reading(subtree, "unevictable_bytes").within(window.begin, window.end)
        last = sizes.get("unevictable") or 0
        grown["locked_cache"] = min(max(last - (locked.least() or 0), 0), locked_cache_bytes)
    return grown


def _read_back(subtree: Subtree, window: Window, grown_bytes: int) -> int:
    """Return the part of the growth of anonymous and shared memory that was read from swap, where it had been
    since before, in bytes. The ledger does not show of which of the two it is."""
    read = swapped(subtree, "read", window.begin, window.end)
    if read is None or not read.count:
        return 0
    both = ledger.change(subtree, {"anon": 1, "shmem": 1, "swap": 1}).within(window.begin, window.end)
    counted_twice = ledger.swap_cache(subtree).negative().within(window.begin, window.end)
    steps = ledger.total([both, counted_twice])
    grown = max((steps.at(window.end) or 0) - _least(steps, window), 0)
    return min(max(grown_bytes - grown, 0), read.size_bytes)


def _size(sizes: Mapping[str, int | None], weights: ledger.Weights) -> int | None:
    """Return the sum of some counters; None if one is not known."""
    known = [size for name in weights if (size := sizes.get(name)) is not None]
    return sum(known) if len(known) == len(weights) else None


def _growing(subtree: Subtree) -> dict[str, tuple[Steps, int | None]]:
    """Return the change of each class that can grow, and its level at the start of the trace."""
    weights = {name: {name: 1} for name in _GROWING} | {"kernel": ledger.kernel_weights(subtree)}
    return {
        name: (ledger.change(subtree, of_class), ledger.base_bytes(subtree, of_class))
        for name, of_class in weights.items()
    }


def _least(steps: Steps, window: Window) -> int:
    """Return the least level since usage passed half of the limit.

    The step in which it passed counts in part: how much of it is below half depends on when usage was read.
    """
    if window.passed is None:
        return steps.least() or 0
    before, after = steps.at(window.begin) or 0, steps.at(window.passed) or 0
    passing = round(after - window.share_above * (after - before))
    later = steps.within(window.passed, window.end).values
    return min(passing, int(later.min())) if len(later) else passing


def _rise(subtree: Subtree, window: Window) -> Rise | None:
    """Return the last 80 % of the growth of memory other than page cache; None: nothing grew."""
    steps = growth.held(subtree, window.begin, window.end)
    last, least = steps.at(window.end) or 0, steps.least() or 0
    if last <= least:
        return None
    low = np.flatnonzero(steps.values < last - (last - least) * _RISE_PERCENT // 100)
    following = int(low[-1]) + 1 if len(low) else 0
    begin_ns = int(steps.times[low[-1]]) if len(low) else window.begin
    if following < len(steps.times):
        # The time before the row in which memory rose was calm.
        rose_ns = subtree.whole.fineness.since(int(steps.times[following]))
        begin_ns = max(begin_ns, rose_ns - growth.covered_ns(subtree, rose_ns, window.end, last - least))
    lost_ns, _ = growth.lost(subtree, steps, begin_ns, window.end)
    return Rise(last - least, window.end - begin_ns - lost_ns, lost_ns)


def _swap(
    subtree: Subtree, below: SampledLimits, window: Window, sample: Mapping[str, Any] | None
) -> Swap | None:
    """Return the owner's memory in swap and its bound: by the sample at the kill, else by the last before."""
    level = ledger.level(subtree, {"swap": 1})
    last = below.read.last_row_at(below.owner, window.end)
    before = below.swap_limits_at(last) if last >= 0 else None
    is_at_kill = sample is not None and limit_of(sample, "effective_swap_limit_bytes") is not None
    row = sample if is_at_kill else before
    if level is None or row is None:
        return None
    meta, used = subtree.whole.meta, level.at(window.end) or 0
    version, total = meta.get("cgroup_version"), meta.get("memory", {}).get("swap_total_bytes")
    room = limit_of(row, "swap_room_bytes") if version == 2 else None  # on v1 it is room for memory as well
    allowed = [swap_room_of(row, version), None if room is None else used + room]
    least = min((one for one in allowed if one is not None and one < UNLIMITED_BYTES), default=None)
    bounds = [one for one in (least, total) if one is not None]
    refused, by_cgroup = (any(_rose(subtree, name, window) for name in names) for names in _SWAP_REFUSALS)
    bound, levels = _bound(row, before, version, least), optional(row["swap_bound_levels"])
    if (refused and not by_cgroup) or (total is not None and (least is None or total < least)):
        bound = "machine"
    path = subtree.whole.places.path_of(subtree.cgroup_id) if bound == "above" and levels else None
    return Swap(
        used_bytes=used,
        allowed_bytes=min(bounds, default=None),
        refused=refused,
        bound=bound,
        bound_cgroup=None if path is None else path.rsplit("/", levels or 0)[0] or None,
    )


def _bound(
    row: Mapping[str, Any], before: Mapping[str, Any] | None, version: int | None, least: int | None
) -> Literal["own", "above", "machine"] | None:
    """Return whose limit of swap allows least; None if none is set, or if it is not known.

    Traces without `swap_bound_levels` are from before the column; the owner's own limit is then compared.
    """
    levels = optional(row["swap_bound_levels"])
    own = None if before is None else swap_room_of(before, version, of="swap_limit_bytes")
    if least is None or (levels is None and own is None):
        return None
    is_own = not levels if levels is not None else (own or 0) <= least
    return "own" if is_own else "above"


def _rose(subtree: Subtree, column: str, window: Window) -> bool:
    counted = ledger.count(subtree, column).within(window.at_limit, window.end)
    return len(counted.values) > 0 and int(counted.values[-1]) > (counted.before or int(counted.values[0]))


def _protected_bytes(below: SampledLimits, end_ns: int, sample: Mapping[str, Any] | None) -> int:
    """Return the usage of the children that memory.min protects: the kernel's own sum at the kill, or else by
    the last sample of each child before it."""
    at_kill = None if sample is None else optional(sample["protected_bytes"])
    if at_kill is not None or not len(below.children):
        return at_kill or 0
    last = below.read.last_rows_at(end_ns)[below.children]
    return int(below.kept_bytes[last[last >= 0]].sum())


def _moved(subtree: Subtree, kill_ns: int, weighed_tgids: frozenset[int]) -> tuple[Mover, ...]:
    """Return the processes that had moved away by a kill, the largest first.

    Such a process lives, the anonymous memory that it charged in the subtree during the trace is not all
    freed, and the kernel did not weigh it: it weighs each process of the subtree (mem_cgroup_scan_tasks in
    mm/memcontrol.c). Processes that an earlier kill ended are left out, since they are no candidates either.
    """
    processes = subtree.whole.processes
    charged = subtree.once("circumstances.anon_of_processes", lambda: _AnonOfProcesses.from_subtree(subtree))
    movers = [
        Mover(tgid, processes.comm_at(tgid, kill_ns, kill_ns), held_bytes)
        for tgid, held_bytes in charged.held_at(kill_ns)
        if tgid != NO_ID and tgid not in weighed_tgids and not processes.was_killed(tgid, kill_ns)
        if processes.cgroup_at(tgid, kill_ns) is not None
        if processes.cgroup_at(tgid, kill_ns + _EXIT_NS) is not None
    ]
    return tuple(sorted(movers, key=lambda mover: -mover.held_bytes)[:_MOST_MOVERS])


@dataclass(frozen=True, slots=True)
class _AnonOfProcesses:
    """The processes that anonymous memory was charged to, and how much, as sums over time. `seen_ns` and
    `ended_ns` are those of `Processes.spans_of`."""

    tgids: Int64s
    seen_ns: Int64s
    ended_ns: Int64s
    charged: RunningSums

    @classmethod
    def from_subtree(cls, subtree: Subtree) -> _AnonOfProcesses:
        charges = subtree.charges
        picked, bytes_ = charges.weighted({"anon": 1})
        tgids, process = np.unique(charges.tgid[picked].astype(np.int64), return_inverse=True)
        charged = RunningSums.from_rows(charges.time[picked], process, bytes_[picked], len(tgids))
        return cls(tgids, *subtree.whole.processes.spans_of(tgids), charged)

    def held_at(self, kill_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (tgid, bytes) of the processes that were charged more than was freed by a kill and were not
        ending. Most processes of a loop of kills have ended or not begun, and are left out before any sum."""
        there = np.flatnonzero((self.seen_ns <= kill_ns) & (self.ended_ns >= kill_ns + _EXIT_NS))
        held = self.charged.sums_at(kill_ns, there)
        yield from zip(self.tgids[there[held > 0]].tolist(), held[held > 0].tolist(), strict=True)
