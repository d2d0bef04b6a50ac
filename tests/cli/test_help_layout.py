"""Help at the widths of terminals: no line is wider, no name is broken, and examples can be pasted."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from tracer.cli.group import VERBS, group

PAGES = ("", *VERBS)


def help_of(verb: str, columns: int) -> str:
    # Not -h: click keeps a verb's help option, and another test may have called the verb without the group.
    arguments = [verb, "--help"] if verb else ["--help"]
    result = CliRunner().invoke(group, arguments, terminal_width=columns - 2, prog_name="memcg-tracer")
    assert result.exit_code == 0, result.output
    return result.output


def commands(examples: str) -> list[list[str]]:
    joined = examples.replace("\\\n", " ").splitlines()
    return [words for line in joined if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("verb", PAGES)
@pytest.mark.parametrize("columns", [80, 100])
def test_help_fits_the_terminal_and_breaks_no_name(verb: str, columns: int) -> None:
    lines = help_of(verb, columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert [line for line in lines if re.search(r"\w-$", line)] == []
    assert "\ue000" not in "".join(lines)


@pytest.mark.parametrize("verb", PAGES)
@pytest.mark.parametrize("columns", [60, 80, 100])
def test_examples_of_help_are_commands_at_every_width(verb: str, columns: int) -> None:
    command = group.get_command(click.Context(group), verb) if verb else group
    assert command is not None and command.epilog is not None
    expected = command.epilog[command.epilog.index("Examples:") :]
    shown = help_of(verb, columns)
    assert commands(shown[shown.index("Examples:") :]) == commands(expected)


def test_comments_stand_beside_their_commands_if_all_fit() -> None:
    assert "sudo memcg-tracer top -c /kubepods --sort left    # pods, the next kill first" in help_of(
        "top", 100
    )
    narrow = help_of("top", 80).splitlines()
    at = narrow.index("    # pods, the next kill first")
    assert narrow[at + 1] == "    sudo memcg-tracer top -c /kubepods --sort left"
