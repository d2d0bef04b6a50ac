"""Processes that are killed in the middle of a message, or when they start: each only once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tracer.fleet.reduction.inputs import Place
from tracer.fleet.reduction.piece_reader import TracePiece
from tracer.fleet.summary.time_window import ALWAYS, TimeWindow


def is_first(once: Path) -> bool:
    """Return whether this is the first call with that path, at which a file is then."""
    try:
        once.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die_at_first(once: Path) -> None:
    """Kill the process, unless a process was killed so before."""
    if is_first(once):
        os.kill(os.getpid(), signal.SIGKILL)


def die_in_next_result(once: Path) -> None:
    """Let this process be killed when it has sent half of its next message."""

    def send(self: Any, message: memoryview, write: Callable[..., int] = os.write) -> None:
        write(self._handle, message[: len(message) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    if is_first(once):
        Connection._send = send  # type: ignore[attr-defined]


def die_in_next_call(once: Path) -> None:
    """Let this process be killed when it has read half of the head of its next message."""

    def receive(self: Any, size: int, read: Callable[..., bytes] = os.read) -> None:
        read(self._handle, size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    if is_first(once):
        Connection._recv = receive  # type: ignore[attr-defined]


@dataclass(frozen=True)
class CutShortPiece:
    """A trace; `end` is called with `once` by the process that reads it."""

    trace: TracePiece
    end: Callable[[Path], None]
    once: Path
    window: TimeWindow = ALWAYS

    @property
    def shown(self) -> str:
        """Return the path of the trace."""
        return self.trace.shown

    @property
    def place(self) -> Place:
        """Return the place of the trace."""
        self.end(self.once)
        return self.trace.place
