"""The command that `record` names at its end, to those who can paste it."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest

from tracer.capture import session
from tracer.capture.session import Recording
from tracer.cli.verbs import record


class Terminal(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def stderr_of(monkeypatch: pytest.MonkeyPatch, trace: Path, *, is_terminal: bool = True) -> str:
    monkeypatch.setattr(session, "record", lambda *_: Recording(trace, 0))
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(sys, "stderr", said := Terminal(is_terminal=is_terminal))
        record.command.main(["-c", "web", "-o", "anywhere"])
    return said.getvalue()


def test_terminal_gets_the_whole_next_command(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    trace = Path("traces/a b")
    said = stderr_of(monkeypatch, trace)
    assert capsysbinary.readouterr().out == b"traces/a b\n"
    assert shlex.split(said.partition("next: ")[2]) == ["memcg-tracer", "explain", "traces/a b"]
    monkeypatch.setenv("SUDO_USER", "me")
    assert "next: sudo memcg-tracer explain " in stderr_of(monkeypatch, trace)


def test_pipe_gets_the_path_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stderr_of(monkeypatch, Path("traces/web"), is_terminal=False) == ""


def test_name_that_cannot_be_pasted_names_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stderr_of(monkeypatch, Path("traces/\x1b[2J")) == ""
