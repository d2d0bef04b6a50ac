"""Samples of anonymous memory that is freed, compared with programs that give known amounts back."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.compiled import compiled
from support.stepped_program import go_on, started, weights_of

from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.code_samples import held_within

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

CPUS = os.cpu_count() or 1
KIB, MIB = 1 << 10, 1 << 20

WAYS = {"munmap": 0, "madvise": 0, "brk": 0, "fixed": 0, "shrunk": 0, "moved": 24 * MIB, "moved_away": 0}
"""Way in which tests/workloads/freeing.c gives 24 MiB back -> what of it stays."""


@pytest.mark.beside
@pytest.mark.vm
def test_memory_that_was_given_back_is_held_by_nobody(
    memcg: Path, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    """The samples of `borrow` are freed in the range of a system call, wherever the memory was moved before.

    What is held agrees with the counter of the process. A process for each way.
    """
    size, taken, kept = 128 * KIB, 24 * MIB, 16 * MIB
    has_late_counter = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 2)
    program = compiled("freeing", tmp_path)
    with ExitStack() as stack:
        processes = {
            way: stack.enter_context(started(program, memcg, way, str(taken), str(kept))) for way in WAYS
        }
        # Room for all samples: an emulated machine may read none for a while.
        rings = os.environ | {"MEMCG_TRACER_RING_PAGES": "code_sample=4096,stack_copy=8192"}
        recorder = start_recorder("-c", str(memcg), "--stacks", "128K", env=rings)
        for process in processes.values():
            go_on(process)
        statuses = {way: Path(f"/proc/{one.pid}/status").read_text() for way, one in processes.items()}
        trace = AnalysedTrace(recorder.stop())
    assert "code_sample" not in set(trace.loss["stream"])
    rows = trace.code_samples
    rows = rows[(rows["bytes"] > 0) & (rows["category"] == "anon")]
    held = held_within(trace, None, None, trace.span_ns[1])
    held = held[held["category"] == "anon"]
    hidden = 2 * size * CPUS
    if has_late_counter:  # a task adds its last 66 page faults later (bpf/shared/known_rss.h)
        hidden += 2 * 66 * 4 * KIB
    for way, process in processes.items():
        samples = rows[rows["tgid"] == process.pid]
        assert samples["is_followed"].mean() > 0.98, way
        weights = weights_of(trace, held[held["tgid"] == process.pid])
        assert abs(weights["borrow"] - WAYS[way]) <= hidden, (way, weights)
        assert abs(weights["keep"] - (0 if way == "moved" else kept)) <= hidden, (way, weights)
        (anon,) = re.findall(r"RssAnon:\s+(\d+) kB", statuses[way])
        assert abs(weights.total() - int(anon) * KIB) <= 2 * hidden, way
        gross = weights_of(trace, samples)
        assert abs(gross["borrow"] - taken) <= hidden, f"{way}: it was sampled"


@pytest.mark.beside
@pytest.mark.vm
@pytest.mark.skipif(CPUS < 2, reason="needs a second CPU")
def test_growth_beside_a_call_that_frees_is_sampled_once(
    memcg: Path, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    """A thread has no CPU for most of the time in which it frees memory. Another one grows meanwhile.

    All samples of the range are freed at once, and its pages one table at a time.
    """
    size, freed, kept = 128 * KIB, 96 * MIB, 16 * MIB
    program = compiled("freeing", tmp_path, "-pthread")
    with started(program, memcg, "beside", str(freed), str(kept)) as process:
        recorder = start_recorder("-c", str(memcg), "--stacks", "128K")
        go_on(process)
        trace = AnalysedTrace(recorder.stop())
        tgid = process.pid
    rows = trace.code_samples
    samples = rows[(rows["bytes"] > 0) & (rows["category"] == "anon") & (rows["tgid"] == tgid)]
    weights = weights_of(trace, samples)
    assert abs(weights["borrow"] - freed) <= 2 * size * CPUS
    assert abs(weights["keep"] - kept) <= 2 * size * CPUS, weights


@pytest.mark.beside
def test_growth_that_is_sampled_again_is_not_counted_twice(
    memcg: Path, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    """A part of a sample is kept and its page is freed, in each of 200 rounds: what is kept is sampled again.

    All growth is what the rounds take, to the pages that a CPU has not added to the counter when the range is
    freed, 32 at most. What was freed is shown without what was only sampled again. Of one process, that may
    be nothing: by chance, all samples of some rounds are freed, and none of others.

    The rounds differ in size. If they did not, the sampled pages could lie in what is kept in all of them.
    """
    freed, kept, rounds = 1536 * KIB, 512 * KIB, 200
    program, sizes = compiled("freeing", tmp_path), (str(freed), str(kept))
    with ExitStack() as stack:
        processes = [stack.enter_context(started(program, memcg, "rounds", *sizes)) for _ in range(5)]
        recorder = start_recorder("-c", str(memcg))
        for process in processes:
            go_on(process)
        trace = AnalysedTrace(recorder.stop())
    rows = trace.code_samples
    samples = rows[(rows["bytes"] > 0) & (rows["category"] == "anon")]
    assert samples["again_bytes"].sum() > 0, "nothing was sampled again"
    taken = sum(freed - number % 8 * (freed // 16) + kept for number in range(rounds))
    unseen = rounds * 32 * 4 * KIB * CPUS
    for process in processes:
        sampled = samples.loc[samples["tgid"] == process.pid, ["bytes", "again_bytes"]].sum()
        assert taken - unseen <= sampled["bytes"] - sampled["again_bytes"] <= taken + 2 * MIB * CPUS
