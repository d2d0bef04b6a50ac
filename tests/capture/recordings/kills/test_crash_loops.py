"""Crash loops: kills that follow each other so fast that many decisions are in the rings at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest
from support.slowdown import SLOWDOWN
from workloads import crash_loop

import tracer
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = [pytest.mark.kernel, pytest.mark.vm_once, pytest.mark.timeout(600)]

LIMIT_BYTES: Final = 48 << 20
PROCESSES: Final = 40
_AFTER_DECISION: Final = pd.Timedelta("1s")
"""Within this time, the kill follows the choice of its victim."""


@pytest.fixture
def memcg() -> Iterator[Path]:
    with ephemeral_cgroup("crash-loop", LIMIT_BYTES, 0) as directory:
        yield directory


def test_every_kill_of_a_crash_loop_has_its_candidates(
    memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", str(memcg))
    # In an emulated machine, the recorder gets no CPU for seconds beside so many processes of its priority.
    nice = ["nice", "-n", "19"] if SLOWDOWN > 1 else []
    loop = [*nice, sys.executable, crash_loop.__file__, str(memcg), str(PROCESSES)]
    assert subprocess.run(loop, check=False).returncode == 0
    trace = tracer.open(recorder.stop())

    assert len(trace.oom) == PROCESSES, "a thread or a process that is dying already is only marked"
    assert set(trace.oom["constraint"]) == {"memcg"}, (
        "exiting victims make room before the owner is looked for"
    )
    causes = {report.verdict.cause for report in trace.explain()}
    assert "kernel_memory" not in causes, "what exiting victims still free is not kernel memory"
    if trace.meta["probes"]["OOM candidates"]["hook"] is None:
        pytest.skip("needs a kernel whose functions can be hooked")
    lost = trace.loss[trace.loss["stream"] == "candidate"]
    # A loaded machine can still hold up an emulated one. Decisions that kill nobody fill the ring meanwhile.
    assert lost.empty or SLOWDOWN > 1
    with_chosen = 0
    for kill_id, victims in trace.oom.groupby("kill_id"):
        victim = victims.iloc[0]
        weighed = trace.oom_candidates[trace.oom_candidates["kill_id"] == kill_id]
        is_chosen = victim["tgid"] in set(weighed[weighed["chosen"]]["tgid"])
        killed = victims.index[0]
        is_lost = any(
            begin <= killed <= end + _AFTER_DECISION
            for begin, end in zip(lost["begin"], lost.index, strict=True)
        )
        assert is_chosen or is_lost
        with_chosen += is_chosen
    assert with_chosen >= PROCESSES // 2
