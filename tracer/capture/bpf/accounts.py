"""The accounts of the ledger: BPF programs that user space runs open, examine and close them
(bpf/accounts.bpf.c)."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.maps import Element

Sums = Counter[tuple[int, int]]
"""(cgroup id, category) -> bytes, of no known process."""

_LEAVES_NS: Final = 1_000_000_000
"""The time after the removal of a cgroup in which most of its memory is freed."""

_LOOKS_AT_REST: Final = 8
"""The number of looks that examine all accounts once, at rest."""

_LEAST_AT_REST: Final = 64
"""The fewest accounts that a look at rest examines: they take one run of the program."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A removed cgroup whose memory is its parent's now: struct offline_account in bpf/accounts.bpf.c.

    `parent_id` is None if the parent is not traced. `categories` is a mask of those that the kernel passes
    on. `primed` is what the cgroup held when its account was opened, in bytes by category.
    """

    cgroup_id: int
    parent_id: int | None
    categories: npt.NDArray[np.bool_]
    primed: npt.NDArray[np.int64]


class Accounts:
    """The accounts of the traced memcgs."""

    def __init__(
        self,
        programs: Programs,
        closed: Callable[[int, int, int], None],
        warn: Callable[[str], None],
    ) -> None:
        """Take the programs. `closed` gets the slot, the cgroup's id and the CPU time, in ns, of each account
        that is closed; `warn` gets a line when a cgroup has found no room, once."""
        self._programs = programs
        self._note_closed = closed
        self._warn = warn
        self._is_full = False
        self._slots = 1  # all accounts are in slots below it
        self._closed = 0
        self._taken_offline = 0
        self._passed: list[Passed] = []
        self._found_passed: list[Passed] = []
        self._next = 1  # the slot with which the next look at rest begins

    def open(self) -> None:
        """Make room for accounts. Call it before any other method, and before the programs are attached."""
        calibration = self._programs.map("calibration")
        known = calibration[0]
        known.accounts = self._programs.accounts
        calibration[0] = known
        self._programs.run("free_all_slots", [self._programs.accounts - 1])

    def prime(self, memcg: int, cgroup_id: int) -> None:
        """Open the account of a memcg that exists. Its present counters are the zero of its ledger."""
        self._run_here("prime", memcg, cgroup_id)

    def count_new(self) -> None:
        """Count each traced memcg without an account from zero: all that existed before are primed."""
        calibration = self._programs.map("calibration")
        known = calibration[0]
        known.is_primed = 1
        calibration[0] = known

    def has_removed(self) -> bool:
        """Return whether a traced cgroup was removed a short time ago: it needs a look every 10 ms, to find
        the changes until its memcg is released.
        """
        return time.monotonic_ns() - int(self._ledger.read().removed_ns) < _LEAVES_NS

    def look(self, *, is_at_rest: bool = False, is_last: bool = False) -> Sums:
        """Account for the changes that came from outside to the counters of all traced memcgs, and close the
        accounts of memcgs that are gone. Return the changes that the closed accounts lacked.

        `is_at_rest`: if there are many memcgs, look at some of them in turn. `is_last`: the programs are
        detached, and the counters of offline CPUs are examined as well.
        """
        ledger = self._ledger.read()
        self._slots = max(self._slots, int(ledger.opened) - self._closed + 1)
        if ledger.is_full and not self._is_full:
            self._is_full = True
            self._warn(
                f"the ledger has room for {self._programs.accounts - 1:,} cgroups, and more are traced: "
                "charges of the others are lost, and totals are not exact; a new start makes more room"
            )
        begin, end = 1, self._slots
        if is_at_rest:
            begin = self._next if self._next < end else 1
            end = min(end, begin + max(-(-end // _LOOKS_AT_REST), _LEAST_AT_REST))
            self._next = end
        for cpu in range(self._programs.cpus):
            try:
                self._look_at(cpu, cpu, begin, end, is_last=is_last)
            except OSError:  # it is offline, and its counters do not change
                if is_last:
                    self._look_at(cpu, _this_cpu(), begin, end, is_last=True)
        self._take_offline()
        return self._close_ended()

    def take_passed(self, *, is_last: bool = False) -> list[Passed]:
        """Return the cgroups whose memory has passed to their parents, as the look before the last one found
        them: once the rings are read, the ledger has counted everything for them. `is_last`: return all.

        Call it once after each look.
        """
        passed, self._passed = self._passed, self._found_passed
        self._found_passed = []
        return passed + (self.take_passed() if is_last else [])

    @cached_property
    def _ledger(self) -> Element:
        return self._programs.map("ledger").element(0)

    def _look_at(self, cpu: int, on_cpu: int, slot: int, end: int, *, is_last: bool) -> None:
        while slot < end:
            slot = self._programs.run("look", [cpu, slot, end, is_last], on_cpu)

    def _take_offline(self) -> None:
        while self._taken_offline < int(self._ledger.read().offline):
            self._programs.run("take_offline")
            self._taken_offline += 1
            found = self._programs.map("offline")[0]
            if found.cgroup_id:
                self._found_passed.append(
                    Passed(
                        cgroup_id=int(found.cgroup_id),
                        parent_id=int(found.parent_id) or None,
                        categories=np.array(found.has_passed, np.bool_),
                        primed=np.array(found.primed_bytes, np.int64),
                    )
                )

    def _close_ended(self) -> Sums:
        sums: Sums = Counter()
        while self._closed < int(self._ledger.read().ended):
            self._run_here("close_account")
            self._closed += 1
            lacked = self._programs.map("closed")[0]
            if lacked.slot:
                self._note_closed(int(lacked.slot), int(lacked.cgroup_id), int(lacked.cpu_ns))
            for category, delta_bytes in enumerate(lacked.delta_bytes):
                if delta_bytes:
                    sums[int(lacked.cgroup_id), category] += int(delta_bytes)
        return sums

    def _run_here(self, name: str, *args: int) -> None:
        """Run a program until it can claim the sums of its CPU."""
        while self._programs.run(name, args, _this_cpu()):
            pass  # it interrupted another program of the ledger


def _this_cpu() -> int:
    """Return a CPU that is online."""
    return min(os.sched_getaffinity(0))
