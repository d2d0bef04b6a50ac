from __future__ import annotations

import shlex

import pytest

from tracer.render.words import commands

PARTS = [["memcg-tracer", "timeline", "traces/a b"], ["-c", "/it's"], ["--begin", "1.5s", "--end", "2s"]]


@pytest.mark.parametrize("columns", [30, 60, 100])
def test_a_shell_takes_the_lines_for_one_command(columns: int) -> None:
    lines = [line.plain for line in commands.lines(PARTS, columns)]
    assert max(map(len, lines)) <= max(columns, 46)
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == [word for part in PARTS for word in part]
    assert len(commands.lines(PARTS, 1000)) == 1


def test_what_acts_in_a_terminal_or_is_too_long_is_not_for_pasting() -> None:
    assert commands.may_be_pasted("/a b'c", 60)
    assert not commands.may_be_pasted("/a\x1b[31m", 60)
    assert not commands.may_be_pasted("/" + "4f" * 32, 60)
