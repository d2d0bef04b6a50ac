"""Code of programs that are killed before anybody can read what they have mapped."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.compiled import compiled
from support.file_systems import subvolume

from tracer.analysis.trace import AnalysedTrace
from tracer.capture.symbols import unwinding

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(unwinding.why_not() is not None, reason=f"{unwinding.why_not()}"),
]

STACKS_BYTES = 128 << 10


@pytest.mark.parametrize("how", ["-static", "-static-pie", "-pie"])
def test_code_of_a_program_that_is_killed_at_once_is_named(
    how: str, disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    try:
        program = compiled("bursting", disk_dir, how, "-g")
    except subprocess.CalledProcessError:
        pytest.skip(f"the C library is not installed for {how}")
    is_named_when_killed_at_once(program, start_recorder)


def test_code_of_a_killed_program_is_named_where_stat_has_another_device_than_the_kernel(
    disk_dir: Path, start_recorder: Callable[..., Any]
) -> None:
    program = compiled("bursting", disk_dir, "-pie", "-g")
    with subvolume(disk_dir, program) as place:
        is_named_when_killed_at_once(place / program.name, start_recorder)


def is_named_when_killed_at_once(program: Path, start_recorder: Callable[..., Any]) -> None:
    recorder = start_recorder("--limit", "12M", "--stacks", str(STACKS_BYTES), "--", str(program))
    recorder.wait_for(lambda: recorder.process.poll() is not None)
    trace = AnalysedTrace(recorder.path)
    (report,) = trace.explain()
    samples = trace.code_samples[trace.code_samples["category"] == "anon"]
    innermost = {
        stack_id: names[0]
        for stack_id, names in zip(trace.stacks["stack_id"], trace.stacks["frames"], strict=True)
    }
    grown: Counter[str] = Counter()
    for stack_id, grown_bytes in zip(samples["stack_id"], samples["bytes"], strict=True):
        grown[innermost[stack_id].partition(":")[0]] += grown_bytes
    most, least = (grown.pop(f"{name} [bursting] (bursting.c", 0) for name in ("grow_most", "grow_least"))
    assert grown.total() <= 2 * STACKS_BYTES, f"the loader of the program at most: {grown}"
    assert 0.5 < most / (most + least) < 0.9, "70 % of about 90 random samples"
    assert (report.code[0].frames[0].function, report.code[0].frames[0].file) == ("grow_most", "bursting.c")
