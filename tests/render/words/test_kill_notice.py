"""The line about a kill that a running recorder prints."""

from __future__ import annotations

from tracer.render.words.kill_notice import kill_notice

KILL = {"time": 1_764_000_243_000_000_000, "comm": "tail", "pid": 25057, "limit_bytes": 48 << 20}


def test_notice_has_the_name_the_clock_and_the_limit() -> None:
    expected = "OOM kill in web at 16:04:03 UTC: tail (pid 25057), at a limit of 48 MiB"
    assert kill_notice(KILL, "web") == expected
    assert kill_notice(KILL | {"limit_bytes": None}, "web") == expected.partition(", at")[0]


def test_hostile_names_are_escaped() -> None:
    assert kill_notice(KILL | {"comm": "\x1b[31m"}, "a\nb").isprintable()
