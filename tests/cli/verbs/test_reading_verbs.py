"""timeline, evictions, explain, info and report with a trace of the page-cache experiment on disk."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from support.recorded import TRACES

import tracer
from tracer.analysis.explain import postmortem
from tracer.analysis.explain.words import evidence
from tracer.analysis.trace import AnalysedTrace
from tracer.cli.verbs import evictions, explain, info, report, timeline
from tracer.errors import TraceError, TracerError, UsageError

MIB = 1 << 20
HOSTILE = "\x1b[31m[red]<script>\nx"
VERBS = (timeline.command, evictions.command, explain.command, info.command)

WriteTrace = Callable[..., Path]


def output(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def failure(result: Result) -> BaseException:
    assert result.exception is not None
    assert result.stdout == ""
    return result.exception


def test_timeline_shows_the_three_acts(run: CliRunner, write_trace: WriteTrace) -> None:
    shown = output(run.invoke(timeline.command, [str(write_trace())]))
    acts = [
        shown.index("usage has reached the limit"),
        shown.index("the page cache is used up, 116 MiB was evicted"),
        shown.index("OOM kill: python3 (pid 41), anon 98 MiB"),
    ]
    assert acts == sorted(acts)
    assert "117 MiB added, 116 MiB evicted" in shown
    assert "1 more cgroup was traced" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "\x1b" not in shown
    assert shown.count("│") <= 40 + 2


def test_timeline_of_a_given_cgroup_and_time_leaves_others_out(
    run: CliRunner, write_trace: WriteTrace
) -> None:
    path = str(write_trace())
    shown = output(run.invoke(timeline.command, [path, "-c", "7", "--begin", "1", "--end", "1.4s"]))
    assert "400 ms from" in shown and "in rows of 10 ms" in shown
    assert "OOM kill:" not in shown
    assert "in rows of 50 ms" in output(run.invoke(timeline.command, [path, "--every", "50ms"]))
    assert "/quiet" in output(run.invoke(timeline.command, [path, "-c", "quiet"])).splitlines()[0]


def test_timeline_rows_equal_the_analysis(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace()
    expected = tracer.open(path).timeline("7", every="100ms")
    rows = json.loads(output(run.invoke(timeline.command, [str(path), "-c", "7", "--json"])))
    assert [row["usage_bytes"] for row in rows] == expected["usage_bytes"].tolist()
    assert rows[0]["time"] == "2025-11-24T16:00:00.000000Z"
    assert rows[0]["refault_bytes"] is None
    assert rows[0]["cache_evicted_bytes"] == 0
    whose = {"cgroup": "/memcg-tracer-77-page-cache", "cgroup_id": 7, "container": None, "run": 1}
    assert {name: rows[0][name] for name in whose} == whose
    table = list(csv.DictReader(io.StringIO(output(run.invoke(timeline.command, [str(path), "--csv"])))))
    assert {row["cgroup"] for row in table} == {"/memcg-tracer-77-page-cache", "/quiet"}
    mine = [row for row in table if row["cgroup"] != "/quiet"]
    assert [int(row["usage_bytes"]) for row in mine] == expected["usage_bytes"].tolist()
    assert mine[0]["refault_bytes"] == ""


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_rows_in_parts_equal_the_whole(
    run: CliRunner, write_trace: WriteTrace, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = write_trace()
    whole = output(run.invoke(timeline.command, [str(path), form]))
    rows = len(tracer.open(path).timeline())
    for at_once in (7, rows - 1, rows):
        monkeypatch.setattr(timeline, "_ROWS_AT_ONCE", at_once)
        assert output(run.invoke(timeline.command, [str(path), form])) == whole


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--json", "--csv"], UsageError),
        (["--every", "nonsense"], UsageError),
        (["--every", "0s"], UsageError),
        (["--begin", "3s", "--end", "1s"], UsageError),
        (["-c", "no-such-cgroup"], TracerError),
    ],
)
def test_timeline_with_invalid_options_is_refused(
    run: CliRunner, write_trace: WriteTrace, arguments: list[str], error: type[TracerError]
) -> None:
    raised = failure(run.invoke(timeline.command, [str(write_trace()), *arguments]))
    assert isinstance(raised, error)
    assert "\n" not in str(raised)


@pytest.mark.parametrize(
    ("option", "time"),
    [("--begin", "soon"), ("--end", "never"), ("--begin", "1h"), ("--every", "0s"), ("--every", "1ns")],
)
def test_timeline_refuses_times_before_it_measures_the_kills(
    run: CliRunner, write_trace: WriteTrace, monkeypatch: pytest.MonkeyPatch, option: str, time: str
) -> None:
    """The kills of a long trace take minutes."""

    def measured(_: object) -> None:
        pytest.fail("the kills were measured first")

    monkeypatch.setattr(postmortem.PostMortems, "measured", measured)
    raised = failure(run.invoke(timeline.command, [str(write_trace()), option, time]))
    assert isinstance(raised, UsageError)


def test_explain_json_equals_the_analysis(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace()
    document = json.loads(output(run.invoke(explain.command, [str(path), "--json"])))
    assert list(document) == ["schema", "trace", "kills", "held"]
    assert (document["schema"], document["trace"]) == (1, str(path))
    expected = [evidence.document(one) for one in AnalysedTrace(path).explain()]
    assert document["kills"] == json.loads(json.dumps(expected))
    assert document["kills"][0]["cushion"]["evicted_bytes"] == 116 * MIB
    killed = {one.limit_owner.cgroup for one in AnalysedTrace(path).explain()}
    others = {one.cgroup for one in AnalysedTrace(path).held_cgroups()} - killed
    assert others == {one["cgroup"] for one in document.pop("held")}
    one = output(run.invoke(explain.command, [str(path), "--json", "--kill", "1"]))
    assert json.loads(one) == document


def test_explain_begins_with_the_summary(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace()
    shown = output(run.invoke(explain.command, [str(path)]))
    summary = AnalysedTrace(path).explain()[0].verdict.summary
    assert " ".join(shown.split()).startswith(summary)
    assert len(shown.splitlines()) <= 30
    everything = output(run.invoke(explain.command, [str(path), "-v"]))
    assert "out_of_memory+0x1\n" in everything and "out_of_memory" not in shown
    verbose = output(run.invoke(explain.command, [str(path), "-v"]))
    assert "out_of_memory+0x1" in verbose
    assert len(verbose) > len(shown)


def test_explain_of_a_kill_that_is_not_there_is_a_usage_error(
    run: CliRunner, write_trace: WriteTrace
) -> None:
    raised = failure(run.invoke(explain.command, [str(write_trace()), "--kill", "5"]))
    assert isinstance(raised, UsageError) and raised.exit_code == 2
    assert "it holds kill 1" in str(raised)
    raised = failure(run.invoke(explain.command, [str(write_trace("held", killed=False)), "--kill", "1"]))
    assert "no kill at all" in str(raised)


def test_explain_without_a_kill_has_the_survivors(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace(killed=False)
    shown = " ".join(output(run.invoke(explain.command, [str(path)])).split())
    assert "No OOM kill: /memcg-tracer-77-page-cache reached its limit of 100 MiB; 17 MiB of" in shown
    document = json.loads(output(run.invoke(explain.command, [str(path), "--json"])))
    assert document["kills"] == []
    assert document["held"] == json.loads(
        json.dumps([one.to_dict() for one in AnalysedTrace(path).held_cgroups()])
    )


def test_info_has_the_end_the_rows_and_the_cgroups(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace()
    shown = output(run.invoke(info.command, [str(path)]))
    assert "ended         the command ended" in shown
    assert "pagecache      233" in shown
    assert "in all streams" in shown
    document = json.loads(output(run.invoke(info.command, [str(path), "--json"])))
    assert document["rows"] == {table: AnalysedTrace(path).rows(table) for table in document["rows"]}
    assert document["duration_s"] == 4.0
    assert document["cgroups"][0] == {
        "path": "/memcg-tracer-77-page-cache",
        "cgroup_id": 7,
        "container": None,
        "run": 1,
        "runs": 1,
        "limit_bytes": 100 * MIB,
        "is_limited": True,
        "peak_usage_bytes": 100 * MIB,
        "kills": 1,
    }


def test_info_of_an_interrupted_and_lossy_recording_reports_both(
    run: CliRunner, write_trace: WriteTrace
) -> None:
    path = write_trace(ended=False, lost=12)
    shown = output(run.invoke(info.command, [str(path)]))
    assert "interrupted" in shown
    assert "pagecache     12" in shown
    document = json.loads(output(run.invoke(info.command, [str(path), "--json"])))
    assert document["interrupted"] is True
    assert document["lost"]["pagecache"] == 12 and document["lost"]["charge"] == 0
    assert document["duration_s"] == pytest.approx(2.17)
    assert "interrupted" in output(run.invoke(timeline.command, [str(path)]))


def test_report_to_a_dash_goes_to_standard_output(
    run: CliRunner, write_trace: WriteTrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_trace().resolve()
    monkeypatch.chdir(tmp_path)
    page = output(run.invoke(report.command, [str(path), "-o", "-"]))
    assert page.startswith("<!") and page.rstrip().endswith("</html>")
    assert not (tmp_path / "-").exists()


def test_trace_of_a_full_disk_excludes_no_kill(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace(killed=False)
    meta = json.loads((path / "meta.json").read_text())
    meta |= {"end_reason": "write_failed", "lost": {"pagecache": 382_698}}
    (path / "meta.json").write_text(json.dumps(meta))
    assert "pagecache     382,698" in output(run.invoke(info.command, [str(path)]))
    text = " ".join(output(run.invoke(explain.command, [str(path)])).split())
    assert text.startswith("No OOM kill was recorded before the recording broke off")
    assert "a kill after that cannot be excluded" in text
    assert "lost records 382,698" in text


def test_report_writes_one_private_page(run: CliRunner, write_trace: WriteTrace, tmp_path: Path) -> None:
    path, page = str(write_trace()), tmp_path / "page.html"
    assert output(run.invoke(report.command, [path, "-o", str(page)])) == f"{page}\n"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text(encoding="utf-8")
    assert text.count('<figure class="chart"') == 1 and text.startswith("<!DOCTYPE html>")
    raised = failure(run.invoke(report.command, [path, "-o", str(page)]))
    assert isinstance(raised, TracerError) and "-f" in str(raised)
    page.chmod(0o644)
    page.write_text("old", encoding="utf-8")
    output(run.invoke(report.command, [path, "-f", "-o", str(page)]))
    assert page.read_text(encoding="utf-8") == text
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert sorted(item.name for item in tmp_path.iterdir()) == ["page.html", "trace"]


def test_report_without_a_kill_says_so(run: CliRunner, write_trace: WriteTrace, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    output(run.invoke(report.command, [str(write_trace(killed=False)), "-o", str(page)]))
    assert "No OOM kill" in page.read_text(encoding="utf-8")


def test_report_replaces_no_device_or_directory(
    run: CliRunner, write_trace: WriteTrace, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    raised = failure(run.invoke(report.command, [str(write_trace()), "-f", "-o", str(pipe)]))
    assert "a device or a pipe" in str(raised)
    assert pipe.is_fifo()


def test_report_that_cannot_be_written_is_an_error(
    run: CliRunner, write_trace: WriteTrace, tmp_path: Path
) -> None:
    path = str(write_trace())
    raised = failure(run.invoke(report.command, [path, "-o", str(tmp_path / "no" / "page.html")]))
    assert isinstance(raised, TracerError) and "cannot write" in str(raised)
    raised = failure(run.invoke(report.command, [path, "-f", "-o", str(tmp_path)]))
    assert isinstance(raised, UsageError)
    assert output(run.invoke(info.command, [path]))


def test_hostile_names_are_escaped_in_every_view(
    run: CliRunner, write_trace: WriteTrace, tmp_path: Path
) -> None:
    path = str(write_trace(comm=HOSTILE, cgroup="/" + HOSTILE, container=HOSTILE))
    page = tmp_path / "page.html"
    output(run.invoke(report.command, [path, "-o", str(page)]))
    shown = [output(run.invoke(verb, [path])) for verb in VERBS]
    shown.append(output(run.invoke(explain.command, [path, "-v"])))
    shown.append(output(run.invoke(timeline.command, [path, "--csv"])))
    for text in shown:
        assert "\x1b" not in text
        assert r"\x1b[31m[red]<script>\nx" in text
    html = page.read_text(encoding="utf-8")
    assert "\x1b" not in html and "<script>\\n" not in html and "&lt;script&gt;" in html
    for arguments in (["--json"], ["--json", "-c", "7"]):
        assert "\x1b" not in output(run.invoke(timeline.command, [path, *arguments]))
    documents = [output(run.invoke(verb, [path, "--json"])) for verb in (explain.command, info.command)]
    assert all("\x1b" not in document and json.loads(document) for document in documents)


@pytest.mark.parametrize("verb", [*VERBS, report.command])
def test_path_without_a_trace_is_one_line(run: CliRunner, tmp_path: Path, verb: click.Command) -> None:
    more = ["-o", str(tmp_path / "page.html")] if verb is report.command else []
    raised = failure(run.invoke(verb, [str(tmp_path), *more]))
    assert isinstance(raised, TraceError)
    assert "\n" not in str(raised)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - names only


@pytest.mark.parametrize("verb", [*VERBS, report.command])
def test_every_option_has_help_and_every_verb_examples(verb: click.Command) -> None:
    assert all(option.help for option in verb.params if isinstance(option, click.Option))
    assert verb.help and verb.epilog and verb.epilog.count("memcg-tracer") >= 2


def test_timeline_of_hours_has_an_inset_and_commands(
    run: CliRunner, write_trace: WriteTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = Path(write_trace(step_ns=60_000_000_000).name)
    monkeypatch.chdir(write_trace("other").parent)
    shown = output(run.invoke(timeline.command, [str(path), "-c", "/memcg-tracer-77-page-cache"]))
    assert "in rows of 10 min 00 s" in " ".join(shown.split())
    _, inset = shown.split("Closer: the last kill, in rows of 1 min 00 s")
    assert "✗ OOM kill: python3 (pid 41)" in inset
    one_line = inset.replace(" \\\n", "").splitlines()
    commands = [shlex.split(line) for line in one_line if "memcg-tracer timeline" in line]
    assert len(commands) == 3
    closer = [output(run.invoke(timeline.command, command[2:])) for command in commands]
    assert [re.findall(r"in rows of (\d+ s),", one) for one in closer] == [["30 s"], ["15 s"], ["15 s"]]
    assert "✗ OOM kill: python3" in closer[0] and "✗ OOM kill: python3" not in closer[1]
    assert "1:39:00 → usage has reached the limit" in shown
    assert "has reached the limit" not in closer[2], "it was there before"
    assert "Closer" not in output(run.invoke(timeline.command, [str(path), "--every", "10min"]))


def test_command_of_the_inset_is_safe_to_paste(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace(step_ns=60_000_000_000, cgroup="/a\x1b[31m$(reboot)")
    shown = output(run.invoke(timeline.command, [str(path)]))
    assert "\x1b" not in shown
    assert "-c 7 " in shown.split("Commands that show more")[1]


def test_single_kill_is_explained_once(run: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list weighs the causes of its kills first, and one kill needs no list."""
    monkeypatch.setattr(
        postmortem.PostMortems, "listed", lambda *_: pytest.fail("the cause was weighed before")
    )
    assert "Cause: process memory grew" in output(run.invoke(explain.command, [str(TRACES / "page-cache")]))
