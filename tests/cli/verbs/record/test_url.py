"""`record -o URL`: the trace is moved to the URL, or stays here and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracer

StartRecording = Callable[..., Any]  # conftest.py


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("s3://bucket", 2, "names no trace: add a name"),
        ("nope://x/y", 2, "Protocol not known: nope"),
        ("file://{tmp}/at/..", 2, "names no trace"),
        ("file://{tmp}/taken", 1, "exists: choose another place, or overwrite it with -f"),
    ],
)
def test_url_that_cannot_be_used_is_refused_before_anything_is_recorded(
    start_recording: StartRecording, tmp_path: Path, url: str, status: int, words: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/meta.json").write_text("{}")
    recording = start_recording("-o", url.format(tmp=tmp_path), "--", "touch", "began", output=False)
    recording.assert_refused(status, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


@pytest.mark.kernel
@pytest.mark.beside
def test_trace_is_moved_to_the_url_and_replaced_with_force(
    start_recording: StartRecording, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/at/web"
    first = start_recording("-o", url, "--", "true", output=False).end()
    assert (first.process.returncode, first.stdout) == (0, f"{url}\n"), first.stderr
    began = tracer.open(tmp_path / "at/web").meta["started"]
    second = start_recording("-f", "-o", url, "--", "false", output=False).end()
    assert (second.process.returncode, second.stdout) == (1, f"{url}\n"), second.stderr
    trace = tracer.open(tmp_path / "at/web")
    assert trace.meta["started"] > began
    assert trace.meta["command_status"] == 1
    assert list((tmp_path / "traces").iterdir()) == []


@pytest.mark.kernel
@pytest.mark.beside
def test_trace_that_cannot_be_copied_stays_and_the_line_says_how_to_copy_it(
    start_recording: StartRecording, tmp_path: Path
) -> None:
    recording = start_recording("-o", f"file://{tmp_path}/at/web", "--", "touch", "at", output=False).end()
    assert recording.process.returncode == 1
    path = recording.stdout.strip()
    assert tracer.open(tmp_path / path).meta["end_reason"] is not None
    last = recording.stderr.splitlines()[-1]
    assert f"it stays in {path}; to copy it: memcg-tracer push {path} file://{tmp_path}/at" in last


@pytest.mark.kernel
@pytest.mark.beside
def test_password_of_the_url_is_not_in_the_trace(start_recording: StartRecording, tmp_path: Path) -> None:
    recording = start_recording("--", "true", "sftp://me:secret@host/x").end()
    assert "secret" not in (recording.path / "meta.json").read_text()
    assert "sftp://me:***@host/x" in (recording.path / "meta.json").read_text()
