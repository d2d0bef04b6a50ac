"""The titles that processes of servers write over their command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.kernel.anatomy import server_titles
from tracer.kernel.anatomy.server_titles import shown


@pytest.mark.parametrize(
    ("cmdline", "title"),
    [
        (b"postgres: app shop [local] SELECT\0\0\0", "postgres: app shop [local] SELECT"),
        (
            b"postgres: 16/main: app shop 10.0.0.7(4711) idle   ",
            "postgres: 16/main: app shop 10.0.0.7(4711) idle",
        ),
        (b"postgres: \xff", "postgres: \udcff"),
        (b"postgres: " + 999 * b"x", "postgres: " + 246 * "x"),
        (b"postgres\0-D\0data\0", None),
        (b"python3\0postgres: app\0", None),
        (b"", None),
    ],
)
def test_title_of_a_backend_is_shown(
    monkeypatch: pytest.MonkeyPatch, cmdline: bytes, title: str | None
) -> None:
    monkeypatch.setattr(server_titles, "command_line", lambda _process, most_bytes: cmdline[:most_bytes])
    assert [(one.kind, one.text) for one in shown(Path("7"))] == ([("postgresql", title)] if title else [])


def test_process_that_has_ended_has_no_title(tmp_path: Path) -> None:
    assert list(shown(tmp_path)) == []
