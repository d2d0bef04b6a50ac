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
    sums: Spans
    deletions: Spans

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
        deletions = found[np.concatenate(is_deletion)]
        return cls(file, device, Spans(*found.T), Spans(*deletions.T))

    def between(self, events: Events, evicted: Integers, added: Integers) -> Bools:
        """Return a mask of the pairs of an eviction and an addition between which pages of the file were
        summed."""
        if not len(self.sums.file):
            return np.zeros(len(evicted), dtype=np.bool_)
        end = events.time[added] + events.duration[added]
        return self._spans(events, evicted, end).are_crossed(self.sums)

    def after(self, events: Events, added: Integers) -> Bools:
        """Return a mask of the additions after which deletions of the file's pages were summed."""
        return self._spans(events, added, np.full(len(added), LATEST_NS)).are_crossed(self.deletions)

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

    def are_crossed(self, summed: Spans) -> Bools:
        """Return a mask of the spans in which an event of `summed` may concern their file."""
        if not len(summed.file):
            return np.zeros(len(self.file), dtype=np.bool_)
        named = summed.file != NO_ID
        by_file = replace(summed, file=np.where(named, summed.file, -1 - summed.device))
        return self._overlap(by_file) | replace(self, file=-1 - self.device)._overlap(by_file)

    def _overlap(self, others: Spans) -> Bools:
        """Return a mask of the spans that overlap one of `others` of the same file.

        A span overlaps one of the file's `others` if, and only if, more of them have begun by its end than
        were over before its begin.
        """
        rank = _Ranks.from_spans(self, others)
        begun = np.searchsorted(
            np.sort(rank.of(others.file, others.begin)), rank.of(self.file, self.end), "right"
        )
        over = np.searchsorted(np.sort(rank.of(others.file, others.end)), rank.of(self.file, self.begin))
        return np.asarray(begun > over, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class _Ranks:
    """Files and moments as numbers that keep the order of files, and of moments within a file."""

    files: Int64s
    moments: Int64s

    @classmethod
    def from_spans(cls, *spans: Spans) -> _Ranks:
        return cls(
            np.unique(np.concatenate([one.file for one in spans])),
            np.unique(np.concatenate([end for one in spans for end in (one.begin, one.end)])),
        )

    def of(self, file: Int64s, moment: Int64s) -> Int64s:
        places = np.searchsorted(self.files, file) * len(self.moments)
        return np.asarray(places + np.searchsorted(self.moments, moment), dtype=np.int64)
