"""Records of `charge` as they are written: with two corrections of what the programs sent.

**At a kill.** A task that reclaims from other cgroups changes their counters at once. The ledger finds the
change later: at the next look, or when a task of such a cgroup comes onto that CPU. So at a kill the programs
send the level of each account below the limit owner (bpf/levels.bpf.c). What the ledger lacked at that time
is moved to the time of the kill, out of the records that followed.

**When a cgroup is removed.** The kernel passes memory to the parent. From then on the parent's counters
change, and the cgroup's counters stay. So the ledger moves the memory to the parent as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.accounts import Accounts, Passed, Sums
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records, Ring
from tracer.categories import CATEGORIES
from tracer.wire.dtypes import WIRE

Bytes = npt.NDArray[np.int64]

_CHARGE: Final = WIRE["charge"]
_NOTHING: Final = np.zeros(len(CATEGORIES), np.int64)
_SAME_KILL_NS: Final = 100_000_000
"""The most time between the record of a kill and its levels, which two programs send at one event."""


def has_levels(charges: Records) -> bool:
    """Return whether there are levels among records of `charge`: states of an account at a kill."""
    return bool((charges["updates"] == 0).any())


class Ledger:
    """The accounts of the traced memcgs, and the sums of what was counted for them.

    `note_closed` and `warn` are as for `Accounts`.
    """

    def __init__(
        self, programs: Programs, note_closed: Callable[[int, int, int], None], warn: Callable[[str], None]
    ) -> None:
        self._programs = programs
        self._totals = LedgerTotals()
        self._note_closed = note_closed
        self.accounts = Accounts(programs, self._close, warn)
        self._passed: list[Passed] = []
        self._sums: Sums = Counter()
        self._has_looked = False

    def look(self, *, is_at_rest: bool = False, is_last: bool = False) -> bool:
        """Look at the accounts (`Accounts.look`). Return whether to look again soon (`has_removed`)."""
        lacked = self.accounts.look(is_at_rest=is_at_rest, is_last=is_last)
        self._totals.add_sums(lacked)
        self._sums.update(lacked)
        self._passed += self.accounts.take_passed(is_last=is_last)
        self._has_looked = True
        return self.accounts.has_removed()

    def take_sums(self) -> Sums:
        """Return the sums since the last call that no record has: of closed accounts and removed cgroups."""
        sums, self._sums = self._sums, Counter()
        return sums

    def take(self, charges: Records, ring: Ring, kills: Records) -> Records:
        """Return the records that were read from the ring of charges as they are to be written.

        `kills` are the records of `oom` that were read before. After a kill, all accounts are looked at, and
        the ring is read again, so that the changes that the ledger finds late are included.
        """
        if has_levels(charges):
            self.look()
            self._programs.drain()
            charges = np.concatenate([charges, ring.read()])
        charges = self._totals.take(charges, kills)
        if self._has_looked:
            passed, self._passed, self._has_looked = self._passed, [], False
            self._sums.update(self._totals.pass_on(passed))
        return charges

    def _close(self, slot: int, cgroup_id: int, cpu_ns: int) -> None:
        self._note_closed(slot, cgroup_id, cpu_ns)
        self._totals.close(cgroup_id)


class LedgerTotals:
    """The bytes counted for each cgroup by category, in records of `charge` and for closed accounts."""

    def __init__(self) -> None:
        self._totals: dict[int, Bytes] = {}
        self._passed_on: dict[int, Bytes] = {}
        self._closed: list[int] = []
        self._closed_before: list[int] = []

    def close(self, cgroup_id: int) -> None:
        """Note that the account of a cgroup is closed. It is forgotten after the next look."""
        self._closed.append(cgroup_id)

    def add_sums(self, sums: Sums) -> None:
        """Add what closed accounts lacked, which no record has."""
        for (cgroup_id, category), delta_bytes in sums.items():
            total = self._totals.get(cgroup_id, _NOTHING).copy()
            total[category] += delta_bytes
            self._totals[cgroup_id] = total

    def take(self, charges: Records, kills: Records) -> Records:
        """Return the records of `charge` without the levels, and corrected by them.

        All records that led to a level must be in `charges`, or have been taken before. `kills` are records
        of `oom`.
        """
        is_level = charges["updates"] == 0
        if is_level.any():
            levels, charges = charges[is_level], charges[~is_level]
            for level in levels:
                charges = self._settle(charges, level, _killed_ns(level, kills))
            charges = charges[np.argsort(charges["time_ns"], kind="stable")]
        self._add(charges)
        return charges

    def pass_on(self, removed: Sequence[Passed]) -> Sums:
        """Return the sums that move the memory of removed cgroups to their parents.

        All records of these cgroups must have been taken. Call it once after each look.
        """
        sums: Sums = Counter()
        for one in _children_first(removed):
            moved = np.where(one.categories, one.primed + self._totals.get(one.cgroup_id, _NOTHING), 0)
            for cgroup_id, delta in ((one.cgroup_id, -moved), (one.parent_id, moved)):
                if cgroup_id is not None and moved.any():
                    self._totals[cgroup_id] = self._totals.get(cgroup_id, _NOTHING) + delta
                    self._passed_on[cgroup_id] = self._passed_on.get(cgroup_id, _NOTHING) + delta
                    for category in np.flatnonzero(delta).tolist():
                        sums[cgroup_id, category] += int(delta[category])
        for cgroup_id in self._closed_before:
            self._totals.pop(cgroup_id, None)
            self._passed_on.pop(cgroup_id, None)
        self._closed_before, self._closed = self._closed, []
        return sums

    def _add(self, charges: Records) -> None:
        ids, which = np.unique(charges["cgroup_id"], return_inverse=True)
        sums = np.zeros((len(ids), len(CATEGORIES)), np.int64)
        np.add.at(sums, which, charges["delta_bytes"])
        for cgroup_id, added in zip(ids.tolist(), sums, strict=True):
            self._totals[cgroup_id] = self._totals.get(cgroup_id, _NOTHING) + added

    def _settle(self, charges: Records, level: np.void, kill_ns: int) -> Records:
        """Return the records, changed so that the cgroup's sum at the time of the kill is its level."""
        cgroup_id = int(level["cgroup_id"])
        own = charges["cgroup_id"] == cgroup_id
        is_before = charges["time_ns"] <= kill_ns
        counted = self._totals.get(cgroup_id, _NOTHING) + charges["delta_bytes"][own & is_before].sum(axis=0)
        late = level["delta_bytes"] + self._passed_on.get(cgroup_id, _NOTHING) - counted
        after = np.flatnonzero(own & ~is_before)
        after = after[np.argsort(charges["time_ns"][after], kind="stable")]
        moved = list(_moved(charges["delta_bytes"][after], late))
        if not any(part.any() for part in moved):
            return charges
        charges = charges.copy()
        made = np.zeros(len(moved), _CHARGE)
        for number, part in enumerate(moved):
            tgid = 0
            if number < len(after):
                charges["delta_bytes"][after[number]] -= part
                tgid = int(charges["tgid"][after[number]])
            made[number] = _record(cgroup_id, kill_ns, part, tgid)
        made["usage_pages"], made["limit_pages"] = level["usage_pages"], level["limit_pages"]
        made = made[made["delta_bytes"].any(axis=1)]
        if moved[-1].any():  # no record has this change: it was reversed, or its record was lost
            back = made[-1:].copy()
            back["delta_bytes"] = -moved[-1]
            back["time_ns"] = int(level["time_ns"]) + 1
            if len(after):
                for name in ("time_ns", "usage_pages", "limit_pages"):
                    back[name] = charges[name][after[-1]]
            made = np.concatenate([made, back])
        return np.concatenate([charges, made])


def _moved(deltas: Bytes, late: Bytes) -> Iterator[Bytes]:
    """Yield the part of each delta that makes up for what is late, and last the rest that no delta has."""
    late = late.copy()
    for delta in deltas:
        part = np.where(np.sign(delta) == np.sign(late), np.sign(late) * np.minimum(abs(delta), abs(late)), 0)
        late -= part
        yield part
    yield late


def _killed_ns(level: np.void, kills: Records) -> int:
    """Return the time of the kill of a level; if the kill is not known, the time of the level."""
    of_thread = kills["time_ns"][kills["trigger_tgid"] == level["tgid"]].astype(np.int64)
    near = of_thread[abs(of_thread - int(level["time_ns"])) < _SAME_KILL_NS]
    return int(near.min(initial=int(level["time_ns"])))


def _record(cgroup_id: int, time_ns: int, delta: Bytes, tgid: int = 0) -> Records:
    record = np.zeros((), _CHARGE)
    record["cgroup_id"], record["time_ns"], record["tgid"], record["updates"] = cgroup_id, time_ns, tgid, 1
    record["delta_bytes"] = delta
    return record


def _children_first(removed: Sequence[Passed]) -> list[Passed]:
    """Return removed cgroups, each before its parent."""
    parents = {one.cgroup_id: one.parent_id for one in removed}
    return sorted(removed, key=lambda one: -_depth(one.cgroup_id, parents))


def _depth(cgroup_id: int | None, parents: Mapping[int, int | None]) -> int:
    """Return the number of cgroups in `parents` from this one upwards."""
    depth = 0
    while cgroup_id is not None and cgroup_id in parents:
        depth, cgroup_id = depth + 1, parents[cgroup_id]
    return depth
