"""Refused cgroups: traced until their names were known, and not requested."""

from __future__ import annotations

import time
from typing import Final

from tracer.capture.bpf.ring import Records
from tracer.capture.bpf.roots import Roots
from tracer.capture.selection.hold import Hold

_PURGE_INTERVAL_S: Final = 0.05
_STRAYS_S: Final = 2.0  # records under way in the kernel when a cgroup was refused have arrived by then


class Refusals:
    """The refused cgroups: their records are dropped, and the BPF programs stop tracing them, in batches."""

    def __init__(self, roots: Roots, hold: Hold) -> None:
        self._roots = roots
        self._hold = hold
        self._refused: list[int] = []
        self._purged: list[tuple[float, int]] = []
        self._dropped_tasks: set[int] = set()
        self._purge_at_s = 0.0

    def add(self, cgroup_id: int) -> None:
        """Refuse a cgroup."""
        self._hold.refuse(cgroup_id)
        self._refused.append(cgroup_id)

    def take_back(self, cgroup_id: int) -> None:
        """Let the BPF programs go on tracing a cgroup, if they have not stopped yet."""
        self._refused = [refused for refused in self._refused if refused != cgroup_id]

    def note_dropped(self, tasks: Records) -> None:
        """Note `task` records that were dropped: the programs report each task once only."""
        self._dropped_tasks |= set(tasks["tgid"].tolist())

    def purge(self) -> None:
        """Make the BPF programs stop tracing the refused cgroups. Call it after all rings were read."""
        now = time.monotonic()
        while self._purged and now - self._purged[0][0] > _STRAYS_S:
            self._hold.forget(self._purged.pop(0)[1])
        if not self._refused:
            self._roots.forget_tasks(self._dropped_tasks)
            self._dropped_tasks.clear()
        elif now >= self._purge_at_s:
            self._purge_at_s = now + _PURGE_INTERVAL_S
            self._roots.remove(self._refused)
            for cgroup_id in self._refused:
                self._hold.purge(cgroup_id, time.monotonic_ns())
                self._purged.append((now, cgroup_id))
            self._refused.clear()
