"""OOM killers in user space, as Debian has them: the trace has them as the senders of SIGKILL."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from support.huge_pages import WHOLE_MACHINE
from support.recorder import WITHIN_S

import tracer
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.meminfo import meminfo_bytes
from tracer.render.words.sigkill_words import sentence

EARLYOOM: Final = shutil.which("earlyoom")

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.vm_once,
    pytest.mark.skipif(not WHOLE_MACHINE, reason="may kill any process (a guest of tests/vm)"),
]

MIB: Final = 1 << 20
GROWN_MIB: Final = 503
GROW: Final = """
import mmap, sys
open("/proc/self/oom_score_adj", "w").write("1000")
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
memory = mmap.mmap(-1, int(sys.argv[2]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
sys.stdin.read()
"""


@pytest.mark.skipif(EARLYOOM is None, reason="needs earlyoom (Debian: apt-get download earlyoom)")
def test_kill_by_earlyoom_is_by_it_and_no_oom_kill(start_recorder: Callable[..., Any]) -> None:
    """It acts when half of what the process takes is gone, and chooses the process by its oom_score."""
    with ephemeral_cgroup("early", None) as memcg:
        recorder = start_recorder("-c", str(memcg))
        least_kib = (meminfo_bytes()["MemAvailable"] - GROWN_MIB * MIB // 2) >> 10
        command = [str(EARLYOOM), "-M", f"{least_kib},{least_kib}", "-r", "0"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as early:
            try:
                grow = [sys.executable, "-I", "-S", "-c", GROW, str(memcg), str(GROWN_MIB)]
                with subprocess.Popen(grow, stdin=subprocess.PIPE) as grower:
                    assert grower.wait(WITHIN_S) == -9
            finally:
                early.kill()
        trace = tracer.open(recorder.stop())
    assert trace.explain() == []
    (kill,) = trace.sigkilled()
    assert kill.target.pid == grower.pid
    assert kill.sender is not None
    assert (kill.sender.comm, kill.sender.pid) == (Path(str(EARLYOOM)).name, early.pid)
    assert kill.usage_bytes is not None and kill.usage_bytes <= (GROWN_MIB + 16) * MIB
    assert "an OOM killer in user space, which acts when the machine has little memory" in sentence(kill)
