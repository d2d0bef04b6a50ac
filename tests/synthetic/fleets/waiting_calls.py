"""Calls that watch each other through files."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def sees_a_second_try(folder: Path, within_s: float) -> bool:
    """Return whether `die_then_try_again` begins a second time while this call lasts."""
    (folder / "is-watching").touch()
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if (folder / "second").exists():
            return True
        time.sleep(0.01)
    return False


def die_then_try_again(folder: Path) -> None:
    """Kill the process once the other call is there; the second time, leave a file."""
    while not (folder / "is-watching").exists():
        time.sleep(0.01)
    if (folder / "first").exists():
        (folder / "second").touch()
        return
    (folder / "first").touch()
    os.kill(os.getpid(), signal.SIGKILL)
