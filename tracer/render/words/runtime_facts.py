"""What the runtime of a process showed of its memory, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tracer.analysis.explain.runtimes import known_runtimes
from tracer.analysis.results.memory import ProcessMemory, Runtime
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact


def of_runtimes(listed: Sequence[Runtime], looked_at: Sequence[ProcessMemory]) -> Iterator[Fact]:
    """Yield lines on the runtimes of the first process of a look."""
    for label, words in known_runtimes.lines(listed, looked_at):
        yield label, visible(words)
