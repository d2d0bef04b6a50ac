"""Candidates of a kill, compared with the kernel log, on kernels whose functions can be hooked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.capture.bpf.hooks import Offer
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

pytestmark = pytest.mark.kernel

LIMIT_BYTES = 128 << 20
CROWD = {5 << 20: 0, 17 << 20: 0, 29 << 20: 500, 11 << 20: 900, 3 << 20: 150}
"""Bytes of anonymous memory -> oom_score_adj; 900, which adds 90 % of the limit, outweighs all sizes."""
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def limited() -> Iterator[Path]:
    with ephemeral_cgroup("crowd", LIMIT_BYTES, 0) as directory:
        yield directory


@pytest.mark.vm_once
@pytest.mark.parametrize("family", ["fentry", "kprobe"])
def test_candidates_equal_those_of_the_kernel_log(
    family: str, limited: Path, start_workload: Callable[..., Any], start_recorder: Callable[..., Any]
) -> None:
    if why := Offer.look(Btf.load()).closed.get(family):
        pytest.skip(why)
    recorder = start_recorder("-c", str(limited), env=os.environ | {"MEMCG_TRACER_HOOKS": family})
    crowd = {}
    for size_bytes, adj in CROWD.items():
        one = start_workload(limited, "anon", str(size_bytes))
        assert (one.advance(), one.advance()) == ("start", "done anon")
        Path(f"/proc/{one.process.pid}/oom_score_adj").write_text(str(adj), encoding="ascii")
        crowd[one.process.pid] = (size_bytes, adj, one)
    trigger = start_workload(limited, "anon", str(2 * LIMIT_BYTES))
    assert (trigger.advance(), trigger.advance()) == ("start", ""), (
        "the trigger exceeds the limit, and is killed"
    )
    chosen = next(pid for pid, (_, adj, _) in crowd.items() if adj == max(CROWD.values()))
    assert crowd[chosen][2].process.wait() == -9
    trigger.process.kill()
    trace = tracer.open(recorder.stop())

    first = trace.oom.iloc[0]
    assert bool(first["is_told"])
    assert (first["order"], first["total_bytes"]) == (0, LIMIT_BYTES)
    weighed = trace.oom_candidates[trace.oom_candidates["kill_id"] == first["kill_id"]]
    assert set(weighed["pid"]) == {trigger.process.pid, *crowd}
    for row in weighed.to_dict("records"):
        # oom_badness() in mm/oom_kill.c
        held_pages = (row["rss_bytes"] + row["swap_bytes"] + row["pgtables_bytes"]) // PAGE_BYTES
        adj_pages = row["oom_score_adj"] * (LIMIT_BYTES // PAGE_BYTES // 1000)
        assert abs(row["badness"] - held_pages - adj_pages) <= 64 * (os.cpu_count() or 1), row
        if row["pid"] in crowd:
            size_bytes, adj, _ = crowd[row["pid"]]
            assert row["oom_score_adj"] == adj
            assert size_bytes <= row["anon_rss_bytes"] <= size_bytes + (16 << 20)
    assert weighed.loc[weighed["badness"].idxmax(), "pid"] == first["pid"] == chosen
    assert weighed[weighed["chosen"]]["pid"].tolist() == [chosen]
    report = trace.explain()[0].to_dict()
    assert (report["candidates"][0]["pid"], report["candidates"][0]["chosen"]) == (chosen, True)
    assert report["trigger"]["order"] == 0
