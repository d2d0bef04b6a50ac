"""Growth is sampled while the programs are attached, and not when they are attached again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from support.compiled import compiled

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Ring, rings_of
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy

pytestmark = [pytest.mark.kernel, pytest.mark.beside]

SAMPLE = 128 << 10
LATE = 2 * 66 * os.sysconf("SC_PAGE_SIZE")  # before v6.2 (bpf/shared/known_rss.h)
UNSEEN, SEEN = 23 << 20, 5 << 20
PHASES = (f"index={SEEN}", f"index={UNSEEN}", f"table={SEEN}")


@contextmanager
def grower(folder: Path, *phases: str) -> Iterator[subprocess.Popen[str]]:
    """Start tests/workloads/growing.c, ready for its first phase."""
    command = [str(compiled("growing", folder)), *phases]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"


def sampled_bytes(ring: Ring, tgid: int) -> int:
    """Return the growth of a process by the samples in the ring."""
    records = ring.read()
    return int(records["bytes"][(records["tgid"] == tgid) & (records["bytes"] > 0)].sum())


@pytest.mark.vm
def test_growth_while_nothing_was_attached_is_not_sampled_later(tmp_path: Path) -> None:
    """Each phase begins and ends within a piece of its CPU."""
    programs = Programs(version=memory_hierarchy().version, trace_all=True, stacks_bytes=SAMPLE)
    with closing(programs), grower(tmp_path, *PHASES) as process:
        programs.wait(pytest.fail)
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        with rings_of(programs) as rings:
            sampled = partial(sampled_bytes, rings["code_sample"], process.pid)
            slack = 2 * SAMPLE + LATE
            programs.arm("anon")
            go_on(process)
            assert abs(sampled() - SEEN) <= slack
            programs.disarm("anon")
            go_on(process)
            assert sampled() == 0
            programs.arm("anon")
            go_on(process)
            assert abs(sampled() - SEEN) <= slack
