"""Whether the work of a cgroup went on: its state, the time that its tasks lost, and what they read again.

The state is that of the worst stretch of the trace. A window of 10 s, or of a quarter of the time in which
the tasks of the cgroup did anything if that is less, moves over that time in steps of 1 s. Windows count in
which the lost share (`views.lost_time`) is at least a third, and a tenth of the time of one task was lost.

* "throttled": at least half of the lost time was spent above memory.high.
* "thrashing": at least a quarter of the evicted page cache was read again, or half of the lost time was spent
  reading from swap. Reclaim alone, as of a program that reads a large file once, is no thrash.
* "held": no window counts.

Windows that count and overlap are one stretch, and the stretch with the most lost time is taken, without the
seconds at its ends that had a lesser share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    integers,
    is_one_of,
    known,
    optional_text,
    times_ns,
    utc_time,
)
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import end_ns, page_size
from tracer.analysis.results.survivor import Crawl, Delayed, LostTime, Progress, RereadFile
from tracer.analysis.views import stalls
from tracer.analysis.views.lost_time import BIN_NS, Spending, Times

LEAST_SHARE: Final = 1 / 3
LEAST_LOST: Final = 0.1
LEAST_REREAD: Final = 0.25
_MOST_SECONDS: Final = 10
_PARTS: Final = 4
_MOST_FILES: Final = 10
_MOST_NAMES: Final = 5
_SMALL: Final = 0.1

NOT_KNOWN: Final = "the trace has no CPU times of tasks and no waits for files: an older version recorded it"

_LOST_KINDS: Final = ("reclaim", *stalls.THROTTLED, "swap_in", "high")


def progress(subtree: Subtree, spending: Spending) -> Progress:
    """Return the progress of a cgroup and those below it over the whole trace."""
    times = spending.of(subtree).trimmed()
    files = tuple(_files(subtree, spending))
    if not times.is_known:
        return Progress(files=files)
    lost = LostTime(**{item.name: times.total(item.name) for item in fields(LostTime)})
    stretch = _worst(subtree, times)
    if stretch is None:
        return Progress("held", times.lost_share(), lost, files=files)
    inside = times.between(*stretch)
    begin, end = (times.bin_begin_ns(bound) for bound in stretch)
    delayed = _delayed_ns(subtree, spending, begin, end)
    is_throttled = 2 * np.nansum(inside.throttled_ms) >= inside.lost_ms.sum()
    return Progress(
        state="throttled" if is_throttled else "thrashing",
        lost_share=times.lost_share(),
        lost=lost,
        crawl=_crawl(subtree, inside, begin, end, delayed),
        delayed=tuple(_by_name(subtree, delayed, begin, end)),
        files=files,
    )


def _worst(subtree: Subtree, times: Times) -> tuple[int, int] | None:
    """Return the first bin of the worst stretch and the first one after it; None: no window counts."""
    width = max(min(_MOST_SECONDS, -(-len(times) // _PARTS)), 1)
    if len(times) < width:
        return None
    lost, whole = _moving(times.lost_ms, width), _moving(times.all_ms, width)
    evicted = _moving(times.pages(subtree.evicted.time, subtree.evicted.pages), width)
    again = _moving(times.pages(subtree.refaulted.time, subtree.refaulted.pages), width)
    is_reread = (again > 0) & (again >= LEAST_REREAD * evicted)
    others = [_moving(np.nan_to_num(one), width) for one in (times.throttled_ms, times.swap_in_ms)]
    counts = (lost >= LEAST_SHARE * whole) & (lost >= LEAST_LOST * width * BIN_NS / 1e6)
    counts &= is_reread | np.logical_or.reduce([2 * one >= lost for one in others])
    if not counts.any():
        return None
    edges = np.flatnonzero(np.diff(np.concatenate([[0], _covered(counts, width).astype(np.int8), [0]])))
    stretches = [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
    worst = slice(*max(stretches, key=lambda one: float(times.lost_ms[slice(*one)].sum())))
    slow = worst.start + np.flatnonzero(times.lost_ms[worst] >= LEAST_SHARE * times.all_ms[worst])
    return int(slow[0]), int(slow[-1]) + 1


def _covered(counts: Bools, width: int) -> Bools:
    """Return a mask of the bins that are in any window of `width` bins that counts."""
    covered = np.zeros(len(counts) + width - 1, dtype=np.bool_)
    for offset in range(width):
        covered[offset : offset + len(counts)] |= counts
    return covered


def _moving(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Return the sum of each `width` consecutive values."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(sums[width:] - sums[:-width])


def _crawl(subtree: Subtree, inside: Times, begin: int, end: int, delayed: pd.Series[int]) -> Crawl:
    last = end_ns(subtree.whole)
    tasks = subtree.whole.tasks
    lives = is_one_of(tasks["tgid"], delayed.index.tolist()) & ~known(tasks["exited"])
    return Crawl(
        begin=utc_time(begin),
        end=utc_time(min(end, last)),
        lost_share=inside.lost_share() or 0.0,
        lasts=bool(lives.any()) and end >= last - BIN_NS,
    )


def _delayed_ns(subtree: Subtree, spending: Spending, begin: int, end: int) -> pd.Series[int]:
    """Return the delay of each process within an interval, by tgid, without those with little delay."""
    waits = subtree.waits[is_one_of(subtree.waits["kind"], _LOST_KINDS)]
    files = subtree.file_waits
    moments = np.append(times_ns(waits), times_ns(files))
    tgids = np.append(integers(waits["tgid"]), integers(files["tgid"]))
    took = np.append(integers(waits["duration_ns"]), spending.reread_ns(subtree))
    inside = (moments >= begin) & (moments < end)
    delayed: pd.Series[int] = pd.Series(took[inside]).groupby(tgids[inside]).sum()
    large: pd.Series[int] = delayed[delayed >= _SMALL * delayed.max()]
    return large


def _by_name(subtree: Subtree, delayed: pd.Series[int], begin: int, end: int) -> Iterator[Delayed]:
    comms = [subtree.whole.processes.comm_at(int(tgid), begin, end) for tgid in delayed.index]
    by_name = delayed.groupby(pd.Series(comms, index=delayed.index, dtype=object), dropna=False)
    sums = by_name.agg(["size", "sum"]).sort_values("sum", ascending=False).head(_MOST_NAMES)
    for comm, processes, delayed_ns in sums.itertuples():
        yield Delayed(optional_text(comm), int(processes), float(delayed_ns / 1e6))


def _files(subtree: Subtree, spending: Spending) -> Iterator[RereadFile]:
    """Yield the files of which most was read again."""
    trace = subtree.whole
    back = subtree.refaulted
    if not len(back):
        return
    pages = np.bincount(back.file, back.pages)
    order = np.argsort(-pages, kind="stable")[:_MOST_FILES]
    order = order[pages[order] > 0]
    inode_ids = integers(trace.cache_events.files["inode_id"].iloc[order])
    waited = np.unique(integers(subtree.file_waits["tgid"]))
    programs = trace.processes.programs(waited, subtree.members)
    for inode_id, refaulted_pages in zip(inode_ids.tolist(), pages[order].tolist(), strict=True):
        yield RereadFile(
            path=optional_text(spending.paths.get(inode_id)) if inode_id != NO_ID else None,
            refaulted_bytes=int(refaulted_pages) * page_size(trace),
            executable=None if programs is None else inode_id in programs,
        )
