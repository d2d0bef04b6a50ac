"""What `serve` prints: everything on stderr, a line each, whatever the names are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.cli.verbs.serve import _Lines
from tracer.watch.finishing import Finished

HOSTILE = "\x1b[2J\x1b]0;t\x07\r\n\u202e\u2028<script>'\"\udcff"
NOON_NS = 1_795_694_400_000_000_000


def test_hostile_names_are_one_printable_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _Lines()
    lines.killed({"time": NOON_NS, "comm": HOSTILE, "pid": 5, "limit_bytes": None}, HOSTILE)
    lines.finished(Finished(Path("/t"), "kill", NOON_NS, f"/{HOSTILE}", 1, HOSTILE, HOSTILE, HOSTILE))
    lines.finished(Finished(Path("/t"), "kill", NOON_NS, f"/{HOSTILE}", 1, None, None, None, HOSTILE))
    lines.notice(HOSTILE)
    lines.warn(HOSTILE)
    lines.alarmed(HOSTILE, HOSTILE)  # nothing was asked for
    shown = capsys.readouterr()
    assert not shown.out
    assert len(shown.err.split("\n")) == 5 + 1
    assert all(line.isprintable() for line in shown.err.split("\n"))
    assert all(line.startswith("memcg-tracer: ") for line in shown.err.splitlines())
