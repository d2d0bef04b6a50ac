"""Records of undecided cgroups, held back until it is known whether the cgroup was requested.

The hold has a bound. Records that do not fit are lost as from a full ring: they are counted, and the sums of
the ledger stay exact.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.ring import Records
from tracer.enumerations import TASK_EVENT
from tracer.wire.streams import STREAMS

_OWNERS: Final = {stream.name: stream.owners for stream in STREAMS} | dict.fromkeys(
    ("samples", "task_time"), ("cgroup_id",)
)
"""Kind of records -> fields with the cgroups that a record concerns."""


class Hold:
    """The records that are held back.

    A cgroup goes through `wait_for`, then `accept` or `refuse`, then `purge` if it was refused, and then
    `forget`. `accepted` are the ids of accepted cgroups that were not forgotten. `lost` counts, by stream,
    the records of accepted cgroups that did not fit.
    """

    def __init__(self, most_bytes: int) -> None:
        self.lost: Counter[str] = Counter()
        self._most_bytes = most_bytes
        self._undecided: set[int] = set()
        self._refused: set[int] = set()
        self._purged_ns: dict[int, int] = {}
        self.accepted: set[int] = set()
        self._held: dict[str, list[Records]] = {}
        self._rows: list[dict[str, Any]] = []
        self._sifted: dict[str, int] = {}
        self._decisions = 0
        self._given_up: Counter[tuple[int, str]] = Counter()
        self._sums: Counter[tuple[int, int]] = Counter()
        self._residue: Counter[tuple[int, int]] = Counter()

    @property
    def is_in_use(self) -> bool:
        """Return whether `sift` has records to hold back, to release or to drop."""
        return bool(self._undecided or self._refused or self._held)

    def wait_for(self, cgroup_id: int) -> None:
        """Hold back the records of this cgroup from now on."""
        self._undecided.add(cgroup_id)

    def accept(self, cgroup_id: int) -> None:
        """Release the held records of this cgroup with the next records of each stream."""
        self.forget(cgroup_id)
        self.accepted.add(cgroup_id)
        if cgroup_id not in self._undecided:
            return
        self._undecided.discard(cgroup_id)
        self._decisions += 1
        for key in [key for key in self._given_up if key[0] == cgroup_id]:
            self.lost[key[1]] += self._given_up.pop(key)
        for sums_key in [key for key in self._sums if key[0] == cgroup_id]:
            self._residue[sums_key] += self._sums.pop(sums_key)

    def refuse(self, cgroup_id: int) -> None:
        """Drop the held records of this cgroup, and those that still arrive."""
        self._undecided.discard(cgroup_id)
        self._refused.add(cgroup_id)
        self._decisions += 1
        for key in [key for key in self._given_up if key[0] == cgroup_id]:
            del self._given_up[key]
        for sums_key in [key for key in self._sums if key[0] == cgroup_id]:
            del self._sums[sums_key]

    def purge(self, cgroup_id: int, time_ns: int) -> None:
        """Note that the BPF programs stopped tracing a refused cgroup at `time_ns` (CLOCK_MONOTONIC).

        A process in the cgroup that is reported later acts on a traced cgroup, and so is not dropped.
        """
        self._purged_ns[cgroup_id] = time_ns

    def forget(self, cgroup_id: int) -> None:
        """Stop looking for records of a cgroup that was refused, or that was accepted and is long gone."""
        self.accepted.discard(cgroup_id)
        self._refused.discard(cgroup_id)
        self._purged_ns.pop(cgroup_id, None)

    def sift(self, stream: str, records: Records) -> tuple[Records, Records]:
        """Return (records to write now, records dropped), from `records` and from the records held back."""
        fields = _OWNERS[stream]
        if not fields or not (self._undecided or self._refused or stream in self._held):
            return records, records[:0]
        if self._sifted.get(stream) != self._decisions:
            records = np.concatenate([*self._held.pop(stream, ()), records])
            self._sifted[stream] = self._decisions
        is_undecided, is_refused = (
            _is_any(records, fields, self._undecided),
            _is_any(records, fields, self._refused),
        )
        if len(fields) > 1:
            is_wanted = _is_any(records, fields, self.accepted)
            is_undecided &= ~is_wanted
            is_refused &= ~is_wanted
        if stream == "task":
            is_refused &= ~self._acts_elsewhere(records)
        is_refused &= ~is_undecided
        if is_undecided.any():
            self._keep(stream, records[is_undecided])
        return records[~(is_undecided | is_refused)], records[is_refused]

    def held(self, stream: str) -> list[Records]:
        return self._held.get(stream, [])

    def sift_rows(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows to write now, from `rows` and from the rows held back, by their `cgroup_id`."""
        if not (self._undecided or self._refused or self._rows):
            return rows
        candidates = [row for row in (*self._rows, *rows) if row["cgroup_id"] not in self._refused]
        self._rows = [row for row in candidates if row["cgroup_id"] in self._undecided]
        return [row for row in candidates if row["cgroup_id"] not in self._undecided]

    def add_sum(self, key: tuple[int, int], sum_bytes: int) -> None:
        """Hold back a sum of charges of an undecided cgroup; `key` is (cgroup id, category)."""
        self._sums[key] += sum_bytes

    def take_residue(self) -> dict[tuple[int, int], int]:
        """Return (cgroup id, category) -> bytes of the charges that did not fit, since the last call."""
        residue, self._residue = dict(self._residue), Counter()
        return residue

    def _acts_elsewhere(self, tasks: Records) -> npt.NDArray[np.bool_]:
        """Return a mask of the tasks that were reported because they acted on a traced cgroup."""
        never = np.iinfo(np.int64).max
        purged_ns = [self._purged_ns.get(int(cgroup_id), never) for cgroup_id in tasks["cgroup_id"]]
        is_sight: npt.NDArray[np.bool_] = tasks["event"] == TASK_EVENT.number("seen")
        return is_sight & (tasks["time_ns"] > np.array(purged_ns, np.uint64))

    def _keep(self, stream: str, records: Records) -> None:
        self._held.setdefault(stream, []).append(records)
        while self._bytes() > self._most_bytes:
            fullest = max(self._held, key=lambda name: sum(part.nbytes for part in self._held[name]))
            self._give_up(fullest, self._held[fullest].pop(0))
            if not self._held[fullest]:
                del self._held[fullest]

    def _bytes(self) -> int:
        return sum(part.nbytes for parts in self._held.values() for part in parts)

    def _give_up(self, stream: str, records: Records) -> None:
        owner = _OWNERS[stream][0]
        for cgroup_id, count in zip(*np.unique(records[owner], return_counts=True), strict=True):
            self._given_up[int(cgroup_id), stream] += int(count)
        if stream == "charge":
            for cgroup_id in np.unique(records["cgroup_id"]):
                sums = records["delta_bytes"][records["cgroup_id"] == cgroup_id].sum(axis=0)
                self._sums.update({(int(cgroup_id), int(at)): int(sums[at]) for at in np.flatnonzero(sums)})


def _is_any(records: Records, fields: tuple[str, ...], ids: set[int]) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(records), np.bool_)
    if ids and len(records):
        wanted = np.fromiter(ids, np.uint64, len(ids))
        for field in fields:
            found |= np.isin(records[field], wanted)
    return found
