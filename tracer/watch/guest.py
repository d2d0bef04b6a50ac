"""What a caller of `watch` adds to the recording, such as a live view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracer.capture.loop import Timer
from tracer.trace.history.history import Follower, History


@dataclass(frozen=True)
class Guest:
    """Functions that `watch` calls in its loop, which waits for them.

    `follow` gets each batch of rows, with the table's name, from the first one on. `join` gets the history
    before that, and a function that has rows come to `follow` which would otherwise come within a second.
    `timers` run beside those of `watch`, also at rest. `inputs` are descriptors, each with the function to
    call while it is readable. `begun` gets the path of each trace that begins, which can be read while it
    grows, and its new path if a kill renames it.
    """

    follow: Follower
    timers: Sequence[Timer] = ()
    inputs: Mapping[int, Callable[[], object]] = field(default_factory=dict)
    begun: Callable[[Path], object] = lambda _: None
    join: Callable[[History, Callable[[], None]], object] = lambda _history, _flush: None
