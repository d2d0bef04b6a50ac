"""A container that restarts, through the verbs that read: `-c NAME` is all of its lives."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from restarts import CONTAINER_ID, Restarts

import tracer
from tracer.cli import evictions, timeline
from tracer.errors import UsageError

LIVES = 5


@pytest.fixture(scope="module")
def crasher(tmp_path_factory: pytest.TempPathFactory) -> str:
    restarts = Restarts(LIVES, cgroups=LIVES, container="crasher")
    return str(restarts.write(tmp_path_factory.mktemp("lives") / "trace"))


@pytest.fixture
def out(run: CliRunner) -> Callable[..., str]:
    def of(verb: click.Command, *arguments: str) -> str:
        result = run.invoke(verb, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    return of


def test_timeline_draws_the_last_lives_and_says_what_it_leaves_out(
    crasher: str, out: Callable[..., str]
) -> None:
    shown = out(timeline.command, crasher, "-c", "crasher")
    assert [f"run {run} of 5: container crasher" in shown for run in range(1, 6)] == [False] * 2 + [True] * 3
    assert shown.count("OOM kill:") == 3
    assert "Not drawn: crasher runs 1, 2. -c NAME --run N shows one" in shown
    one = out(timeline.command, crasher, "-c", "crasher", "--run", "2")
    assert one.startswith("run 2 of 5: container crasher")
    assert "worker-1 (pid" in one and one.count("OOM kill:") == 1 and "Not drawn" not in one


def test_timeline_without_a_name_draws_the_newest_life(crasher: str, out: Callable[..., str]) -> None:
    shown = out(timeline.command, crasher)
    assert shown.startswith("run 5 of 5: container crasher") and "run 4" not in shown


def test_timeline_draws_the_lives_of_the_time_that_is_asked_for(
    crasher: str, out: Callable[..., str]
) -> None:
    shown = out(timeline.command, crasher, "-c", "crasher", "--begin", "1s", "--end", "4.5s")
    assert shown.startswith("run 1 of 5") and "run 2" not in shown.partition("Not drawn")[0]


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_no_time_stands_twice_in_the_rows_of_a_run(crasher: str, out: Callable[..., str], form: str) -> None:
    text = out(timeline.command, crasher, "-c", "crasher", form, "--every", "1s")
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
        (["--run", "3"], "name it with -c"),
        (["--run", "3", "--json"], "name it with -c"),
        (["-c", "crasher", "--run", "6"], "'crasher' has no run 6 in this trace: it has 1, 2, 3, 4, 5"),
    ],
)
def test_run_that_is_none_is_a_usage_error(
    run: CliRunner, crasher: str, arguments: list[str], words: str
) -> None:
    raised = run.invoke(timeline.command, [crasher, *arguments]).exception
    assert isinstance(raised, UsageError) and words in str(raised)


def test_evictions_sums_over_lives(crasher: str, out: Callable[..., str]) -> None:
    whole = json.loads(out(evictions.command, crasher, "-c", "crasher", "--by", "cgroup", "--json"))
    assert (whole["cgroup"], whole["runs"]) == ("crasher", LIVES)
    assert sorted(row["run"] for row in whole["rows"]) == [1, 2, 3, 4, 5]
    assert whole["evicted_bytes"] == sum(row["evicted_bytes"] for row in whole["rows"]) > 0
    ids = tracer.open(Path(crasher)).cgroups.query("container == 'crasher'")["cgroup_id"]
    alone = [json.loads(out(evictions.command, crasher, "-c", str(one), "--json")) for one in ids]
    assert sum(one["evicted_bytes"] for one in alone) == whole["evicted_bytes"]
    shown = out(evictions.command, crasher, "-c", "crasher", "--by", "cgroup")
    assert "of crasher (5 runs) evicted" in " ".join(shown.split()) and "crasher run 3" in shown
