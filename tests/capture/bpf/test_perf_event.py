"""Kprobes by perf_event_open(2), on kernels that have them."""

from __future__ import annotations

import os

import pytest

from tracer.capture.bpf.perf_event import KPROBES, attach_kprobe
from tracer.capture.bpf.syscall import (
    RETURN_0,
    ProgramType,
    enable_statistics,
    load_program,
    program_runs,
)

CALLED = "vfs_statx"  # by stat(2)
CALLS = 100

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.vm,
    pytest.mark.skipif(not KPROBES.exists(), reason="this kernel has no kprobes"),
]


@pytest.mark.parametrize("is_return", [False, True])
def test_attached_program_runs_at_each_call_until_it_is_detached(is_return: bool) -> None:
    """The calls are made on every CPU, though the event is opened for one."""
    program = load_program(RETURN_0, ProgramType.KPROBE, "test")
    statistics = enable_statistics()
    allowed = os.sched_getaffinity(0)
    try:
        event = attach_kprobe(program, CALLED, is_return=is_return)
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            before = program_runs(program).times
            for _ in range(CALLS):
                os.stat("/")  # noqa: PTH116
            assert program_runs(program).times - before >= CALLS
        os.close(event)
        times = program_runs(program).times
        os.stat("/")  # noqa: PTH116
        assert program_runs(program).times == times
    finally:
        os.sched_setaffinity(0, allowed)
        os.close(statistics)
        os.close(program)


def test_function_that_does_not_exist_is_refused() -> None:
    program = load_program(RETURN_0, ProgramType.KPROBE, "test")
    try:
        with pytest.raises(FileNotFoundError):
            attach_kprobe(program, "no_function_of_the_kernel", is_return=False)
    finally:
        os.close(program)
