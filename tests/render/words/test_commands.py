from __future__ import annotations

import shlex

import pytest

from tracer.render.words import commands

PARTS = [["memcg-tracer", "timeline", "traces/a b"], ["-c", "/it's"], ["--begin", "1.5s", "--end", "2s"]]


@pytest.mark.parametrize("columns", [30, 60, 100])
def test_lines_of_a_command_are_one_command_for_a_shell(columns: int) -> None:
    lines = [line.plain for line in commands.lines(PARTS, columns)]
    assert max(map(len, lines)) <= max(columns, 46)
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == [word for part in PARTS for word in part]
    assert len(commands.lines(PARTS, 1000)) == 1


def test_unsafe_or_long_word_is_not_pasted() -> None:
    assert commands.may_be_pasted("/a b'c", 60)
    assert not commands.may_be_pasted("/a\x1b[31m", 60)
    assert not commands.may_be_pasted("/" + "4f" * 32, 60)
