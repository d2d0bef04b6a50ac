"""A piece of a fleet that kills each process that reads it, as a trace does that is too large."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from tracer.fleet.reduction.inputs import Place


@dataclass(frozen=True)
class DeadlyPiece:
    """A piece whose place cannot be looked at for long. `spared` is the process that it does not kill."""

    shown: str
    spared: int

    @property
    def place(self) -> Place:
        """Kill this process."""
        assert os.getpid() != self.spared
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")
