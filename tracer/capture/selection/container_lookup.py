"""Container names, looked up in a thread: a container runtime may take a second, and rings must be read."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable

from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, lookup_name


class ContainerLookup:
    """Requests to container runtimes, and their results. The thread starts with the first request."""

    def __init__(self, lookup: Callable[[ContainerRef], ContainerNames] = lookup_name) -> None:
        self._lookup = lookup
        self._questions: queue.SimpleQueue[ContainerRef | None] = queue.SimpleQueue()
        self._answers: deque[tuple[ContainerRef, ContainerNames]] = deque()
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

    def take(self) -> dict[ContainerRef, ContainerNames]:
        """Return the results since the last call."""
        answers = dict(self._answers.popleft() for _ in range(len(self._answers)))
        self._asked -= answers.keys()
        return answers

    def close(self) -> None:
        """End the thread after its current request."""
        self._questions.put(None)

    def _answer(self) -> None:
        while (ref := self._questions.get()) is not None:
            self._answers.append((ref, self._lookup(ref)))
