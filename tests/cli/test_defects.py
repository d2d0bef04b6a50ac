"""A bug that is met in one kill or cgroup: the verbs say which, answer for the others, and fail."""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from synthetic.oom_log import Dump
from synthetic.restarts import FIRST_ID, FIRST_TGID, Restarts

import tracer.cli
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain import survivors
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.words import evidence
from tracer.analysis.views import focus
from tracer.cli.group import group
from tracer.errors import DefectError, Defects, TraceError
from tracer.fleet.reduction.inputs import Place
from tracer.fleet.reduction.piece_reader import TracePiece, read
from tracer.fleet.summary import life_rows
from tracer.render.words import quality_facts

LIVES = 3
WHY = "a bug in memcg-tracer (IndexError: index -1 is out of bounds)"

Break = Callable[..., None]


@pytest.fixture(scope="module")
def restarts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a trace of three lives of a container, each of which ends by a kill."""
    lives = Restarts(LIVES, cgroups=LIVES, container="crasher", charges=40, folios=20)
    return str(lives.write(tmp_path_factory.mktemp("defects") / "trace"))


@pytest.fixture
def spared(tmp_path: Path) -> str:
    lives = Restarts(LIVES, cgroups=LIVES, container="steady", killed_for=None, charges=40, folios=20)
    return str(lives.write(tmp_path / "spared"))


@pytest.fixture
def break_call(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Return a function that has the second call of a function with other arguments, and its repetitions,
    fail by a bug."""

    def break_call(place: Any, name: str, key: Callable[..., Any]) -> None:
        works, seen = getattr(place, name), list[Any]()

        def fails(*arguments: Any, **options: Any) -> Any:
            if (one := key(*arguments, **options)) not in seen:
                seen.append(one)
            if seen.index(one) == 1:
                raise IndexError("index -1 is out of bounds")
            return works(*arguments, **options)

        monkeypatch.setattr(place, name, fails)

    return break_call


@pytest.fixture
def broken_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the explanation of the second kill fail by a bug, in whatever order kills are explained."""
    works = composition.at_kill

    def at_kill(subtree: Subtree, *given: Any, **options: Any) -> Any:
        if subtree.cgroup_id == FIRST_ID + 1:
            raise IndexError("index -1 is out of bounds")
        return works(subtree, *given, **options)

    monkeypatch.setattr(composition, "at_kill", at_kill)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, list(arguments))


def message(result: Result) -> str:
    """Return the line of an answer that lacks a part; the exit status is 1."""
    assert isinstance(result.exception, DefectError), result.output
    assert result.exception.exit_code == 1
    return str(result.exception)


@pytest.mark.usefixtures("broken_kill")
def test_explain_with_a_broken_kill_lists_all_and_explains_the_newest(restarts: str) -> None:
    result = run("explain", restarts)
    assert message(result) == f"kill 2 could not be explained: {WHY}; report the output with --debug"
    assert "killed 3 times" in result.output
    assert f"({FIRST_TGID + 1})" in result.output
    assert "Cause: process memory grew" in result.output
    (traceback,) = vars(result.exception)["__notes__"]
    assert "in at_kill" in traceback


@pytest.mark.usefixtures("broken_kill")
def test_explain_of_the_broken_kill_says_whom_it_hit_and_why_there_is_no_more(restarts: str) -> None:
    for options in ((), ("-v",)):
        result = run("explain", restarts, "--kill", "2", *options)
        message(result)
        shown = " ".join(result.output.split())
        assert f"(pid {FIRST_TGID + 1}) was killed for container crasher. " in shown
        assert f"This kill could not be explained: {WHY}." in shown


@pytest.mark.usefixtures("broken_kill")
def test_json_has_all_kills_and_the_reason(restarts: str) -> None:
    result = run("explain", restarts, "--json")
    message(result)
    kills = json.loads(result.stdout)["kills"]
    assert [kill["verdict"]["cause"] for kill in kills] == ["anon_growth", "unknown", "anon_growth"]
    assert kills[1]["quality"]["unknown"]["verdict"] == WHY
    assert kills[1]["limit_owner"]["container"] == "crasher"
    assert kills[1]["victims"][0]["pid"] == FIRST_TGID + 1


@pytest.mark.parametrize("verb", ["explain", "report"])
def test_kill_that_cannot_be_rendered_leaves_the_others(
    restarts: str, break_call: Break, tmp_path: Path, verb: str
) -> None:
    page = tmp_path / "page.html"
    if verb == "explain":
        break_call(evidence, "document", lambda report: report.verdict.summary)
        result = run("explain", restarts, "--json")
        assert len(json.loads(result.stdout)["kills"]) == LIVES
    else:
        break_call(quality_facts, "quality", lambda report: report.verdict.summary)
        result = run("report", restarts, "-o", str(page))
        assert page.read_text().count("This kill could not be explained: a bug") == 1
    assert "kill 2 could not be explained" in message(result)


@pytest.mark.usefixtures("broken_kill")
def test_report_with_a_broken_kill_explains_the_others(restarts: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = run("report", restarts, "-o", str(page))
    assert "kill 2 could not be explained" in message(result)
    text = page.read_text()
    assert "This kill could not be explained: a bug in memcg-tracer" in text
    assert all(f"Kill {number}:" in text for number in range(1, LIVES + 1))


def test_report_without_a_chart_that_cannot_be_drawn_has_the_others(
    restarts: str, break_call: Break, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    run("report", restarts, "-o", str(page))
    charts = page.read_text().count("<figure")
    break_call(focus, "lifetime", lambda _, number: number)
    result = run("report", restarts, "-f", "-o", str(page))
    assert "the chart of kill 2 could not be explained" in message(result)
    assert 0 < page.read_text().count("<figure") < charts


@pytest.mark.usefixtures("broken_kill")
def test_timeline_with_a_broken_kill_draws_the_cgroups(restarts: str) -> None:
    result = run("timeline", restarts)
    assert "kill 2 could not be explained" in message(result)
    assert "container crasher" in result.output


def test_timeline_of_a_broken_cgroup_draws_the_others(restarts: str, break_call: Break) -> None:
    break_call(focus, "timeline_of_life", lambda _, number, *__, **___: number)
    result = run("timeline", restarts, "-c", "crasher")
    assert "the cgroup " in message(result)
    assert "run 1 of 3" in result.output
    assert "run 3 of 3" in result.output


@pytest.mark.usefixtures("broken_kill")
def test_export_with_a_broken_kill_has_all_kills(restarts: str, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    result = run("export", restarts, "--to", "openmetrics", "-o", str(metrics))
    assert "kill 2 could not be explained" in message(result)
    assert 'cause="unknown"' in metrics.read_text()


def test_explain_with_a_broken_cgroup_has_the_others(spared: str, break_call: Break) -> None:
    break_call(survivors, "_peak_ns", lambda subtree: subtree.cgroup_id)
    result = run("explain", spared, "--json")
    assert "the cgroup " in message(result)
    assert len(json.loads(result.stdout)["held"]) == LIVES  # with their parent


@pytest.mark.usefixtures("broken_kill")
def test_summary_with_a_broken_kill_counts_it(restarts: str) -> None:
    found = read(TracePiece(Place(restarts, "shown")))
    assert found.kills["cause"].to_pylist() == ["anon_growth", "unknown", "anon_growth"]
    (broken,) = found.broken
    assert (broken.path, broken.is_partial) == ("shown", True)
    assert broken.why == f"kill 2 could not be explained: {WHY}"
    assert "in at_kill" in broken.debug[0]


@pytest.mark.usefixtures("broken_kill")
def test_fleet_with_a_broken_kill_counts_it_and_lists_the_trace(restarts: str) -> None:
    result = run("fleet", restarts)  # one trace is read in this process
    assert message(result).startswith(f"{restarts}: kill 2 could not be explained: {WHY}")
    assert "Left out in part, because of a bug" in result.output
    assert "1 trace of which a part is left out, listed at the end" in result.output
    (broken,) = json.loads(run("fleet", restarts, "--json").stdout)["broken"]
    assert (broken["path"], broken["is_partial"]) == (restarts, True)
    assert "debug" not in broken


def test_summary_with_a_broken_life_has_the_others(restarts: str, break_call: Break) -> None:
    whole = read(TracePiece(Place(restarts, "shown"))).lives.num_rows
    break_call(life_rows, "_working_set", lambda subtree: subtree.cgroup_id)
    found = read(TracePiece(Place(restarts, "shown")))
    assert found.lives.num_rows == whole - 1
    assert [one.is_partial for one in found.broken] == [True]


@pytest.mark.usefixtures("broken_kill")
def test_dataset_with_a_broken_kill_has_its_row_and_a_warning(restarts: str, tmp_path: Path) -> None:
    result = run("export", restarts, "--to", "dataset", "--no-raw", "-o", str(tmp_path / "dataset"))
    assert str(result.exception) == "1 trace could be added only in part: see the lines above"
    assert f"warning: {restarts}: kill 2 could not be explained: {WHY}" in result.stderr
    assert "1 trace with 3 kills added" in result.stderr


def test_log_with_a_broken_kill_explains_the_others(tmp_path: Path, break_call: Break) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"<6>{line}\n" for pid in range(50, 53) for line in Dump(pid=pid).lines()))
    calls = itertools.count()
    break_call(composition, "working_set", lambda *_: next(calls))
    result = run("explain", "--kmsg", str(log), "--json")
    assert "kill 2 could not be explained" in message(result)
    kills = json.loads(result.stdout)["kills"]
    assert [kill["victims"][0]["pid"] for kill in kills] == [50, 51, 52]
    assert kills[1]["quality"]["unknown"]["verdict"].startswith("a bug in memcg-tracer")


@pytest.mark.usefixtures("broken_kill")
@pytest.mark.parametrize("is_debug", [False, True])
def test_command_ends_with_1_and_shows_the_traceback_with_debug(
    restarts: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, is_debug: bool
) -> None:
    debug = ["--debug"] * is_debug
    monkeypatch.setattr(sys, "argv", ["memcg-tracer", *debug, "explain", restarts, "--list"])
    monkeypatch.setattr(tracer.cli.standard_streams, "prepare", lambda: None)
    monkeypatch.setattr(tracer.cli.standard_streams, "abandon_output", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    if is_debug:
        with pytest.raises(DefectError) as failed:
            tracer.cli.main()
        assert "IndexError" in failed.value.__notes__[0]
    else:
        with pytest.raises(SystemExit) as ended:
            tracer.cli.main()
        assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out.count("crasher") >= LIVES
    if not is_debug:
        assert printed.err == (
            f"memcg-tracer: error: kill 2 could not be explained: {WHY}; report the output with --debug\n"
        )


def test_errors_that_concern_more_than_one_subject_are_raised() -> None:
    def fails(error: Exception) -> Callable[[], None]:
        def fail() -> None:
            raise error

        return fail

    for error in (TraceError("damaged"), OSError("gone"), MemoryError()):
        with pytest.raises(type(error)):
            Defects().attempt("kill 1", fails(error), lambda _: None)


def test_one_bug_of_many_kills_is_one_sentence() -> None:
    defects = Defects()
    for number in range(5):
        for _ in range(2):
            defects.attempt(f"kill {number}", lambda: tuple[int, ...]()[-1], lambda _: None)
    (sentence,) = defects.sentences()
    assert sentence.startswith("kill 0, kill 1, kill 2 and 2 more could not be explained: a bug in memcg")
    assert len(defects.tracebacks()) == 1
