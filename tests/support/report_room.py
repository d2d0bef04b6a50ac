"""Room for reports of the OOM killer in the kernel log, in which the kernel prints at most ten in 5 s.

Other kills have a "Killed process" line alone (oom_rs in oom_kill_process, mm/oom_kill.c:
DEFAULT_RATELIMIT_BURST, DEFAULT_RATELIMIT_INTERVAL).
"""

from __future__ import annotations

import os
import time
from typing import Final

import pytest

BURST: Final = 10
_WINDOW_S: Final = 5.0
_MARGIN_S: Final = 1.0  # the log has a clock of its own
_WAITS_AT_MOST_S: Final = 60.0
_POLL_S: Final = 0.2


def wait_for_room(reports: int) -> int:
    """Wait until the kernel may print so many more reports; return how many it has printed lately.

    The test is skipped if other OOM kills on this machine go on.
    """
    deadline = time.monotonic() + _WAITS_AT_MOST_S
    while (printed := _printed_lately()) > BURST - reports:
        if time.monotonic() > deadline:
            pytest.skip("other OOM kills on this machine go on: the kernel reports only some of this test's")
        time.sleep(_POLL_S)
    return printed


def _printed_lately() -> int:
    """Return the number of reports in the interval of the kernel's limit that ends now."""
    since_us = (time.monotonic() - _WINDOW_S - _MARGIN_S) * 1e6
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)  # from the oldest record on
    printed = 0
    try:
        while True:
            try:
                head, _, text = os.read(log, 16384).partition(b";")
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            printed += b" invoked oom-killer: " in text and int(head.split(b",")[2]) >= since_us
    except BlockingIOError:
        return printed
    finally:
        os.close(log)
