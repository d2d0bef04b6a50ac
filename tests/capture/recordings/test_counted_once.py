"""Memory that the kernel counts twice, or that reclaim may take, against programs of known size."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tracer.analysis.core import ledger
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import end_ns
from tracer.analysis.explain.measure import growth
from tracer.analysis.trace import AnalysedTrace
from tracer.kernel.cgroups.cgroupfs import cgroup_id, memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = [pytest.mark.kernel]

MIB = 1 << 20
LIMIT_BYTES = 40 * MIB
SWAP_BYTES = 200 * MIB  # more than there is: a full swap is freed at once
HELD_BYTES = 51 * MIB
FREED_BYTES = 23 * MIB
NEW_BYTES = 11 * MIB
ITSELF_BYTES = 4 * MIB  # the interpreter

READ_AGAIN = """
import mmap, os, sys
held = mmap.mmap(-1, int(sys.argv[1]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.madvise(mmap.MADV_NOHUGEPAGE)
for place in range(0, len(held), 4096):
    held[place : place + 4096] = os.urandom(4096)
for _ in range(2):
    for place in range(0, len(held), 4096):
        held[place]
print(flush=True)
sys.stdin.read()
"""
FREE_LAZILY = """
import mmap, sys
freed, new = (mmap.mmap(-1, int(size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for size in sys.argv[1:])
for pages in (freed, new):
    pages.madvise(mmap.MADV_NOHUGEPAGE)
for place in range(0, len(freed), 4096):
    freed[place] = 1
freed.madvise(mmap.MADV_FREE)
for place in range(0, len(new), 4096):
    new[place] = 1
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def started(memcg: Path, program: str, *sizes: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the cgroup until it has printed a line; it ends with the context."""
    enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
    argv = ["sh", "-c", enter, sys.executable, "-I", "-S", "-c", program, *map(str, sizes)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        yield child
        child.communicate()


def recorded(recorder: Any, memcg: Path) -> tuple[Subtree, int]:
    """Return the cgroup in the trace of a recorder that ends, and the last moment."""
    trace = AnalysedTrace(recorder.stop())
    assert set(trace.loss["stream"]) <= {"swap_io"}, trace.loss.to_string()
    return Subtrees(trace).subtree_at(cgroup_id(memcg)), end_ns(trace)


@pytest.mark.vm_once
@pytest.mark.usefixtures("swap")
def test_memory_that_was_swapped_in_counts_once(start_recorder: Callable[..., Any]) -> None:
    with ephemeral_cgroup("read-again", LIMIT_BYTES, SWAP_BYTES) as memcg:
        recorder = start_recorder("-c", str(memcg))
        with started(memcg, READ_AGAIN, HELD_BYTES):
            subtree, last_ns = recorded(recorder, memcg)
    both = ledger.level(subtree, {"anon": 1, "swap": 1})
    assert both is not None
    counted, twice = both.at(last_ns) or 0, ledger.swap_cache(subtree).at(last_ns) or 0
    assert (twice > 4 * MIB) is (memory_hierarchy().version == 2)
    assert HELD_BYTES - MIB <= counted - twice <= HELD_BYTES + ITSELF_BYTES
    held = growth.held(subtree, subtree.start_ns, last_ns).at(last_ns) or 0
    assert HELD_BYTES - MIB <= held <= HELD_BYTES + ITSELF_BYTES + 2 * MIB


@pytest.mark.vm_once
def test_memory_that_was_freed_lazily_is_no_growth(memcg: Path, start_recorder: Callable[..., Any]) -> None:
    recorder = start_recorder("-c", str(memcg))
    with started(memcg, FREE_LAZILY, FREED_BYTES, NEW_BYTES):
        subtree, last_ns = recorded(recorder, memcg)
    freed = ledger.lazily_freed(subtree).at(last_ns) or 0
    assert FREED_BYTES - MIB <= freed <= FREED_BYTES + MIB
    held = growth.held(subtree, subtree.start_ns, last_ns).at(last_ns) or 0
    assert NEW_BYTES <= held <= NEW_BYTES + ITSELF_BYTES + 2 * MIB


IN_TURN = """
import mmap, os, sys
held = mmap.mmap(-1, int(sys.argv[1]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.madvise(mmap.MADV_NOHUGEPAGE)
for place in range(0, len(held), 4096):
    held[place : place + 4096] = os.urandom(4096)
print(flush=True)
while sys.stdin.readline():
    for place in range(0, len(held), 4096):
        held[place]
    print(flush=True)
"""
EACH_BYTES = 40 * MIB
ROUNDS = 4


def anonymous_bytes(pid: int) -> int:
    """Return the anonymous memory of a process, in memory and in swap."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return sum(
        1024 * int(size) for size in re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB", status, re.MULTILINE)
    )


@pytest.mark.usefixtures("swap")
def test_memory_that_was_read_ahead_from_swap_counts(start_recorder: Callable[..., Any]) -> None:
    """Two programs read their memory in turn; pages of the one are read ahead beside those of the other."""
    with ephemeral_cgroup("read-ahead", 60 * MIB, SWAP_BYTES) as memcg, ExitStack() as running:
        recorder = start_recorder("-c", str(memcg))
        programs = [running.enter_context(started(memcg, IN_TURN, EACH_BYTES)) for _ in range(2)]
        for _ in range(ROUNDS):
            for program in programs:
                assert program.stdin is not None and program.stdout is not None
                program.stdin.write(b"\n")
                program.stdin.flush()
                program.stdout.readline()
        own = sum(anonymous_bytes(program.pid) for program in programs)
        subtree, last_ns = recorded(recorder, memcg)
    held = growth.held(subtree, subtree.start_ns, last_ns).at(last_ns) or 0
    assert own > 2 * EACH_BYTES
    assert own - MIB <= held <= own + ITSELF_BYTES  # page tables and stacks are memory of the kernel


def test_kill_comes_when_memory_that_was_freed_lazily_is_gone(start_recorder: Callable[..., Any]) -> None:
    program = (sys.executable, "-I", "-S", "-c", FREE_LAZILY, str(FREED_BYTES), str(2 * LIMIT_BYTES))
    recorder = start_recorder("--limit", str(LIMIT_BYTES), "--", *program)
    recorder.wait_for(lambda: recorder.process.poll() is not None)
    trace = AnalysedTrace(recorder.path)
    (report,) = trace.explain()
    owner_id, anon = report.limit_owner.cgroup_id, report.composition.anon
    assert owner_id is not None and anon is not None and report.time is not None
    subtree = Subtrees(trace).subtree_at(owner_id)
    assert (ledger.lazily_freed(subtree).at(report.time.as_unit("ns").value) or 0) < MIB
    (victim,) = report.victims
    assert anon == pytest.approx(victim.anon_rss_bytes, abs=MIB)
    assert anon > 0.8 * LIMIT_BYTES
