"""A Node program that leaks: with a heap that may grow beyond the limit, and with one that may not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from applications.crawling import drop_from_cache
from support.recorder import Recorder

from tracer.analysis.trace import AnalysedTrace

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node"),
]

MIB = 1 << 20
REREADS = 200  # major faults, with the heap at the limit
LEAK = """
const fs = require('fs');
const held = [];
function grow() {
    for (let count = 0; count < 4000; count++)
        held.push({number: held.length, words: ['leak', String(held.length)]});
    fs.writeFileSync('heap.new', JSON.stringify({pid: process.pid, ...process.memoryUsage()}));
    fs.renameSync('heap.new', 'heap.json');
    setImmediate(grow);
}
grow();
"""


@dataclass(frozen=True, slots=True)
class Leak:
    """A recorded leak: its trace, and what V8 itself said of its heap last."""

    trace: AnalysedTrace
    pid: int
    heap_bytes: int


def leak(folder: Path, bound_mib: int) -> Leak:
    """Record the program at a limit of 150 MiB, with this bound of its heap, until it ends or reads its own
    text again and again."""
    (folder / "leak.js").write_text(LEAK, encoding="ascii")
    drop_from_cache(Path(shutil.which("node") or "").resolve())
    node = ["node", f"--max-old-space-size={bound_mib}", "leak.js"]
    with Recorder(folder, "--limit", "150M", "--swap", "0", "--", *node) as recorder:
        faults_before: int | None = None
        while recorder.process.poll() is None:
            said = heap(folder)
            if said is not None and said["heapUsed"] > 100 * MIB:
                faults = major_faults(said["pid"])
                faults_before = faults if faults_before is None else faults_before
                if faults > faults_before + REREADS:
                    recorder.process.send_signal(signal.SIGINT)
                    break
            time.sleep(0.1)
        recorder.end()
    said = heap(folder)
    assert said is not None, recorder.stderr
    return Leak(AnalysedTrace(recorder.path), said["pid"], said["heapUsed"])


def heap(folder: Path) -> dict[str, int] | None:
    """Return what the program wrote last; None: nothing yet."""
    path = folder / "heap.json"
    return json.loads(path.read_text(encoding="ascii")) if path.exists() else None


def major_faults(pid: int) -> int:
    """Return how often a process had to wait for a page from the disk; 0 if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[9])  # field 12, majflt (proc_pid_stat(5))


def test_heap_above_the_limit_is_the_growth_of_node(tmp_path: Path) -> None:
    """It is killed, or reads its own text again and again: which of them, the speed of the disk decides."""
    found = leak(tmp_path, 400)
    assert found.heap_bytes > 60 * MIB
    kills = found.trace.explain()
    if kills:
        (report,) = kills
        assert report.verdict.cause == "anon_growth"
        sizing, unknown, grew = report.sizing, report.quality.unknown, report.allocators[0]
        assert grew.exited is None
        assert any(f"(pid {found.pid}): it charged" in line for line in report.advice)
    else:
        (held,) = found.trace.held_cgroups()
        assert held.progress.state == "thrashing"
        assert held.progress.files[0].executable
        path = held.progress.files[0].path
        assert path is not None
        assert Path(path).samefile(shutil.which("node") or ""), "it may have further links, as of `perf`"
        sizing, unknown, grew = held.sizing, held.quality.unknown, held.allocators[0]
    anon_bytes = grew.anon_bytes
    print(f"{len(kills)} kills, heap {found.heap_bytes / MIB:.1f} MiB, anon {anon_bytes / MIB:.1f} MiB")
    assert grew.tgid == found.pid
    assert found.heap_bytes < anon_bytes < 150 * MIB
    assert sizing.min_limit_bytes is None
    assert "sizing.min_limit_bytes" in unknown


def test_heap_that_v8_itself_ends_gives_no_size(tmp_path: Path) -> None:
    found = leak(tmp_path, 40)
    assert found.trace.explain() == []
    (held,) = found.trace.held_cgroups()
    print(f"peak {(held.peak_usage_bytes or 0) / MIB:.1f} MiB, heap {found.heap_bytes / MIB:.1f} MiB")
    assert held.cut_off is not None
    assert "SIG" in held.cut_off
    assert held.allocators[0].tgid == found.pid
    assert held.allocators[0].anon_bytes > found.heap_bytes
    assert held.sizing.min_limit_bytes is None
    assert "sizing.min_limit_bytes" in held.quality.unknown


CHURN = """
const outside = Buffer.alloc(24 << 20, 1);
const held = [];
let count = 0;
function step() {
    const piece = [];
    for (let number = 0; number < 8192; number++) piece.push({number, text: [count, number]});
    held.push(piece);
    if (held.length > 30) held.shift();
    if (++count < 130) setTimeout(step, 20);
    else console.log(`held ${held.length}`, outside.length);
}
step();
"""


def churned(folder: Path, trace: str, option: str) -> str:
    """Record a program that makes garbage beside 30 MiB in V8's heap and 24 MiB outside of it, and return
    what it printed."""
    node = Path(shutil.which("node") or "").resolve()
    node.read_bytes()  # its pages belong to this cgroup, so that the limit is on the program's memory alone
    record = [sys.executable, "-m", "tracer", "record", "-o", trace, "--limit", "110M", "--swap", "0"]
    ended = subprocess.run(
        [*record, "--", "node", "--initial-old-space-size=400", "churn.js"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"NODE_OPTIONS": option},
    )
    return ended.stdout


def test_smaller_heap_that_is_advised_keeps_the_program_alive(tmp_path: Path) -> None:
    (tmp_path / "churn.js").write_text(CHURN, encoding="ascii")
    assert "held" not in churned(tmp_path, "killed", "--max-old-space-size=400")
    (report,) = AnalysedTrace(tmp_path / "killed").explain()
    node = next(one for one in report.runtime if one["kind"] == "node")
    assert node["option"] == "--max-old-space-size=400"
    assert node["outside_bytes"] > 24 * MIB
    first, *_ = report.advice
    advised = re.match(r"Set (--max-old-space-size=\d+) for \S+ \(pid \d+\), as an argument", first)
    assert advised is not None, report.advice
    assert churned(tmp_path, "lived", advised[1]).startswith("held 30 ")
    assert AnalysedTrace(tmp_path / "lived").explain() == []
