"""The functions that a caller of `watch`, such as a live view, adds to the recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracer.capture.loop import Timer
from tracer.trace.history.history import Follower, History


@dataclass(frozen=True)
class Guest:
    """Functions that `watch` calls in its loop. The loop waits for them.

    `follow` gets each batch of rows, with the table's name, from the first batch on. Before the first batch,
    `join` gets the history, and a function that passes all pending rows to `follow` at once; otherwise they
    come within a second. `timers` run beside the timers of `watch`, even at rest. `inputs` maps descriptors
    to functions that are called while the descriptor is readable. `begun` gets the path of each trace that
    begins, and its new path if a kill renames it. The trace can be read while it grows.
    """

    follow: Follower
    timers: Sequence[Timer] = ()
    inputs: Mapping[int, Callable[[], object]] = field(default_factory=dict)
    begun: Callable[[Path], object] = lambda _: None
    join: Callable[[History, Callable[[], None]], object] = lambda _history, _flush: None
