"""`explain --markdown`: the facts of the first screen, as a parser of Markdown reads them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from support.golden import compare
from support.recorded import TRACES

from tracer.analysis.results.sigkill import Party, Sigkill
from tracer.analysis.trace import AnalysedTrace
from tracer.cli.verbs import explain

GOLDEN = Path(__file__).parent / "golden"
LOG = Path(__file__).parents[2] / "kernel/kmsg/corpus/captured-6.18-v1-kmsg.log"
HOSTILE = "x|y\n# @everyone <b>"


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(explain.command, [*arguments, "--markdown"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", ["page-cache", "thrash"])
def test_recorded_example_is_as_expected(name: str, request: pytest.FixtureRequest) -> None:
    compare(GOLDEN / f"{name}.md", printed(str(TRACES / name)), request.node.nodeid)


def test_sentences_are_those_of_the_screen() -> None:
    (report,) = AnalysedTrace(TRACES / "page-cache").explain()
    text = printed(str(TRACES / "page-cache"))
    assert text.startswith(f"**{report.verdict.summary}**\n")
    assert all(f"- {sentence}\n" in text for sentence in report.advice)


def test_sentences_beside_a_kill_are_those_of_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Sigkill(None, Party(9, "sh"), Party(8, "a*b"), (), "pid_namespace", None, None, None)
    monkeypatch.setattr(AnalysedTrace, "sigkilled", lambda *_: [ended])
    beside = printed(str(TRACES / "page-cache")).splitlines()[-2:]
    words = "1 more process ended with the init of its pid namespace"
    assert beside == ["", rf"{words} (a\*b 1): --json lists them."]


def test_many_kills_have_a_table_above_the_newest(tmp_path: Path) -> None:
    log = tmp_path / "log"
    one = LOG.read_text()
    log.write_text(one + one.replace("hog one", "hog two"))
    text = printed("--kmsg", str(log))
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert headings[0] == "The last kills"
    assert headings[1] == "Kill 2"
    picked = printed("--kmsg", str(log), "--last")
    assert "The last kills" not in picked


def test_log_without_a_kill_is_one_sentence(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("[    1.000000] usb 1-1: new device\n")
    assert printed("--kmsg", str(log)).startswith("This log has no report of the OOM killer")


def test_hostile_command_makes_no_mark(write_trace: Callable[..., Path]) -> None:
    tokens = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .parse(printed(str(write_trace(comm=HOSTILE))))
    )
    kinds = {child.type for token in tokens for child in token.children or []}
    assert kinds <= {"text", "code_inline", "text_special", "strong_open", "strong_close", "softbreak"}
    assert not [token for token in tokens if token.type.startswith("html")]


@pytest.mark.parametrize("other", ["--json", "--list", "-v"])
def test_other_forms_are_refused_beside_it(other: str) -> None:
    done = CliRunner().invoke(explain.command, [str(TRACES / "anon"), "--markdown", other])
    assert done.exit_code == 1
    assert "leave --json, --list and -v out" in str(done.exception)
