"""`help VERB`, options that are alike in all verbs, and what is said of a verb that does not exist."""

from __future__ import annotations

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from tracer.cli import kubectl_oom
from tracer.cli.group import VERBS, group


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_its_help(run: CliRunner, verb: str) -> None:
    asked, option = (run.invoke(group, words) for words in (["help", verb], [verb, "--help"]))
    assert (asked.exit_code, asked.stdout) == (0, option.stdout)


def options_of(verb: str) -> dict[str, click.Option]:
    """Return the options of a verb by their first long spelling, in the order of its help."""
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    options = [one for one in command.params if isinstance(one, click.Option)]
    return {next((name for name in one.opts if name[:2] == "--"), one.opts[0]): one for one in options}


ACTS = ("Trace", "Show", "Watch", "Serve")


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_several_verbs_have_the_same_spelling_order_and_words(verb: str) -> None:
    options = options_of(verb)
    names = list(options)
    in_order = ["--output", "--cgroup", "--force"]
    assert [name for name in names if name in in_order] == [name for name in in_order if name in names]
    assert "--json" not in names or names.index("--json") >= len(names) - 2
    shorts = {"--output": "-o", "--cgroup": "-c", "--force": "-f"}
    begins = {
        "--json": ("Print one JSON document", "Print a JSON line for each "),
        "--ready-file": ("Create this file when all probes are attached",),
        "--cgroup": (
            "Path, container name or id, or glob",
            *(f"{does} this cgroup and its descendants: a path, a " for does in ACTS),
        ),
        "--kill": ("Explain kill number N.", "With --to folded or pprof: only the allocations "),
    }
    for name, option in options.items():
        words = option.help or ""
        assert shorts.get(name, "-") in " ".join(option.opts)
        assert words.startswith(begins.get(name, ("",))), (name, words)
        if name == "--force":
            assert words == f"Replace {options['--output'].metavar} if it exists."
        if name in ("--every", "--keep"):
            assert option.metavar == "TIME"


@pytest.mark.parametrize("verb", [one for one in VERBS if "--output" in options_of(one)])
def test_out_is_another_name_of_output(verb: str) -> None:
    assert {"-o", "--output", "--out"} <= {*options_of(verb)["--output"].opts}


def test_help_alone_is_the_help_of_the_command(run: CliRunner) -> None:
    asked, again, option = (run.invoke(group, words) for words in (["help"], ["help", "help"], ["--help"]))
    assert (asked.exit_code, asked.stdout) == (again.exit_code, again.stdout) == (0, option.stdout)


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


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["top", "-n"], "memcg-tracer top"),
        (["explain", "--kill"], "memcg-tracer explain"),
        (["explain", "--kmgs"], "memcg-tracer explain"),
        (["report"], "memcg-tracer report"),
        (["timeline", "-c", ""], "memcg-tracer timeline"),
        (["info", ""], "memcg-tracer info"),
        (["recrod"], None),
    ],
)
def test_usage_error_knows_the_verb_whose_help_has_the_option(words: list[str], named: str | None) -> None:
    """The line of an error ends with `see memcg-tracer VERB -h`."""
    with pytest.raises(click.UsageError) as raised:
        group.main(words, prog_name="memcg-tracer", standalone_mode=False)
    context = raised.value.ctx
    assert (None if context is None else context.command_path) == named


@pytest.mark.parametrize(
    "line",
    [
        "record python3 -c 1",
        "record --limit 64M ./it -d 5",
        "record ./it --limit 64M",
        "record -d 5 ./it x -- -v",
        "record ./it -c=",
        "fit -o traces/fit ./it -v",
    ],
)
def test_option_after_the_command_needs_dashes_before_it(line: str) -> None:
    """`record python3 -c 1` traced a cgroup `1`, and ran python3 without its option."""
    with pytest.raises(click.UsageError, match=r"may be an option of either: write -- before the command"):
        group.main(line.split(), prog_name="memcg-tracer", standalone_mode=False)


@pytest.mark.parametrize(
    "line", ["-- python3 -c 1", "./it x", "./it -", "--limit 64M -- ./it -d 5 -- -v", "-- -x"]
)
def test_command_is_taken_as_it_is_typed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = group.get_command(click.Context(group), "record")
    assert command is not None
    taken: list[tuple[str, ...]] = []
    monkeypatch.setattr(command, "callback", lambda *, argv, **_options: taken.append(argv))
    group.main(["record", *line.split()], prog_name="memcg-tracer", standalone_mode=False)
    words = line.split()
    assert taken == [tuple(words[words.index("--") + 1 :] if "--" in words else words)]


def test_help_of_the_plugin_of_kubectl_is_that_of_the_plugin(run: CliRunner) -> None:
    shown = run.invoke(group, ["help", "kubectl"])
    assert (shown.exit_code, shown.stdout) == (0, kubectl_oom.parser().format_help())
    assert shown.stdout.startswith("usage: kubectl oom ")
    refused = run.invoke(group, ["kubectl", "oom"])
    assert refused.exit_code == 2 and "run `kubectl oom`" in refused.output
