"""The history of each page of the page cache, and the spans of time across which it cannot be followed.

A summed row of `pagecache` has no index: it may concern any page of its file, at any moment between its first
and its last folio. If its file is not known either, it may concern any file of its device.

An eviction and the refaults that follow it may differ in size: a run of folios is evicted, and single pages
are read again. So the events of a group of files are put in order page by page, or piece by piece, where a
piece begins wherever an event begins or ends. An addition is a refault if the event before it is an eviction.
An addition by write is not: its contents are replaced, not needed, and the kernel does not count it either,
since v4.7 ("mm: workingset: only do workingset activations on reads"). After a write or a truncation, nothing
is linked to the eviction before it.

The events of a page are put in the order in which they began. Events that take time may overlap, so this need
not be the order in which they reached the page: one CPU adds a long run, while another one evicts pages ahead
of it. So overlapping events are put in the order in which they would have reached the page if each event took
equally long for all its pages. That is only an estimate, but a page enters and leaves the cache in turn: an
addition and a deletion that overlap are exchanged if the page would otherwise be added or deleted twice in a
row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core.columns import NO_ID, Bools, Int64s, Integers, ascending, integers, is_one_of
from tracer.analysis.core.evicted import is_evicted
from tracer.analysis.core.page_cache import CacheEvents, Events
from tracer.schema import LATEST_NS


@dataclass(frozen=True, slots=True)
class Crossings:
    """The sums of a trace, all of them and the deletions among them; and the files of its events."""

    file: Int64s
    device: Int64s
    sums: RankedSums
    deletions: RankedSums

    @classmethod
    def from_events(cls, events: CacheEvents) -> Crossings:
        """Find the sums among these events."""
        file, device = (integers(events.files[name]) for name in ("inode_id", "dev"))
        is_summed = events.kinds["is_summed"].to_numpy(dtype=np.bool_)
        nothing = np.zeros(0, dtype=np.int64)
        parts = [nothing.reshape(0, 4)]
        is_deletion = [nothing.astype(np.bool_)]
        for group in events.batches() if is_summed.any() else ():
            sums = group[np.flatnonzero(is_summed[group.kind])]
            ends = sums.time + sums.duration
            parts.append(np.stack([file[sums.file], device[sums.file], sums.time, ends], axis=1))
            is_deletion.append(is_one_of(events.kinds["op"], ["delete"])[sums.kind])
        found = np.concatenate(parts)
        of_each = (found, found[np.concatenate(is_deletion)])
        return cls(file, device, *(RankedSums.from_spans(Spans(*spans.T)) for spans in of_each))

    def between(self, events: Events, evicted: Integers, added: Integers) -> Bools:
        """Return a mask of the pairs of an eviction and an addition between which pages of the file were
        summed."""
        if not len(self.sums.files):
            return np.zeros(len(evicted), dtype=np.bool_)
        end = events.time[added] + events.duration[added]
        return self.sums.cross(self._spans(events, evicted, end))

    def after(self, events: Events, added: Integers) -> Bools:
        """Return a mask of the additions after which deletions of the file's pages were summed."""
        if not len(self.deletions.files):
            return np.zeros(len(added), dtype=np.bool_)
        return self.deletions.cross(self._spans(events, added, np.full(len(added), LATEST_NS)))

    def _spans(self, events: Events, first: Integers, end: Int64s) -> Spans:
        number = events.file[first]
        return Spans(self.file[number], self.device[number], events.time[first], end)


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of time of files: `inode_id` and `dev`, and both ends in ns since the epoch."""

    file: Int64s
    device: Int64s
    begin: Int64s
    end: Int64s


@dataclass(frozen=True, slots=True)
class RankedSums:
    """The spans of sums as numbers that ascend by file, and by moment within a file.

    They are ranked once. Each group of events then costs binary searches for its own spans alone, however
    many sums the trace has.

    `files` and `moments` are distinct and ascend. A sum whose file is not known has a number below zero,
    from its device. `begins` and `ends` have both ends of each sum as `file * (moments + 1) + moment`, in
    positions of `files` and `moments`; each of them is sorted.
    """

    files: Int64s
    moments: Int64s
    begins: Int64s
    ends: Int64s

    @classmethod
    def from_spans(cls, sums: Spans) -> RankedSums:
        """Rank sums."""
        files, file = np.unique(
            np.where(sums.file != NO_ID, sums.file, _of_device(sums.device)), return_inverse=True
        )
        moments = np.unique(np.concatenate([sums.begin, sums.end]))
        first = file * (len(moments) + 1)
        begins, ends = (
            np.sort(first + np.searchsorted(moments, moment)) for moment in (sums.begin, sums.end)
        )
        return cls(files, moments, begins, ends)

    def cross(self, spans: Spans) -> Bools:
        """Return a mask of the spans in which an event of a sum may concern their file."""
        if not len(self.files):
            return np.zeros(len(spans.file), dtype=np.bool_)
        return self._overlap(spans) | self._overlap(replace(spans, file=_of_device(spans.device)))

    def _overlap(self, spans: Spans) -> Bools:
        """Return a mask of the spans that overlap a sum of the same file.

        A span overlaps one of the file's sums if, and only if, more of them have begun by its end than were
        over before its begin.
        """
        place = np.minimum(np.searchsorted(self.files, spans.file), len(self.files) - 1)
        first = place * (len(self.moments) + 1)
        begun = np.searchsorted(self.begins, first + np.searchsorted(self.moments, spans.end, "right"))
        over = np.searchsorted(self.ends, first + np.searchsorted(self.moments, spans.begin))
        return np.asarray((self.files[place] == spans.file) & (begun > over), dtype=np.bool_)


def _of_device(device: Int64s) -> Int64s:
    """Return the numbers of sums of unknown files of devices, below those of files."""
    return np.asarray(-1 - device, dtype=np.int64)


_MOST_PAGES_EACH: Final = 4
"""Each page is a piece if the events have at most this many pages on average."""

_MOST_EVENTS: Final = 1 << 19
_MOST_ENTRIES: Final = 1 << 21
_MOST_SAMPLED: Final = 10_000
_WORD_BITS: Final = 62

_ADDED, _EVICTED, _NEEDED = np.uint8(1), np.uint8(2), np.uint8(4)

Meanings = npt.NDArray[np.uint8]


def meanings(kinds: pd.DataFrame) -> Meanings:
    """Return for each kind of event what it means for a page: added, evicted, needed (all that apply)."""
    is_added = is_one_of(kinds["op"], ["add"])
    is_needed = is_added & ~is_one_of(kinds["cause"], ["write"])
    return is_added * _ADDED + is_evicted(kinds) * _EVICTED + is_needed * _NEEDED


@dataclass(frozen=True, slots=True)
class Histories:
    """The histories of consecutive pieces of files: entries, each of which is an event of a piece.

    `event` is the position of the event in the group, and `meaning` is the meaning of the event. The entries
    of a piece are together, in order; `is_last` marks the last one. `pages` is the size of the piece; None:
    all are single pages.
    """

    event: Int64s
    meaning: Meanings
    is_last: Bools
    pages: Int64s | None

    def refaults(self) -> tuple[Int64s, Int64s]:
        """Return the positions of the evictions before a refault, and of the refaults after them."""
        is_link = (self.meaning[:-1] << 1) & self.meaning[1:] & _NEEDED != 0
        before = np.flatnonzero(is_link & ~self.is_last[:-1])
        return before, before + 1

    def left(self) -> Int64s:
        """Return the positions of the entries that added a piece which was there at the end."""
        return np.flatnonzero(self.is_last & (self.meaning & _ADDED != 0))

    def sizes(self, entries: Int64s) -> Int64s | None:
        """Return the number of pages of the pieces at these positions; None: all are single pages."""
        return None if self.pages is None else self.pages[entries]


def histories(events: Events, meaning: Meanings) -> Iterator[Histories]:
    """Yield the histories of all pages of a group of files; `meaning` has the meaning of each kind of event.

    A range of pages that has too many events is cut into several, so that the memory is bounded.
    """
    if len(events):
        line = _Line.from_events(events, meaning[events.kind])
        for chosen, begin, end in line.ranges(np.arange(len(events)), line.begin, line.end):
            yield line.histories(chosen, begin, end)


@dataclass(frozen=True, slots=True)
class _Line:
    """The pages of all files of a group in a line, each with an address; an event covers [begin, end).

    The low `bits` of an address are the page's index in its file, or, if there are `indices`, a position in
    them.
    """

    events: Events
    meaning: Meanings
    begin: Int64s
    end: Int64s
    bits: int
    indices: Int64s | None
    takes_time: bool

    @classmethod
    def from_events(cls, events: Events, meaning: Meanings) -> _Line:
        first = events.first.astype(np.int64)
        end = first + events.pages
        indices, bits = None, int(end.max()).bit_length()
        if (events.file != events.file[0]).any():
            file, files = pd.factorize(events.file)
            if len(files).bit_length() + bits > _WORD_BITS:
                indices = np.unique(np.concatenate([first, end]))
                first, end = np.searchsorted(indices, first), np.searchsorted(indices, end)
                bits = len(indices).bit_length()
            first, end = first | file << bits, end | file << bits
        return cls(events, meaning, first, end, bits, indices, events.take_time)

    def pages(self, addresses: Int64s) -> Int64s:
        """Return the index in its file of the page at each address."""
        low = addresses & ((1 << self.bits) - 1)
        return low if self.indices is None else self.indices[low]

    def ranges(self, chosen: Int64s, begin: Int64s, end: Int64s) -> Iterator[tuple[Int64s, Int64s, Int64s]]:
        """Yield (events, their begins, their ends), cut where a range has too many events or pieces."""
        entries = 0 if self._has_few_pages(begin, end) else _entries(begin, end)
        parts = max(len(chosen) // _MOST_EVENTS, entries // _MOST_ENTRIES) + 1
        edges = _edges(begin, end, parts) if parts > 1 else begin[:0]
        if not len(edges):
            yield chosen, begin, end
            return
        for low, high in zip([begin.min(), *edges], [*edges, end.max()], strict=True):
            inside = np.flatnonzero((begin < high) & (end > low))
            if len(inside):
                lows, highs = np.maximum(begin[inside], low), np.minimum(end[inside], high)
                yield from self.ranges(chosen[inside], lows, highs)

    def _has_few_pages(self, begin: Int64s, end: Int64s) -> bool:
        """Return whether each page can be a piece, because there are few pages."""
        return self.indices is None and int((end - begin).sum()) <= _MOST_PAGES_EACH * len(begin)

    def histories(self, chosen: Int64s, begin: Int64s, end: Int64s) -> Histories:
        """Return the histories of a range of pages."""
        if self._has_few_pages(begin, end):
            cuts, lowest = None, int(begin.min())
            first, last = begin - lowest, end - lowest
        else:
            cuts, lowest = np.unique(np.concatenate([begin, end])), 0
            first, last = np.searchsorted(cuts, begin), np.searchsorted(cuts, end)
        event, piece = _entries_in_order(first, last)
        is_last = np.ones(len(event), dtype=np.bool_)
        np.not_equal(piece[1:], piece[:-1], out=is_last[:-1])

        def page_at(entry: Int64s) -> Int64s:
            of_entry = piece[entry]
            return self.pages(of_entry + lowest if cuts is None else cuts[of_entry])

        if self.takes_time:
            event = self._in_turn(chosen, event, is_last, page_at)
        size = None
        if cuts is not None:
            size = (self.pages(cuts[1:]) - self.pages(cuts[:-1]))[piece]
        event = chosen[event]
        return Histories(event, self.meaning[event], is_last, size)

    def _in_turn(
        self, chosen: Int64s, event: Int64s, is_last: Bools, page_at: Callable[[Int64s], Int64s]
    ) -> Int64s:
        """Return the events of the entries. Those that overlap in time are in the order that the module
        describes."""
        time = self.events.time[chosen]
        ends = time + self.events.duration[chosen]
        later = np.searchsorted(time, ends).astype(event.dtype)  # the first event that begins after each
        overlapping = np.flatnonzero((event[1:] < later[event[:-1]]) & ~is_last[:-1])
        if not len(overlapping):
            return event
        lasts = np.flatnonzero(is_last)
        piece = np.unique(np.searchsorted(lasts, overlapping))
        firsts, counts = np.append(0, lasts + 1)[piece], np.diff(lasts, prepend=-1)[piece]
        entry = np.arange(counts.sum()) + np.repeat(firsts - (np.cumsum(counts) - counts), counts)
        reached = self.events.time_at(chosen[event[entry]], page_at(entry))
        found = event[entry[np.lexsort((reached, np.repeat(piece, counts)))]]

        is_added = self.meaning[chosen[found]] & _ADDED
        begun, other = np.minimum(found[:-1], found[1:]), np.maximum(found[:-1], found[1:])
        pair = np.flatnonzero((other < later[begun]) & (is_added[:-1] != is_added[1:]) & ~is_last[entry[:-1]])
        pair = pair[pair > 0]
        pair = pair[~is_last[entry[pair - 1]] & (is_added[pair - 1] == is_added[pair])]
        pair = pair[np.diff(pair, prepend=-3) > 2]  # an exchange changes what comes before the next pair
        found[pair], found[pair + 1] = found[pair + 1], found[pair]
        ordered = event.copy()
        ordered[entry] = found
        return ordered


def _entries(begin: Int64s, end: Int64s) -> int:
    """Return the number of pairs of an event and a piece that it covers."""
    cuts = np.unique(np.concatenate([begin, end]))
    return int((np.searchsorted(cuts, end) - np.searchsorted(cuts, begin)).sum())


def _edges(begin: Int64s, end: Int64s, parts: int) -> Int64s:
    """Return addresses between the least and the greatest that cut the events into about `parts` parts."""
    step = len(begin) // _MOST_SAMPLED + 1
    sample = np.sort(np.concatenate([begin[::step], end[::step]]))
    edges = np.unique(sample[np.arange(1, parts) * len(sample) // parts])
    return np.asarray(edges[(edges > begin.min()) & (edges < end.max())])


def _entries_in_order(first: Int64s, last: Int64s) -> tuple[Int64s, Int64s]:
    """Return (event, piece) for all pieces from `first` to `last` of each event, by piece and event."""
    counts = last - first
    if (counts == 1).all():
        order = ascending(first)
        return order, first[order]
    event = np.repeat(np.arange(len(first)), counts)
    piece = np.arange(len(event)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    order = ascending(piece)
    return event[order], piece[order]
