"""Names of containers that were in no file when the cgroups were made.

A thread looks them up at once and again later: the kubelet links a log when the container runs, and a runtime
may be slow. The recording gets these names as changed rows.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, Lookup
from tracer.kernel.naming.host_names import is_lacking


class ContainerLookup:
    """Requests for names, and their results. The thread starts with the first request."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._questions: queue.SimpleQueue[list[ContainerRef] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[dict[ContainerRef, ContainerNames]] = queue.SimpleQueue()
        self._asked: set[ContainerRef] = set()
        self._thread: threading.Thread | None = None

    def ask(self, refs: Iterable[ContainerRef]) -> None:
        """Request the names of these containers in one lookup, except names that were requested already."""
        new = [ref for ref in dict.fromkeys(refs) if ref not in self._asked]
        if not new:
            return
        self._asked.update(new)
        self._questions.put(new)
        if self._thread is None:
            self._thread = threading.Thread(target=self._answer, name="container-names", daemon=True)
            self._thread.start()

    def take(self, within_s: float = 0.0) -> dict[ContainerRef, ContainerNames]:
        """Return the results since the last call; wait at most `within_s` for a requested one."""
        answers: dict[ContainerRef, ContainerNames] = {}
        with suppress(queue.Empty):
            if self._asked and within_s > 0:
                answers |= self._answers.get(timeout=within_s)
            while True:
                answers |= self._answers.get_nowait()
        self._asked -= answers.keys()
        return answers

    def close(self) -> None:
        """End the thread after the requested lookups."""
        self._questions.put(None)

    def _answer(self) -> None:
        while (refs := self._questions.get()) is not None:
            self._answers.put(dict(self._lookup(refs)))


def remembering(lookup: Lookup) -> Lookup:
    """Return a lookup that asks for each container once."""
    known: dict[ContainerRef, ContainerNames] = {}

    def find(refs: Collection[ContainerRef]) -> dict[ContainerRef, ContainerNames]:
        known.update(lookup([ref for ref in refs if ref not in known]))
        return {ref: known[ref] for ref in refs}

    return find


_AGAIN_AFTER_S: Final = (1.0, 4.0, 15.0)
_MOST_WANTED: Final = 10_000


@dataclass
class _Wanted:
    given: dict[int, ContainerNames] = field(default_factory=dict)  # id of a waiting cgroup -> known names
    asked: int = 0
    due_s: float = 0.0


class LateNames:
    """Requests for names, by container, and the cgroups that wait for them."""

    def __init__(self, lookup: Lookup, now: Callable[[], float] = time.monotonic) -> None:
        self._lookup = ContainerLookup(lookup)
        self._now = now
        self._wanted: dict[ContainerRef, _Wanted] = {}
        self._due_s = math.inf

    def want(self, ref: ContainerRef, cgroup_id: int) -> None:
        """Let the next `ask` request the names of a cgroup's container or pod, up to `_MOST_WANTED`."""
        if ref in self._wanted:
            self._wanted[ref].given.setdefault(cgroup_id, ContainerNames())
        elif len(self._wanted) < _MOST_WANTED:
            self._wanted[ref] = _Wanted({cgroup_id: ContainerNames()})
            self._due_s = 0.0

    def ask(self) -> None:
        """Request all names that are due, in one lookup. Call this as soon as cgroups were made: a container
        that is removed at its end may be gone in 0.1 s."""
        now_s = self._now()
        if now_s < self._due_s:
            return
        due = {ref: wanted for ref, wanted in self._wanted.items() if wanted.due_s <= now_s}
        for wanted in due.values():
            wanted.asked += 1
            wanted.due_s = math.inf
        self._lookup.ask(due)
        self._due_s = min((wanted.due_s for wanted in self._wanted.values()), default=math.inf)

    def hurry(self) -> None:
        """Let the next `ask` request all names that are missing, however soon after the last time."""
        for wanted in self._wanted.values():
            if wanted.due_s < math.inf:  # not requested now
                wanted.due_s = self._due_s = 0.0

    def take(self, within_s: float = 0.0) -> list[tuple[int, ContainerNames]]:
        """Return (cgroup id, names) for names found since the last call; wait at most `within_s` for an
        answer. Call this now and then, because it also asks again."""
        self.ask()
        now_s, found = self._now(), []
        for ref, names in self._lookup.take(within_s).items():
            if (wanted := self._wanted.get(ref)) is None:
                continue
            if names != ContainerNames():
                found += [(cgroup_id, names) for cgroup_id, given in wanted.given.items() if given != names]
                wanted.given = dict.fromkeys(wanted.given, names)
            if is_lacking(ref, names) and wanted.asked <= len(_AGAIN_AFTER_S):
                wanted.due_s = now_s + _AGAIN_AFTER_S[wanted.asked - 1]
                self._due_s = min(self._due_s, wanted.due_s)
            else:
                del self._wanted[ref]
        return found

    def close(self) -> None:
        """End the thread after the requested lookups."""
        self._lookup.close()
