"""Settings of a child that the tracer forks to do a part of its own work."""

from __future__ import annotations

import ctypes
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h
_libc = ctypes.CDLL(None)


def end_with_parent() -> None:
    """Kill the calling process when its parent ends, and ignore SIGINT, SIGTERM and SIGHUP until then.

    Ctrl-C reaches a terminal's whole foreground group; only the parent decides when its child ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
