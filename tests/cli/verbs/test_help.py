"""`help VERB`, and what is said of a verb that does not exist."""

from __future__ import annotations

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from tracer.cli.group import VERBS, group


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_its_help(run: CliRunner, verb: str) -> None:
    asked, option = (run.invoke(group, words) for words in (["help", verb], [verb, "--help"]))
    assert (asked.exit_code, asked.stdout) == (0, option.stdout)


def test_help_alone_is_the_help_of_the_command(run: CliRunner) -> None:
    asked, option = (run.invoke(group, words) for words in (["help"], ["--help"]))
    assert (asked.exit_code, asked.stdout) == (0, option.stdout)


@pytest.mark.parametrize(
    ("typed", "near"), [("explan", "'explain'"), ("timelin", "'timeline'"), ("eviction", "'evictions'")]
)
def test_misspelt_verb_is_named_with_the_nearest_one(run: CliRunner, typed: str, near: str) -> None:
    for words in ([typed], ["help", typed]):
        ended = run.invoke(group, words)
        assert ended.exit_code == 2 and f"maybe {near} was meant" in ended.stderr


def test_word_unlike_any_verb_is_named_alone(run: CliRunner) -> None:
    ended = run.invoke(group, ["zzz"])
    assert ended.exit_code == 2 and "No such command 'zzz'" in ended.stderr and "maybe" not in ended.stderr


@pytest.mark.parametrize("typed", [["help"], ["explan"], ["zzz"]])
def test_completion_after_such_a_word_offers_and_prints_nothing(
    typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    completed = BashComplete(group, {}, "memcg-tracer", "_MEMCG_TRACER_COMPLETE").get_completions(typed, "-x")
    assert completed == []
    assert capsys.readouterr() == ("", "")
