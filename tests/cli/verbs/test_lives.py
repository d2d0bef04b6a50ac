"""A container that restarts, in the reading verbs: `-c NAME` means all of its runs."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from synthetic.restarts import CONTAINER_ID, Restarts

import tracer
from tracer.cli.verbs import evictions, explain, info, report, timeline
from tracer.errors import TracerError, UsageError

LIVES = 5


@pytest.fixture(scope="module")
def crasher(tmp_path_factory: pytest.TempPathFactory) -> str:
    restarts = Restarts(LIVES, cgroups=LIVES, container="crasher")
    return str(restarts.write(tmp_path_factory.mktemp("lives") / "trace"))


@pytest.fixture
def output_of(run: CliRunner) -> Callable[..., str]:
    def output(verb: click.Command, *arguments: str) -> str:
        result = run.invoke(verb, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    return output


def test_timeline_draws_the_last_runs_and_names_the_others(
    crasher: str, output_of: Callable[..., str]
) -> None:
    shown = output_of(timeline.command, crasher, "-c", "crasher")
    assert [f"run {run} of 5: container crasher" in shown for run in range(1, 6)] == [False] * 2 + [True] * 3
    assert shown.count("OOM kill:") == 3
    assert shown.count("Each row: the memory at that time") == 1
    assert "Not drawn: crasher runs 1, 2. -c NAME --run N shows one" in shown
    one = output_of(timeline.command, crasher, "-c", "crasher", "--run", "2")
    assert one.startswith("run 2 of 5: container crasher")
    assert "worker-1 (pid" in one and one.count("OOM kill:") == 1 and "Not drawn" not in one


def test_run_without_a_name_takes_the_only_restarted_name(
    run: CliRunner, crasher: str, tmp_path: Path, output_of: Callable[..., str]
) -> None:
    assert output_of(timeline.command, crasher, "--run", "2").startswith("run 2 of 5: container crasher")
    rows = [*csv.DictReader(io.StringIO(output_of(timeline.command, crasher, "--run", "2", "--csv")))]
    assert {row["run"] for row in rows} == {"2"}
    alone = str(Restarts(2).write(tmp_path / "alone"))
    raised = run.invoke(timeline.command, [alone, "--run", "1"]).exception
    assert isinstance(raised, UsageError) and "every name in this trace has one" in str(raised)


def test_run_shorter_than_a_row_keeps_its_kill(crasher: str, output_of: Callable[..., str]) -> None:
    shown = output_of(timeline.command, crasher, "-c", "crasher", "--run", "2", "--every", "100s")
    assert "in rows of 1 min 40 s" in shown
    assert shown.count("OOM kill:") == 1
    lines = shown.splitlines()
    kill = next(number for number, line in enumerate(lines) if "OOM kill:" in line)
    assert "256 MiB limit" in shown and lines[kill - 1].endswith("256.0")


def test_info_and_held_have_a_row_for_each_run(crasher: str, output_of: Callable[..., str]) -> None:
    shown = output_of(info.command, crasher)
    assert [f"run {number} of 5)" in shown for number in range(1, 6)] == [True] * 5
    held = tracer.open(crasher).held()
    held = held[held["container"] == "crasher"]
    assert sorted(held["run"]) == [1, 2, 3, 4, 5] and held["cgroup_id"].is_unique


def test_timeline_without_a_name_draws_the_newest_run(crasher: str, output_of: Callable[..., str]) -> None:
    shown = output_of(timeline.command, crasher)
    assert shown.startswith("run 5 of 5: container crasher") and "run 4" not in shown


def test_timeline_draws_the_runs_of_the_given_time(crasher: str, output_of: Callable[..., str]) -> None:
    shown = output_of(timeline.command, crasher, "-c", "crasher", "--begin", "1s", "--end", "4.5s")
    assert shown.startswith("run 1 of 5") and "run 2" not in shown.partition("Not drawn")[0]


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_rows_of_a_run_have_each_time_once(crasher: str, output_of: Callable[..., str], form: str) -> None:
    text = output_of(timeline.command, crasher, "-c", "crasher", form, "--every", "1s")
    rows = json.loads(text) if form == "--json" else list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[:5] == ["time", "cgroup", "cgroup_id", "container", "run"]
    runs = [int(row["run"]) for row in rows]
    assert sorted(set(runs)) == [1, 2, 3, 4, 5] and runs == sorted(runs)
    assert len({(row["time"], row["run"]) for row in rows}) == len(rows)
    assert {row["container"] for row in rows} == {"crasher"}
    assert {row["cgroup"] for row in rows} == {f"/pods/{CONTAINER_ID}"}
    assert sum(int(row["oom_kills"]) for row in rows) == LIVES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "6"], "'crasher' has no run 6"),
        (["--run", "6", "--json"], "'crasher' has no run 6"),
        (["-c", "crasher", "--run", "6"], "'crasher' has no run 6 in this trace: it has 1, 2, 3, 4, 5"),
    ],
)
def test_unknown_run_is_a_usage_error(run: CliRunner, crasher: str, arguments: list[str], words: str) -> None:
    raised = run.invoke(timeline.command, [crasher, *arguments]).exception
    assert isinstance(raised, UsageError) and words in str(raised)


def test_evictions_sums_over_lives(crasher: str, output_of: Callable[..., str]) -> None:
    whole = json.loads(output_of(evictions.command, crasher, "-c", "crasher", "--by", "cgroup", "--json"))
    assert (whole["cgroup"], whole["runs"]) == ("crasher", LIVES)
    assert sorted(row["run"] for row in whole["rows"]) == [1, 2, 3, 4, 5]
    assert whole["evicted_bytes"] == sum(row["evicted_bytes"] for row in whole["rows"]) > 0
    ids = tracer.open(Path(crasher)).cgroups.query("container == 'crasher'")["cgroup_id"]
    alone = [json.loads(output_of(evictions.command, crasher, "-c", str(one), "--json")) for one in ids]
    assert sum(one["evicted_bytes"] for one in alone) == whole["evicted_bytes"]
    shown = output_of(evictions.command, crasher, "-c", "crasher", "--by", "cgroup")
    assert "of crasher (5 runs) was evicted" in " ".join(shown.split()) and "crasher run 3" in shown


def test_explain_of_many_kills_lists_them_above_the_newest(
    crasher: str, output_of: Callable[..., str]
) -> None:
    shown = output_of(explain.command, crasher)
    assert " ".join(shown.split()).startswith(
        "container crasher: killed 5 times in 20 s, the same cause each time (anon_growth)."
    )
    assert re.findall(r"(\d)  crasher$", shown, flags=re.MULTILINE) == ["1", "2", "3", "4", "5"]
    assert "Kill 5, the newest (4 others" in shown
    story = shown.partition("the newest")[2]
    assert "worker-4 (pid" in story and "worker-0" not in story
    assert "1 other cgroup with a limit had no kill: /pods " in " ".join(shown.split())
    assert shown.startswith(output_of(explain.command, crasher, "-c", "crasher"))


def test_explain_last_list_and_kill_select_kills(crasher: str, output_of: Callable[..., str]) -> None:
    last = output_of(explain.command, crasher, "--last")
    assert last.startswith("Kill 5; 4 others: --list") and "  crasher\n" not in last
    assert output_of(explain.command, crasher, "--kill", "5") == last
    assert "worker-1 (pid" in output_of(explain.command, crasher, "--kill", "2")
    listed = [
        line
        for line in output_of(explain.command, crasher, "--list").splitlines()
        if line.endswith("  crasher")
    ]
    assert [line.split()[0] for line in listed] == ["1", "2", "3", "4", "5"]
    assert all("anon_growth" in line and "256 MiB" in line and "worker-" in line for line in listed)


def test_explain_json_works_with_every_selection(crasher: str, output_of: Callable[..., str]) -> None:
    def kills(*arguments: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(
            output_of(explain.command, crasher, "--json", *arguments)
        )["kills"]
        return found

    assert [kill["kill_id"] for kill in kills()] == [1, 2, 3, 4, 5]
    assert kills("--last") == kills()[-1:] == kills("--kill", "5")
    brief = kills("--list")
    assert [(kill["kill_id"], kill["run"], kill["cause"]) for kill in brief] == [
        (run, run, "anon_growth") for run in range(1, 6)
    ]
    assert brief[0]["container"] == "crasher" and "composition" not in brief[0]


@pytest.mark.parametrize(
    "arguments", [["--list", "--last"], ["--kill", "1", "--last"], ["--list", "--kill", "1"]]
)
def test_two_selections_of_kills_are_a_usage_error(
    run: CliRunner, crasher: str, arguments: list[str]
) -> None:
    raised = run.invoke(explain.command, [crasher, *arguments]).exception
    assert isinstance(raised, UsageError) and "give one of them" in str(raised)


@pytest.fixture(scope="module")
def two_cgroups(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a trace of six lives, by turns in /pods/one-0 and /pods/one-1."""
    return str(Restarts(6, cgroups=2).write(tmp_path_factory.mktemp("two") / "trace"))


def test_explain_of_a_name_has_only_its_kills(
    run: CliRunner, two_cgroups: str, output_of: Callable[..., str]
) -> None:
    ids = json.loads(output_of(explain.command, two_cgroups, "-c", "one-1", "--json"))["kills"]
    assert [kill["kill_id"] for kill in ids] == [2, 4, 6]
    assert "/pods/one-0" not in output_of(explain.command, two_cgroups, "-c", "one-1")
    assert len(json.loads(output_of(explain.command, two_cgroups, "-c", "/pods", "--json"))["kills"]) == 6
    raised = run.invoke(explain.command, [two_cgroups, "-c", "one-1", "--kill", "3"]).exception
    assert isinstance(raised, UsageError) and "there is no kill 3 in this trace for 'one-1'" in str(raised)
    raised = run.invoke(explain.command, [two_cgroups, "-c", "one-7"]).exception
    assert isinstance(raised, TracerError) and "no cgroup in this trace fits 'one-7'" in str(raised)


def test_victim_below_an_ancestor_limit_is_found_by_name(
    tmp_path: Path, output_of: Callable[..., str]
) -> None:
    trace = str(Restarts(4, cgroups=2, killed_for="parent").write(tmp_path / "trace"))
    kills = json.loads(output_of(explain.command, trace, "-c", "one-0", "--json"))["kills"]
    assert [kill["kill_id"] for kill in kills] == [1, 3]


def test_page_of_a_name_has_only_its_kills(
    crasher: str, two_cgroups: str, output_of: Callable[..., str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    output_of(report.command, crasher, "-c", "crasher", "-o", str(page))
    html = page.read_text().replace("\u00a0", " ")
    assert "killed 5 times in 20 s" in html and "run 5 of 5 of container crasher" in html
    assert html.index("<h2>Kill 5: ") < html.index("<h2>Kill 1: ")
    assert html.count('<figure class="chart"') == 5
    output_of(report.command, two_cgroups, "-c", "one-1", "-f", "-o", str(page))
    assert "/pods/one-0" not in page.read_text()


def test_survivors_of_a_name_are_shown_once(tmp_path: Path, output_of: Callable[..., str]) -> None:
    restarts = Restarts(3, cgroups=3, container="steady", killed_for=None)
    trace = str(restarts.write(tmp_path / "trace"))
    shown = " ".join(output_of(explain.command, trace, "-c", "steady").split())
    assert shown.startswith("No OOM kill") and "of 3 of container steady" in shown
    assert "The other cgroups" not in shown
    held = json.loads(output_of(explain.command, trace, "-c", "steady", "--json"))["held"]
    assert sorted((one["container"], one["run"], one["runs"]) for one in held) == [
        ("steady", run, 3) for run in (1, 2, 3)
    ]


def test_name_without_a_kill_has_a_note_on_other_kills(
    two_cgroups: str, tmp_path: Path, output_of: Callable[..., str]
) -> None:
    trace = tmp_path / "trace"
    shutil.copytree(two_cgroups, trace)
    cgroups = pq.read_table(trace / "cgroups.parquet").to_pylist()
    quiet = dict.fromkeys(cgroups[0]) | {"cgroup_id": 77, "path": "/quiet", "version": 1}
    schema = pq.read_schema(trace / "cgroups.parquet")
    pq.write_table(pa.Table.from_pylist([*cgroups, quiet], schema=schema), trace / "cgroups.parquet")
    shown = output_of(explain.command, str(trace), "-c", "quiet")
    assert "6 kills of other cgroups in this trace: memcg-tracer explain --list" in shown
