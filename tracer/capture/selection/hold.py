"""Records of cgroups that are not decided on: kept back until somebody knows whether they were asked for.

All that is kept has a bound. What does not fit is lost as from a full ring: counted, and the sums of the
ledger stay right.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.ring import Records
from tracer.schema import TASK_EVENTS
from tracer.wire.streams import STREAM_AT

_MOST_BYTES: Final = 64 << 20


class Hold:
    """What is kept back. A cgroup is `wait_for`ed, then `accept`ed or `refuse`d, and in the end `forget`ted.

    `lost`: records of each stream that were given up and would have been written.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self.lost: Counter[str] = Counter()
        self._most_bytes = most_bytes
        self._undecided: set[int] = set()
        self._refused: set[int] = set()
        self._purged_ns: dict[int, int] = {}
        self._accepted: set[int] = set()
        self._held: dict[str, list[Records]] = {}
        self._rows: list[dict[str, Any]] = []
        self._sifted: dict[str, int] = {}
        self._decisions = 0
        self._given_up: Counter[tuple[int, str]] = Counter()
        self._sums: Counter[tuple[int, int]] = Counter()
        self._residue: Counter[tuple[int, int]] = Counter()

    def wait_for(self, cgroup_id: int) -> None:
        """Keep back what is of this cgroup from now on."""
        self._undecided.add(cgroup_id)

    def accept(self, cgroup_id: int) -> None:
        """Let what was kept back of it go with the next records of each stream."""
        self._accepted.add(cgroup_id)
        self.forget(cgroup_id)
        if cgroup_id not in self._undecided:
            return
        self._undecided.discard(cgroup_id)
        self._decisions += 1
        for key in [key for key in self._given_up if key[0] == cgroup_id]:
            self.lost[key[1]] += self._given_up.pop(key)
        for sums_key in [key for key in self._sums if key[0] == cgroup_id]:
            self._residue[sums_key] += self._sums.pop(sums_key)

    def refuse(self, cgroup_id: int) -> None:
        """Drop what is of it, and what still comes."""
        self._undecided.discard(cgroup_id)
        self._refused.add(cgroup_id)
        self._decisions += 1
        for key in [key for key in self._given_up if key[0] == cgroup_id]:
            del self._given_up[key]
        for sums_key in [key for key in self._sums if key[0] == cgroup_id]:
            del self._sums[sums_key]

    def purge(self, cgroup_id: int, time_ns: int) -> None:
        """Take note that the kernel traces it no more since then (monotonic): a process in it that is seen
        later acts on what is traced.
        """
        self._purged_ns[cgroup_id] = time_ns

    def forget(self, cgroup_id: int) -> None:
        """Nothing of a refused cgroup comes any more."""
        self._refused.discard(cgroup_id)
        self._purged_ns.pop(cgroup_id, None)

    def sift(self, stream: str, records: Records) -> tuple[Records, Records]:
        """Return (what is to be written now, what was dropped), of what was kept back before and of
        `records`.
        """
        fields = STREAM_AT[stream].owners
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
            is_wanted = _is_any(records, fields, self._accepted)
            is_undecided &= ~is_wanted
            is_refused &= ~is_wanted
        if stream == "task":
            is_refused &= ~self._acts_elsewhere(records)
        is_refused &= ~is_undecided
        if is_undecided.any():
            self._keep(stream, records[is_undecided])
        return records[~(is_undecided | is_refused)], records[is_refused]

    def sift_rows(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same for rows that are made already, by their `cgroup_id`."""
        if not (self._undecided or self._refused or self._rows):
            return rows
        candidates = [row for row in (*self._rows, *rows) if row["cgroup_id"] not in self._refused]
        self._rows = [row for row in candidates if row["cgroup_id"] in self._undecided]
        return [row for row in candidates if row["cgroup_id"] not in self._undecided]

    def take_residue(self) -> dict[tuple[int, int], int]:
        """Return (cgroup id, category) -> bytes of charges that were given up, since the last call."""
        residue, self._residue = dict(self._residue), Counter()
        return residue

    def _acts_elsewhere(self, tasks: Records) -> npt.NDArray[np.bool_]:
        """Whether a process was seen because it acted on what is traced, wherever it is itself."""
        never = np.iinfo(np.int64).max
        purged_ns = [self._purged_ns.get(int(cgroup_id), never) for cgroup_id in tasks["cgroup_id"]]
        is_sight: npt.NDArray[np.bool_] = tasks["event"] == TASK_EVENTS.index("seen")
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
        owner = STREAM_AT[stream].owners[0]
        for cgroup_id, count in zip(*np.unique(records[owner], return_counts=True), strict=True):
            self._given_up[int(cgroup_id), stream] += int(count)
        if stream == "charge":
            keys, member_of = np.unique(records[["cgroup_id", "category"]], return_inverse=True)
            sums = np.zeros(len(keys), np.int64)
            np.add.at(sums, member_of, records["delta_bytes"])
            for key, total in zip(keys.tolist(), sums.tolist(), strict=True):
                self._sums[key] += total


def _is_any(records: Records, fields: tuple[str, ...], ids: set[int]) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(records), np.bool_)
    if ids and len(records):
        wanted = np.fromiter(ids, np.uint64, len(ids))
        for field in fields:
            found |= np.isin(records[field], wanted)
    return found
