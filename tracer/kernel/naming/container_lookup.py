"""Container names, looked up in a thread: a container runtime may take a second, and rings must be read."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection
from contextlib import suppress

from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, Lookup


class ContainerLookup:
    """Requests for names, and their results. The thread starts with the first request, and looks up together
    all that wait."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._questions: queue.SimpleQueue[ContainerRef | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[dict[ContainerRef, ContainerNames]] = queue.SimpleQueue()
        self._asked: set[ContainerRef] = set()
        self._thread: threading.Thread | None = None

    def ask(self, ref: ContainerRef) -> None:
        """Request a container's names, unless the same request already waits."""
        if ref in self._asked:
            return
        self._asked.add(ref)
        self._questions.put(ref)
        if self._thread is None:
            self._thread = threading.Thread(target=self._answer, name="container-names", daemon=True)
            self._thread.start()

    def take(self, within_s: float = 0.0) -> dict[ContainerRef, ContainerNames]:
        """Return the results since the last call; wait at most `within_s` for one that was requested."""
        answers: dict[ContainerRef, ContainerNames] = {}
        with suppress(queue.Empty):
            if self._asked and within_s > 0:
                answers |= self._answers.get(timeout=within_s)
            while True:
                answers |= self._answers.get_nowait()
        self._asked -= answers.keys()
        return answers

    def close(self) -> None:
        """End the thread after its current request."""
        self._questions.put(None)

    def _answer(self) -> None:
        while (ref := self._questions.get()) is not None:
            batch, is_last = [ref], False
            with suppress(queue.Empty):
                while not is_last:
                    ref = self._questions.get_nowait()
                    is_last = ref is None
                    batch += [] if ref is None else [ref]
            self._answers.put(dict(self._lookup(batch)))
            if is_last:
                return


def remembering(lookup: Lookup) -> Lookup:
    """Return a lookup that asks for each container once."""
    known: dict[ContainerRef, ContainerNames] = {}

    def find(refs: Collection[ContainerRef]) -> dict[ContainerRef, ContainerNames]:
        known.update(lookup([ref for ref in refs if ref not in known]))
        return {ref: known[ref] for ref in refs}

    return find
