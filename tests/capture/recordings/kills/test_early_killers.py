"""OOM killers in user space, as Debian has them: the trace has them as the senders of SIGKILL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from support.huge_pages import WHOLE_MACHINE
from support.recorder import WITHIN_S

import tracer
from tracer.cli.verbs import explain
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.kernel.meminfo import meminfo_bytes
from tracer.lab.scratch import write_uncached
from tracer.render.words.sigkill_words import sentence

EARLYOOM: Final = shutil.which("earlyoom")
SYSTEMD_OOMD: Final = shutil.which("systemd-oomd", path=f"{os.environ['PATH']}:/usr/lib/systemd")

pytestmark = [
    pytest.mark.kernel,
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
HIGH_MIB: Final = 31
ABOVE_MIB: Final = 5
FILE_MIB: Final = 17
UNITS: Final = Path("/run/systemd/system")
PRESSED: Final = "pressed.service"
PRESS: Final = """
import mmap, os, signal, sys
with open(sys.argv[1] + ".pids", "w") as pids:
    child = os.fork()
    if not child: signal.pause()
    print(os.getpid(), child, file=pids)
memory = mmap.mmap(-1, int(sys.argv[2]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
file = open(sys.argv[1], "rb", buffering=0)
while True:
    file.seek(0)
    while file.read(1 << 20): pass
"""


@pytest.mark.vm_once
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


@contextmanager
def systemd_oomd() -> Iterator[None]:
    """Run systemd-oomd as a service of its own name: systemd answers no other (core-varlink.c)."""
    unit = UNITS / "systemd-oomd.service"
    settings = ("[Service]", "Type=notify", "RuntimeDirectory=systemd/oom", f"ExecStart={SYSTEMD_OOMD}", "")
    unit.write_text("\n".join(settings), encoding="ascii")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", unit.name], check=True)
    try:
        yield
    finally:
        subprocess.run(["systemctl", "stop", unit.name], check=True)
        unit.unlink()


@pytest.mark.vm_systemd
@pytest.mark.skipif(SYSTEMD_OOMD is None, reason="needs systemd-oomd (Debian: apt-get download systemd-oomd)")
def test_kills_by_systemd_oomd_are_by_it_and_no_oom_kills(
    disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    """It acts on the pressure of a unit that has more than its memory.high, and kills the whole cgroup."""
    write_uncached(disk_dir / "file", FILE_MIB * MIB)
    settings = (
        f"MemoryHigh={HIGH_MIB}M",
        "MemorySwapMax=0",
        "ManagedOOMMemoryPressure=kill",
        "ManagedOOMMemoryPressureLimit=1%",
        "ManagedOOMMemoryPressureDurationSec=1s",
    )
    press = [sys.executable, "-I", "-S", "-c", PRESS, str(disk_dir / "file"), str(HIGH_MIB + ABOVE_MIB)]
    memcg = memory_hierarchy().directory(f"/system.slice/{PRESSED}")
    recorder = start_recorder("-c", str(memcg))
    run = ["systemd-run", "--quiet", "--collect", f"--unit={PRESSED}"]
    with systemd_oomd():
        subprocess.run([*run, *(f"-p{one}" for one in settings), *press], check=True)
        try:
            recorder.wait_for(lambda: not memcg.exists())
        finally:
            subprocess.run(["systemctl", "stop", PRESSED], stderr=subprocess.DEVNULL, check=False)
    pids = {*map(int, (disk_dir / "file.pids").read_text().split())}
    path = recorder.stop()
    trace = tracer.open(path)
    assert trace.explain() == []
    kills = trace.sigkilled()
    assert {kill.target.pid for kill in kills} == pids
    assert {kill.sender and kill.sender.comm for kill in kills} == {"systemd-oomd"}
    assert (
        "systemd's OOM killer in user space, which kills a whole cgroup for its memory pressure"
        in sentence(kills[0])
    )
    told = " ".join(CliRunner().invoke(explain.command, [str(path)]).output.split())
    assert "Not an OOM kill: systemd-oomd" in told
