from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from support.schemas import require_form

import tracer
from tracer.cli.verbs import evictions, report, timeline
from tracer.errors import TracerError
from tracer.render.plot.opened_trace import READ_AGAIN
from tracer.trace.meta import begin
from tracer.trace.write.writer import TraceWriter

MIB = 1 << 20
HOSTILE = "\x1b[31m[red]<script>\nx"

WriteTrace = Callable[..., Path]


def shown(run: CliRunner, *arguments: object) -> str:
    result = run.invoke(evictions.command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("by", ["file", "cgroup", "cause", "process"])
def test_evictions_begin_with_the_answer(run: CliRunner, write_trace: WriteTrace, by: str) -> None:
    text = shown(run, write_trace(), "--by", by)
    words = " ".join(text.split())
    assert words.startswith(
        "116 MiB of page cache was evicted to keep a cgroup within its limit; none of it was read again. "
        "python3 (pid 41) evicted all of it."
    )
    assert "left 1 MiB of the added cache before not known: " in words
    assert "count is not known: the kernel's count was not sampled twice" in words
    row = {
        "file": "116 MiB 117 MiB 1 MiB python3 41 read once /srv/read-me",
        "cgroup": "116 MiB 117 MiB 1 MiB /memcg-tracer-77-page-cache its own",
        "cause": "116 MiB reclaim_memcg to keep",
        "process": "116 MiB 117 MiB 1 MiB python3 41 /memcg-tracer-77-page-cache",
    }
    assert row[by] in words
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


def test_evictions_json_equals_the_analysis(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace()
    for by in ("file", "cgroup", "cause", "process"):
        document = json.loads(shown(run, path, "--by", by, "--json"))
        require_form("evictions", document)
        assert list(document)[:3] == ["schema", "trace", "by"]
        assert (document["schema"], document["trace"], document["by"]) == (1, str(path), by)
        assert document["evicted_bytes"] == 116 * MIB
        assert document["refaults"]["kernel"] == []
        frame = tracer.open(path).evictions(by).drop(columns=READ_AGAIN)  # the name that pandas has beside
        assert list(document["rows"][0]) == frame.columns.tolist()
        for name in frame.columns:
            expected = [None if pd.isna(value) else value for value in frame[name].tolist()]
            assert [row[name] for row in document["rows"]] == expected


def test_evictions_of_a_cgroup_leave_others_out(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace()
    text = shown(run, path, "-c", "quiet")
    assert text.startswith("No page cache of /quiet was added or removed in this trace.")
    assert "By file" not in text
    document = json.loads(shown(run, path, "-c", "7", "--json"))
    assert (document["cgroup"], document["added_bytes"]) == ("/memcg-tracer-77-page-cache", 117 * MIB)
    refused = run.invoke(evictions.command, [str(path), "-c", "nope"]).exception
    assert isinstance(refused, TracerError) and "\n" not in str(refused)
    assert run.invoke(evictions.command, [str(path), "--by", "inode"]).exit_code == 2


def test_cache_read_again_soon_is_in_every_view(
    run: CliRunner, write_trace: WriteTrace, tmp_path: Path
) -> None:
    """The last 17 of 117 MiB are the first of the file again, each just evicted."""
    path = write_trace(killed=False, size=100)
    words = " ".join(shown(run, path).split())
    assert (
        "17 MiB of page cache was evicted to keep a cgroup within its limit; 17 MiB of it was read" in words
    )
    assert "1.01 s 160 ms 17 MiB 17 MiB 0 s /memcg-tracer-77-page-cache" in words
    (interval,) = json.loads(shown(run, path, "--json"))["thrash"]
    assert interval["refaulted_bytes"] == 17 * MIB and interval["psi_some_share"] is None
    drawn = run.invoke(timeline.command, [str(path)], catch_exceptions=False).stdout
    assert "cache read again soon for 160 ms: 17 MiB evicted, 17 MiB of it read again" in drawn
    page = tmp_path / "page.html"
    run.invoke(report.command, [str(path), "-o", str(page)], catch_exceptions=False)
    assert "</i>read again soon</span>" in page.read_text(encoding="utf-8")


def test_evictions_of_an_empty_trace_work(run: CliRunner, tmp_path: Path) -> None:
    described = begin(command_line=["record"], cgroup_version=2, filters={}, probes={})
    TraceWriter(tmp_path / "trace", described, force=False).close("nothing to see")
    text = shown(run, tmp_path / "trace")
    assert text.startswith("No page cache was added or removed in this trace.")
    document = json.loads(shown(run, tmp_path / "trace", "--json"))
    assert (document["rows"], document["evictor"], document["thrash"]) == ([], None, [])


def test_loss_and_interruption_are_reported(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace(lost=1203, ended=False)
    assert "1,203 page-cache records" in shown(run, path)
    assert "this is what had been written by then" in shown(run, path)
    assert json.loads(shown(run, path, "--json"))["quality"]["lost_records"] == 1203


@pytest.mark.parametrize("by", ["file", "cgroup", "cause", "process"])
def test_hostile_names_are_escaped_in_every_view(run: CliRunner, write_trace: WriteTrace, by: str) -> None:
    path = write_trace(comm=HOSTILE, cgroup="/" + HOSTILE, container=HOSTILE, file="/srv/" + HOSTILE)
    text = shown(run, path, "--by", by)
    assert "\x1b" not in text
    assert r"\x1b[31m[red]<script>\nx" in text
    assert max(map(len, text.splitlines())) <= 100
    document = shown(run, path, "--by", by, "--json", "-c", "7")
    assert "\x1b" not in document and json.loads(document)["cgroup"] == "/" + HOSTILE
