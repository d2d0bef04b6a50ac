"""A command with another CLOCK_MONOTONIC."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.recorded import TRACES

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/self/timens_offsets").exists(),
    reason="needs root and time namespaces",
)
PROGRAM = "import sys, time; print(time.monotonic_ns()); sys.exit(7)"


def test_clock_of_the_command_is_ahead_and_its_status_is_kept() -> None:
    before_ns = time.monotonic_ns()
    command = [sys.executable, "-m", "support.other_clock", "1000.37", sys.executable, "-c", PROGRAM]
    environment = os.environ | {"PYTHONPATH": str(TRACES.parent / "tests")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    lasted_ns = time.monotonic_ns() - before_ns
    assert done.returncode == 7
    assert 0 <= int(done.stdout) - before_ns - 1_000_370_000_000 <= lasted_ns
