"""Spans of time across which the pages of a file cannot be followed, because its events were summed.

A summed row of `pagecache` has no index: it may concern any page of its file, at any moment between its first
and its last folio. If its file is not known either, it may concern any file of its device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tracer.analysis.core.columns import NO_ID, Bools, Int64s, Integers, integers, is_one_of
from tracer.analysis.core.page_cache import CacheEvents, Events
from tracer.trace.value_ranges import LATEST_NS


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
