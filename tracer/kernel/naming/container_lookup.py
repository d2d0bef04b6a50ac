"""Container names, looked up in a thread: a container runtime may take a second, and rings must be read."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress

from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, Lookup


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
