"""The system and the privileges without which nothing can be traced."""

from __future__ import annotations

import os
import sys

from tracer.errors import TracerError
from tracer.kernel.capabilities import Credentials


def require_linux(doing: str) -> None:
    """Raise TracerError on a system that only reads traces and logs. `doing` begins a message."""
    if sys.platform != "linux":
        raise TracerError(f"{doing} needs Linux: here, traces and kernel logs can be read")


def require_root(doing: str) -> None:
    """Raise TracerError unless this process is root and may load BPF programs. `doing` begins a message."""
    if os.geteuid() != 0:
        raise TracerError(f"{doing} needs root: run it with sudo (reading a trace does not)")
    own = Credentials.own()
    if own.missing_to_load():
        from tracer.kernel.features import permissions  # noqa: PLC0415  imports what only `doctor` needs

        check = permissions(own)
        raise TracerError(f"{check.detail}: {check.remedy}")
