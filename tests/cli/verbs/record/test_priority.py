"""The recorder has a raised priority on a busy machine; its command has the scheduling of the caller."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

StartRecording = Callable[..., Any]  # conftest.py

SHOW = """
import os, pathlib
slack = pathlib.Path("/proc/self/timerslack_ns")
affinity = sorted(os.sched_getaffinity(0))
print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), slack.read_text().strip(), affinity)
"""


def nice_of(pid: int) -> int:
    """Return the nice value of the main thread."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


def test_recorder_starts_with_priority_and_the_command_without(
    start_recording: StartRecording,
) -> None:
    """The command has the caller's timer slack as well, although real-time scheduling changes it."""
    recording = start_recording("--", sys.executable, "-c", SHOW)
    if os.getpriority(os.PRIO_PROCESS, 0) == 0:
        recording.wait_for(lambda: nice_of(recording.process.pid) == -10)
    recording.end()
    slack = Path("/proc/self/timerslack_ns").read_text().strip()
    affinity = sorted(os.sched_getaffinity(0))
    expected = f"{os.getpriority(os.PRIO_PROCESS, 0)} {os.sched_getscheduler(0)} {slack} {affinity}"
    assert recording.stdout.splitlines()[0] == expected
