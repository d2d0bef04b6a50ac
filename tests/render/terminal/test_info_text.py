from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len

from tracer.render.terminal import console, info_text

HOSTILE = "\x1b[31m[red]\nx"
MIB = 1 << 20


@pytest.fixture
def summary() -> info_text.Summary:
    return info_text.Summary(
        path="traces/page-cache",
        interrupted=False,
        duration_s=4.25,
        size_bytes=3 * MIB // 2,
        rows={"charge": 12_345, "oom": 1},
        of_no_process=None,
        unnamed_stacks=0,
        cut_off_stacks=0,
        lost={"charge": 0, "pagecache": 0},
        summed=(),
        cgroups=[info_text.TracedCgroup("/docker/web", 7, "web", 1, 1, 100 * MIB, 100 * MIB, 1)],
        kills=4,
        kills_of_log_alone=3,
        meta={
            "end_reason": "command_ended",
            "started": "2025-11-24T23:40:01+00:00",
            "command_line": ["memcg-tracer", "record"],
            "filters": {"cgroups": ["web"]},
            "host_name": "host",
            "kernel_release": "6.18.5",
            "architecture": "x86_64",
            "cgroup_version": 2,
            "cpus": 2,
            "page_size": 4096,
            "tool_version": "0.1.0",
            "schema_version": 1,
            "kernel_log": "/dev/kmsg: Operation not permitted",
            "probes": {
                "OOM kill": {"hook": "raw_tracepoint mark_victim", "meaning": "exact", "detail": ""},
                "OOM decision": {"hook": None, "meaning": "absent", "detail": "no kprobes: gfp is inferred"},
                "of an older trace": "raw_tracepoint",
                "absent in an older trace": None,
            },
            "cost": {},
        },
    )


def shown(summary: info_text.Summary) -> str:
    return console.to_text(info_text.lines(summary), columns=100, colour=False)


def test_info_matches_the_golden_file(
    summary: info_text.Summary, matches_golden: Callable[[str, str], None]
) -> None:
    matches_golden("info.txt", shown(summary))


def test_stacks_without_names_or_callers_are_counted(summary: info_text.Summary) -> None:
    stacks = replace(summary, rows={"stacks": 142}, unnamed_stacks=131)
    assert "142, 131 of them with addresses only" in shown(stacks)
    assert "addresses only" not in shown(summary)
    assert "142, 5 where unwinding ended outside of code" in shown(
        replace(stacks, unnamed_stacks=0, cut_off_stacks=5)
    )


def test_part_of_the_ledger_without_a_process_is_stated(summary: info_text.Summary) -> None:
    assert "12,345, 2.3 % of the bytes by no known process" in shown(replace(summary, of_no_process=0.0231))
    assert "no known process" not in shown(replace(summary, of_no_process=0.0))


def test_look_at_the_page_cache_that_was_left_out_is_stated(summary: info_text.Summary) -> None:
    looked = replace(summary, rows={"contents": 7}, meta={**summary.meta, "contents_left_out": HOSTILE})
    assert "7, a look was late or left out: \\x1b[31m[red]\\nx" in shown(looked)
    assert "left out" not in shown(replace(summary, rows={"contents": 7}))


def test_loss_is_reported_for_each_stream(summary: info_text.Summary) -> None:
    text = shown(replace(summary, lost={"charge": 0, "pagecache": 1234}))
    assert "pagecache     1,234" in text
    assert "none" not in text


def test_info_of_an_interrupted_trace_has_no_none(summary: info_text.Summary) -> None:
    meta = {**summary.meta, "end_reason": None}
    text = shown(replace(summary, interrupted=True, meta=meta, duration_s=None))
    assert "was interrupted or is still running" in text
    assert "None" not in text


def test_hostile_names_are_escaped_within_the_width(summary: info_text.Summary) -> None:
    cgroup = info_text.TracedCgroup(HOSTILE + "z" * 200, 7, HOSTILE, 2, 3, None, None, 0)
    meta = summary.meta | {  # type: ignore[operator]
        "command_line": [HOSTILE],
        "host_name": HOSTILE,
        "end_reason": HOSTILE,
        "filters": {HOSTILE: HOSTILE},
        "probes": {HOSTILE: HOSTILE},
    }
    text = shown(replace(summary, path=HOSTILE, cgroups=[cgroup], meta=meta, lost={HOSTILE: 1}))
    assert "\x1b" not in text
    assert text.count(r"\x1b[31m[red]\nx") >= 8
    assert max(map(cell_len, text.splitlines())) <= 100


def test_many_cgroups_are_cut_and_counted(summary: info_text.Summary) -> None:
    assert "and 18 more" in shown(replace(summary, cgroups=list(summary.cgroups) * 30))


def test_many_paths_of_a_filter_are_cut_and_counted(summary: info_text.Summary) -> None:
    paths = [f"/c-{number}" for number in range(30)]
    text = shown(replace(summary, meta={**summary.meta, "filters": {"cgroups": paths, "asked": ["c-*"]}}))
    assert "cgroups: /c-0 /c-1" in text
    assert "/c-7 and 22 more" in " ".join(text.split())
    assert "asked: c-*" in text


def test_info_document_is_complete(summary: info_text.Summary) -> None:
    document = json.loads(json.dumps(summary.to_dict()))
    assert document["schema"] == 1
    assert document["cgroups"][0]["peak_usage_bytes"] == 100 * MIB
    assert document["meta"]["probes"]["OOM decision"]["hook"] is None


def test_fineness_of_a_history_is_shown(summary: info_text.Summary) -> None:
    fineness = [
        {"begin": "2026-11-27T01:21:15.183305+00:00", "every_ms": 100},
        {"begin": "2026-11-27T01:22:24+00:00", "every_ms": 0},
    ]
    history = {"keep_s": 300.0, "reason": "kill", "fineness": fineness}
    text = " ".join(shown(replace(summary, meta={**summary.meta, "history": history})).split())
    assert "one in 100 ms from 2026-11-27 01:21:15.183305 UTC; as recorded from 2026-11-27 01:22:24" in text
