"""A row for each life of a cgroup, and one for each minute of it.

A cgroup has rows if it has a limit of its own, if it is a container's own cgroup, or if it is outside of
containers and has no cgroups below it. Its numbers include all cgroups below it.

Sizes come from the ledger and from samples, which may lack the last moments before a kill. So the sizes that
the BPF program read at kills for a cgroup's limit count for its peaks as well.

The peaks of a life show all of its need if its work went on and came to an end. A life that was slowed down,
or that is only partly in the trace, needed at least what it had. `state` is the one that `explain` reports
(docs/states.md). `work` is how the work ended, as far as the trace shows it:

* "complete": the command that was recorded ended with status 0;
* "failed": it ended with another status;
* "cut": a signal ended it, the recording ended before it, or the recording broke off;
* "growing": the trace ends before the life does, and memory that reclaim cannot free had a new peak in the
  last third of the time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final

import numpy as np

from tracer.analysis.core import ledger, naming
from tracer.analysis.core.columns import Int64s, integers, known, times_ns
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import breaks_off, end_ns, page_size
from tracer.analysis.explain import kill_filter
from tracer.analysis.explain.measure import window
from tracer.analysis.explain.sizing import kill_range
from tracer.analysis.explain.sizing.demand import MOST_KILLS
from tracer.analysis.explain.sizing.kill_range import Range, with_margin
from tracer.analysis.explain.sizing.read_again import Rereads
from tracer.analysis.explain.sizing.replayed_run import Replay
from tracer.analysis.explain.sizing.survivor_range import comfortable_bytes, survivor_range
from tracer.analysis.explain.sizing.unreclaimable import swapped_out, unreclaimable
from tracer.analysis.explain.slowed import progress
from tracer.analysis.results.forms import limit_columns
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.survivor import Progress
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.lost_time import Spending
from tracer.errors import TraceError
from tracer.fleet.summary.origin import Origin
from tracer.fleet.summary.summaries import BIN_NS
from tracer.fleet.summary.workload import NamedCgroups
from tracer.schema import UNLIMITED_BYTES


def greatest_and_mean(
    steps: Steps | None, edges_ns: Sequence[int]
) -> list[tuple[int, int] | tuple[None, None]]:
    """Return (greatest value, mean over time) for each interval between two edges, in order.

    Nothing is known before the first known value of `steps`: both numbers then cover the rest of the
    interval, or are None if it has no rest. `steps` None: nothing is known. A change at the last edge counts
    for the last interval, and one at another edge for the interval that begins there.
    """
    bins = len(edges_ns) - 1
    if steps is None:
        return [(None, None)] * bins
    edges = np.array(edges_ns, dtype=np.int64)
    inside = slice(*np.searchsorted(steps.times, [edges[0], edges[-1] + 1]).tolist())
    times = np.concatenate([edges[:-1], steps.times[inside]])
    values = np.concatenate([steps.at_each(edges[:-1]), steps.values[inside]])
    is_known = np.ones(len(times), dtype=np.bool_)
    if steps.before is None:
        first = steps.times[0] if len(steps.times) else edges[-1] + 1
        is_known = times >= first
    order = np.argsort(times, kind="stable")  # edges stand before changes at the same moment
    times, values, is_known = times[order], values[order], is_known[order]
    lasts_ns = np.diff(times, append=edges[-1]) * is_known
    starts = np.flatnonzero(order < bins)
    greatest = np.maximum.reduceat(np.where(is_known, values, np.iinfo(np.int64).min), starts)
    known_ns = np.add.reduceat(lasts_ns, starts)
    sums = np.add.reduceat(values.astype(np.float64) * lasts_ns, starts)
    some = np.add.reduceat(is_known.astype(np.int64), starts)
    rows = zip(greatest.tolist(), known_ns.tolist(), sums.tolist(), some.tolist(), strict=True)
    return [
        (None, None) if not count else (most, round(total / length) if length else most)
        for most, length, total, count in rows
    ]


COMPLETE: Final = "complete"
_IN_USE: Final = ("usage_bytes", "inactive_file_bytes", "file_mapped_bytes", "shmem_bytes")


def slowdowns(
    subtree: Subtree, going: Progress, unreclaimable: Steps | None, *, is_end_seen: bool
) -> dict[str, Any]:
    """Return the columns of `lives` that show whether its peaks are all of its need; sizes in bytes."""
    swapped = None if unreclaimable is None else swapped_out(subtree)
    held = None if unreclaimable is None or swapped is None else ledger.total([unreclaimable, swapped])
    return {
        "state": going.state,
        "lost_share": going.lost_share,
        "work": _work(subtree, unreclaimable if held is None else held, is_end_seen=is_end_seen),
        "peak_with_swap_bytes": None if held is None else held.peak(),
        "comfortable_bytes": _comfortable(subtree, going),
    }


def replayed(subtree: Subtree, reports: Sequence[OomReport], going: Progress) -> dict[str, Any]:
    """Return the columns of `lives` on the life at other limits, in bytes, as `whatif` and `explain` have
    them. `reports`: the kills that concern it."""
    replay = Replay.of(subtree, reports[:MOST_KILLS], going)
    found = Range() if reports else survivor_range(replay)[0]
    _, high = found.limits_bytes or (None, None)
    return {
        "killed_below_bytes": replay.needs.killed_below_bytes,
        "survives_from_bytes": replay.needs.survives_from_bytes,
        "reads_nothing_from_bytes": None if found.needs_high else high,
    }


def _comfortable(subtree: Subtree, going: Progress) -> int | None:
    """Return a limit that holds the page cache in use, in bytes; None: not known.

    If its tasks were thrashing, that is the limit from which (nearly) nothing is read again.
    """
    if going.state == "thrashing":
        return comfortable_bytes(subtree, Rereads.of(subtree, going))[0]
    found = _in_use(subtree).peak()
    return None if found is None else with_margin(subtree.whole, 0, found)[1]


def _work(subtree: Subtree, held: Steps | None, *, is_end_seen: bool) -> str | None:
    """Return how the work ended; None: the trace does not show it, or the life went on without growth."""
    trace = subtree.whole
    if breaks_off(trace) and not is_end_seen:
        return "cut"
    if kill_range.cut_off(trace.meta) is not None:
        return "cut"
    status = kill_range.exit_status(trace.meta)
    if status is not None:
        return "failed" if status else COMPLETE
    if is_end_seen or held is None:
        return None
    return None if kill_range.why_growing(subtree, held) is None else "growing"


def _in_use(subtree: Subtree) -> Steps:
    """Return usage without the page cache that was used once, by the cgroup's own samples: the pages of the
    inactive list that no process has mapped.

    A page that is used again goes to the active list, but a mapped page does so only when reclaim looks at it
    (mm/vmscan.c, folio_check_references). The mapped pages less shmem are a lower bound of the mapped file
    pages.
    """
    samples = subtree.samples
    own = samples.loc[integers(samples["cgroup_id"]) == subtree.cgroup_id, list(_IN_USE)]
    own = own[np.logical_and.reduce([known(own[name]) for name in _IN_USE])]
    usage, inactive, mapped, shmem = (integers(own[name]) for name in _IN_USE)
    used_once: Int64s = np.maximum(inactive - np.maximum(mapped - shmem, 0), 0)
    return Steps(times_ns(own), np.maximum(usage - used_once, 0), None)


_MOST_MINUTES: Final = 2_000_000  # of all lives together; each is a row of about 1 kB in memory
_FOREVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class LifeRows:
    """Rows of `lives` and of `timeline`."""

    lives: list[dict[str, Any]]
    timeline: list[dict[str, Any]]


def life_rows(
    trace: AnalysedTrace,
    origin: Origin,
    names: NamedCgroups,
    kills: Sequence[Mapping[str, Any]],
    reports: Sequence[OomReport],
) -> LifeRows:
    """Return the rows of a trace that has these rows of `kills`, from these reports. A life that a bug keeps
    from being measured has no row (`trace.defects`).

    Raises TraceError for a trace whose times are so far apart that the timeline would not fit in memory.
    """
    subtrees, spending, found = Subtrees(trace), Spending(trace), LifeRows([], [])
    members = naming.descendants_of(trace.cgroups, naming.with_data(trace))
    killed, rows_of = kill_filter.KillsByPlace(trace, reports), dict[int | None, list[Mapping[str, Any]]]()
    for kill in kills:
        rows_of.setdefault(kill["cgroup_id"], []).append(kill)

    def add(number: int, below: Int64s) -> None:
        subtree = subtrees.subtree_at(number, below)
        limits = ledger.counter(subtree, "limit_bytes")
        if not _has_rows(names, number, below, limits.at(end_ns(trace))):
            return
        life = _Life(trace, origin, names, subtree, limits=limits, kills=rows_of.get(number, ()))
        if (life.last_ns - life.first_ns) // BIN_NS + len(found.timeline) > _MOST_MINUTES:
            raise TraceError(f"{trace.path} has times years apart: its timeline would not fit in memory")
        going = progress(subtree, spending)
        row = life.row(going) | replayed(subtree, killed.concerning([number], below), going)
        minutes = list(life.minutes())
        found.lives.append(row)
        found.timeline.extend(minutes)

    for number, below in members.items():
        trace.defects.attempt(
            f"the cgroup {trace.places.label_of(number)}", partial(add, number, below), lambda _: None
        )
    return found


def _has_rows(names: NamedCgroups, cgroup_id: int, members: Int64s, limit_bytes: int | None) -> bool:
    is_limited = limit_bytes is not None and limit_bytes < UNLIMITED_BYTES
    is_leaf = len(members) == 1 and not names.is_inside_container(cgroup_id)
    return is_limited or is_leaf or names.is_container(cgroup_id)


class _Life:
    """The life of one cgroup in one trace, from `first_ns` to `last_ns` (ns since the epoch)."""

    def __init__(
        self,
        trace: AnalysedTrace,
        origin: Origin,
        names: NamedCgroups,
        subtree: Subtree,
        *,
        limits: Steps,
        kills: Sequence[Mapping[str, Any]],
    ) -> None:
        self._trace, self._origin, self._subtree, self._limits = trace, origin, subtree, limits
        self._kills = kills
        self._names = names.row(subtree.cgroup_id)
        self._made_ns, self._removed_ns = trace.places.lifetime_ns(subtree.cgroup_id)
        self.first_ns = subtree.start_ns
        self.last_ns = max(min(end_ns(trace), self._removed_ns), self.first_ns)
        self._sizes = {
            "usage_bytes": ledger.usage(subtree),
            "unreclaimable_bytes": unreclaimable(subtree),
            "working_set_bytes": _working_set(subtree),
        }

    def row(self, going: Progress) -> dict[str, Any]:
        """Return the row of `lives` without the columns of `replayed`; `going`: whether its work went on."""
        origin, end = self._origin, end_ns(self._trace)
        peaks = {name: None if steps is None else steps.peak() for name, steps in self._sizes.items()} | {
            "usage_bytes": ledger.peak_usage(self._subtree)
        }
        peaks = {name: _greatest(name, peak, self._kills) for name, peak in peaks.items()}
        refaulted, _ = window.refaulted_bytes(self._subtree, self._trace.span_ns[0], end)
        evicted = self._subtree.evicted.pages_between(self._trace.span_ns[0], end)
        return {
            **origin.row(self.first_ns),
            "end": self.last_ns,
            "is_begin_seen": self._made_ns > 0,
            "is_end_seen": self._removed_ns < _FOREVER,
            "made_ktime_ns": origin.ktime_ns(self._made_ns) if self._made_ns else None,
            "first_ktime_ns": origin.ktime_ns(self.first_ns),
            "last_ktime_ns": origin.ktime_ns(self.last_ns),
            "observed_s": (self.last_ns - self.first_ns) / 1e9,
            **self._names,
            **limit_columns(self._limits.at(end)),
            **{f"peak_{name}": peak for name, peak in peaks.items()},
            "kills": len(self._kills),
            "evicted_bytes": evicted * page_size(self._trace),
            "refaulted_bytes": refaulted,
            **slowdowns(
                self._subtree,
                going,
                self._sizes["unreclaimable_bytes"],
                is_end_seen=self._removed_ns < _FOREVER,
            ),
        }

    def minutes(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of `timeline`."""
        edges = self._origin.bin_edges_ns(self.first_ns, self.last_ns)
        sizes = {name: greatest_and_mean(steps, edges) for name, steps in self._sizes.items()}
        kills = sorted(self._kills, key=itemgetter("time"))
        times = [kill["time"] for kill in kills]
        for position, (first, last) in enumerate(pairwise(edges)):
            is_last = position == len(edges) - 2
            until = end_ns(self._trace) if is_last else last - 1  # evictions after its removal count
            since = self._trace.span_ns[0] if position == 0 else first
            within = slice(bisect_left(times, since), bisect_right(times, until))
            row = {
                **self._origin.bin_row(first, last),
                **self._names,
                **limit_columns(self._limits.at(last)),
                "evicted_bytes": self._subtree.evicted.pages_between(since, until) * page_size(self._trace),
                "refaulted_bytes": self._refaulted_bytes(since, until),
            }
            for name, found in sizes.items():
                greatest, row[f"mean_{name}"] = found[position]
                row[f"max_{name}"] = _greatest(name, greatest, kills[within])
            yield row

    def _refaulted_bytes(self, since_ns: int, until_ns: int) -> int | None:
        """Return the bytes that were read again in an interval; None: not known. They may have been evicted
        at any time in the trace."""
        if window.why_not_followed(self._subtree, since_ns, until_ns) is not None:
            return None
        again = self._subtree.refaulted
        first, end = np.searchsorted(again.time, [since_ns, until_ns + 1])
        return int(again.pages[first:end].sum(dtype=np.int64)) * page_size(self._trace)


def _greatest(size: str, found: int | None, kills: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the greatest of a size and its readings at these kills."""
    return max(
        (value for value in [found, *(kill[size] for kill in kills)] if value is not None), default=None
    )


def _working_set(subtree: Subtree) -> Steps:
    """Return usage without the inactive file list, as the cgroup's own samples have both."""
    samples = subtree.samples
    own = samples[integers(samples["cgroup_id"]) == subtree.cgroup_id]
    own = own[known(own["usage_bytes"]) & known(own["inactive_file_bytes"])]
    sizes = integers(own["usage_bytes"]) - integers(own["inactive_file_bytes"])
    return Steps(times_ns(own), np.maximum(sizes, 0), None)
