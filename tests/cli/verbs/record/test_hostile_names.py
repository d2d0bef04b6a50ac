"""A command with a hostile name: it is in the messages and in the trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracer

pytestmark = pytest.mark.kernel

StartRecording = Callable[..., Any]  # conftest.py


@pytest.mark.parametrize("options", [[], ["--limit", "20M", "--swap", "0"]])
def test_hostile_command_is_escaped(
    start_recording: StartRecording, tmp_path: Path, options: list[str]
) -> None:
    """The command's name is in the trace, in the messages, and in the name of a directory."""
    hostile = tmp_path / "\x1b[31m\n<b>"
    hostile.symlink_to(sys.executable)
    code = "x = bytearray(b'x') * (40 << 20)" if options else "pass"
    recording = start_recording(*options, "--", hostile, "-S", "-c", code)
    recording.assert_ended(137 if options else 0, "command_ended")
    assert "\x1b" not in recording.stderr
    if options:
        assert r" UTC: \x1b[31m\n<b> (pid " in recording.stderr
        assert tracer.open(recording.path).oom["comm"].tolist() == ["\x1b[31m\n<b>"]
